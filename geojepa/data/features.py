"""Whole features of a place, as every reader gives them, some thousands at a time."""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import shapely

from geojepa.data.meaning import PAPER, Says
from geojepa.data.vocabulary import Tagging

POINT, LINE, POLYGON, GROUP = range(4)
KINDS = ("point", "line", "polygon", "group")
# what is skipped: an area that encloses nothing
FLAT = "shapes without an extent"
ELEMENTS = ("node", "way", "relation")
# an element and its id in one number, in the order of ELEMENTS
_ELEMENT_STEP = 1 << 60


@dataclass
class Features:
    """n features, in an order that their ids alone decide.

    Attributes:
        key: (n,) int64, element and id of OSM features; zeros for a table.
        name: (n,) strings, such as "way/12".
        kind: (n,) uint8, POINT, LINE, POLYGON or GROUP.
        tags: what their tags say.
        parts: primitive geometries, in tile units; owner: the feature of each, ascending.
        evidence: (n,) uint8, masked views from which a feature vanishes for another's sake.
        repeated: (n,) bool, buildings that a multipolygon counts already.
        skipped: what was left out, and how often.
    """

    key: np.ndarray
    name: pa.Array
    kind: np.ndarray
    tags: Tagging
    parts: np.ndarray
    owner: np.ndarray
    evidence: np.ndarray
    repeated: np.ndarray
    skipped: Counter[str] = field(default_factory=Counter)

    def __len__(self) -> int:
        return len(self.kind)

    @classmethod
    def of(
        cls,
        key: np.ndarray,
        name: pa.Array,
        kind: np.ndarray,
        tags: Tagging,
        parts: np.ndarray,
        owner: np.ndarray,
        skipped: Counter[str],
    ) -> "Features":
        """Features that stand for themselves alone."""
        none = np.zeros(len(kind), dtype=np.uint8)
        return cls(key, name, kind, tags, parts, owner, none, none.astype(bool), skipped)

    @property
    def is_entity(self) -> np.ndarray:
        """(n,) bool; the others serve rule `paper` alone, which knows no boundaries."""
        return is_entity(self.tags, self.kind)

    def take(self, rows: np.ndarray) -> "Features":
        """Some of the features, in ascending order."""
        number = np.full(len(self), -1)
        number[rows] = np.arange(len(rows))
        kept = number[self.owner] >= 0
        return Features(
            self.key[rows],
            self.name.take(pa.array(rows)),
            self.kind[rows],
            self.tags.take(rows),
            self.parts[kept],
            number[self.owner[kept]],
            self.evidence[rows],
            self.repeated[rows],
            self.skipped,
        )


def keys_of(element: int | np.ndarray, ids: np.ndarray) -> np.ndarray:
    """(n,) keys of OSM objects; `element` is a row of ELEMENTS."""
    return ids + np.int64(element) * _ELEMENT_STEP


def names_of(element: int, ids: np.ndarray) -> pa.Array:
    """(n,) names such as "way/12"."""
    prefix = pa.scalar(ELEMENTS[element])
    return pc.binary_join_element_wise(prefix, pa.array(ids).cast(pa.string()), "/")


def is_entity(
    tags: Tagging, kind: np.ndarray, tells: Says = Says.TELLS, main: Says = Says.MAIN
) -> np.ndarray:
    """(n,) whether cleaned tags make an entity of this kind; see `meaning.LEFT` for masked views.

    A boundary that is not a point is none unless another key describes it as well; `type` alone
    says only how a relation's area is built.
    """
    return tags.say(tells) & ((kind == POINT) | ~tags.say(Says.BOUNDARY) | tags.say(main))


def is_wanted(tags: Tagging, kind: np.ndarray) -> np.ndarray:
    """(n,) whether a node or way is an entity, or counts under rule `paper`."""
    return is_entity(tags, kind) | tags.say(PAPER)


def is_area(tags: Tagging) -> np.ndarray:
    """(n,) whether closed ways with these tags are areas; see `keys.is_area`."""
    return tags.say(Says.AREA_YES) | (tags.say(Says.AREA) & ~tags.say(Says.AREA_NO))


def polygons(
    coords: np.ndarray, line: np.ndarray, skipped: Counter[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Valid polygons of closed lines: those that cross themselves are repaired, and counted.

    Args:
        coords: (m, 2) of all lines; line: (m,) which line, ascending from 0 without a gap.
        skipped: takes the counts.

    Returns:
        Polygons, and the line that each comes from.
    """
    if not len(coords):
        return np.empty(0, dtype=object), np.empty(0, dtype=np.int64)
    whole = shapely.polygons(shapely.linearrings(coords, indices=line))
    return repaired(whole, np.arange(len(whole)), skipped)


def primitive_parts(geometry: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The points, lines and polygons of geometries, and which geometry each is of.

    Collections of collections are taken apart, too; what is missing has no part.
    """
    parts, owner = shapely.get_parts(geometry, return_index=True)
    while (shapely.get_type_id(parts) > 3).any():
        parts, index = shapely.get_parts(parts, return_index=True)
        owner = owner[index]
    return parts, owner


def repaired(
    parts: np.ndarray, owner: np.ndarray, skipped: Counter[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Self-crossing polygons made valid; what of them has no area goes, and is counted."""
    broken = ~shapely.is_valid(parts)
    if not broken.any():
        return parts, owner
    whole = shapely.make_valid(parts[broken], method="structure", keep_collapsed=False)
    fixed, index = primitive_parts(whole)
    has_area = shapely.area(fixed) > 0
    mended = index[has_area]
    skipped["polygons repaired"] += len(np.unique(mended))
    skipped[FLAT] += int(broken.sum()) - len(np.unique(mended))
    parts = np.concatenate([parts[~broken], fixed[has_area]])
    owner = np.concatenate([owner[~broken], owner[broken][mended]])
    order = np.argsort(owner, kind="stable")
    return parts[order], owner[order]
