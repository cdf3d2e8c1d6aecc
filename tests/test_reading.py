"""Hand-made extracts whose features are known."""

import json

import geopandas
import numpy as np
import osmium
import pyarrow as pa
import pyarrow.parquet
import pytest
import shapely
from handmade import node, read_features, relation, way, write_osm

from geojepa.data.corpus import Corpus
from geojepa.data.features import GROUP, LINE, POINT, POLYGON
from geojepa.data.prepare import prepare
from geojepa.errors import GeoJEPAError


def square(first: int, west: float, south: float, side: float) -> list:
    """Four nodes, counter-clockwise from the south-west."""
    east, north = west + side, south + side
    corners = [(west, south), (east, south), (east, north), (west, north)]
    return [node(first + i, *corner) for i, corner in enumerate(corners)]


RING = [1, 2, 3, 4, 1]
INNER = [11, 12, 13, 14, 11]
NODES = square(1, 0, 0, 0.01) + square(11, 0.004, 0.004, 0.002)


@pytest.fixture
def read(tmp_path):
    def reading(*objects, suffix=".osm.pbf"):
        path = write_osm(tmp_path / f"hand{suffix}", list(objects))
        return read_features(path, tmp_path)

    return reading


def shape(features, name) -> shapely.Geometry:
    """All of a feature's parts as one geometry."""
    parts = features.parts[features.owner == features.feature_id.index(name)]
    return parts[0] if len(parts) == 1 else shapely.geometrycollections(parts)


def kinds(features) -> dict[str, int]:
    return dict(zip(features.feature_id, features.kind.tolist(), strict=True))


@pytest.mark.parametrize(
    ("tags", "kind"),
    [
        ({"highway": "residential"}, LINE),
        ({"highway": "pedestrian", "area": "yes"}, POLYGON),
        ({"barrier": "fence"}, LINE),
        ({"railway": "rail"}, LINE),
        ({"building": "yes"}, POLYGON),
        ({"building": "yes", "area": "no"}, LINE),
        ({"landuse": "farmland", "barrier": "fence"}, POLYGON),
        ({"natural": "coastline"}, LINE),
    ],
    ids=str,
)
def test_closed_way_is_a_line_or_an_area_and_one_entity(read, tags, kind):
    features = read(*NODES, way(1, RING, **tags))
    assert kinds(features) == {"way/1": kind}
    assert shape(features, "way/1").geom_type == {LINE: "LineString", POLYGON: "Polygon"}[kind]
    assert features.tags == [tags]


def test_open_way_is_a_line_whatever_its_tags(read):
    assert kinds(read(*NODES, way(1, [1, 2, 3], building="yes"))) == {"way/1": LINE}


def test_multipolygon_has_its_hole_whatever_the_roles(read):
    for outer, inner in [("outer", "inner"), ("inner", "outer"), ("", ""), ("outer", "outer")]:
        ring = relation(1, [("w", 1, outer), ("w", 2, inner)], type="multipolygon", natural="water")
        features = read(*NODES, way(1, RING), way(2, INNER), ring)
        assert kinds(features) == {"relation/1": POLYGON}
        assert shape(features, "relation/1").area == pytest.approx(0.01**2 - 0.002**2)


def test_multipolygon_of_split_and_reversed_outer_ways_and_of_two_outers(read):
    apart = square(21, 0.02, 0, 0.001)
    ways = [way(1, [1, 2, 3]), way(2, [1, 4, 3]), way(3, INNER), way(4, [21, 22, 23, 24, 21])]
    members = [("w", 3, "inner"), ("w", 2, "outer"), ("w", 1, "outer"), ("w", 4, "outer")]
    features = read(
        *NODES, *apart, *ways, relation(1, members, type="multipolygon", landuse="forest")
    )
    whole = shape(features, "relation/1")
    assert len(whole.geoms) == 2
    assert whole.area == pytest.approx(0.01**2 - 0.002**2 + 0.001**2)


