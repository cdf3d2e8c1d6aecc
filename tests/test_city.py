"""The sample city, counted by a reader of its own."""

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import osmium
import pytest
import rasterio

from geojepa.data.city import CityFiles, build_city, build_world
from geojepa.data.city.plan import QUARTERS, make_plan
from geojepa.data.city.write import write_extract
from geojepa.errors import GeoJEPAError

ZOOM = 16


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> CityFiles:
    return build_city(tmp_path_factory.mktemp("city"), size=6)


def quarters_of(path: Path) -> dict[str, str]:
    with open(path) as file:
        return {row["tile_id"]: row["quarter"] for row in csv.DictReader(file)}


def tile_of(lon: float, lat: float) -> tuple[int, int]:
    n = 2**ZOOM
    y = (1 - np.arcsinh(np.tan(np.radians(lat))) / np.pi) / 2 * n
    return int((lon + 180) / 360 * n), int(y)


def count_tiles(path: Path) -> tuple[dict[tuple[int, int], Counter], Counter]:
    """Tagged entities by tile (a way in the tiles of its vertices), and totals."""
    tiles: dict[tuple[int, int], Counter] = {}
    totals: Counter = Counter()
    where = {}
    for item in osmium.FileProcessor(str(path)):
        tags = {tag.k: tag.v for tag in item.tags}
        if item.is_node():
            where[item.id] = tile_of(item.lon, item.lat)
            touched = {where[item.id]}
            totals["tagged_nodes"] += bool(tags)
        elif item.is_way():
            totals["untagged_ways"] += not tags
            touched = {where[node.ref] for node in item.nodes}
        else:
            totals[f"relation:{tags['type']}"] += 1
            continue
        for tile in touched if tags and "boundary" not in tags else ():
            tile_counts = tiles.setdefault(tile, Counter())
            tile_counts["entities"] += 1
            tile_counts["signals"] += tags.get("highway") == "traffic_signals"
            tile_counts["bridges"] += "bridge" in tags
            tile_counts["highways"] += "highway" in tags and item.is_way()
            tile_counts["maxspeed"] += "maxspeed" in tags
        totals["buildings"] += "building" in tags
        totals["building=yes"] += tags.get("building") == "yes"
        if item.is_way() and "highway" in tags:
            totals["highways"] += 1
            totals["highways with maxspeed"] += "maxspeed" in tags
    return tiles, totals


def test_same_seed_same_bytes_and_another_seed_another_city(small, tmp_path):
    again, other = build_city(tmp_path / "a", size=6), build_city(tmp_path / "b", seed=1, size=6)
    for name in ("extract", "imagery", "quarters"):
        assert getattr(small, name).read_bytes() == getattr(again, name).read_bytes()
    assert small.extract.read_bytes() != other.extract.read_bytes()
    assert small.imagery.read_bytes() != other.imagery.read_bytes()
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == [
        "lilliput.osm.pbf", "lilliput.tif", "lilliput_quarters.csv"]  # fmt: skip


def test_ids_are_sorted_and_nodes_of_ways_exist(small):
    last, kinds, nodes = 0, [], set()
    for item in osmium.FileProcessor(str(small.extract)):
        kind = item.type_str()
        if not kinds or kinds[-1] != kind:
            kinds.append(kind)
            last = 0
        assert item.id > last
        last = item.id
        if item.is_node():
            nodes.add(item.id)
        elif item.is_way():
            assert len(item.nodes) >= 2
            assert all(node.ref in nodes for node in item.nodes)
    assert kinds == ["n", "w", "r"]


def test_every_tile_has_a_quarter_and_entities_stay_inside(small):
    quarters = quarters_of(small.quarters)
    tiles, _ = count_tiles(small.extract)
    assert len(quarters) == 36
    assert len(set(quarters.values())) >= 5
    assert {f"16_{x}_{y}" for x, y in tiles} == set(quarters)


