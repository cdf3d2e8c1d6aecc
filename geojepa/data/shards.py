"""One Arrow file of a corpus, memory-mapped: its ragged columns as flat arrays over the file.

A file holds batches of tiles, and each batch its columns. As all of them lie in one mapped file, a
value has one position in it, whatever its batch: reading any tiles is index arithmetic and one
gather a column, without a copy of anything else.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from geojepa.data.vocabulary import take_rows


@dataclass
class Entities:
    """Ragged entities of some tiles: N entities, K tags; the attributes are those of TileData."""

    cu_entities: np.ndarray
    entity: np.ndarray
    kind: np.ndarray
    evidence: np.ndarray
    box: np.ndarray
    cu_tags: np.ndarray
    tag_ids: np.ndarray

    def take_tiles(self, order: np.ndarray) -> "Entities":
        """The tiles in another order."""
        at, cu = take_rows(self.cu_entities, order)
        return self.take(at, cu)

    def take(self, at: np.ndarray, cu_entities: np.ndarray) -> "Entities":
        """Some of the entities, with their new offsets."""
        tags, cu_tags = take_rows(self.cu_tags, at)
        return Entities(
            cu_entities,
            self.entity[at],
            self.kind[at],
            self.evidence[at],
            self.box[at],
            cu_tags,
            self.tag_ids[tags],
        )

    @staticmethod
    def join(some: list["Entities"]) -> "Entities":
        """The tiles of several, one after another."""
        entities = np.concatenate([np.diff(e.cu_entities) for e in some])
        tags = np.concatenate([np.diff(e.cu_tags) for e in some])
        return Entities(
            np.append(0, np.cumsum(entities)),
            np.concatenate([e.entity for e in some]),
            np.concatenate([e.kind for e in some]),
            np.concatenate([e.evidence for e in some]),
            np.concatenate([e.box for e in some]),
            np.append(0, np.cumsum(tags)),
            np.concatenate([e.tag_ids for e in some]),
        )


class Shard:
    """The tiles of one file.

    Attributes:
        table: of HF datasets, memory-mapped.
        count: (T,) entities of each tile.
        entities: their sum.
    """

    def __init__(self, path: Path):
        with pa.memory_map(str(path)) as file:
            self.table = pa.ipc.open_stream(file).read_all()
            file.seek(0)
            mapped = file.read_buffer()
        batches = self.table.to_batches()
        offsets = [batch["kind"].offsets.to_numpy() for batch in batches]
        self.count = np.concatenate([np.empty(0, np.int64), *(np.diff(o) for o in offsets)])
        self.entities = int(self.count.sum())
        self._start = np.concatenate([np.empty(0, np.int64), *(o[:-1] for o in offsets)])
        self._batch = np.repeat(np.arange(len(batches)), [len(b) for b in batches])
        # the first row and the first entity of each batch
        self._first_row = np.append(0, np.cumsum([len(batch) for batch in batches]))
        self._first = np.append(0, np.cumsum([o[-1] for o in offsets]))
        self._bytes = np.frombuffer(mapped, np.uint8)
        words = self._bytes[: len(self._bytes) // 4 * 4]
        self._ints = words.view(np.int32)
        self._boxes = np.lib.stride_tricks.sliding_window_view(words.view(np.float32), 8)

        def shifts(buffers: list[pa.Buffer | None], width: int) -> np.ndarray:
            """Position of each batch's values, in items of `width` bytes from the file's start."""
            at = [b.address - mapped.address if b is not None and b.size else 0 for b in buffers]
            return np.array(at, dtype=np.int64) // width

        self._kind = shifts([b["kind"].values.buffers()[1] for b in batches], 1)
        self._evidence = shifts([b["evidence"].values.buffers()[1] for b in batches], 1)
        self._box = shifts([b["box"].values.values.buffers()[1] for b in batches], 4)
        self._tag_offsets = shifts([b["tags"].values.buffers()[1] for b in batches], 4)
        self._tags = shifts([b["tags"].values.values.buffers()[1] for b in batches], 4)

    def read(self, rows: np.ndarray) -> Entities:
        """Entities of some tiles; `entity` counts within the file."""
        batch, count = self._batch[rows], self.count[rows]
        cu = np.append(0, np.cumsum(count))
        entity = np.repeat(self._start[rows] - cu[:-1], count) + np.arange(cu[-1])

        def at(shift: np.ndarray) -> np.ndarray:
            return np.repeat(shift[batch], count)

        offset = entity + at(self._tag_offsets)
        first, last = self._ints[offset], self._ints[offset + 1]
        tag_count = (last - first).astype(np.int64)
        cu_tags = np.append(0, np.cumsum(tag_count))
        tags = np.repeat(first + at(self._tags) - cu_tags[:-1], tag_count)
        return Entities(
            cu,
            entity + at(self._first[:-1]),
            self._bytes[entity + at(self._kind)],
            self._bytes[entity + at(self._evidence)],
            self._boxes[8 * entity + at(self._box)],
            cu_tags,
            self._ints[tags + np.arange(cu_tags[-1])],
        )

    def values(self, name: str, entity: np.ndarray) -> pa.Array:
        """A column's values of some entities, counted within the file."""
        batch = np.searchsorted(self._first, entity, side="right") - 1
        order = np.argsort(batch, kind="stable")
        some = [pa.array([], self.table.schema.field(name).type.value_type)]
        for number in np.unique(batch).tolist():
            mine = entity[batch == number] - self._first[number]
            column = self.table[name].chunk(number)
            some.append(column.values.take(pa.array(mine)))
        back = np.empty(len(order), dtype=np.int64)
        back[order] = np.arange(len(order))
        return pa.concat_arrays(some).take(pa.array(back))

    def image(self, row: int) -> np.ndarray | None:
        """(bytes,) uint8 of a tile's image, or None."""
        batch = int(self._batch[row])
        value = self.table["image"].chunk(batch)[int(row - self._first_row[batch])]
        return np.frombuffer(value.as_buffer(), np.uint8) if value.is_valid else None

    def tag_uses(self, tags: int) -> np.ndarray:
        """(tags,) how often each tag occurs."""
        uses = np.zeros(tags, dtype=np.int64)
        for chunk in self.table["tags"].chunks:
            uses += np.bincount(chunk.values.values.to_numpy(), minlength=tags)
        return uses
