"""Cutting against first principles: measures add up, and each tile agrees with its own cut."""

import math

import geopandas
import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from geojepa.data.cutting import Pieces, cut_to_footprints, cut_to_grid
from geojepa.data.grid import grid_of_codes, grid_of_footprints, to_degrees, to_units
from geojepa.errors import GeoJEPAError

N = 2**16
# lower left corner of a tile, in tile units
U, V = 33000, 35000
few = settings(max_examples=60, deadline=None)
# no coordinate lies on a border of tiles: what runs along one belongs to either side
coordinate = st.integers(1, 6998).filter(lambda k: k % 1000).map(lambda k: k / 1000)
point = st.tuples(coordinate, coordinate)
lines = st.lists(point, min_size=2, max_size=8, unique=True).map(shapely.LineString)
areas = (
    st.lists(point, min_size=3, max_size=9, unique=True)
    .map(lambda points: shapely.make_valid(shapely.Polygon(points)))
    .filter(lambda shape: shape.geom_type == "Polygon" and shape.area > 1e-4)
)


def placed(shapes) -> np.ndarray:
    return shapely.transform(np.array(shapes, dtype=object), lambda c: np.add(c, (U, V)))


def cut(shapes, owner=None):
    parts = placed(shapes)
    return cut_parts(parts, np.arange(len(parts)) if owner is None else np.array(owner))


def cut_parts(parts, owner):
    """Pieces, with tiles as rows of the grid of all tiles that were met."""
    pieces = cut_to_grid(parts, owner)
    codes, tile = np.unique(pieces.tile, return_inverse=True)
    return Pieces(pieces.feature, tile, pieces.geometry), grid_of_codes(codes)


def by_tile(pieces, grid) -> dict[tuple[int, str], shapely.Geometry]:
    names = [grid.tile_id[tile] for tile in pieces.tile]
    return dict(zip(zip(pieces.feature.tolist(), names, strict=True), pieces.geometry, strict=True))


def tile_name(u: int, v: int) -> str:
    return f"16_{U + u}_{N - 1 - V - v}"


def expected_pieces(shape) -> dict[str, shapely.Geometry]:
    """The same cut, tile after tile, with shapely alone."""
    found = {}
    for u in range(7):
        for v in range(7):
            piece = shapely.intersection(shape, shapely.box(u, v, u + 1, v + 1))
            if shapely.get_dimensions(piece) == shapely.get_dimensions(shape):
                found[tile_name(u, v)] = shapely.transform(piece, lambda c, o=(u, v): c - o)
    return found


@few
@given(st.one_of(lines, areas))
def test_each_tile_holds_its_intersection(shape):
    pieces, grid = cut([shape])
    found = {name: piece for (_, name), piece in by_tile(pieces, grid).items()}
    expected = expected_pieces(shape)
    assert {n for n, e in expected.items() if e.length > 1e-9} <= set(found) <= set(expected)
    for name, piece in found.items():
        assert shapely.area(piece) == pytest.approx(expected[name].area, abs=1e-9)
        assert shapely.hausdorff_distance(piece, expected[name]) < 1e-8
        bounds = np.array(piece.bounds)
        assert bounds.min() >= -1e-9
        assert bounds.max() <= 1 + 1e-9
    measure = shapely.area if shape.geom_type == "Polygon" else shapely.length
    assert measure(pieces.geometry).sum() == pytest.approx(measure(shape), rel=1e-8)


@few
@given(st.lists(st.one_of(lines, areas, point.map(shapely.Point)), min_size=1, max_size=5))
def test_features_do_not_disturb_each_other_and_footprints_cut_as_the_grid_does(shapes):
    pieces, grid = cut(shapes)
    together = by_tile(pieces, grid)
    for i, shape in enumerate(shapes):
        alone = by_tile(*cut([shape]))
        assert {name for row, name in together if row == i} == {name for _, name in alone}
        for (_, name), piece in alone.items():
            assert piece.equals_exact(together[i, name], 1e-12)
    frame = geopandas.GeoDataFrame({"tile_id": grid.tile_id}, geometry=grid.footprint, crs=4326)
    footprints = grid_of_footprints(frame)
    np.testing.assert_array_equal(footprints.xy, grid.xy)
    np.testing.assert_array_equal(footprints.frame, grid.frame)
    other = by_tile(
        cut_to_footprints(placed(shapes), np.arange(len(shapes)), footprints), footprints
    )
    assert set(together) - set(other) == set()
    for key, piece in together.items():
        assert shapely.hausdorff_distance(piece, other[key]) < 1e-6
        assert shapely.area(piece) == pytest.approx(shapely.area(other[key]), abs=1e-6)


