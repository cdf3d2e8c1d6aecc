"""Features cut to tiles, as sorted tables on disk that wait to be merged into a corpus.

Each table is complete in itself (pieces, boxes, labels, its own vocabulary), so blocks of an
extract can be cut by any process in any order, and memory never holds more than a block.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import shapely

from geojepa.data.boxes import rotated_boxes
from geojepa.data.cutting import Pieces, cut_to_footprints, cut_to_grid
from geojepa.data.features import Features
from geojepa.data.grid import Grid, metres_a_unit
from geojepa.data.labels import own_evidence, piece_facts
from geojepa.data.vocabulary import Pair, Vocabulary


def cut_features(
    features: Features, footprints: Grid | None = None, simplify: float = 0.0
) -> pa.Table:
    """One row a piece: what of a feature lies in one tile, sorted by tile and feature.

    Args:
        features: whole features.
        footprints: what to cut to; the zoom-16 grid without.
        simplify: tolerance in metres on the ground; 0 keeps every vertex.
    """
    if simplify:
        features.parts = shapely.simplify(features.parts, _units(features.parts, simplify))
    if footprints is None:
        pieces = cut_to_grid(features.parts, features.owner)
    else:
        pieces = cut_to_footprints(features.parts, features.owner, footprints)
    of = pieces.feature
    tags = features.tags
    count = np.diff(tags.cu)[of]
    at = np.repeat(tags.cu[of] - (np.cumsum(count) - count), count) + np.arange(count.sum())
    boxes = rotated_boxes(pieces.geometry).astype(np.float32).reshape(-1)
    evidence = own_evidence(tags, features.kind) | features.evidence
    table = pa.table(
        {
            "tile": pieces.tile.astype(np.int64),
            "key": features.key[of],
            "feature_id": features.name.take(pa.array(of)),
            "is_entity": features.is_entity[of],
            "kind": features.kind[of],
            "evidence": evidence[of],
            "share": _shares(features, pieces, footprints),
            "box": pa.FixedSizeListArray.from_arrays(pa.array(boxes), 8),
            "tags": pa.ListArray.from_arrays(
                np.append(0, np.cumsum(count)).astype(np.int32), tags.tag[at]
            ),
            "geometry": pa.array(shapely.to_wkb(pieces.geometry), pa.binary()),
            **piece_facts(features, pieces, footprints),
        }
    )
    return table.sort_by([(name, "ascending") for name in ("tile", "key", "feature_id")])


def _units(parts: np.ndarray, metres: float) -> np.ndarray:
    """Tile units (n,) that are `metres` on the ground at the middle of each part."""
    bounds = shapely.bounds(parts)
    return metres / metres_a_unit((bounds[:, 1] + bounds[:, 3]) / 2)


def _shares(features: Features, pieces: Pieces, footprints: Grid | None) -> np.ndarray:
    """(P,) share of the feature's area, or length, or points, that lies in the piece's tile.

    Of a group only the parts of the highest dimension count.
    """
    parts, owner = features.parts, features.owner
    dimension = np.zeros(len(features), dtype=np.int64)
    np.maximum.at(dimension, owner, shapely.get_dimensions(parts))
    share = np.ones(len(pieces.feature), dtype=np.float32)
    side = np.ones(len(share)) if footprints is None else footprints.frame[pieces.tile, 2]
    number = np.bincount(pieces.feature, minlength=len(features))
    for d, measure in enumerate((shapely.get_num_geometries, shapely.length, shapely.area)):
        cut = dimension == d if footprints is not None else (dimension == d) & (number > 1)
        rows = np.flatnonzero(cut[pieces.feature])
        of_kind = cut[owner] & (shapely.get_dimensions(parts) == d)
        if len(rows):
            whole = np.bincount(owner[of_kind], measure(parts[of_kind]), minlength=len(features))
            inside = measure(_of_dimension(pieces.geometry[rows], d)) * side[rows] ** d
            share[rows] = np.minimum(inside / whole[pieces.feature[rows]], 1)
    return share


def _of_dimension(geometry: np.ndarray, dimension: int) -> np.ndarray:
    """Geometries without the parts of lower dimension that collections mix in."""
    mixed = np.flatnonzero(shapely.get_type_id(geometry) == 7)
    geometry = geometry.copy()
    for row in mixed:
        parts = shapely.get_parts(geometry[row])
        makers = (shapely.multipoints, shapely.multilinestrings, shapely.multipolygons)
        geometry[row] = makers[dimension](parts[shapely.get_dimensions(parts) == dimension])
    return geometry


def write_pieces(table: pa.Table, vocabulary: Vocabulary, path: Path) -> list[Pair]:
    """Write a table of pieces; returns the tags that it uses, in the order of its numbers."""
    lists = table["tags"].combine_chunks()
    entity = table.filter(table["is_entity"])["tags"].combine_chunks()
    used = np.unique(entity.flatten().to_numpy())
    number = np.full(len(vocabulary.pairs), -1, dtype=np.int32)
    number[used] = np.arange(len(used))
    table = table.set_column(
        table.column_names.index("tags"),
        "tags",
        pa.ListArray.from_arrays(lists.offsets, pa.array(number[lists.values.to_numpy()])),
    )
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    pairs = list(vocabulary.pairs)
    return [pairs[i] for i in used.tolist()]


@dataclass
class Spill:
    """One table of pieces on disk, memory-mapped, and the joint number of each of its tags."""

    table: pa.Table
    tile: np.ndarray
    vocabulary: np.ndarray

    @classmethod
    def open(cls, path: Path, vocabulary: np.ndarray) -> "Spill":
        """The table that `write_pieces` wrote."""
        with pa.memory_map(str(path)) as file:
            table = pa.ipc.open_file(file).read_all()
        return cls(table, table["tile"].to_numpy(), vocabulary)


def count_entities(spills: Iterable[Spill]) -> tuple[np.ndarray, np.ndarray]:
    """Tiles that hold an entity, ascending, and how many each holds."""
    tiles, counts = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for spill in spills:
        is_entity = spill.table["is_entity"].to_numpy()
        tile, count = np.unique(spill.tile[is_entity], return_counts=True)
        tiles.append(tile)
        counts.append(count)
    tile, index = np.unique(np.concatenate(tiles), return_inverse=True)
    return tile, np.bincount(index, np.concatenate(counts), minlength=len(tile)).astype(np.int64)


def merge(
    spills: list[Spill],
    tiles: np.ndarray,
    counts: np.ndarray,
    tag_number: np.ndarray,
    max_tiles: int,
    max_entities: int = 200_000,
) -> Iterator[tuple[np.ndarray, pa.Table]]:
    """Pieces of `tiles` in lots of whole tiles, sorted by tile and feature.

    Args:
        spills: tables of one place.
        tiles: (T,) ascending; counts: (T,) their entities.
        tag_number: the numbers that tags are to have, by those in `Spill.vocabulary`.
        max_tiles: of one lot; max_entities: of one lot, unless one tile holds more.

    Yields:
        Rows of `tiles`, and their pieces with a column `row`, counted within the lot.
    """
    if not len(tiles):
        return
    numbers = [tag_number[spill.vocabulary] for spill in spills]
    quotients = np.cumsum(counts) // max_entities, np.arange(len(tiles)) // max_tiles
    begins = np.flatnonzero(np.diff(quotients[0]) | np.diff(quotients[1])) + 1
    for first, after in pairwise([0, *begins.tolist(), len(tiles)]):
        chosen = tiles[first:after]
        some = []
        for spill, number in zip(spills, numbers, strict=True):
            a = np.searchsorted(spill.tile, chosen[0])
            b = np.searchsorted(spill.tile, chosen[-1], side="right")
            if b > a:
                some.append(_numbered(spill.table.slice(a, b - a), number))
        table = pa.concat_tables(some)
        row = np.searchsorted(chosen, table["tile"].to_numpy())
        kept = chosen[row] == table["tile"].to_numpy()
        table = table.append_column("row", pa.array(row)).filter(pa.array(kept))
        order = [(name, "ascending") for name in ("row", "key", "feature_id")]
        yield np.arange(first, after), table.sort_by(order).combine_chunks()


def _numbered(table: pa.Table, number: np.ndarray) -> pa.Table:
    """The table with joint tag numbers, ascending within an entity."""
    lists = table["tags"].combine_chunks()
    offsets = lists.offsets.to_numpy() - lists.offsets[0].as_py()
    values = np.append(number, -1)[lists.flatten().to_numpy()]
    owner = np.repeat(np.arange(len(lists)), np.diff(offsets))
    values = values[np.lexsort((values, owner))].astype(np.int32)
    column = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(values))
    return table.set_column(table.column_names.index("tags"), "tags", column)