def test_multipolygon_that_lacks_a_ring_is_skipped_and_counted(read):
    """Without the outer ring the hole would be taken for the area."""
    members = [("w", 99, "outer"), ("w", 2, "inner")]
    lake = relation(1, members, type="multipolygon", natural="water")
    features = read(*NODES, way(2, INNER), lake)
    assert len(features) == 0
    assert features.skipped["relations without a complete geometry"] == 1
    assert features.skipped["relation members outside the extract"] == 1


@pytest.mark.parametrize(
    ("outer", "inner", "area"),
    [
        # a spur: one edge there and back
        ([1, 2, 51, 2, 3, 4, 1], [11, 12, 13, 14, 11], 1 - 0.04),
        # a hole that shares two corners, and one that shares an edge, with the outer ring
        ([1, 41, 2, 3, 43, 4, 1], [41, 12, 43, 11, 41], 1 - 0.1),
        ([1, 2, 3, 4, 1], [1, 2, 12, 11, 1], 1 - (1 + 0.2) / 2 * 0.4),
        # a ring that crosses itself, about a hole in one of its halves
        ([1, 2, 4, 3, 1], [61, 62, 63, 61], 0.5 - 0.005),
    ],
    ids=["spur", "corners", "edge", "bow"],
)
def test_area_of_rings_that_touch_and_cross_is_even_odd(read, outer, inner, area):
    others = [
        *(node(41, 0.005, 0), node(43, 0.005, 0.01), node(51, 0.02, 0)),
        *(node(61, 0.004, 0.001), node(62, 0.005, 0.002), node(63, 0.004, 0.002)),
    ]
    members = [("w", 1, "outer"), ("w", 2, "inner")]
    lake = relation(1, members, type="multipolygon", natural="water")
    features = read(*NODES, *others, way(1, outer), way(2, inner), lake)
    assert shape(features, "relation/1").area == pytest.approx(area * 0.01**2)


def test_multipolygon_with_a_ring_that_does_not_close_is_skipped_and_counted(read):
    """The hole would be taken for the area."""
    members = [("w", 1, "outer"), ("w", 2, "inner")]
    lake = relation(1, members, type="multipolygon", natural="water")
    features = read(*NODES, way(1, RING[:-1]), way(2, INNER), lake)
    assert len(features) == 0
    assert features.skipped["relations without a complete geometry"] == 1


def test_tagged_members_stay_entities_of_their_own(read):
    members = [("w", 1, "outer"), ("w", 2, "inner")]
    features = read(
        *NODES,
        way(1, RING, barrier="wall"),
        way(2, INNER, building="yes"),
        relation(1, members, type="multipolygon", leisure="park"),
    )
    assert kinds(features) == {"way/1": LINE, "way/2": POLYGON, "relation/1": POLYGON}


def test_other_relations_are_groups_with_their_members(read):
    restriction = {"type": "restriction", "restriction": "no_left_turn"}
    features = read(
        *NODES,
        way(1, [1, 2], highway="primary"),
        way(2, [2, 3], highway="primary"),
        relation(7, [("w", 1, "from"), ("n", 2, "via"), ("w", 2, "to")], **restriction),
    )
    assert kinds(features) == {"way/1": LINE, "way/2": LINE, "relation/7": GROUP}
    group = shape(features, "relation/7")
    assert sorted(g.geom_type for g in group.geoms) == ["LineString", "LineString", "Point"]
    assert group.length == pytest.approx(0.02)


def test_equal_ids_of_different_types_are_not_confused(read):
    features = read(
        node(1, 0, 0, amenity="bench"),
        node(2, 0.01, 0),
        way(1, [1, 2], highway="path"),
        relation(1, [("n", 1, ""), ("w", 1, "")], type="site", historic="yes"),
        relation(2, [("r", 1, ""), ("n", 2, "")], type="site", tourism="yes"),
    )
    assert kinds(features) == {"node/1": POINT, "way/1": LINE, "relation/1": GROUP, "relation/2": 3}
    assert shape(features, "relation/1").geoms[0].equals(shapely.Point(0, 0))
    assert shape(features, "relation/2").equals_exact(shapely.Point(0.01, 0), 1e-9)