@few
@given(st.floats(-179.999, 179.999), st.floats(-85, 85))
def test_tile_and_frame_of_a_point_follow_the_formula_of_slippy_maps(lon, lat):
    pieces, grid = cut_parts(
        shapely.points(to_units(np.array([[lon, lat]]))), np.zeros(1, dtype=int)
    )
    x = (lon + 180) / 360 * N
    y = 1 - math.log(math.tan(math.radians(lat)) + 1 / math.cos(math.radians(lat))) / math.pi
    y *= N / 2
    _, tile_x, tile_y = map(int, grid.tile_id[0].split("_"))
    local = pieces.geometry[0]
    assert tile_x + local.x == pytest.approx(x, abs=1e-8)
    assert tile_y + 1 - local.y == pytest.approx(y, abs=1e-8)
    assert 0 <= local.x <= 1
    assert 0 <= local.y <= 1
    np.testing.assert_allclose(
        to_degrees(to_units(np.array([[lon, lat]]))), [[lon, lat]], atol=1e-9
    )
    west, south, east, north = grid.footprint[0].bounds
    assert west - 1e-9 <= lon <= east + 1e-9
    assert south - 1e-9 <= lat <= north + 1e-9
    ground = math.cos(math.radians((south + north) / 2)) * math.radians(east - west) * 6378137
    assert grid.ground_m()[0] == pytest.approx(ground, rel=1e-4)


def test_a_segment_that_only_crosses_a_tile_belongs_to_it():
    """No vertex lies in the tiles between."""
    pieces, grid = cut([shapely.LineString([(0.5, 0.9), (3.5, 1.1)])])
    found = by_tile(pieces, grid)
    assert {name for _, name in found} == {
        *(tile_name(u, 0) for u in (0, 1)),
        *(tile_name(u, 1) for u in (2, 3)),
    }
    crossing = shapely.get_coordinates(found[0, tile_name(1, 0)])
    np.testing.assert_allclose(crossing, [(0, 0.9 + 0.1 / 3), (1, 1)], atol=1e-9)


def test_a_corner_crossed_by_a_hair_belongs():
    pieces, _ = cut([shapely.LineString([(0.999, 0.5), (1.5, 1.001)])])
    assert len(pieces.tile) == 3


def test_holes_stay_and_pieces_stay_apart():
    ring = shapely.box(0.2, 0.2, 1.8, 1.8).difference(shapely.box(0.4, 0.4, 0.6, 0.6))
    comb = (
        shapely.MultiPoint([(0.5, 0.5), (0.5, 1.5)])
        .buffer(0.3)
        .union(shapely.box(-0.9, 0.4, -0.1, 1.6))
    )
    pieces, grid = cut([ring, *comb.geoms], owner=[0, 1, 1, 1])
    found = by_tile(pieces, grid)
    corner = found[0, tile_name(0, 0)]
    assert len(corner.interiors) == 1
    assert corner.area == pytest.approx(0.64 - 0.04)
    fork = shapely.Polygon(
        [
            (1.1, 0.1),
            (1.9, 0.1),
            (1.9, 0.9),
            (0.9, 0.9),
            (0.9, 0.8),
            (1.7, 0.8),
            (1.7, 0.3),
            (0.9, 0.3),
            (0.9, 0.1),
        ]
    )
    pieces, grid = cut([fork])
    prongs = by_tile(pieces, grid)[0, tile_name(0, 0)]
    assert prongs.geom_type == "MultiPolygon"
    assert len(prongs.geoms) == 2


