"""What holds for any input: measures add up, order and the way of working change nothing."""

import json
from pathlib import Path

import geopandas
import numpy as np
import oracle
import pyarrow as pa
import pytest
import shapely
from evidence import Extract, town_of_evidence
from handmade import write_osm
from hypothesis import example, given, settings
from hypothesis import strategies as st
from test_real_extracts import ROOT

from geojepa.data import extract
from geojepa.data.boxes import MIN_SIDE
from geojepa.data.corpus import Corpus
from geojepa.data.cutting import cut_to_footprints
from geojepa.data.features import LINE, POLYGON, Features
from geojepa.data.grid import grid_of_footprints, to_degrees
from geojepa.data.pieces import cut_features
from geojepa.data.prepare import prepare
from geojepa.data.vocabulary import Vocabulary

# lower left corner of a tile, in tile units
U, V = 33000, 35000
N = 2**16
few = settings(max_examples=60, deadline=None)
# every fourth lies on a border of tiles
coordinate = st.integers(0, 16).map(lambda k: k / 4)
anywhere = st.integers(0, 4000).map(lambda k: k / 1000)
point = st.one_of(st.tuples(coordinate, coordinate), st.tuples(anywhere, anywhere))
lines = st.lists(point, min_size=2, max_size=8, unique=True).map(shapely.LineString)
rings = (
    st.lists(point, min_size=3, max_size=8, unique=True)
    .map(lambda points: shapely.make_valid(shapely.Polygon(points)))
    .filter(lambda shape: shape.geom_type == "Polygon" and shape.area > 1e-4)
)


def with_hole(shape: shapely.Polygon) -> shapely.Polygon:
    inner = shapely.affinity.scale(shapely.box(*shape.bounds), 0.3, 0.3)
    rest = shape.difference(inner)
    return rest if rest.geom_type == "Polygon" and rest.area > 1e-4 else shape


shapes = st.one_of(lines, rings, rings.map(with_hole))


def cut(shapes: list, owner: list[int] | None = None) -> pa.Table:
    """Pieces of features that have a tag each."""
    parts = shapely.transform(np.array(shapes, dtype=object), lambda c: np.add(c, (U, V)))
    owner = np.arange(len(parts)) if owner is None else np.array(owner)
    count = owner.max() + 1
    vocabulary = Vocabulary()
    tags = vocabulary.describe([("landuse", "forest")], np.zeros(count, int), np.arange(count + 1))
    kind = np.full(count, LINE, np.uint8)
    kind[owner] = np.where(shapely.get_dimensions(parts) == 2, POLYGON, LINE)
    names = pa.array([f"way/{i}" for i in range(count)])
    key = np.arange(count)
    return cut_features(Features.of(key, names, kind, tags, parts, owner, {}))


def tile_of(code: int) -> oracle.Tile:
    return divmod(code, N)


# so thin that what float64 tells apart out here counts in its area
THIN = shapely.Polygon([(0.111, 0.274), (0.228, 0.281), (2.742, 0.427)])


@few
@given(st.lists(shapes, min_size=1, max_size=4))
@example([THIN])
def test_shares_areas_and_lengths_add_up_also_where_borders_are_followed(some):
    table = cut(some)
    of = table["key"].to_numpy()
    pieces = shapely.from_wkb(table["geometry"].to_numpy())
    share = table["share"].to_numpy().astype(float)
    for i, shape in enumerate(some):
        measure = shapely.area if shape.geom_type == "Polygon" else shapely.length
        whole = measure(shape)
        # an outline whose points move by the distance of two numbers there
        rounding = np.spacing(float(V)) * shape.length
        found = measure(pieces[of == i]).sum()
        assert found == pytest.approx(whole, rel=1e-8, abs=rounding)
        assert share[of == i].sum() == pytest.approx(1, abs=1e-5)
        np.testing.assert_allclose(share[of == i], measure(pieces[of == i]) / whole, atol=1e-6)


# GEOS cannot clip one of its two parts by a rectangle
PINCHED = shapely.make_valid(
    shapely.Polygon([(1.0, 0.75), (1.463, 0.414), (0.0, 1.25), (1.75, 0.25)])
)


@few
@given(st.one_of(shapes, point.map(shapely.Point)))
@example(PINCHED)
def test_what_follows_a_border_belongs_to_the_tile_east_or_north_of_it(shape):
    found = {tile_of(code) for code in cut([shape])["tile"].to_pylist()}
    whole = shapely.transform(shape, lambda c: np.add(c, (U, V)))
    expected = oracle.tiles_of(whole)
    # less what two computations of one crossing may tell apart
    assert {t for t in found ^ expected if touches_more_than_a_hair(whole, t)} == set()


def touches_more_than_a_hair(shape, tile: oracle.Tile) -> bool:
    west, south = tile[0], N - 1 - tile[1]
    piece = shapely.intersection(shape, shapely.box(west, south, west + 1, south + 1))
    if shape.geom_type == "Point":
        return True
    return piece.area > 1e-9 if shape.geom_type == "Polygon" else piece.length > 1e-9


@few
@given(st.lists(rings, min_size=2, max_size=4))
def test_shares_of_a_feature_of_several_parts_add_up(some):
    apart = [shapely.affinity.translate(s, 5 * i, 0) for i, s in enumerate(some)]
    table = cut(apart, owner=[0] * len(apart))
    assert len(set(table["tile"].to_pylist())) == len(table)
    assert table["share"].to_numpy().sum() == pytest.approx(1, abs=1e-5)