def test_untagged_things_and_mere_bookkeeping_are_no_entities(read):
    features = read(
        *NODES,
        node(31, 0, 0, created_by="JOSM", source="survey"),
        way(1, RING),
        way(2, INNER, tiger__county="Fresno, CA", note="?"),
        relation(1, [("w", 1, "")]),
        relation(2, [("w", 1, "outer")], type="multipolygon", source="Bing"),
        node(32, 0.001, 0.001, name="Here"),
    )
    assert kinds(features) == {"node/32": POINT}
    assert features.tags == [{"name": ""}]


BOUNDARY = {"boundary": "administrative", "admin_level": "8", "name": "Here", "place": "town"}


@pytest.mark.parametrize(
    ("tags", "is_kept"),
    [
        (BOUNDARY, False),
        ({"boundary": "national_park", "name": "Here"}, False),
        ({"boundary": "national_park", "leisure": "nature_reserve"}, True),
        ({"boundary": "protected_area", "landuse": "forest"}, True),
        ({"boundary": "administrative", "waterway": "river"}, True),
    ],
    ids=str,
)
def test_boundaries_count_only_where_another_key_describes_them(read, tags, is_kept):
    features = read(
        *NODES,
        node(31, 0, 0, **tags),
        way(1, RING, **tags),
        way(2, [11, 12], **tags),
        relation(1, [("w", 1, "outer")], **{"type": "boundary", **tags}),
    )
    names = {"node/31", "way/1", "way/2", "relation/1"} if is_kept else {"node/31"}
    assert set(features.feature_id) == names


def test_relation_of_type_boundary_is_a_boundary(read):
    ridge = relation(1, [("w", 1, "outer")], type="boundary", place="region", name="Ridge")
    assert len(read(*NODES, way(1, RING), ridge)) == 0


def test_ways_with_missing_nodes_are_skipped_and_counted(read):
    features = read(*NODES, way(1, [1, 2, 99], highway="path"), way(2, [1, 2], highway="path"))
    assert kinds(features) == {"way/2": LINE}
    assert features.skipped["ways with missing nodes or a single place"] == 1


@pytest.mark.parametrize("nodes", [[1, 1], [1], [1, 2, 2, 1], [1, 2, 1, 1]], ids=str)
def test_ways_without_an_extent_do_no_harm(read, nodes):
    features = read(*NODES, way(1, nodes, building="yes"), way(2, [1, 2], highway="path"))
    assert not any(g.is_empty for g in features.parts)
    assert shape(features, "way/2").length == pytest.approx(0.01)
    assert sum(features.skipped.values()) == 1


def test_self_crossing_area_is_repaired(read):
    features = read(*NODES, way(1, [1, 3, 2, 4, 1], building="yes"))
    assert shape(features, "way/1").area == pytest.approx(0.01**2 / 2)
    assert features.skipped["polygons repaired"] == 1


OBJECTS = [
    *NODES,
    node(31, 0.002, 0.003, highway="crossing"),
    way(1, RING, building="yes"),
    way(2, INNER),
    way(3, [31, 1], highway="path"),
    relation(1, [("w", 3, ""), ("n", 31, "")], type="route", route="foot"),
    relation(2, [("w", 2, "")], type="multipolygon", natural="water"),
]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("suffix", [".osm.pbf", ".osm", ".osm.gz", ".osm.bz2"])
def test_objects_in_any_order_and_format_give_the_same_features(read, seed, suffix):
    expected = read(*OBJECTS)
    mixed = [OBJECTS[i] for i in np.random.default_rng(seed).permutation(len(OBJECTS))]
    found = read(*mixed, suffix=suffix)
    assert found.feature_id == expected.feature_id
    assert found.tags == expected.tags
    assert found.kind.tolist() == expected.kind.tolist()
    assert [g.wkb for g in found.parts] == [g.wkb for g in expected.parts]
    assert not sum(found.skipped.values())


def test_untagged_nodes_after_ways_are_found(read):
    features = read(way(1, RING, building="yes"), *NODES)
    assert shape(features, "way/1").area == pytest.approx(0.01**2)


