"""Tags whose value is a number, read as one in SI units, so that 50 and 30 mph are comparable."""

import re
from collections.abc import Sequence

import numpy as np

from geojepa.data.meaning import speed_kmh

FOOT, INCH = 0.3048, 0.0254
# keys read as numbers; a value counts by its logarithm
KEYS = ("maxspeed", "lanes", "height", "building:levels", "width")
NUMBERS_DIM = 2 * len(KEYS)
_METRES = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(m|ft|feet|')?\s*$", re.IGNORECASE)
_FEET_AND_INCHES = re.compile(r"\s*(\d+)\s*'\s*(\d+(?:\.\d+)?)\s*\"\s*$")
_COUNT = re.compile(r"\s*(\d{1,3}(?:\.\d+)?)\s*$")


def number_of(key: str, value: str) -> float:
    """The number in a tag of one of `KEYS`: km/h, metres or a count; NaN where it cannot be read.

    >>> number_of("height", "30 ft")
    9.144
    """
    if key == "maxspeed":
        return speed_kmh(value)
    if key in ("lanes", "building:levels"):
        found = _COUNT.match(value)
        return float(found[1]) if found else np.nan
    if found := _FEET_AND_INCHES.match(value):
        return int(found[1]) * FOOT + float(found[2]) * INCH
    if found := _METRES.match(value):
        return float(found[1]) * (FOOT if found[2] and found[2].lower() != "m" else 1.0)
    return np.nan


def tag_numbers(vocabulary: Sequence[tuple[str, str]]) -> tuple[np.ndarray, np.ndarray]:
    """For each tag of a vocabulary: the place of its key in `KEYS`, -1 without a number; log1p."""
    place = np.full(len(vocabulary), -1, dtype=np.int64)
    value = np.zeros(len(vocabulary), dtype=np.float32)
    for row, (key, text) in enumerate(vocabulary):
        if key in KEYS and np.isfinite(number := number_of(key, text)):
            place[row], value[row] = KEYS.index(key), np.log1p(number)
    return place, value


def entity_numbers(
    place: np.ndarray, value: np.ndarray, tag_ids: np.ndarray, cu_tags: np.ndarray
) -> np.ndarray:
    """(N, NUMBERS_DIM) float32: for each key, whether an entity has its number, and the number.

    Args:
        place, value: of `tag_numbers`.
        tag_ids: (K,) the entities' tags, as places in the vocabulary.
        cu_tags: (N + 1,) where each entity's tags start.
    """
    count = np.diff(cu_tags)
    owner = np.repeat(np.arange(len(count)), count)
    read = np.flatnonzero(place[tag_ids] >= 0)
    out = np.zeros((len(count), len(KEYS), 2), dtype=np.float32)
    which = owner[read], place[tag_ids[read]]
    out[(*which, 0)] = 1.0
    out[(*which, 1)] = value[tag_ids[read]]
    return out.reshape(len(count), NUMBERS_DIM)