def test_areas_assemble_with_holes(small):
    areas = 0
    holes = 0
    processor = osmium.FileProcessor(str(small.extract)).with_areas()
    for item in processor:
        if item.is_area() and not item.from_way() and "boundary" not in item.tags:
            areas += 1
            holes += sum(1 for ring in item.outer_rings() for _ in item.inner_rings(ring))
    _, totals = count_tiles(small.extract)
    assert areas == totals["relation:multipolygon"] > 0
    assert holes >= areas


def test_picture_covers_the_tiles_exactly(small):
    columns, rows = zip(
        *((int(x), int(y)) for _, x, y in (t.split("_") for t in quarters_of(small.quarters))),
        strict=True,
    )
    step = 2 * np.pi * 6378137 / 2**ZOOM
    with rasterio.open(small.imagery) as picture:
        assert picture.crs.to_epsg() == 3857
        assert (picture.count, picture.dtypes[0]) == (3, "uint8")
        assert (picture.width, picture.height) == (6 * 224, 6 * 224)
        half = 2**ZOOM / 2
        expected = ((min(columns) - half) * step, (half - max(rows) - 1) * step,
                    (max(columns) + 1 - half) * step, (half - min(rows)) * step)  # fmt: skip
        assert np.allclose(picture.bounds, expected, atol=0.01)
        pixels = picture.read()
    assert pixels.std(axis=(1, 2)).min() > 15


def test_picture_shows_the_river_where_the_map_has_it(small):
    """Water is the only thing in the picture with more blue than red by twenty levels."""
    lines = [
        [(node.lon, node.lat) for node in way.nodes]
        for way in osmium.FileProcessor(str(small.extract)).with_locations()
        if way.is_way() and way.tags.get("waterway") == "river"
    ]
    lon, lat = np.radians(np.concatenate(lines)).T
    x, y = 6378137 * lon, 6378137 * np.arcsinh(np.tan(lat))
    with rasterio.open(small.imagery) as picture:
        river = np.array(list(picture.sample(np.stack([x, y], axis=1)))).astype(int)
    assert np.mean(river[:, 2] - river[:, 0] > 15) > 0.75


def test_default_plan_holds_every_quarter_in_whole_tiles():
    plan = make_plan(28, 0)
    counts = Counter(plan.tile_quarters().values())
    assert counts.total() == 784
    assert set(counts) == set(QUARTERS)
    assert min(counts.values()) >= 15


def test_warp_is_inverted():
    plan = make_plan(28, 0)
    st = np.random.default_rng(0).uniform(0.05, 0.95, (200, 2))
    for i, j in [(0, 0), (6, 7), (13, 13), (4, 9)]:
        assert (plan.quarter_at(plan.cell(i, j, st)) == plan.quarters[i, j]).all()


def test_too_small_a_city_is_refused(tmp_path):
    with pytest.raises(GeoJEPAError, match="use 6 or more"):
        build_city(tmp_path, size=5)
    assert not list(tmp_path.iterdir())


def test_default_city_keeps_to_the_rates_of_real_extracts(tmp_path):
    """The frozen city stays near its stated rates, each within the spread of real extracts."""
    plan = make_plan(28, 0)
    write_extract(tmp_path / "city.osm.pbf", build_world(plan), plan.frame)
    tiles, totals = count_tiles(tmp_path / "city.osm.pbf")
    counts = list(tiles.values())
    entities = np.array([c["entities"] for c in counts])
    assert (entities >= 5).sum() >= 0.95 * 784
    assert 38 < entities.mean() < 52
    assert 21 < np.median(entities) < 45
    assert entities.max() < 400
    assert 0.06 < np.mean([c["signals"] > 0 for c in counts]) < 0.15
    assert 0.12 < np.mean([c["bridges"] > 0 for c in counts]) < 0.19
    assert 0.28 < np.mean([c["maxspeed"] > 0 for c in counts]) < 0.53
    assert 0.05 < totals["highways with maxspeed"] / totals["highways"] < 0.12
    assert 0.55 < totals["building=yes"] / totals["buildings"] < 0.8
    assert totals["untagged_ways"] > 0
    assert totals["relation:route"] > 3
