"""Relations and their members, read at once: geometry, and what vanishes with what."""

from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import shapely

from geojepa.data import opl
from geojepa.data.extract import (
    NODE,
    RELATION,
    WAY,
    Elements,
    features_of,
    present,
    read_nodes,
    read_ways,
)
from geojepa.data.features import (
    GROUP,
    POLYGON,
    Features,
    is_entity,
    keys_of,
    names_of,
    repaired,
)
from geojepa.data.grid import to_units
from geojepa.data.labels import counts_as_building, own_evidence
from geojepa.data.meaning import TASKS, Says
from geojepa.data.vocabulary import Tagging, Vocabulary

Member = tuple[int, int]


def read_relations(folder: Path, vocabulary: Vocabulary) -> Features:
    """Features of an exported extract that are relations or members of one."""
    skipped: Counter[str] = Counter()
    table = opl.read_block(folder / "relations.opl").get(b"r")
    if table is None:
        return features_of([], skipped)
    table = present(table, skipped)
    in_file = set(opl.ids_of(table).tolist())
    tags = opl.tags_of(table, vocabulary)
    kind = np.full(len(tags), GROUP, dtype=np.uint8)
    rows = np.flatnonzero(is_entity(tags, kind))
    tags, kind = tags.take(rows), kind[rows]
    kind[tags.say(Says.TYPE_AREA)] = POLYGON
    table = table.take(pa.array(rows))
    ids = opl.ids_of(table)
    members = _lists(*opl.members_of(table))

    block = opl.read_block(folder / "members.opl")
    elements = []
    with np.load(folder / "members.npz") as stored:
        untagged = stored["untagged"]
    points = dict(zip(untagged[:, 0].astype(int).tolist(),
                      shapely.points(to_units(untagged[:, 1:])), strict=True))  # fmt: skip
    ways = None
    if b"n" in block:
        nodes = read_nodes(present(block[b"n"], skipped), vocabulary, skipped)
        points |= dict(zip(nodes.ids.tolist(), shapely.points(nodes.coords), strict=True))
        elements.append(nodes)
    if b"w" in block:
        ways = read_ways(present(block[b"w"], skipped), vocabulary, skipped, every=True)
        elements.append(ways)
    alone = features_of(elements, skipped)
    shapes = _relation_shapes(kind, members, in_file, points, ways, skipped)
    complete = [row for row, parts in enumerate(shapes) if len(parts)]
    skipped["relations without a complete geometry"] += len(shapes) - len(complete)
    chosen = np.array(complete, dtype=np.int64)
    parts = [shapes[row] for row in complete]
    flat = np.concatenate([np.empty(0, object), *parts])
    owner = np.repeat(np.arange(len(chosen)), [len(p) for p in parts])
    flat, owner = repaired(flat, owner, skipped)
    found = Features.of(
        np.concatenate([alone.key, keys_of(RELATION, ids[chosen])]),
        pa.concat_arrays([alone.name, names_of(RELATION, ids[chosen])]),
        np.concatenate([alone.kind, kind[chosen]]),
        Tagging.join([alone.tags, tags.take(chosen)]),
        np.concatenate([alone.parts, flat]),
        np.concatenate([alone.owner, owner + len(alone)]),
        skipped,
    )
    _relate(found, len(alone), [members[row] for row in complete])
    return found


def _lists(element: np.ndarray, ref: np.ndarray, cu: np.ndarray) -> list[list[Member]]:
    flat = list(zip(element.tolist(), ref.tolist(), strict=True))
    return [flat[a:b] for a, b in pairwise(cu.tolist())]


def _relation_shapes(
    kind: np.ndarray,
    members: list[list[Member]],
    relations: set[int],
    points: dict[int, shapely.Point],
    ways: Elements | None,
    skipped: Counter[str],
) -> list[np.ndarray]:
    """Primitive parts of each relation; none where it cannot be told."""
    at: dict[int, int] = {}
    lines = parts = np.empty(0, dtype=object)
    start = np.zeros(1, dtype=np.int64)
    if ways is not None:
        at = {ref: row for row, ref in enumerate(ways.ids.tolist())}
        lines = ways.lines()
        parts, owner = ways.shapes(Counter())
        start = np.searchsorted(owner, np.arange(len(at) + 1))
    known = {NODE: points.keys(), WAY: at.keys(), RELATION: relations}
    found = []
    for row, refs in enumerate(members):
        missing = Counter(element for element, ref in refs if ref not in known[element])
        skipped["relation members outside the extract"] += missing.total()
        there = [at[ref] for element, ref in refs if element == WAY and ref in at]
        if kind[row] == GROUP:
            nodes = [points[ref] for element, ref in refs if element == NODE and ref in points]
            own = [parts[start[way] : start[way + 1]] for way in there]
            found.append(np.concatenate([np.array(nodes, dtype=object), *own]))
        elif missing[WAY] or not _closes(lines[there]):
            # without one of its rings, what is a hole and what an area cannot be told
            found.append(np.empty(0, dtype=object))
        else:
            linework = shapely.multilinestrings(lines[there])
            is_clear = shapely.is_simple(linework)
            area = shapely.build_area(linework) if is_clear else _even_odd(lines[there])
            found.append(shapely.get_parts(area))
    return found


