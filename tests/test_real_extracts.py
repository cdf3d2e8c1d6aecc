"""Real extracts, where they are at hand, against counts by another way.

Labels are counted with pyosmium's own handler and shapely alone, in degrees, tile by tile: no
function of the package takes part.
"""

import math
import os
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import numpy as np
import osmium
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
N = 2**16

pytestmark = pytest.mark.skipif(
    not (ROOT / "osm").is_dir(), reason=f"no extracts in {ROOT}; set GEOJEPA_DATA to their folder"
)
all_of_them = pytest.mark.skipif(
    not os.environ.get("GEOJEPA_ALL_EXTRACTS"),
    reason="takes minutes; set GEOJEPA_ALL_EXTRACTS=1 to read all eight extracts",
)


def place(lon, lat) -> tuple[float, float]:
    """Tile column and row, with fractions."""
    y = math.asinh(math.tan(math.radians(lat))) / math.pi
    return (lon + 180) / 360 * N, (1 - y) / 2 * N


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


class Count(osmium.SimpleHandler):
    """Counts of each tile from nodes and ways; buildings by closed ways and their centres."""

    def __init__(self):
        super().__init__()
        self.signals = defaultdict(int)
        self.bridge, self.car = set(), set()
        self.speed = defaultdict(float)
        self.buildings = defaultdict(int)
        self.building_rings = {}
        self.unplaced = 0

    def node(self, n):
        tags = dict(n.tags)
        tile = tuple(math.floor(k) for k in place(n.location.lon, n.location.lat))
        if (
            tags.get("highway") == "traffic_signals"
            or tags.get("crossing") == "traffic_signals"
            or tags.get("crossing:signals") == "yes"
        ):
            self.signals[tile] += 1
        if tags.get("bridge", "no") != "no" or tags.get("man_made") == "bridge":
            self.bridge.add(tile)
        if tags.get("building", "no") != "no":
            self.buildings[tile] += 1
        if "highway" in tags and kmh(tags.get("maxspeed", "")):
            self.speed[tile] = max(self.speed[tile], *kmh(tags["maxspeed"]))

    def way(self, w):
        tags = dict(w.tags)
        is_bridge = tags.get("bridge", "no") != "no" or tags.get("man_made") == "bridge"
        speeds = kmh(tags.get("maxspeed", "")) if "highway" in tags else []
        is_building = tags.get("building", "no") != "no" and tags.get("area") != "no"
        if not (is_bridge or speeds or is_building):
            return
        try:
            line = [place(n.lon, n.lat) for n in w.nodes]
        except osmium.InvalidLocationError:
            return
        if is_building and w.is_closed() and len(line) > 3:
            self.building_rings[w.id] = shapely.Polygon(line)
        for tile in tiles_crossed(line) if is_bridge or speeds else ():
            if is_bridge:
                self.bridge.add(tile)
            if is_bridge and tags.get("highway") in CARS:
                self.car.add(tile)
            if speeds:
                self.speed[tile] = max(self.speed[tile], *speeds)

    def relation(self, r):
        tags = dict(r.tags)
        if tags.get("type") == "multipolygon" and tags.get("building", "no") != "no":
            self.unplaced += 1


def tiles_crossed(line) -> set[tuple[int, int]]:
    """Tiles that any segment meets, by the places where it crosses their borders."""
    found = set()
    for a, b in pairwise(line):
        cuts = {0.0, 1.0}
        for axis in (0, 1):
            low, high = sorted((a[axis], b[axis]))
            for border in range(math.ceil(low), math.floor(high) + 1):
                if b[axis] != a[axis]:
                    cuts.add((border - a[axis]) / (b[axis] - a[axis]))
        steps = sorted(cuts)
        for s, t in pairwise(steps):
            middle = (s + t) / 2
            found.add(tuple(math.floor(a[k] + middle * (b[k] - a[k])) for k in (0, 1)))
    return found


def counted(path) -> tuple[pd.DataFrame, Count]:
    count = Count()
    count.apply_file(str(path), locations=True)
    for ring in count.building_rings.values():
        point = shapely.make_valid(ring).representative_point()
        count.buildings[math.floor(point.x), math.floor(point.y)] += 1
    rows = {
        "traffic_signals": count.signals,
        "building_count": count.buildings,
        "max_speed": count.speed,
        "bridge": dict.fromkeys(count.bridge, 1),
        "car_bridge": dict.fromkeys(count.car, 1),
    }
    return pd.DataFrame(
        {task: pd.Series(values, dtype=float) for task, values in rows.items()}
    ), count


@pytest.mark.parametrize(
    "name", [*SMALL, *(pytest.param(name, marks=all_of_them) for name in LARGE)]
)
def test_labels_are_those_of_an_independent_count(name, tmp_path):
    path = ROOT / "osm" / f"{name}.osm.pbf"
    corpus = Corpus.open(prepare([path], tmp_path / "c"))
    tiles = corpus.tiles.set_index(["x", "y"])
    expected, count = counted(path)
    expected = expected.reindex(tiles.index)
    for task in ("traffic_signals", "bridge", "car_bridge"):
        pd.testing.assert_series_equal(
            tiles[task].astype(float), expected[task].fillna(0), check_names=False
        )
    np.testing.assert_allclose(tiles.max_speed, expected.max_speed, rtol=1e-6)
    # multipolygons apart, of which the count only knows how many there are
    difference = tiles.building_count - expected.building_count.fillna(0)
    assert difference.abs().sum() <= count.unplaced
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
