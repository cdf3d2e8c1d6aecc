"""Which tags count, which closed ways are areas, and how tags become embeddings."""

import json
import re

import numpy as np
import pytest
from safetensors.numpy import save_file

from geojepa.data.keys import MAIN_KEYS, clean, is_area, is_bookkeeping, is_identifying
from geojepa.errors import GeoJEPAError
from geojepa.model.tags import TABLE_PATH, TAG_DIM, TagTable, entity_tag_embeddings

BOOKKEEPING = """
source source:maxspeed source_ref created_by import import_uuid tiger:county note note:de fixme
FIXME attribution yh:WIDTH building:source
"""
IDENTIFYING = """
name name:fr name_1 alt_name old_name:en short_name uic_name addr:housenumber addr:street ref
ref:INSEE nat_ref destination:ref wikidata brand:wikidata wikipedia:de ISO3166-2 website phone
contact:phone start_date opening_date construction_date check_date check_date:surface
population:date survey:date nycdoitt:bin gnis:feature_id gtfs:trip_id:sample geonames:id
lacounty:ain
"""
DESCRIBING = """
ele height width building:levels maxspeed operator brand network opening_hours sport crossing_ref
generator:source traffic_signals capacity population surface bridge refugee noname
"""


@pytest.mark.parametrize("key", BOOKKEEPING.split())
def test_bookkeeping_keys_are_dropped(key):
    assert is_bookkeeping(key)
    assert clean({key: "x", "building": "yes"}) == {"building": "yes"}


@pytest.mark.parametrize("key", IDENTIFYING.split())
def test_identifying_keys_count_by_the_key_alone(key):
    assert is_identifying(key)
    assert not is_bookkeeping(key)
    assert clean({key: "1234"}) == {key: ""}


@pytest.mark.parametrize("key", DESCRIBING.split())
def test_describing_keys_keep_their_values(key):
    assert clean({key: "1234"}) == {key: "1234"}


def test_main_keys_describe():
    assert not any(is_bookkeeping(key) or is_identifying(key) for key in MAIN_KEYS)
    assert {"building", "highway", "natural", "bridge"} <= MAIN_KEYS
    assert not {"boundary", "name", "surface"} & MAIN_KEYS


def test_clean_strips_and_cuts_at_the_limit_of_osm():
    assert clean({" shop ": " bakery ", "": "x", " ": "y", "footway": ""}) == {
        "shop": "bakery",
        "footway": "",
    }
    assert clean({"k" * 300: "v" * 300}) == {"k" * 255: "v" * 255}
    assert clean({"shop": "bakery", "shop ": "deli"}) == {"shop": "bakery"}


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("building=yes", True),
        ("building=no", False),
        ("building:part=yes", True),
        ("landuse=grass", True),
        ("amenity=parking highway=service", True),
        ("leisure=park barrier=fence", True),
        ("leisure=track", False),
        ("leisure=track area=yes", True),
        ("natural=water", True),
        ("natural=coastline", False),
        ("natural=tree_row", False),
        ("waterway=riverbank", True),
        ("waterway=stream", False),
        ("man_made=bridge", True),
        ("man_made=embankment", False),
        ("aeroway=apron", True),
        ("aeroway=taxiway", False),
        ("power=substation", True),
        ("power=line", False),
        ("area:highway=primary", True),
        ("highway=residential", False),
        ("highway=primary junction=roundabout", False),
        ("highway=pedestrian area=yes", True),
        ("highway=pedestrian", False),
        ("barrier=fence", False),
        ("barrier=wall area=yes", True),
        ("railway=rail", False),
        ("railway=platform area=yes", True),
        ("building=yes area=no", False),
        ("name=Here", False),
        ("", False),
    ],
)
def test_closed_ways_are_areas_by_the_rules_of_osm(tags, expected):
    assert is_area(dict(pair.split("=") for pair in tags.split())) is expected


@pytest.fixture(scope="module")
def table():
    return TagTable.load()


