"""Read an OpenStreetMap extract into whole features, in blocks that any process can take.

`export_extract` goes over the file once in C++ and leaves text beside it: what is tagged, and apart
from it the members of relations. Blocks of the first are features that stand for themselves; the
second is read with the relations at once, for a relation is made of its members, and a member may
vanish with its relation.

No area assembly is needed, which stops at unsorted files: a closed way is made an area by OSM's
own rules (`geojepa.data.keys.is_area`), and a multipolygon relation is built from the linework of
its member ways (`shapely.build_area`, even-odd, so wrong roles do no harm).
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import osmium
import pyarrow as pa
import shapely
from osmium import osm

from geojepa.data import opl
from geojepa.data.copies import NO_PLACE, copy_sorted, copy_sound
from geojepa.data.features import (
    FLAT,
    GROUP,
    LINE,
    POINT,
    POLYGON,
    Features,
    is_area,
    is_entity,
    is_wanted,
    keys_of,
    names_of,
    polygons,
)
from geojepa.data.grid import to_units
from geojepa.data.vocabulary import Tagging, Vocabulary, take_rows
from geojepa.errors import GeoJEPAError

NODE, WAY, RELATION = range(3)
# what the header of a made city names
GENERATOR = "geojepa sample city (made, not mapped)"
BLOCK_BYTES = 6 << 20
MISSING_NODES = "ways with missing nodes or a single place"


def export_extract(path: Path, folder: Path, skipped: Counter[str]) -> list[tuple[int, int]]:
    """Write an extract as OPL into `folder`, sorted; returns the blocks of its tagged objects.

    Raises:
        GeoJEPAError: if the file is a history of many versions.
        RuntimeError: if the file is damaged or of another format.
    """
    with opl.reading(path, osm.NOTHING) as reader:
        if reader.header().has_multiple_object_versions:
            raise GeoJEPAError(
                f"{path}: holds the history of each object; cut one date with osmium time-filter"
            )
    sound, copy = folder / "sound.osm.pbf", folder / "sorted.osm.pbf"
    try:
        is_sorted = _export(path, folder)
    except (osmium.InvalidLocationError, IndexError, RuntimeError):
        # an object without a place on Earth, or with text that is none; or the file is damaged
        copy_sound(path, sound, skipped)
        is_sorted = _export(sound, folder)
    if not is_sorted:
        copy_sorted(sound if sound.exists() else path, copy)
        if not _export(copy, folder):
            raise GeoJEPAError(f"{path}: cannot be sorted; sort it with osmium sort")
    for file in (sound, copy):
        file.unlink(missing_ok=True)
    return list(opl.blocks(folder / "objects.opl", BLOCK_BYTES))


def _export(path: Path, folder: Path) -> bool:
    """Write the OPL files of an extract; False if it is not sorted, so that they are of no use."""
    for file in folder.glob("*.opl"):
        file.unlink()
    opl.write_opl(path, folder / "relations.opl", osm.RELATION)
    _, ids, _ = opl.names_of(opl.read_text(folder / "relations.opl"))
    if not _is_ascending(_ranks(np.zeros_like(ids), ids)):
        return False
    nodes, ways = _wanted_members(folder / "relations.opl")
    index = osmium.index.create_map("flex_mem")
    locations = osmium.NodeLocationsForWays(index)
    locations.ignore_errors()
    tagged = osmium.filter.EmptyTagFilter()
    tagged.enable_for(osm.NODE)
    opl.write_opl(path, folder / "objects.opl", osm.NODE | osm.WAY, locations, tagged)
    found: list[np.ndarray] = []
    before = np.full(2, -1)
    with open(folder / "members.opl", "wb") as members:
        for start, stop in opl.blocks(folder / "objects.opl", BLOCK_BYTES):
            text = opl.read_text(folder / "objects.opl", start, stop)
            is_way, ids, starts = opl.names_of(text)
            rank = _ranks(is_way, ids)
            if not _is_ascending(np.vstack([before, rank])):
                return False
            before = rank[-1]
            is_member = np.where(is_way, np.isin(ids, ways), np.isin(ids, nodes))
            for row in np.flatnonzero(is_member).tolist():
                members.write(text[starts[row] : starts[row + 1]])
            found.append(ids[is_member & ~is_way])
            # untagged nodes are not among the objects: if one comes after its way, it is known now
            if len(_known(opl.missing_nodes(text), index)):
                return False
    untagged = np.setdiff1d(nodes, np.concatenate([np.empty(0, np.int64), *found]))
    np.savez(
        folder / "members.npz",
        node=nodes,
        way=ways,
        untagged=_known(untagged.tolist(), index),
    )
    return True


def _ranks(is_way: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """(n, 2) places in osmium's order: nodes, ways, negative ids first."""
    return np.stack([2 * is_way + (ids > 0), np.abs(ids)], axis=1)


