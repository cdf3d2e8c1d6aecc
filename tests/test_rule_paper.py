"""Rule `paper` against the benchmark's own words, read once more; see `oracle`."""

import json
import sys
from collections import defaultdict

import numpy as np
import oracle
import pandas as pd
import pytest
from test_labels import Town
from test_real_extracts import LARGE, ROOT, SMALL, all_of_them

from geojepa.__main__ import main
from geojepa.data.corpus import Corpus
from geojepa.data.inspect import summary, summary_text
from geojepa.data.labels import paper_kept
from geojepa.data.meaning import TASKS
from geojepa.data.prepare import prepare

UNSEEN = ("tiger:", "source", "import", "yh:", "created_by")
CARS = ("primary", "secondary", "tertiary", "motorway", "unclassified", "service")


def speed_of(value: str) -> float:
    """The number, x 1.6 after the token mph; US:urban 40; unreadable 0."""
    if value == "US:urban":
        return 40
    number, *tokens = value.split() or [""]
    try:
        return float(number) * (1.6 if "mph" in tokens else 1)
    except ValueError:
        return 0


def paper_labels(found: list[oracle.Thing], tiles: list[oracle.Tile]) -> dict[str, list[float]]:
    signals, buildings = defaultdict(int), defaultdict(int)
    roads, bridges, car_bridges, speeds = set(), set(), set(), defaultdict(list)
    for thing in found:
        if thing.name.startswith("relation"):
            continue
        tags = {k: v for k, v in thing.tags.items() if not k.startswith(UNSEEN)}
        is_signal = any(
            "traffic_signals" in key or "traffic_signals" in value or "crossing:signals" in key
            for key, value in tags.items()
        )
        is_bridge = any("bridge" in key or "bridge" in value for key, value in tags.items())
        road = [value for key, value in tags.items() if "highway" in key]
        has_cars = any(word in value for value in road for word in CARS)
        for tile in thing.tiles():
            signals[tile] += is_signal and thing.kind == "point"
            buildings[tile] += any("building" in key for key in tags)
            speeds[tile] += [speed_of(value) for key, value in tags.items() if "maxspeed" in key]
            roads |= {tile} if road else set()
            bridges |= {tile} if is_bridge else set()
            car_bridges |= {tile} if is_bridge and has_cars else set()

    def speed(tile: oracle.Tile) -> float:
        if speeds[tile]:
            return max(speeds[tile]) or np.nan
        return np.nan if tile in roads else -100

    return {
        "traffic_signals": [signals[tile] for tile in tiles],
        "building_count": [buildings[tile] for tile in tiles],
        "max_speed": [speed(tile) for tile in tiles],
        "bridge": [tile in bridges for tile in tiles],
        "car_bridge": [tile in car_bridges for tile in tiles],
    }


def assert_labels_agree(corpus: Corpus, path) -> dict[str, list[float]]:
    tiles = list(zip(corpus.tiles.x.tolist(), corpus.tiles.y.tolist(), strict=True))
    expected = paper_labels(list(oracle.things(path)), tiles)
    for task in TASKS:
        np.testing.assert_allclose(
            corpus.tiles[f"paper_{task}"], np.array(expected[task], float), rtol=1e-6, err_msg=task
        )
    return expected


@pytest.mark.parametrize(
    "name", [*SMALL, *(pytest.param(name, marks=all_of_them) for name in LARGE)]
)
@pytest.mark.skipif(not (ROOT / "osm").is_dir(), reason=f"no extracts in {ROOT}")
def test_labels_of_real_extracts_follow_the_rule(name, tmp_path):
    path = ROOT / "osm" / f"{name}.osm.pbf"
    corpus = Corpus.open(prepare([path], tmp_path / "c"))
    expected = assert_labels_agree(corpus, path)
    # the two rules differ on the same ground
    assert sum(expected["building_count"]) > corpus.tiles.building_count.sum()
    assert sum(expected["bridge"]) >= corpus.tiles.bridge.sum() > 0


TAGS = [
    *[("highway", v) for v in ("primary_link", "residential", "traffic_signals", "footway")],
    *[("highway", v) for v in ("service", "trunk", "crossing")],
    *[("bridge", v) for v in ("yes", "no", "viaduct")],
    *[("name", v) for v in ("Cambridge Street", "Bridge Street", "traffic_signals")],
    *[("maxspeed", v) for v in ("50", "25 mph", "none", "US:urban", "0", "12.5")],
    *[("maxspeed:forward", v) for v in ("70", "45 mph", "signals")],
    *[("source:maxspeed", "90"), ("tiger:bridge", "yes"), ("source", "bridge survey")],
    *[("note", "a bridge"), ("note:maxspeed", "80"), ("fixme", "traffic_signals?")],
    *[("building", "no"), ("building", "house"), ("building:levels", "2"), ("was:building", "yes")],
    *[("boundary", "administrative"), ("boundary", "bridge"), ("area:highway", "service")],
    *[("crossing:signals", "no"), ("crossing", "traffic_signals"), ("traffic_signals", "ramp")],
    *[("Maxspeed", "130"), ("BUILDING", "yes"), ("landuse", "forest"), ("area", "yes")],
    *[
        ("created_by", "bridge builder"),
        ("import", "building"),
        ("yh:building", "y"),
        ("shop", "y"),
    ],
]


