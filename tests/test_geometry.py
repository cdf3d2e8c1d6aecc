"""The Fourier transform of geometries against numerical quadrature, and what it must not see."""

from itertools import pairwise

import numpy as np
import pytest
import shapely
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.polynomial.legendre import leggauss
from shapely import affinity

from geojepa.model.geometry import FREQUENCIES, GEOMETRY_DIM, SCALARS, encode_geometries

COUNT = len(FREQUENCIES)
NODES, WEIGHTS = leggauss(24)
NODES, WEIGHTS = (NODES + 1) / 2, WEIGHTS / 2


def square(x0, y0, x1, y1):
    return np.array([x0, y0, x1, y0, x1, y1, x0, y1])


UNIT = square(0, 0, 1, 1)


def encode(*geometries, box=UNIT):
    array = np.empty(len(geometries), dtype=object)
    array[:] = geometries
    return encode_geometries(array, np.tile(box, (len(geometries), 1)))


def transform(*geometries, box=UNIT):
    out = encode(*geometries, box=box).astype(np.float64)
    return out[:, :COUNT] + 1j * out[:, COUNT : 2 * COUNT]


def scalars(*geometries, box=UNIT):
    out = encode(*geometries, box=box)[:, 2 * COUNT :]
    return [dict(zip(SCALARS, row.tolist(), strict=True)) for row in out]


def waves(points):
    return np.exp(-1j * (points * 2 - 1) @ FREQUENCIES.T)


def quadrature(geometry):
    """The mean wave over a geometry in the unit box, by Gauss-Legendre rules."""
    total, mass = 0.0, 0.0
    for part in shapely.get_parts(geometry):
        if part.geom_type == "Polygon":
            for triangle in shapely.get_parts(shapely.constrained_delaunay_triangles(part)):
                a, b, c = shapely.get_coordinates(triangle)[:3]
                # the square [0, 1]^2 folded onto the triangle
                u, v = (grid.ravel() for grid in np.meshgrid(NODES, NODES))
                weight = np.outer(WEIGHTS, WEIGHTS).ravel() * u * 2 * triangle.area
                points = a + u[:, None] * ((b - a) + v[:, None] * (c - b))
                total, mass = total + weight @ waves(points), mass + triangle.area
        elif part.geom_type == "LineString":
            xy = shapely.get_coordinates(part)
            for a, b in pairwise(xy):
                length = np.linalg.norm(b - a)
                total = total + length * (WEIGHTS @ waves(a + NODES[:, None] * (b - a)))
                mass += length
        else:
            total, mass = total + waves(shapely.get_coordinates(part))[0], mass + 1
    return total / mass


RING = [(0.1, 0.1), (0.9, 0.2), (0.8, 0.9), (0.5, 0.4), (0.1, 0.8)]
HOLE = [(0.2, 0.2), (0.3, 0.2), (0.3, 0.3), (0.2, 0.35)]
AXIS_RING = [(0, 0), (1, 0), (1, 1), (0, 1)]
SHAPES = {
    "point": shapely.Point(0.3, 0.8),
    "points": shapely.MultiPoint([(0.1, 0.2), (0.9, 0.4), (0.5, 0.5)]),
    "line": shapely.LineString([(0, 0.1), (0.4, 0.9), (1, 0.3)]),
    "axis line": shapely.LineString([(0, 0.5), (1, 0.5), (1, 0)]),
    "lines": shapely.MultiLineString([[(0, 0), (0.2, 0.9)], [(0.5, 0.5), (0.6, 0.1), (1, 1)]]),
    "polygon": shapely.Polygon(RING),
    "box": shapely.Polygon(AXIS_RING),
    "hole": shapely.Polygon(RING, [HOLE]),
    "frame": shapely.Polygon(AXIS_RING, [[(0.1, 0.1), (0.9, 0.1), (0.9, 0.9), (0.1, 0.9)]]),
    "polygons": shapely.MultiPolygon(
        [shapely.Polygon(RING, [HOLE]), shapely.box(0.92, 0.92, 1.0, 0.99)]
    ),
    "thin": shapely.box(0, 0.5, 1, 0.500001),
}


@pytest.mark.parametrize("name", SHAPES)
def test_transform_equals_quadrature(name):
    np.testing.assert_allclose(transform(SHAPES[name])[0], quadrature(SHAPES[name]), atol=1e-6)


def test_frame_follows_the_box():
    turned = affinity.rotate(SHAPES["hole"], 30, origin=(0, 0))
    box = shapely.get_coordinates(affinity.rotate(shapely.box(0, 0, 1, 1), 30, origin=(0, 0)))
    # shapely's box starts at its lower right corner and runs counter-clockwise
    corners = np.roll(box[:4], 1, axis=0)
    assert np.allclose(corners[0], 0)
    moved = encode(affinity.scale(turned, 0.1, 0.1, origin=(0, 0)), box=0.1 * corners.ravel())
    np.testing.assert_allclose(
        moved[0, : 2 * COUNT], encode(SHAPES["hole"])[0, : 2 * COUNT], atol=1e-6
    )


def star(values):
    """A ring around the centre: a simple polygon for any radii."""
    angle = 2 * np.pi * np.arange(len(values)) / len(values)
    radius = 0.1 + 0.35 * values[:, :1]
    return 0.5 + radius * np.column_stack([np.cos(angle), np.sin(angle)])