def test_parts_of_one_feature_are_one_piece_a_tile_of_mixed_kind():
    shapes = [shapely.Point(0.5, 0.5), shapely.LineString([(0.1, 0.1), (1.5, 0.1)])]
    pieces, grid = cut(shapes, owner=[0, 0])
    found = by_tile(pieces, grid)
    assert found[0, tile_name(0, 0)].geom_type == "GeometryCollection"
    assert found[0, tile_name(1, 0)].geom_type == "LineString"


def test_an_area_that_only_touches_a_tile_is_not_in_it():
    pieces, grid = cut([shapely.box(0.5, 0.5, 1, 1)])
    assert [name for _, name in by_tile(pieces, grid)] == [tile_name(0, 0)]


def test_an_ocean_is_cut_in_seconds_and_adds_up():
    """650 x 656 tiles, as the boundary in one of the real extracts."""
    angle = np.linspace(0, 2 * np.pi, 2000, endpoint=False)
    ring = np.stack([325 + 320 * np.cos(angle), 328 + 320 * np.sin(angle)], axis=1)
    ocean = shapely.Polygon(ring)
    pieces, grid = cut([ocean])
    assert shapely.area(pieces.geometry).sum() == pytest.approx(ocean.area, rel=1e-9)
    assert len(grid.tile_id) == len(pieces.tile)
    assert ocean.area < len(pieces.tile) < ocean.area + 2 * 650


def test_empty_input_gives_no_tile():
    pieces, grid = cut_parts(np.empty(0, dtype=object), np.empty(0, dtype=int))
    assert len(pieces.tile) == len(grid.tile_id) == 0


def footprints(*shapes, crs=4326, **columns):
    return geopandas.GeoDataFrame(columns, geometry=list(shapes), crs=crs)


def test_any_footprint_cuts_in_the_frame_of_its_bounding_square():
    corner = to_degrees(np.array([[U + 0.25, V + 0.25], [U + 2.25, V + 1.25]]))
    wide = shapely.box(*corner.ravel())
    grid = grid_of_footprints(footprints(wide, tile_id=["chip"]))
    np.testing.assert_allclose(grid.frame, [[U + 0.25, V + 0.25, 2]])
    assert grid.xy.tolist() == [[-1, -1]]
    pieces = cut_to_footprints(placed([shapely.box(0, 0, 1.25, 3)]), np.zeros(1, int), grid)
    np.testing.assert_allclose(pieces.geometry[0].bounds, [0, 0, 0.5, 0.5], atol=1e-9)


def test_footprints_may_overlap_and_come_in_any_crs():
    boxes = [shapely.box(9.5, 47.1, 9.52, 47.12), shapely.box(9.51, 47.1, 9.53, 47.12)]
    frame = footprints(*boxes, tile_id=["a", "b"])
    parts = shapely.transform(np.array([shapely.Point(9.515, 47.11)], object), to_units)
    for grid in (grid_of_footprints(frame), grid_of_footprints(frame.to_crs(2056))):
        pieces = cut_to_footprints(parts, np.zeros(1, int), grid)
        assert sorted(pieces.tile) == [0, 1]


@pytest.mark.parametrize(
    ("frame", "cause"),
    [
        (footprints(shapely.box(0, 0, 1, 1), crs=None), "coordinate reference system"),
        (footprints(shapely.Point(0, 0)), "must be a polygon"),
        (footprints(None), "must be a polygon"),
        (footprints(shapely.Polygon()), "must be a polygon"),
        (footprints(shapely.Polygon([(0, 0), (1, 1), (1, 0), (0, 2)])), "crosses itself"),
        (footprints(*[shapely.box(0, 0, 1, 1)] * 2, tile_id=["a", "a"]), "not unique"),
        (footprints(shapely.box(0, 0, 1, 1)).iloc[:0], "holds no footprint"),
    ],
)
def test_bad_footprints_are_refused(frame, cause):
    with pytest.raises(GeoJEPAError, match=cause):
        grid_of_footprints(frame)