@few
@given(shapes)
def test_boxes_of_pieces_hold_them_and_none_of_a_sweep_is_smaller(shape):
    table = cut([shape])
    pieces = shapely.from_wkb(table["geometry"].to_numpy())
    corners = np.array(table["box"].to_pylist()).reshape(-1, 4, 2)
    for piece, corner in zip(pieces, corners, strict=True):
        assert shapely.Polygon(corner).buffer(1e-6, join_style="mitre").covers(piece)
        sides = np.linalg.norm(np.diff(corner[:3], axis=0), axis=1)
        points = shapely.get_coordinates(piece)
        angle = np.radians(np.arange(0, 90, 0.05))[:, None]
        along = np.cos(angle) * points[:, 0] + np.sin(angle) * points[:, 1]
        across = np.cos(angle) * points[:, 1] - np.sin(angle) * points[:, 0]
        swept = np.ptp(along, axis=1) * np.ptp(across, axis=1)
        if sides.min() > MIN_SIDE + 1e-6:
            assert sides.prod() <= swept.min() + 1e-6


# --- whole corpora ---


def arrow_bytes(folder: Path) -> list[bytes]:
    """All that a corpus holds but its source's name and hash."""
    info = json.loads((folder / "corpus.json").read_text())
    for place in info["places"]:
        del place["source_sha256"], place["source"]
    paths = sorted(path for path in folder.iterdir() if path.name != "corpus.json")
    return [json.dumps(info).encode(), *(path.read_bytes() for path in paths if path.is_file())]


@pytest.fixture(scope="module")
def town(tmp_path_factory) -> Path:
    return town_of_evidence(tmp_path_factory.mktemp("town"))


@pytest.fixture(scope="module")
def objects(town) -> list:
    """Of the town, in the order of the file."""
    return Extract(town).items()


@settings(max_examples=12, deadline=None)
@given(order=st.randoms(use_true_random=False))
def test_the_order_of_objects_changes_no_byte(order, town, objects, tmp_path_factory):
    folder = tmp_path_factory.mktemp("mixed")
    expected = arrow_bytes(prepare([town], folder / "a"))
    mixed = list(objects)
    order.shuffle(mixed)
    path = write_osm(folder / town.name, mixed)
    assert arrow_bytes(prepare([path], folder / "b")) == expected


@pytest.mark.parametrize("size", [1, 1 << 10, 1 << 14, 1 << 30])
def test_the_size_of_blocks_changes_no_byte(size, city, town, tmp_path, monkeypatch):
    for path in (town, city.extract) if size >= 1 << 14 else (town,):
        expected = arrow_bytes(prepare([path], tmp_path / "a", processes=1))
        with monkeypatch.context() as patch:
            patch.setattr(extract, "BLOCK_BYTES", size)
            assert arrow_bytes(prepare([path], tmp_path / "b", processes=1)) == expected


@pytest.mark.parametrize("processes", [2, 3])
def test_the_number_of_processes_changes_no_byte(processes, city, tmp_path):
    real = ROOT / "osm" / "baltimore_md.osm.pbf"
    path = real if real.is_file() else city.extract
    expected = arrow_bytes(prepare([path], tmp_path / "a", processes=1))
    assert arrow_bytes(prepare([path], tmp_path / "b", processes=processes)) == expected


@pytest.fixture(scope="module")
def footprints(tiny_corpus):
    return tiny_corpus.tiles[["tile_id", "geometry"]]


def entities(corpus: Corpus, row: int) -> dict[str, tuple]:
    data = corpus.read([row])
    rows = zip(data.kind.tolist(), data.tags(), data.share, data.geometry, strict=True)
    return dict(zip(data.feature_id, rows, strict=True))


def test_a_tile_alone_holds_what_it_holds_among_all(city, tiny_corpus, footprints, tmp_path):
    for row in (0, 7, 20):
        path = tmp_path / "one.parquet"
        footprints.iloc[[row]].to_parquet(path)
        alone = Corpus.open(prepare([city.extract], tmp_path / "c", footprints=path))
        assert alone.tiles.tile_id.tolist() == [footprints.tile_id.iloc[row]]
        one, among = entities(alone, 0), entities(tiny_corpus, row)
        assert one.keys() == among.keys()
        for name, (kind, tags, share, shape) in one.items():
            assert (kind, tags) == among[name][:2]
            assert share == pytest.approx(among[name][2], abs=1e-6)
            # of a building that a border cuts, corners come in another order
            assert shapely.hausdorff_distance(shape, among[name][3]) < 1e-6


@few
@given(st.lists(shapes, min_size=1, max_size=4))
def test_a_footprint_alone_cuts_as_it_does_among_others(some):
    parts = shapely.transform(np.array(some, dtype=object), lambda c: np.add(c, (U, V)))
    cells = np.array([(U + u, V + v) for u in range(3) for v in range(2)])
    squares = shapely.box(*cells.T, *(cells + 1.5).T)
    frame = geopandas.GeoDataFrame(geometry=shapely.transform(squares, to_degrees), crs=4326)
    owner = np.arange(len(parts))
    among = cut_to_footprints(parts, owner, grid_of_footprints(frame))
    for row in range(len(frame)):
        alone = cut_to_footprints(parts, owner, grid_of_footprints(frame.iloc[[row]]))
        here = among.tile == row
        assert alone.feature.tolist() == among.feature[here].tolist()
        assert shapely.to_wkb(alone.geometry).tolist() == (
            shapely.to_wkb(among.geometry[here]).tolist()
        )