def test_an_object_given_twice_counts_once(read):
    twice = [way(1, RING, building="yes")] * 2
    features = read(*NODES, *NODES[:1], *twice, node(31, 0, 0, shop="yes"), *[OBJECTS[8]] * 2)
    assert sorted(features.feature_id) == ["node/31", "way/1"]


def test_a_relation_given_twice_counts_once(read):
    site = [relation(i, [("n", 1, "")], type="site", tourism="yes") for i in (1, 2)]
    for objects in (site[:1] * 2, [*site, site[0]], site[::-1]):
        features = read(*NODES, *objects)
        assert features.feature_id == sorted({f"relation/{item.id}" for item in objects})
        assert not sum(features.skipped.values())


def test_only_members_that_are_not_in_the_file_are_outside_the_extract(read):
    """A boundary and a relation without tags are no entities, but they are there."""
    features = read(
        *NODES,
        way(1, RING),
        relation(1, [("w", 1, "outer")], type="boundary", boundary="administrative"),
        relation(2, [("w", 1, "outer")]),
        relation(3, [("r", 1, ""), ("r", 2, ""), ("n", 1, "")], type="site", tourism="yes"),
    )
    assert features.feature_id == ["relation/3"]
    assert features.skipped["relation members outside the extract"] == 0


def test_deleted_objects_are_skipped(tmp_path):
    path = tmp_path / "deleted.osm"
    path.write_text(
        '<osm version="0.6"><node id="1" version="2" visible="false"><tag k="shop" v="x"/></node>'
        '<node id="2" version="1" lat="1" lon="1"><tag k="shop" v="x"/></node></osm>'
    )
    assert read_features(path, tmp_path).feature_id == ["node/2"]


def test_history_files_are_refused(tmp_path):
    header = osmium.io.Header()
    header.has_multiple_object_versions = True
    path = tmp_path / "all.osh.pbf"
    with osmium.SimpleWriter(str(path), header=header) as writer:
        writer.add(NODES[0])
    with pytest.raises(GeoJEPAError, match=r"all.osh.pbf: holds the history .* time-filter"):
        read_features(path, tmp_path)


def table(geometry, crs=4326, **columns):
    return geopandas.GeoDataFrame(columns, geometry=geometry, crs=crs)


def test_a_table_holds_the_same_features_in_any_crs(tmp_path):
    box, line = shapely.box(9.5, 47.1, 9.51, 47.11), shapely.LineString([(9.5, 47), (9.6, 47.1)])
    given = table(
        [line, shapely.Point(9, 47), box, shapely.MultiPolygon([box]), None, shapely.Polygon()],
        feature_id=["way/2", "node/7", "way/1", "relation/3", "node/8", "way/9"],
        highway=["path", None, None, None, "stop", None],
        building=[None, None, "yes", "yes", None, "yes"],
        shop=[None, "bakery", None, "", None, None],
        name=["A", None, None, None, None, None],
    )
    for crs in (4326, 2056):
        path = tmp_path / f"{crs}.parquet"
        given.to_crs(crs).to_parquet(path)
        features = read_features(path, tmp_path)
        assert features.feature_id == ["node/7", "relation/3", "way/1", "way/2"]
        assert features.kind.tolist() == [POINT, POLYGON, POLYGON, LINE]
        assert features.tags[0] == {"shop": "bakery"}
        assert features.tags[1] == {"building": "yes"}
        assert features.tags[3] == {"highway": "path", "name": ""}
        assert shape(features, "way/1").equals_exact(box, 1e-7)
        assert features.skipped.total() == 2


def test_an_index_as_osmnx_writes_it_names_features(tmp_path):
    frame = table([shapely.Point(9, 47)], shop=["bakery"], element=["node"], id=[7])
    frame.set_index(["element", "id"]).to_parquet(tmp_path / "o.parquet")
    assert read_features(tmp_path / "o.parquet", tmp_path).feature_id == ["node/7"]


