"""Splits by place: blocked folds and leave-one-city-out, parts one tile apart."""

import hashlib
from dataclasses import dataclass

import geopandas
import numpy as np
import shapely

from geojepa.data.grid import TILES, to_units
from geojepa.data.limits import MAX_ENTITIES, MIN_ENTITIES
from geojepa.errors import GeoJEPAError

FOLDS = 5
# extracts of one city, thirteen tiles apart
CITIES = {"baltimore_md": "baltimore", "reisterstown_md": "baltimore"}


@dataclass(frozen=True, eq=False)
class Split:
    """Row numbers of a corpus by part; a tile is in one part at most.

    Attributes:
        name: "fold 0 of 5", "place malta" or "screen 0 of 5"; `split_named` makes it again.
        train, validation, test: sorted row numbers, int64.
        left_out: rows dropped because they lie within one tile of another part.
        hash: identifies the tiles of each part, whatever the order of rows.
    """

    name: str
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    left_out: np.ndarray
    hash: str

    def describe(self) -> dict[str, str | int]:
        """Return what a run's config records of the split that it was trained on."""
        parts = ("train", "validation", "test", "left_out")
        sizes = {part: len(getattr(self, part)) for part in parts}
        return {"name": self.name, "hash": self.hash, **sizes}


def usable(tiles: geopandas.GeoDataFrame) -> np.ndarray:
    """Return which tiles training and benchmark take: (T,) bool.

    They have 5 to 1,250 entities and the most common kind of footprint, for tables never mix
    footprints of different size: grid tiles are one kind, others go by their side to two digits.
    """
    fits = tiles["entities"].between(MIN_ENTITIES, MAX_ENTITIES).to_numpy()
    side = np.array([float(f"{metres:.1e}") for metres in tiles["ground_m"]])
    side[tiles["x"].to_numpy() >= 0] = 0.0
    kinds, counts = np.unique(side[fits], return_counts=True)
    return fits & (side == kinds[counts.argmax()]) if len(kinds) else fits


def tile_keys(tiles: geopandas.GeoDataFrame) -> np.ndarray:
    """Name each tile across corpora: its id, with its place where it is no grid tile."""
    ids = tiles["tile_id"].astype(str)
    return np.where(tiles["x"] >= 0, ids, tiles["place"].astype(str) + "/" + ids).astype(object)


def cities(tiles: geopandas.GeoDataFrame) -> np.ndarray:
    """Return the city of each tile: its place, but one name for extracts of the same city."""
    return tiles["place"].astype(str).replace(CITIES).to_numpy(object)


def blocks(tiles: geopandas.GeoDataFrame) -> np.ndarray:
    """Name the block of each tile: (T,) strings, "place/zoom_x_y" or "place/group".

    Blocks are tiles of the coarsest zoom of 12, 13 and 14 at which a place has at least 15
    blocks and none holds over 20 % of its usable tiles, else of zoom 14. A place with footprints
    other than grid tiles takes the zoom-14 block of the centroid. A group replaces the block.
    """
    names = np.empty(len(tiles), object)
    place = tiles["place"].astype(str).to_numpy(object)
    group = tiles["group"].fillna("").astype(str).to_numpy(object)
    is_usable = usable(tiles)
    grid = tiles["x"].to_numpy() >= 0
    column, row = _zoom_16(tiles)
    for name in np.unique(place):
        here = np.flatnonzero(place == name)
        for zoom in (12, 13, 14) if grid[here].all() else (14,):
            block = _pack(column[here] >> (16 - zoom), row[here] >> (16 - zoom))
            sizes = np.unique(block[is_usable[here]], return_counts=True)[1]
            if len(sizes) >= 15 and sizes.max() <= 0.2 * sizes.sum():
                break
        for i in here:
            cell = f"{zoom}_{column[i] >> (16 - zoom)}_{row[i] >> (16 - zoom)}"
            names[i] = f"{name}/{group[i] or cell}"
    return names


def folds(tiles: geopandas.GeoDataFrame, n: int = FOLDS) -> np.ndarray:
    """Deal whole blocks out to n folds of about as many tiles each, place by place.

    Returns:
        (T,) int64, the fold of each tile; -1 where the tile is not usable.
    """
    fold = np.full(len(tiles), -1, np.int64)
    chosen = np.flatnonzero(usable(tiles))
    place = tiles["place"].astype(str).to_numpy(object)[chosen]
    block = blocks(tiles)[chosen]
    total = np.zeros(n, np.int64)
    for name in np.unique(place):
        load = np.zeros(n, np.int64)
        labels, of, sizes = np.unique(block[place == name], return_inverse=True, return_counts=True)
        # equal blocks in a hashed order: in map order neighbours would never share a fold
        order = sorted(range(len(labels)), key=lambda b: (-sizes[b], _digest([str(labels[b])])))
        dealt = np.empty(len(labels), np.int64)
        for b in order:
            dealt[b] = np.lexsort((total, load))[0]
            load[dealt[b]] += sizes[b]
            total[dealt[b]] += sizes[b]
        fold[chosen[place == name]] = dealt[of]
    return fold


