"""Splits against brute force on tile columns and rows."""

import geopandas
import numpy as np
import pandas as pd
import pytest
import shapely

from geojepa.data.splits import (
    blocks,
    cities,
    folds,
    split,
    split_by_place,
    split_named,
    usable,
)
from geojepa.errors import GeoJEPAError


def footprint(x, y):
    west, east = np.array([x, x + 1]) / 2**16 * 360 - 180
    north, south = np.degrees(np.arctan(np.sinh(np.pi * (1 - 2 * np.array([y, y + 1]) / 2**16))))
    return shapely.box(west, south, east, north)


def city(place="a", width=28, height=28, x=20000, y=24000, seed=0):
    """Tiles of a made rectangle with random entity counts, some of them out of bounds."""
    draw = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(range(x, x + width), range(y, y + height)), -1).reshape(-1, 2)
    frame = {
        "tile_id": [f"16_{a}_{b}" for a, b in grid],
        "place": place,
        "group": "",
        "x": grid[:, 0],
        "y": grid[:, 1],
        "ground_m": 500.0,
        "entities": draw.choice([2, 5, 60, 1250, 1251], len(grid), p=[0.05, 0.1, 0.75, 0.05, 0.05]),
    }
    return geopandas.GeoDataFrame(frame, geometry=[footprint(*t) for t in grid], crs=4326)


def together(*parts):
    return pd.concat(parts, ignore_index=True)


def closest(tiles, rows, others):
    """Chebyshev distance in tiles from each of rows to the closest of others."""
    xy = tiles[["x", "y"]].to_numpy()
    return np.abs(xy[rows][:, None] - xy[others][None]).max(-1).min(1)


def zoom(tiles):
    return {name.split("/")[1].split("_")[0] for name in blocks(tiles)}


def assert_apart(tiles, one):
    assert closest(tiles, one.train, np.r_[one.validation, one.test]).min() > 1
    assert closest(tiles, one.validation, one.test).min() > 1


def test_folds_partition_the_usable_tiles_in_balance():
    tiles = city()
    fold, block = folds(tiles), blocks(tiles)
    assert ((fold >= 0) == usable(tiles)).all()
    assert ((tiles.entities >= 5) & (tiles.entities <= 1250) == usable(tiles)).all()
    sizes = np.bincount(fold[fold >= 0], minlength=5)
    assert sizes.max() - sizes.min() <= 16
    for name in np.unique(block):
        assert len(np.unique(fold[(block == name) & usable(tiles)])) <= 1


@pytest.mark.parametrize("fold", range(5))
def test_no_tile_of_one_part_touches_another(fold):
    tiles = city()
    one, dealt = split(tiles, fold), folds(tiles)
    assert_apart(tiles, one)
    assert (one.test == np.flatnonzero(dealt == fold)).all()
    assert (dealt[one.validation] == (fold + 1) % 5).all()
    parts = np.concatenate([one.train, one.validation, one.test, one.left_out])
    assert (np.sort(parts) == np.flatnonzero(usable(tiles))).all()
    # nothing is left out without a reason
    held = np.r_[one.validation, one.test]
    assert (closest(tiles, one.left_out, held) == 1).all()


def test_every_usable_tile_is_tested_once():
    tiles = city()
    tested = np.concatenate([split(tiles, k).test for k in range(5)])
    assert (np.sort(tested) == np.flatnonzero(usable(tiles))).all()


def test_blocks_take_the_coarsest_zoom_that_serves():
    # 28 x 28 tiles from a multiple of 16 on: 4 blocks of zoom 12, 16 of zoom 13
    aligned = city(x=20000, y=24000)
    aligned["entities"] = 60
    assert zoom(aligned) == {"13"}
    assert zoom(city(width=96, height=64, x=19968, y=23936)) == {"12"}
    assert zoom(city(width=8, height=8)) == {"14"}
    heavy = city(width=32, height=32, x=19968, y=23936)
    # one zoom-13 block holds 64 of 79 usable tiles, each of the others one
    in_first = (heavy.x < 19976) & (heavy.y < 23944)
    heavy["entities"] = np.where(in_first | ((heavy.x % 8 == 0) & (heavy.y % 8 == 0)), 60, 1)
    assert zoom(heavy) == {"14"}


def test_groups_replace_blocks_and_stay_whole():
    tiles = city(width=12, height=12)
    tiles["group"] = [f"g{i % 7}" for i in range(len(tiles))]
    assert set(blocks(tiles)) == {f"a/g{i}" for i in range(7)}
    fold = folds(tiles)
    for group, rows in tiles[usable(tiles)].groupby("group").groups.items():
        assert len(set(fold[rows])) == 1, group


def test_row_order_does_not_matter():
    tiles = city()
    order = np.random.default_rng(1).permutation(len(tiles))
    mixed = tiles.iloc[order].reset_index(drop=True)
    assert (folds(mixed) == folds(tiles)[order]).all()
    assert split(mixed, 2).hash == split(tiles, 2).hash
    assert split(tiles, 2).hash != split(tiles, 3).hash


def test_each_place_is_dealt_out_alone():
    one, two = city("one"), city("two", x=30000, seed=1)
    both = together(one, two)
    assert (folds(both)[: len(one)] == folds(one)).all()
    per_fold = np.bincount(folds(both)[len(one) :][usable(two)], minlength=5)
    assert per_fold.max() - per_fold.min() <= 16


def test_a_city_is_left_out_whole():
    parts = (city("baltimore_md"), city("reisterstown_md", x=20041), city("malta", x=20069))
    tiles = together(*parts, city("nassau", x=40000))
    one = split_by_place(tiles, "baltimore_md")
    assert one.hash == split_by_place(tiles, "reisterstown_md").hash
    assert set(cities(tiles)[one.test]) == {"baltimore"}
    assert (one.test == np.flatnonzero(usable(tiles) & (cities(tiles) == "baltimore"))).all()
    assert set(tiles.place[one.train]) == set(tiles.place[one.validation]) == {"malta", "nassau"}
    assert_apart(tiles, one)
    # malta begins at the next column, so its edge is left out
    assert (closest(tiles, one.left_out, np.r_[one.test, one.validation]) == 1).all()


def test_polygons_off_the_grid_are_buffered_where_they_meet():
    tiles = city(width=24, height=24)
    # the grid moved by a third of a tile, with gaps of a thousandth of a side: no longer tiles
    shift = footprint(20000, 24000).bounds
    dx, dy = (shift[2] - shift[0]) / 3, (shift[3] - shift[1]) / 3
    moved = tiles.geometry.translate(dx, dy).scale(0.999, 0.999)
    true = tiles.copy()
    tiles = tiles.set_geometry(moved).assign(x=-1, y=-1)
    assert zoom(tiles) == {"14"}
    for fold in range(5):
        assert_apart(true, split(tiles, fold))


def test_a_split_is_made_again_from_its_name():
    tiles = together(city("one"), city("two", x=30000))
    for one in (split(tiles, 3), split_by_place(tiles, "two")):
        assert split_named(tiles, one.name).hash == one.hash == one.describe()["hash"]


def test_errors_say_what_to_do():
    tiles = city()
    with pytest.raises(GeoJEPAError, match="folds 0 to 4"):
        split(tiles, 5)
    with pytest.raises(GeoJEPAError, match="no train tiles"):
        split_by_place(tiles, "a")
    with pytest.raises(GeoJEPAError, match="no test tiles"):
        split_by_place(tiles, "atlantis")
    with pytest.raises(GeoJEPAError, match="'fold 0 of 5'"):
        split_named(tiles, "folds 1")
