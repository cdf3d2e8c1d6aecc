"""What a tile is, in one word: from a table of the truth, or from the areas mapped in it."""

from pathlib import Path

import numpy as np
import pandas as pd
import shapely

from geojepa.data.corpus import Corpus, TileData
from geojepa.data.meaning import Says, says
from geojepa.figures.maps import with_tags
from geojepa.figures.style import BLACK, BLUE, GREEN, GREY, ORANGE, PALETTE, PINK, RED, SKY, YELLOW

CLASSES = {
    "homes": {"landuse": "residential"},
    "work": {
        "landuse": "commercial construction depot garages industrial institutional landfill "
        "military port quarry railway retail"
    },
    "farmland": {
        "landuse": "allotments animal_keeping aquaculture farm farmland farmyard "
        "greenhouse_horticulture meadow orchard plant_nursery vineyard"
    },
    "woodland": {"landuse": "forest", "natural": "wood"},
    "parkland": {
        "landuse": "cemetery grass greenfield recreation_ground religious village_green "
        "winter_sports",
        "leisure": "dog_park garden golf_course park pitch playground sports_centre stadium track",
    },
    "wild": {
        "natural": "bare_rock beach fell glacier grassland heath mud rock sand scree scrub "
        "shingle wetland"
    },
    "water": {"landuse": "basin reservoir salt_pond", "natural": "bay water"},
}
COLOURS = {
    "homes": ORANGE,
    "work": RED,
    "farmland": YELLOW,
    "woodland": GREEN,
    "parkland": PINK,
    "wild": SKY,
    "water": BLUE,
    "built-up": BLACK,
    "open": GREY,
}
QUARTER_COLOURS = {
    "residential": ORANGE,
    "industrial": RED,
    "commercial": PINK,
    "campus": SKY,
    "old town": BLACK,
    "park": GREEN,
    "farmland": YELLOW,
}
# of single entities, paler than a class's: a class or a key; later ones rule
ENTITY_COLOURS = {
    "homes": "#F2E3C8",
    "work": "#EBCDBF",
    "farmland": "#F4EFB8",
    "wild": "#D5E5D0",
    "parkland": "#CDE8BF",
    "woodland": "#8DBF9B",
    "water": "#8FBBD9",
    "waterway": "#4F94C4",
    "building": "#8A8178",
    "railway": "#4A4A4A",
    "highway": "#D07A2E",
}
# a class must cover this share of a tile to name it
LEAST_SHARE = 0.1
# without such a class, a tile of this many buildings is built-up
LEAST_BUILDINGS = 10


def characters(corpus: Corpus, rows: np.ndarray, quarters: str | Path = "") -> np.ndarray:
    """Say what each tile is: (T,) names.

    Args:
        corpus: the tiles.
        rows: T rows.
        quarters: CSV of tile_id and quarter, the truth where a place is made. If there is no such
            file, or it lacks one of the tiles, the word comes from `mapped_characters`.
    """
    if quarters and Path(quarters).is_file():
        known = pd.read_csv(quarters, dtype=str).set_index("tile_id")["quarter"]
        found = corpus.tiles["tile_id"].iloc[rows].map(known)
        if found.notna().all():
            return found.str.replace("_", " ").to_numpy(dtype=object)
    return mapped_characters(corpus, rows)


def mapped_characters(corpus: Corpus, rows: np.ndarray) -> np.ndarray:
    """Say what each tile is from its mapped areas: (T,) names, keys of `COLOURS`.

    The class of `CLASSES` whose clipped areas (landuse, leisure, natural) sum to most, if to a
    tenth of the tile; else "built-up" with ten buildings or more, else "open". Areas of one class
    that overlap count twice.
    """
    data = corpus.read(rows)
    tile = np.repeat(np.arange(len(rows)), np.diff(data.cu_entities))
    area = shapely.area(data.geometry)
    shares = np.zeros((len(rows), len(CLASSES)))
    for column, name in enumerate(CLASSES):
        pairs = meanings(name)
        has = with_tags(data, np.array([pair in pairs for pair in corpus.vocabulary], dtype=bool))
        shares[:, column] = np.bincount(tile[has], area[has], minlength=len(rows))
    building = np.array(
        [bool(says(key, value) & Says.BUILDING) for key, value in corpus.vocabulary], dtype=bool
    )
    buildings = np.bincount(tile[with_tags(data, building)], minlength=len(rows))
    largest = np.array(list(CLASSES), dtype=object)[shares.argmax(axis=1)]
    rest = np.where(buildings >= LEAST_BUILDINGS, "built-up", "open")
    return np.where(shares.max(axis=1) >= LEAST_SHARE, largest, rest).astype(object)


def entity_colours(data: TileData) -> np.ndarray:
    """A colour for each entity, (N,), by what it is: the later of `ENTITY_COLOURS` rules."""
    colours = np.full(len(data.kind), "#9A9A9A", dtype=object)
    for name, colour in ENTITY_COLOURS.items():
        pairs = meanings(name)
        wanted = [(key, value) in pairs or key == name for key, value in data.corpus.vocabulary]
        colours[with_tags(data, np.array(wanted, dtype=bool))] = colour
    return colours


def meanings(name: str) -> set[tuple[str, str]]:
    """The tags of a class; none for a name that is no class."""
    return {(key, v) for key, values in CLASSES.get(name, {}).items() for v in values.split()}


def colours_of(names: np.ndarray) -> dict[str, str]:
    """A colour for each name, the most frequent name first."""
    counts = pd.Series(names).value_counts()
    ordered = sorted(counts.index, key=lambda name: (-counts[name], name))
    for known in (COLOURS, QUARTER_COLOURS):
        if set(ordered) <= set(known):
            return {name: known[name] for name in ordered}
    return {name: PALETTE[i % len(PALETTE)] for i, name in enumerate(ordered)}
