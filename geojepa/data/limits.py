"""How many entities a tile has, how large a feature may be, and how much is cut at once.

Memory stays bounded: a line of text in an extract may ask for a world of tiles, two nodes for a row
of 65,536 of them, four for all four billion.
"""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import shapely

from geojepa.data.features import Features
from geojepa.data.grid import TILES, to_units

# entities of a tile that training and benchmark take; a corpus holds no tile with fewer
MIN_ENTITIES, MAX_ENTITIES = 5, 1250
# The largest lakes cover half a million tiles, the longest railways run through 30,000. A step from
# node to node of 22 degrees is an error, or crosses the antimeridian and is drawn the long way.
MAX_STEP, MAX_LENGTH, MAX_AREA = TILES // 16, TILES, 1 << 20
# v of what lies at the southern and northern edge of the map, or was moved there
SOUTH, NORTH = to_units(np.array([[0.0, -90.0], [0.0, 90.0]]))[:, 1].tolist()
BEYOND = "features beyond the map"
LONG_STEP = f"features with a step over {MAX_STEP:,} tiles"
TOO_LARGE = f"features over {MAX_LENGTH:,} tiles in length or {MAX_AREA:,} in area"
# tiles that the features of one lot may meet, if they are several
LOT_TILES = 1 << 17


def lots_within_limits(features: Features) -> Iterator[Features]:
    """Features in lots that are cut one at a time.

    Those that are too large, or reach beyond the map, are left out and counted.
    """
    parts, owner = features.parts, features.owner
    bounds = shapely.bounds(parts)
    is_outside = (bounds[:, 0] < 0) | (bounds[:, 2] > TILES)
    is_outside |= (bounds[:, 1] <= SOUTH) | (bounds[:, 3] >= NORTH)
    is_beyond = np.zeros(len(features), dtype=bool)
    is_beyond[owner[is_outside]] = True
    extent = bounds[:, 2:] - bounds[:, :2]
    # few features leave their tile and the next
    rows = np.flatnonzero((extent > 1).any(axis=1))
    length, area = np.zeros((2, len(features)))
    np.add.at(length, owner[rows], shapely.length(parts[rows]))
    np.add.at(area, owner[rows], shapely.area(parts[rows]))
    is_large = (length > MAX_LENGTH) | (area > MAX_AREA)
    has_step = np.zeros(len(features), dtype=bool)
    wide = np.flatnonzero((extent > MAX_STEP).any(axis=1))
    if len(wide):
        coords, part = shapely.get_coordinates(parts[wide], return_index=True)
        is_long = (np.abs(np.diff(coords, axis=0)) > MAX_STEP).any(axis=1)
        has_step[owner[wide[part[1:][is_long & (part[1:] == part[:-1])]]]] = True
    features.skipped[BEYOND] += int(is_beyond.sum())
    features.skipped[LONG_STEP] += int((has_step & ~is_beyond).sum())
    features.skipped[TOO_LARGE] += int((is_large & ~has_step & ~is_beyond).sum())
    kept = ~(is_large | has_step | is_beyond)
    lot = np.cumsum(np.where(kept, length + area, 0)) // LOT_TILES
    if kept.all() and lot[-1:].sum() == 0:
        yield features
        return
    rows = np.flatnonzero(kept)
    begins = np.flatnonzero(np.diff(lot[rows])) + 1
    for first, after in pairwise([0, *begins.tolist(), len(rows)]):
        yield features.take(rows[first:after])
