"""Real extracts, where they are at hand, against counts by another way; see `oracle`."""

import os
from collections import defaultdict
from pathlib import Path

import numpy as np
import oracle
import pandas as pd
import pytest
import shapely

from geojepa.data.corpus import Corpus
from geojepa.data.prepare import prepare

ROOT = Path(os.environ.get("GEOJEPA_DATA", Path(__file__).parents[2] / "shared" / "data"))
SMALL = ("harrisburg_pa", "baltimore_md")
LARGE = (
    *("columbus_oh", "liechtenstein", "malta"),
    *("nassau_bahamas", "queens_village_ny", "reisterstown_md"),
)
CARS = {"motorway", "trunk", "primary", "secondary", "tertiary"}
CARS |= {f"{name}_link" for name in CARS}
CARS |= {"unclassified", "residential", "service", "living_street"}

pytestmark = pytest.mark.skipif(
    not (ROOT / "osm").is_dir(), reason=f"no extracts in {ROOT}; set GEOJEPA_DATA to their folder"
)
all_of_them = pytest.mark.skipif(
    not os.environ.get("GEOJEPA_ALL_EXTRACTS"),
    reason="takes minutes; set GEOJEPA_ALL_EXTRACTS=1 to read all eight extracts",
)


def kmh(value) -> list[float]:
    found = []
    for one in value.split(";"):
        number, _, unit = one.strip().partition(" ")
        if number.removesuffix("mph") != number:
            number, unit = number.removesuffix("mph"), "mph"
        try:
            found.append(float(number) * {"": 1.0, "mph": 1.609344, "km/h": 1.0}[unit])
        except (ValueError, KeyError):
            continue
    return found


def label_counts(found: list[oracle.Thing]) -> dict[str, dict]:
    """Exact labels by tile, as the benchmark words them."""
    signals, speed = defaultdict(int), defaultdict(float)
    bridge, car = {}, {}
    for thing in found:
        tags = thing.tags
        is_signal = (
            tags.get("highway") == "traffic_signals"
            or tags.get("crossing") == "traffic_signals"
            or tags.get("crossing:signals") == "yes"
        )
        is_bridge = tags.get("bridge", "no") != "no" or tags.get("man_made") == "bridge"
        speeds = kmh(tags.get("maxspeed", "")) if "highway" in tags else []
        if not thing.is_entity or not (is_signal or is_bridge or speeds):
            continue
        for tile in thing.tiles():
            if is_signal and thing.kind == "point":
                signals[tile] += 1
            if is_bridge:
                bridge[tile] = 1
            if is_bridge and tags.get("highway") in CARS:
                car[tile] = 1
            if speeds:
                speed[tile] = max(speed[tile], *speeds)
    return {
        "traffic_signals": signals,
        "building_count": oracle.building_counts(found),
        "max_speed": speed,
        "bridge": bridge,
        "car_bridge": car,
    }


@pytest.mark.parametrize(
    "name", [*SMALL, *(pytest.param(name, marks=all_of_them) for name in LARGE)]
)
def test_labels_and_entities_are_those_of_an_independent_count(name, tmp_path):
    path = ROOT / "osm" / f"{name}.osm.pbf"
    corpus = Corpus.open(prepare([path], tmp_path / "c"))
    tiles = list(zip(corpus.tiles.x.tolist(), corpus.tiles.y.tolist(), strict=True))
    found = list(oracle.things(path))
    counts = oracle.entity_counts(found)
    assert set(tiles) == {tile for tile, count in counts.items() if sum(count) >= 5}
    data = corpus.read(np.arange(len(corpus)))
    kinds = np.zeros((len(corpus), 4), dtype=int)
    np.add.at(kinds, (np.repeat(np.arange(len(corpus)), np.diff(data.cu_entities)), data.kind), 1)
    np.testing.assert_array_equal(kinds, [counts[tile] for tile in tiles])
    for task, label in label_counts(found).items():
        absent = np.nan if task == "max_speed" else 0
        expected = np.array([label.get(tile, absent) for tile in tiles])
        np.testing.assert_allclose(corpus.tiles[task], expected, rtol=1e-6, err_msg=task)
    assert corpus.tiles.building_count.sum() > 100
    assert corpus.attribution == "© OpenStreetMap contributors, ODbL 1.0"
    assert_content_is_sound(corpus)


def assert_content_is_sound(corpus):
    data = corpus.read(np.arange(len(corpus)))
    bounds = shapely.bounds(data.geometry)
    assert bounds.min() >= -1e-9
    assert bounds.max() <= 1 + 1e-9
    assert shapely.is_valid(data.geometry[data.kind < 3]).mean() > 0.999
    corners = data.box.reshape(-1, 4, 2).astype(float)
    boxes = shapely.polygons(corners)
    assert shapely.covers(shapely.buffer(boxes, 2e-6, join_style="mitre"), data.geometry).all()
    assert (corners[:, :1, 1] <= corners[..., 1]).all()
    assert np.isfinite(data.box).all()
    assert len(set(corpus.vocabulary)) == len(corpus.vocabulary)
    assert (np.diff(data.cu_tags) > 0).all()


def test_california_has_vectors_and_images_of_the_same_ground(tmp_path):
    folder = ROOT / "california"
    corpus = Corpus.open(
        prepare(
            [folder / "features.parquet"],
            tmp_path / "c",
            footprints=folder / "tiles.parquet",
            imagery=folder / "images",
        )
    )
    tiles = corpus.tiles
    grid = tiles.x >= 0
    assert 100 <= grid.sum() <= 144
    assert 400 <= (~grid).sum() <= 504
    assert tiles.ground_m[~grid].between(150, 160).all()
    assert tiles.image.all()
    assert (tiles.group != "").all()
    assert tiles[["traffic_signals", "max_speed"]].isna().all(axis=None)
    assert tiles[["building_count", "bridge", "car_bridge"]].notna().all(axis=None)
    # the two sizes are never mixed
    assert tiles.loc[corpus.usable, "x"].lt(0).nunique() == 1
    features = pd.read_parquet(folder / "features.parquet", columns=["building"])
    assert 0 < tiles.building_count[grid].sum() <= features.building.notna().sum()
    image = corpus.read([0]).image
    assert image.std() > 5
    assert_content_is_sound(corpus)