def _closes(lines: np.ndarray) -> bool:
    """Whether lines make rings: an even number of ends at every place."""
    ends = shapely.get_coordinates([shapely.get_point(lines, 0), shapely.get_point(lines, -1)])
    return bool((np.unique(ends, axis=0, return_counts=True)[1] % 2 == 0).all())


def _even_odd(lines: np.ndarray) -> shapely.Geometry:
    """The even-odd area of rings that touch, cross or run along each other or themselves.

    A stretch that is gone along twice, such as a spur, bounds nothing.
    """
    segments = _odd(lines)
    faces = shapely.get_parts(shapely.polygonize([shapely.union_all(segments)]))
    (x1, y1), (x2, y2) = shapely.get_coordinates(segments).reshape(-1, 2, 2).transpose(1, 2, 0)

    def is_inside(x: float, y: float) -> bool:
        beside = (y1 > y) != (y2 > y)
        crossing = x1 + (y - y1) * (x2 - x1) / np.where(beside, y2 - y1, 1)
        return bool(np.count_nonzero(beside & (crossing > x)) % 2)

    points = shapely.get_coordinates(shapely.point_on_surface(faces)).tolist()
    return shapely.union_all(faces[[is_inside(x, y) for x, y in points]])


def _odd(lines: np.ndarray) -> np.ndarray:
    """Segments that occur an odd number of times, in either direction."""
    points, line = shapely.get_coordinates(lines, return_index=True)
    ends = np.concatenate([points[:-1], points[1:]], axis=1)[line[1:] == line[:-1]]
    is_back = (ends[:, 0] > ends[:, 2]) | ((ends[:, 0] == ends[:, 2]) & (ends[:, 1] > ends[:, 3]))
    ends[is_back] = ends[is_back][:, [2, 3, 0, 1]]
    segments, count = np.unique(ends, axis=0, return_counts=True)
    return shapely.linestrings(segments[count % 2 == 1].reshape(-1, 2, 2))


def _relate(features: Features, first: int, members: list[list[Member]]) -> None:
    """Fill in what relations, rows from `first` on, do to their members and these to them.

    A relation goes with any of its members, for its geometry is made of theirs; an untagged way
    or node goes with the relation that it shapes.
    """
    relation = np.repeat(np.arange(first, len(features)), [len(refs) for refs in members])
    flat = np.array([m for refs in members for m in refs], dtype=np.int64).reshape(-1, 2)
    member = keys_of(flat[:, 0], flat[:, 1])
    is_entity_key = np.isin(member, features.key[features.is_entity])
    own = own_evidence(features.tags, features.kind)
    for bit in range(len(TASKS)):
        gone = (own >> bit) & 1 > 0
        hidden = np.concatenate([features.key[gone], member[gone[relation] & ~is_entity_key]])
        with_them = relation[np.isin(member, hidden)]
        features.evidence[with_them] |= 1 << bit
    _repeat(features, first, members)


def _repeat(features: Features, first: int, members: list[list[Member]]) -> None:
    """Mark counted areas that a counted multipolygon repeats: members with ground in common."""
    counted = counts_as_building(features)
    row_of = {key: row for row, key in enumerate(features.key[:first].tolist())}
    start = np.searchsorted(features.owner, np.arange(len(features) + 1))
    for relation in (np.flatnonzero(counted[first:]) + first).tolist():
        whole = features.parts[start[relation] : start[relation + 1]]
        for e, ref in members[relation - first]:
            row = row_of.get(int(keys_of(e, np.array(ref))))
            if row is None or not counted[row]:
                continue
            own = features.parts[start[row] : start[row + 1]]
            common = shapely.area(shapely.intersection(whole[:, None], own)).sum()
            features.repeated[row] |= common > 0.01 * shapely.area(own).sum()