def test_levels_of_an_index_name_features(tmp_path):
    """Older versions of osmnx name them otherwise."""
    frame = table([shapely.Point(9, 47)], shop=["bakery"], element_type=["way"], osmid=[7])
    frame.set_index(["element_type", "osmid"]).to_parquet(tmp_path / "o.parquet")
    assert read_features(tmp_path / "o.parquet", tmp_path).feature_id == ["way/7"]


TAGS = [{"building": "yes", "name": "Mill"}, None, {"highway": "stop", "lit": " "}, {}]
ITEMS = [tags if tags is None else list(tags.items()) for tags in TAGS]
TEXT = pa.string()
LAYOUTS = {
    "map": pa.array(ITEMS, pa.map_(TEXT, TEXT)),
    "struct": pa.array(TAGS),
    "pairs": pa.array(ITEMS, pa.map_(TEXT, TEXT)).cast(
        pa.list_(pa.struct({"key": TEXT, "value": TEXT}))
    ),
    "lists": pa.array(
        [items and [list(pair) for pair in items] for items in ITEMS], pa.list_(pa.list_(TEXT))
    ),
    "json": pa.array([None if tags is None else json.dumps(tags) for tags in TAGS]),
}


def with_column(path, name, column):
    """A table of four points with a shop, and a column as Arrow holds it."""
    places = [shapely.Point(9 + k / 1000, 47) for k in range(4)]
    names = ["node/1", "node/2", "node/3", "node/4"]
    frame = table(places, feature_id=names, shop=[None, None, "x", "x"])
    frame.to_parquet(path, write_covering_bbox=True)
    whole = pyarrow.parquet.read_table(path)
    pyarrow.parquet.write_table(whole.append_column(name, column), path)
    return path


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_column_of_tags_holds_all_tags_of_a_feature(tmp_path, layout):
    path = with_column(tmp_path / "t.parquet", "tags", LAYOUTS[layout])
    features = read_features(path, tmp_path)
    assert features.feature_id == ["node/1", "node/3", "node/4"]
    assert features.tags == [
        {"building": "yes", "name": ""},
        {"shop": "x", "highway": "stop"},
        {"shop": "x"},
    ]
    assert +features.skipped == {"features without a tag or a geometry": 1}


@pytest.mark.parametrize("layout", ["map", "struct", "pairs", "lists"])
def test_other_nested_columns_are_no_tags_and_are_counted(tmp_path, layout):
    path = with_column(tmp_path / "t.parquet", "nodes", LAYOUTS[layout])
    features = read_features(path, tmp_path)
    assert features.tags == [{"shop": "x"}] * 2
    assert features.skipped["lists, maps and structs in columns other than tags"] == 3


@pytest.mark.parametrize(
    "tags",
    [pa.array(["highway=stop", "3", "{", None]), pa.array([[["a"]], [["b"] * 3], [[]], None])],
    ids=["text", "lists"],
)
def test_a_column_of_tags_that_holds_none_is_counted(tmp_path, tags):
    features = read_features(with_column(tmp_path / "t.parquet", "tags", tags), tmp_path)
    assert features.tags == [{"shop": "x"}] * 2
    assert features.skipped["values of a column tags that are neither a map nor JSON"] == 3


def written(folder, geometry, suffix):
    """Shops at these shapes, as a table or as an extract."""
    path = folder / f"shops{suffix}"
    if suffix == ".parquet":
        table(geometry, shop=["x"] * len(geometry)).to_parquet(path)
        return path
    objects, ways = [], []
    for shape in geometry:
        first = len(objects) + 1
        places = shapely.get_coordinates(shape).tolist()
        tags = {"shop": "x"} if len(places) == 1 else {}
        objects += [node(first + i, *place, **tags) for i, place in enumerate(places)]
        if len(places) > 1:
            nodes = list(range(first, first + len(places)))
            is_ring = shape.geom_type == "Polygon"
            nodes[-1] = first if is_ring else nodes[-1]
            ways.append(way(first, nodes, shop="x"))
    return write_osm(path, objects + ways)