@pytest.mark.parametrize("seed", range(25))
def test_labels_of_towns_with_any_tags_follow_the_rule(seed, tmp_path):
    rng = np.random.default_rng(seed)
    town = Town()
    for shape in rng.permutation(np.repeat(["node", "line", "box"], 6)):
        tags = dict(TAGS[i] for i in rng.integers(len(TAGS), size=rng.integers(1, 4)))
        tags = {key.replace(":", "__"): value for key, value in tags.items()}
        x, y = rng.uniform(0.1, 1.7), rng.uniform(0.1, 0.7)
        if shape == "node":
            town.node(x, y, **tags)
        elif shape == "line":
            town.line((x, y), (x + 0.1, y + 0.2), **tags)
        else:
            town.box(x, y, **tags)
    ring = town.box(0.3, 0.3)
    town.relation(("w", ring, "outer"), type="multipolygon", building="yes", bridge="yes")
    town.relation(("w", ring), type="route", maxspeed="130", highway="primary")
    corpus = town.corpus(tmp_path)
    assert_labels_agree(corpus, tmp_path / "town.osm.pbf")


def test_a_road_without_a_limit_is_dropped_and_a_tile_without_a_road_is_far_below(tmp_path):
    town = Town()
    town.line((0.2, 0.5), (0.8, 0.5), highway="residential", maxspeed="none")
    assert town.corpus(tmp_path).tiles.paper_max_speed.fillna(0).tolist() == [0, -100]


def test_the_relations_of_a_table_are_ignored_too(tmp_path):
    import geopandas
    import shapely

    places = shapely.points(np.random.default_rng(0).uniform(9.5001, 9.5009, (6, 2)))
    names = ["node/1", "node/2", "node/3", "node/4", "way/1", "relation/1"]
    frame = geopandas.GeoDataFrame(
        {"feature_id": names, "building": "yes", "highway": "x"}, geometry=places, crs=4326
    )
    frame.to_parquet(tmp_path / "t.parquet")
    tiles = Corpus.open(prepare([tmp_path / "t.parquet"], tmp_path / "c")).tiles
    assert tiles.building_count.tolist() == [6]
    assert tiles.paper_building_count.tolist() == [5]


@pytest.mark.parametrize(
    ("task", "share"),
    [("building_count", 0.1), ("traffic_signals", 0.05), ("bridge", 0.25), ("car_bridge", 0.1)],
)
def test_zeros_are_drawn_down_to_their_share_and_nothing_else_goes(task, share):
    labels = np.concatenate([np.zeros(20_000), np.ones(500), np.full(10, np.nan)])
    kept = paper_kept(labels, task)
    assert kept[labels > 0].all()
    assert not kept[np.isnan(labels)].any()
    assert kept[labels == 0].mean() == pytest.approx(share, rel=0.1)
    assert (kept == paper_kept(labels, task)).all()
    assert (kept != paper_kept(labels, task, seed=1)).any()


def test_every_speed_that_is_not_zero_is_kept():
    assert paper_kept([np.nan, -100, 40], "max_speed").tolist() == [False, True, True]


def test_inspect_by_rule_paper(tiny_corpus, tmp_path, capsys, monkeypatch):
    path = tmp_path / "labels.csv"
    words = ["inspect", str(tiny_corpus.paths[0]), "--rule", "paper", "--labels", str(path)]
    monkeypatch.setattr(sys, "argv", ["geojepa", *words, "--json"])
    main()
    found = json.loads(capsys.readouterr().out)["labels"]
    table = pd.read_csv(path)
    assert list(found) == [f"paper_{task}" for task in TASKS]
    for task in TASKS:
        label, column = found[f"paper_{task}"], table[f"paper_{task}"]
        assert label["tiles"] == column.notna().sum()
        assert label["positive"] == (column > 0).sum()
        assert label["kept"] == table[f"kept_{task}"].sum()
        assert (table[f"kept_{task}"] >= (column.fillna(0) != 0)).all()
    text = summary_text(summary(tiny_corpus, "paper"))
    assert f"{found['paper_bridge']['kept']} kept" in text
    assert "paper" not in summary_text(summary(tiny_corpus))