@given(seed=st.integers(0, 2**32 - 1), shift=st.integers(0, 8), edge=st.integers(0, 7))
@settings(max_examples=40, deadline=None)
def test_start_vertex_direction_and_extra_vertices_change_nothing(seed, shift, edge):
    ring = star(np.random.default_rng(seed).random((9, 1)))
    hole = 0.5 + 0.1 * (ring - 0.5)
    middle = 0.7 * ring[edge] + 0.3 * ring[edge + 1]
    cut = np.insert(ring, edge + 1, middle, axis=0)
    same = encode(
        shapely.Polygon(ring, [hole]),
        shapely.Polygon(np.roll(ring, shift, axis=0), [np.roll(hole, -shift, axis=0)]),
        shapely.Polygon(ring[::-1], [hole]),
        shapely.Polygon(ring, [hole[::-1]]),
        shapely.Polygon(cut, [hole]),
    )
    np.testing.assert_allclose(same, same[[0] * 5], atol=1e-6)
    lines = encode(shapely.LineString(ring), shapely.LineString(cut), shapely.LineString(cut[::-1]))
    np.testing.assert_allclose(lines, lines[[0] * 3], atol=1e-6)


@given(seed=st.integers(0, 2**32 - 1), size=st.floats(1e-4, 1))
@settings(max_examples=40, deadline=None)
def test_transform_never_exceeds_one(seed, size):
    values = np.random.default_rng(seed).random((9, 2))
    ring = 0.5 + size * (star(values[:, :1]) - 0.5)
    geometries = [shapely.Polygon(ring), shapely.LineString(values), shapely.MultiPoint(values)]
    assume(all(geometry.is_valid for geometry in geometries))
    assert (np.abs(transform(*geometries)) <= 1 + 1e-6).all()


def test_an_entity_does_not_depend_on_its_batch():
    rng = np.random.default_rng(0)
    geometries = list(SHAPES.values()) + [
        shapely.LineString(rng.random((int(size), 2))) for size in rng.integers(2, 9_000, 12)
    ]
    together = encode(*geometries)
    alone = np.concatenate([encode(geometry) for geometry in geometries])
    np.testing.assert_array_equal(together, alone)
    np.testing.assert_array_equal(encode(*geometries[::-1]), together[::-1])


def test_points_lines_polygons_and_holes_differ():
    ring = shapely.Polygon(AXIS_RING)
    shapes = [
        shapely.Point(0.5, 0.5),
        ring.exterior,
        ring,
        SHAPES["frame"],
        shapely.MultiPoint(AXIS_RING),
    ]
    spectra = transform(*shapes)
    distances = np.abs(spectra[:, None] - spectra[None]).max(axis=2)
    assert distances[~np.eye(5, dtype=bool)].min() > 0.1
    line = shapely.LineString([(0, 0), (1, 1)])
    distance = np.abs(np.subtract(*transform(line, shapely.LineString([(0, 1), (1, 0)])))).max()
    assert distance > 0.5


def test_scalars_tell_kind_size_pieces_and_holes():
    point, line, polygon, pieces = scalars(
        SHAPES["point"], SHAPES["line"], SHAPES["frame"], SHAPES["polygons"]
    )
    assert [point[key] for key in ("point", "line", "polygon", "collection")] == [1, 0, 0, 0]
    assert [line[key] for key in ("point", "line", "polygon", "collection")] == [0, 1, 0, 0]
    assert [polygon[key] for key in ("point", "line", "polygon", "collection")] == [0, 0, 1, 0]
    assert polygon["fill"] == pytest.approx(1 - 0.8**2)
    assert polygon["log_holes"] == pytest.approx(np.log(2))
    assert pieces["log_pieces"] == pytest.approx(np.log(3))
    assert point["log_length"] == 0
    assert line["log_length"] > 1
    (flat,) = scalars(shapely.box(0, 0, 1, 0.25), box=square(0, 0, 1, 0.25))
    assert flat["aspect"] == 0.25
    assert flat["log_side_0"] == 1 > flat["log_side_1"] > 0
    assert flat["fill"] == 1


def test_a_collection_is_read_by_its_highest_dimension():
    line = shapely.MultiLineString([[(0, 0), (1, 1)], [(0, 1), (1, 1)]])
    nested = shapely.GeometryCollection(
        [shapely.Point(0.2, 0.2), shapely.GeometryCollection([line, shapely.Point(1, 0)])]
    )
    np.testing.assert_array_equal(transform(nested), transform(line))
    assert [scalars(nested)[0][key] for key in ("line", "collection")] == [1, 1]


def test_degenerate_geometries_are_finite_and_read_as_what_is_left():
    spot = shapely.LineString([(0.3, 0.8), (0.3, 0.8)])
    sliver = shapely.Polygon([(0, 0), (1, 1), (0, 0)])
    line = shapely.LineString([(0, 0), (1, 1)])
    np.testing.assert_allclose(transform(spot), transform(SHAPES["point"]), atol=1e-7)
    np.testing.assert_allclose(transform(sliver), transform(line), atol=1e-7)
    nothing = encode(None, shapely.Point(), shapely.Polygon(), shapely.GeometryCollection())
    assert not nothing.any()
    assert encode().shape == (0, GEOMETRY_DIM)
    assert encode(shapely.Point(0, 0), box=np.zeros(8)).dtype == np.float32
    assert np.isfinite(encode(shapely.Point(0, 0), box=np.zeros(8))).all()
