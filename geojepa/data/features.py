"""Whole features of a place, as every reader gives them."""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import shapely

from geojepa.data.keys import MAIN_KEYS

POINT, LINE, POLYGON, GROUP = range(4)
KINDS = ("point", "line", "polygon", "group")
AREA_RELATIONS = ("multipolygon", "boundary")


@dataclass
class Features:
    """Tagged features of one place, in EPSG:4326, in an order that their ids alone decide.

    `owner` numbers the feature that each primitive part (point, line or polygon) belongs to;
    `members` maps a relation's row to the ids of its members; `is_table` is true of a source
    that may not carry every key.
    """

    feature_id: list[str]
    kind: np.ndarray
    tags: list[dict[str, str]]
    parts: np.ndarray
    owner: np.ndarray
    members: dict[int, list[str]] = field(default_factory=dict)
    skipped: Counter[str] = field(default_factory=Counter)
    is_table: bool = False

    def __len__(self) -> int:
        return len(self.feature_id)


def is_entity(tags: dict[str, str], kind: int) -> bool:
    """Whether cleaned tags make an entity of this kind.

    A boundary that is not a point is none unless another key describes it as well
    (METHOD.md, section 2); of a relation, `type` alone says only how it is built.
    """
    if kind == POINT:
        return bool(tags)
    is_boundary = "boundary" in tags or tags.get("type") == "boundary"
    if is_boundary and MAIN_KEYS.isdisjoint(tags.keys() - {"place"}):
        return False
    if kind == GROUP and tags.keys() == {"type"}:
        return tags["type"] not in AREA_RELATIONS
    return bool(tags)


def repaired(features: Features) -> Features:
    """Self-crossing polygons made valid; what of them has no area goes, and is counted."""
    parts, owner = features.parts, features.owner
    broken = ~shapely.is_valid(parts)
    if broken.any():
        whole = shapely.make_valid(parts[broken], method="structure", keep_collapsed=False)
        fixed, index = shapely.get_parts(whole, return_index=True)
        fixed, deeper = shapely.get_parts(fixed, return_index=True)
        has_area = shapely.area(fixed) > 0
        mended = index[deeper][has_area]
        parts = np.concatenate([parts[~broken], fixed[has_area]])
        owner = np.concatenate([owner[~broken], owner[broken][mended]])
        features.skipped["polygons repaired"] = len(np.unique(mended))
        features.skipped["shapes without an extent"] = int(broken.sum()) - len(np.unique(mended))
    order = np.argsort(owner, kind="stable")
    features.parts, features.owner = parts[order], owner[order]
    return features