def _is_ascending(rank: np.ndarray) -> bool:
    """Whether each object comes after the one before, and not again."""
    step = np.diff(rank, axis=0)
    return bool(((step[:, 0] > 0) | ((step[:, 0] == 0) & (step[:, 1] > 0))).all())


def _known(nodes: list[int], index: "osmium.index.LocationTable") -> np.ndarray:
    """(m, 3) float64 id, lon, lat of those nodes that the index knows."""
    found = []
    for ref in nodes:
        try:
            place = index.get(ref)
        except (KeyError, TypeError):
            # negative ids have no place in the index
            continue
        if place.valid():
            found.append((ref, place.lon, place.lat))
    return np.array(found, dtype=np.float64).reshape(-1, 3)


def _wanted_members(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Sorted ids of the nodes and of the ways that relations want."""
    table = opl.read_block(path).get(b"r")
    if table is not None:
        tags = opl.tags_of(table, Vocabulary())
        shown = is_entity(tags, np.full(len(tags), GROUP, np.uint8))
        element, ref, _ = opl.members_of(table.filter(pa.array(shown)))
        return np.unique(ref[element == NODE]), np.unique(ref[element == WAY])
    return np.empty(0, np.int64), np.empty(0, np.int64)


@dataclass
class Elements:
    """Nodes or ways: ids, what their tags say, kinds, and flat coordinates with offsets."""

    element: int
    ids: np.ndarray
    tags: Tagging
    kind: np.ndarray
    coords: np.ndarray
    cu: np.ndarray

    def take(self, rows: np.ndarray) -> "Elements":
        at, cu = take_rows(self.cu, rows)
        return Elements(
            self.element, self.ids[rows], self.tags.take(rows), self.kind[rows],
            self.coords[at], cu,
        )  # fmt: skip

    def shapes(self, skipped: Counter[str]) -> tuple[np.ndarray, np.ndarray]:
        """Primitive geometries and the row of each, ascending."""
        if self.element == NODE:
            return shapely.points(self.coords), np.arange(len(self.ids))
        line = np.repeat(np.arange(len(self.ids)), np.diff(self.cu))
        parts, owner = [], []
        for kind in (LINE, POLYGON):
            rows = np.flatnonzero(self.kind == kind)
            if len(rows):
                mine = self.kind[line] == kind
                index = np.searchsorted(rows, line[mine])
                if kind == LINE:
                    found = shapely.linestrings(self.coords[mine], indices=index), rows
                else:
                    shapes, of = polygons(self.coords[mine], index, skipped)
                    found = shapes, rows[of]
                parts.append(found[0])
                owner.append(found[1])
        if not parts:
            return np.empty(0, dtype=object), np.empty(0, dtype=np.int64)
        order = np.argsort(np.concatenate(owner), kind="stable")
        return np.concatenate(parts)[order], np.concatenate(owner)[order]

    def lines(self) -> np.ndarray:
        """(n,) lines of ways."""
        line = np.repeat(np.arange(len(self.ids)), np.diff(self.cu))
        return shapely.linestrings(self.coords, indices=line) if len(line) else np.empty(0, object)


def read_nodes(table: pa.Table, vocabulary: Vocabulary, skipped: Counter[str]) -> Elements:
    coords = opl.places_of(table)
    found = Elements(
        NODE,
        opl.ids_of(table),
        opl.tags_of(table, vocabulary),
        np.full(table.num_rows, POINT, dtype=np.uint8),
        coords,
        np.arange(table.num_rows + 1),
    )
    is_placed = np.isfinite(coords).all(axis=1)
    skipped[NO_PLACE] += int((~is_placed).sum())
    found = found.take(np.flatnonzero(is_placed))
    found.coords = to_units(found.coords)
    return found


def read_ways(
    table: pa.Table, vocabulary: Vocabulary, skipped: Counter[str], every: bool
) -> Elements:
    """Ways with all their nodes; of `every` way, or of those that tags make wanted."""
    tags = opl.tags_of(table, vocabulary)
    kind = np.full(table.num_rows, LINE, dtype=np.uint8)
    rows = np.arange(table.num_rows) if every else np.flatnonzero(is_wanted(tags, kind))
    table, tags, kind = table.take(pa.array(rows)), tags.take(rows), kind[rows]
    refs, degrees, cu = opl.lines_of(table)
    line = np.repeat(np.arange(len(cu) - 1), np.diff(cu))
    count = np.diff(cu)
    is_missing = np.bincount(line, ~np.isfinite(degrees).all(axis=1), minlength=len(count)) > 0
    is_closed = np.zeros(len(count), dtype=bool)
    has_nodes = count > 3
    is_closed[has_nodes] = refs[cu[:-1][has_nodes]] == refs[cu[1:][has_nodes] - 1]
    # a node that repeats the place before it adds nothing
    is_new = np.ones(len(line), dtype=bool)
    is_new[1:] = (line[1:] != line[:-1]) | (degrees[1:] != degrees[:-1]).any(axis=1)
    coords, line = degrees[is_new], line[is_new]
    count = np.bincount(line, minlength=len(count))
    kind[is_closed & is_area(tags)] = POLYGON
    is_bad = is_missing | (count < 2)
    skipped[MISSING_NODES] += int((is_bad & (every | is_entity(tags, kind))).sum())
    is_flat = ~is_bad & (kind == POLYGON) & (count < 4)
    skipped[FLAT] += int(is_flat.sum())
    is_bad |= is_flat
    cu = np.concatenate([[0], np.cumsum(count)])
    found = Elements(WAY, opl.ids_of(table), tags, kind, coords, cu).take(np.flatnonzero(~is_bad))
    found.coords = to_units(found.coords)
    return found


def present(table: pa.Table, skipped: Counter[str]) -> pa.Table:
    """The objects that are not deleted."""
    is_deleted = np.asarray(table["visible"].to_numpy() == "dD")
    skipped["objects deleted"] += int(is_deleted.sum())
    return table.filter(pa.array(~is_deleted)) if is_deleted.any() else table


def read_objects(folder: Path, start: int, stop: int, vocabulary: Vocabulary) -> Features:
    """Features of a block that are no members of a relation."""
    skipped: Counter[str] = Counter()
    found = []
    with np.load(folder / "members.npz") as members:
        for letter, table in opl.read_block(folder / "objects.opl", start, stop).items():
            name = "node" if letter == b"n" else "way"
            is_free = ~np.isin(opl.ids_of(table), members[name])
            table = present(table.filter(pa.array(is_free)), skipped)
            if not table.num_rows:
                continue
            if name == "node":
                found.append(read_nodes(table, vocabulary, skipped))
            else:
                found.append(read_ways(table, vocabulary, skipped, every=False))
    return features_of(found, skipped)


def features_of(elements: list[Elements], skipped: Counter[str]) -> Features:
    """Those of some elements that are wanted, as features."""
    taken = [e.take(np.flatnonzero(is_wanted(e.tags, e.kind))) for e in elements]
    shapes = [e.shapes(skipped) for e in taken]
    base = np.cumsum([0, *(len(e.ids) for e in taken)])
    return Features.of(
        np.concatenate([np.empty(0, np.int64), *(keys_of(e.element, e.ids) for e in taken)]),
        pa.concat_arrays([pa.array([], pa.string()), *(names_of(e.element, e.ids) for e in taken)]),
        np.concatenate([np.empty(0, np.uint8), *(e.kind for e in taken)]),
        Tagging.join([e.tags for e in taken]),
        np.concatenate([np.empty(0, object), *(parts for parts, _ in shapes)]),
        np.concatenate(
            [np.empty(0, np.int64), *(o + b for (_, o), b in zip(shapes, base, strict=False))]
        ),
        skipped,
    )