def test_the_table_names_its_weights_and_licence(table):
    assert table.metadata["model"] == "sentence-transformers/all-MiniLM-L6-v2"
    assert re.fullmatch("[0-9a-f]{64}", table.metadata["weights_sha256"])
    assert table.metadata["license"] == "Apache-2.0"
    assert "OpenStreetMap contributors" in table.metadata["attribution"]
    assert TABLE_PATH.stat().st_size < 4e6


def test_the_table_holds_unit_vectors_of_distinct_sorted_tags_with_all_their_keys(table):
    assert table.matrix.shape == (len(table.tags), TAG_DIM)
    assert table.matrix.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(table.matrix, axis=1), 1, atol=1e-3)
    assert list(table.tags) == sorted(set(table.tags))
    assert {(key, "") for key, _ in table.tags} <= set(table.tags)
    assert not any(is_bookkeeping(key) for key, _ in table.tags)
    assert not any(value for key, value in table.tags if is_identifying(key))


def test_embeddings_of_like_tags_are_alike(table):
    rows = table.lookup([("building", "house"), ("building", "detached"), ("highway", "primary")])
    house, detached, primary = table.matrix[rows]
    assert house @ detached > house @ primary + 0.2


def test_unknown_values_fall_back_to_the_key_and_unknown_keys_to_their_stem(table):
    known = {tag: row for row, tag in enumerate(table.tags)}
    vocabulary = [
        ("building", "house"),
        ("building", "castle_of_cards"),
        ("name", ""),
        ("name:tlh", ""),
        ("building:unheard:of", "yes"),
        ("unheard_of", "yes"),
        ("unheard:of", "yes"),
    ]
    building, name = known["building", ""], known["name", ""]
    rows = table.lookup(vocabulary)
    assert rows.dtype == np.int32
    assert rows.tolist() == [known["building", "house"], building, name, name, building, -1, -1]
    assert table.coverage(vocabulary) == {"exact": 2, "key": 1, "stem": 2, "dropped": 2}
    uses = [10, 20, 30, 40, 50, 60, 70]
    expected = {"exact": 40, "key": 20, "stem": 90, "dropped": 130}
    assert table.coverage(vocabulary, uses) == expected
    assert table.lookup([]).shape == (0,)


def test_an_entity_is_the_sum_of_its_tags_also_where_it_has_none(table):
    rng = np.random.default_rng(0)
    rows = rng.integers(-1, len(table.tags), 50).astype(np.int32)
    rows[:3] = -1
    sizes = np.array([0, 3, 0, 0, 1, 7, 0])
    cu = np.concatenate([[0], np.cumsum(sizes)])
    tag_ids = rng.integers(0, 50, cu[-1]).astype(np.int32)
    tag_ids[0] = 0
    out = entity_tag_embeddings(rows, tag_ids, cu, table)
    assert out.shape == (7, TAG_DIM)
    assert out.dtype == np.float32
    for n in range(7):
        expected = np.zeros(TAG_DIM)
        for tag in tag_ids[cu[n] : cu[n + 1]]:
            if rows[tag] >= 0:
                expected += table.matrix[rows[tag]]
        np.testing.assert_allclose(out[n], expected, atol=1e-5)


def test_no_entities_and_no_tags_give_empty_and_zero_embeddings(table):
    none = np.zeros(0, np.int32)
    rows = table.lookup([("building", "yes")])
    assert entity_tag_embeddings(rows, none, np.zeros(1, np.int64), table).shape == (0, TAG_DIM)
    assert not entity_tag_embeddings(rows, none, np.zeros(4, np.int64), table).any()


def test_a_file_that_is_no_table_is_refused_by_name(tmp_path):
    for name, content in [("junk", b"junk"), ("empty", b"")]:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(GeoJEPAError, match=f"{name}: not a tag table"):
            TagTable.load(tmp_path / name)
    with pytest.raises(GeoJEPAError, match="missing: not a tag table"):
        TagTable.load(tmp_path / "missing")
    save_file(
        {"embeddings": np.zeros((2, TAG_DIM), np.float16)},
        tmp_path / "short",
        {"tag_table": json.dumps({"tags": [["building", "yes"]]})},
    )
    with pytest.raises(GeoJEPAError, match="short: 1 tags but embeddings of shape"):
        TagTable.load(tmp_path / "short")