def split(tiles: geopandas.GeoDataFrame, fold: int, n: int = FOLDS) -> Split:
    """Test on fold `fold`, validate on the next, train on the rest, less the buffers.

    Raises:
        GeoJEPAError: no such fold, or too few blocks to fill it.
    """
    if not 0 <= fold < n:
        raise GeoJEPAError(f"fold {fold}: there are folds 0 to {n - 1}; choose one of them")
    of = folds(tiles, n)
    return _buffered(tiles, f"fold {fold} of {n}", of == fold, of == (fold + 1) % n, of >= 0)


def split_by_place(tiles: geopandas.GeoDataFrame, place: str, n: int = FOLDS) -> Split:
    """Test on the city of `place`, validate on fold 0 of the other cities, train on their rest.

    Raises:
        GeoJEPAError: no tile of the place, or no other city to train on.
    """
    city = CITIES.get(place, place)
    of = folds(tiles, n)
    away = cities(tiles) != city
    return _buffered(tiles, f"place {city}", (of >= 0) & ~away, (of == 0) & away, of >= 0)


def screen(tiles: geopandas.GeoDataFrame, fold: int, n: int = FOLDS) -> Split:
    """Test on the validation tiles of a fold, for choices between its runs; leave its own out.

    What is chosen on this split has seen no test tile of `split(tiles, fold, n)`.

    Raises:
        GeoJEPAError: as `split`.
    """
    held = split(tiles, fold, n)
    of = folds(tiles, n)
    is_test = np.zeros(len(tiles), bool)
    is_test[held.validation] = True
    is_dealt = (of >= 0) & (of != fold) & (of != (fold + 1) % n)
    return _buffered(tiles, f"screen {fold} of {n}", is_test, of == (fold + 2) % n, is_dealt)


def split_named(tiles: geopandas.GeoDataFrame, name: str) -> Split:
    """Make the split again whose `Split.name` was recorded.

    Raises:
        GeoJEPAError: the name is none of a split.
    """
    match name.split():
        case ["fold", fold, "of", n] if fold.isdigit() and n.isdigit():
            return split(tiles, int(fold), int(n))
        case ["screen", fold, "of", n] if fold.isdigit() and n.isdigit():
            return screen(tiles, int(fold), int(n))
        case ["place", *place] if place:
            return split_by_place(tiles, " ".join(place))
    raise GeoJEPAError(f"split '{name}': write 'fold 0 of {FOLDS}' or 'place NAME'")


def is_near(tiles: geopandas.GeoDataFrame, rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return whether each footprint of `rows` meets one of `others`, within 1 % of its side.

    On the grid that makes the eight neighbours. Shapes: rows (R,), others (O,), result (R,) bool.
    """
    plane = tiles.geometry.iloc[np.concatenate([rows, others])].to_crs("EPSG:3857").to_numpy()
    near = np.zeros(len(rows), bool)
    here, there = plane[: len(rows)], plane[len(rows) :]
    margin = 0.01 * np.sqrt(shapely.area(here))
    near[shapely.STRtree(there).query(here, "dwithin", margin)[0]] = True
    return near


def _buffered(
    tiles: geopandas.GeoDataFrame,
    name: str,
    is_test: np.ndarray,
    is_validation: np.ndarray,
    is_dealt: np.ndarray,
) -> Split:
    test, validation = np.flatnonzero(is_test), np.flatnonzero(is_validation)
    train = np.flatnonzero(is_dealt & ~is_test & ~is_validation)
    beside_test = is_near(tiles, validation, test)
    kept = validation[~beside_test]
    beside_held = is_near(tiles, train, np.concatenate([test, kept]))
    left_out = np.sort(np.concatenate([validation[beside_test], train[beside_held]]))
    parts = {"train": train[~beside_held], "validation": kept, "test": test}
    for part, rows in parts.items():
        if not len(rows):
            raise GeoJEPAError(
                f"{name}: no {part} tiles are left; use fewer folds or a corpus of more blocks"
            )
    keys = tile_keys(tiles)
    digest = _digest([_digest(sorted(keys[rows].tolist())) for rows in parts.values()])
    return Split(name, left_out=left_out, hash=digest, **parts)


def _zoom_16(tiles: geopandas.GeoDataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Column and row of the zoom-16 tile that is, or that holds the centroid of, each footprint."""
    column, row = (tiles[axis].to_numpy(np.int64, copy=True) for axis in "xy")
    odd = column < 0
    centre = shapely.centroid(tiles.geometry.to_numpy()[odd])
    u, v = to_units(shapely.get_coordinates(centre)).T
    column[odd], row[odd] = np.floor(u), np.floor(TILES - v)
    return column, row


def _pack(column: np.ndarray, row: np.ndarray) -> np.ndarray:
    return (column << 16) | row


def _digest(texts: list[str]) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]