BEYOND = [
    *(shapely.Point(0, 85.06), shapely.Point(0, -85.06), shapely.Point(0, 90)),
    *(shapely.LineString([(0, 85), (0.1, 85.1)]), shapely.box(0, -85.06, 0.1, -85.04)),
]
EAST = [shapely.Point(180.001, 0), shapely.LineString([(179.999, 0), (180.001, 0)])]


@pytest.mark.parametrize(
    ("suffix", "beyond"), [(".osm.pbf", BEYOND), (".parquet", BEYOND + EAST)], ids=["osm", "table"]
)
def test_what_reaches_beyond_the_map_is_skipped_and_counted(tmp_path, suffix, beyond):
    """The map ends at 180 degrees east and short of 85.0512 degrees north."""
    edge = [shapely.Point(lon, 85.051) for lon in np.linspace(9.0002, 9.0008, 5)]
    edge += [shapely.Point(180, 0.001 * k) for k in range(1, 6)]
    edge += [shapely.LineString([(180, 0.001), (179.999, 0.002)]), shapely.Point(-180, 0.001)]
    corpus = Corpus.open(prepare([written(tmp_path, beyond + edge, suffix)], tmp_path / "c"))
    skipped = corpus.infos[0]["places"][0]["skipped"]
    assert {k: v for k, v in skipped.items() if "repaired" not in k} == {
        "features beyond the map": len(beyond)
    }
    assert sorted(corpus.tiles.x) == [34406, 65535]
    data = corpus.read(np.arange(2))
    bounds = shapely.bounds(data.geometry)
    assert bounds.min() >= 0
    assert bounds.max() == 1
    assert len(bounds) == len(edge) - 1


def test_mixed_collections_are_groups_of_their_parts(tmp_path):
    nested = shapely.GeometryCollection(
        [shapely.MultiPoint([(0, 0), (1, 1)]), shapely.LineString([(0, 0), (1, 0)])]
    )
    table([nested], site=["x"]).to_parquet(tmp_path / "c.parquet")
    features = read_features(tmp_path / "c.parquet", tmp_path)
    assert features.kind.tolist() == [GROUP]
    assert [g.geom_type for g in features.parts] == ["Point", "Point", "LineString"]


def truncated(whole: bytes) -> list[bytes]:
    return [whole[:n] for n in (1, 3, 5, 60, 400, len(whole) // 3, len(whole) // 2, len(whole) - 1)]


def refusal(path) -> str:
    with pytest.raises(GeoJEPAError) as error:
        prepare([path], path.parent / "corpus")
    text = str(error.value)
    assert text.startswith(str(path))
    assert "\n" not in text
    return text


def test_bad_files_are_refused_in_one_line(tmp_path, city):
    assert "no such file" in refusal(tmp_path / "missing.osm.pbf")
    for suffix in (".osm.pbf", ".osm", ".osm.gz", ".parquet", ".txt"):
        empty, text = tmp_path / f"empty{suffix}", tmp_path / f"text{suffix}"
        empty.touch()
        text.write_text("id,name\n1,not a map\n" * 50)
        assert "is empty" in refusal(empty)
        assert "cannot be read" in refusal(text)
    part = tmp_path / "part.osm.pbf"
    for some in truncated(city.extract.read_bytes()):
        part.write_bytes(some)
        assert "download the extract again" in refusal(part)
    xml = write_osm(tmp_path / "whole.osm.gz", OBJECTS).read_bytes()
    part = tmp_path / "part.osm.gz"
    for some in (xml[: len(xml) // 2], xml[:-4]):
        part.write_bytes(some)
        refusal(part)


def test_bad_tables_are_refused_in_one_line(tmp_path):
    path = tmp_path / "t.parquet"
    table([shapely.Point(0, 0)], shop=["x"]).to_parquet(path)
    whole = path.read_bytes()
    for some in truncated(whole):
        path.write_bytes(some)
        assert "cannot be read as GeoParquet" in refusal(path)
    table([shapely.Point(0, 0)], crs=None, shop=["x"]).to_parquet(path)
    assert "coordinate reference system" in refusal(path)
    table([shapely.Point(0, 0)], shop=["x"]).drop(columns="geometry").to_parquet(path)
    assert "geometry column" in refusal(path)
