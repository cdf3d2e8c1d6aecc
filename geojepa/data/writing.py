"""Write a corpus in a stream: Arrow shards that HF datasets loads, and a hash of their content."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import shapely

from geojepa.data.grid import Grid
from geojepa.data.labels import LABELS

SCHEMA_VERSION = 2
# pixels along a side of a stored image
IMAGE_SIZE = 224
SHARD_BYTES = 512 << 20
_ENTITY = {
    "feature_id": pa.string(),
    "kind": pa.uint8(),
    "evidence": pa.uint8(),
    "share": pa.float32(),
    "box": pa.list_(pa.float32(), 8),
    "tags": pa.list_(pa.int32()),
    "geometry": pa.binary(),
}
SCHEMA = pa.schema(
    {
        "tile_id": pa.string(),
        "place": pa.string(),
        "group": pa.string(),
        "x": pa.int32(),
        "y": pa.int32(),
        "ground_m": pa.float32(),
        "footprint": pa.binary(),
        **dict.fromkeys(LABELS, pa.float32()),
        **{name: pa.list_(kind) for name, kind in _ENTITY.items()},
        "image": pa.large_binary(),
    }
)


def tile_rows(
    place: str,
    grid: Grid,
    labels: Mapping[str, np.ndarray],
    pieces: pa.Table,
    images: np.ndarray | None,
    has_image: np.ndarray,
) -> pa.RecordBatch:
    """One row a tile, as `SCHEMA` says.

    Args:
        place: its name.
        grid: T tiles.
        labels: (T,) of each rule and task.
        pieces: entities of `pieces.merge`, sorted by `row`.
        images: (T, 224, 224, 3) uint8 or None; has_image: (T,) bool.
    """
    tiles = len(grid.tile_id)
    count = np.bincount(pieces["row"].to_numpy(), minlength=tiles)
    cu = pa.array(np.append(0, np.cumsum(count)), pa.int32())
    columns = {
        "tile_id": pa.array(grid.tile_id, pa.string()),
        "place": pa.array([place] * tiles, pa.string()),
        "group": pa.array(grid.group, pa.string()),
        "x": pa.array(grid.xy[:, 0], pa.int32()),
        "y": pa.array(grid.xy[:, 1], pa.int32()),
        "ground_m": pa.array(grid.ground_m(), pa.float32()),
        "footprint": pa.array(shapely.to_wkb(grid.footprint), pa.binary()),
        **{name: pa.array(labels[name], pa.float32(), from_pandas=True) for name in LABELS},
    }
    for name in _ENTITY:
        column = pieces[name].combine_chunks()
        columns[name] = pa.ListArray.from_arrays(cu, column)
    columns["image"] = _image_column(images, has_image)
    return pa.RecordBatch.from_pydict(columns, schema=SCHEMA)


def _image_column(images: np.ndarray | None, has_image: np.ndarray) -> pa.Array:
    """Raw RGB bytes a tile, null where there is no image."""
    if images is None:
        return pa.nulls(len(has_image), pa.large_binary())
    size = IMAGE_SIZE * IMAGE_SIZE * 3
    count = np.append(0, np.cumsum(has_image)) * size
    valid = pa.array(has_image).buffers()[1]
    values = pa.py_buffer(np.ascontiguousarray(images[has_image]))
    offsets = pa.py_buffer(count.astype(np.int64))
    return pa.LargeBinaryArray.from_buffers(
        pa.large_binary(), len(has_image), [valid, offsets, values]
    )


def _feature(kind: pa.DataType) -> dict:
    """A column's type in the words of HF datasets."""
    if pa.types.is_fixed_size_list(kind):
        inner = _feature(kind.value_type)
        return {"feature": inner, "length": kind.list_size, "_type": "List"}
    if pa.types.is_list(kind):
        return {"feature": _feature(kind.value_type), "_type": "List"}
    # pyarrow calls a float32 "float"
    return {"dtype": {"float": "float32"}.get(str(kind), str(kind)), "_type": "Value"}


class CorpusWriter:
    """Writes rows as they come; a context manager. `folder` must exist."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.rows = 0
        self._shards: list[Path] = []
        self._file: pa.NativeFile | None = None
        self._stream: pa.RecordBatchStreamWriter | None = None
        self._digests: dict[str, hashlib._Hash] = {}

    def __enter__(self) -> "CorpusWriter":
        return self

    def __exit__(self, *error: object) -> None:
        self._close()

    def write(self, rows: pa.RecordBatch) -> None:
        """Append rows."""
        if self._file is not None and self._file.tell() > SHARD_BYTES:
            self._close()
        if self._stream is None:
            path = self.folder / f"data-{len(self._shards):05d}.arrow"
            self._file = pa.OSFile(str(path), "wb")
            self._stream = pa.ipc.new_stream(self._file, SCHEMA)
            self._shards.append(path)
        self._stream.write_batch(rows)
        self.rows += rows.num_rows
        for name in SCHEMA.names:
            self._digest(name, rows[name])

    def _digest(self, name: str, column: pa.Array) -> None:
        """Add a column's values, level by level, so that the size of batches tells nothing."""
        digest = self._digests.setdefault(name, hashlib.sha256())
        if column.null_count:
            digest.update(column.is_null().to_numpy(zero_copy_only=False).tobytes())
        kind = column.type
        if pa.types.is_list(kind):
            digest.update(pc.list_value_length(column).to_numpy().tobytes())
            self._digest(f"{name}.", column.flatten())
        elif pa.types.is_fixed_size_list(kind):
            self._digest(f"{name}.", column.flatten())
        elif pa.types.is_primitive(kind):
            digest.update(pc.fill_null(column, 0).to_numpy().tobytes())
        else:
            digest.update(pc.fill_null(pc.binary_length(column), -1).to_numpy().tobytes())
            width = np.int64 if pa.types.is_large_binary(kind) else np.int32
            _, offsets, values = column.buffers()
            if values is not None:
                ends = np.frombuffer(offsets, width)[[column.offset, column.offset + len(column)]]
                self._digest_bytes(f"{name}.", values[int(ends[0]) : int(ends[1])])

    def _digest_bytes(self, name: str, values: pa.Buffer) -> None:
        self._digests.setdefault(name, hashlib.sha256()).update(values)

    def finish(self) -> str:
        """Complete the folder for HF datasets; returns the hash of all that was written."""
        self._close()
        # as datasets.DatasetInfo writes it, without the import that takes as long as an extract
        info = {"features": {field.name: _feature(field.type) for field in SCHEMA}}
        (self.folder / "dataset_info.json").write_text(json.dumps(info))
        names = []
        for number, path in enumerate(self._shards):
            name = f"data-{number:05d}-of-{len(self._shards):05d}.arrow"
            names.append({"filename": name})
            path.rename(path.with_name(name))
        digests = {name: digest.hexdigest() for name, digest in sorted(self._digests.items())}
        content = hashlib.sha256(json.dumps(digests).encode()).hexdigest()
        state: dict[str, object] = {
            "_data_files": names,
            "_fingerprint": content[:16],
            "_format_columns": None,
            "_format_kwargs": {},
            "_format_type": None,
            "_output_all_columns": False,
            "_split": None,
        }
        (self.folder / "state.json").write_text(json.dumps(state))
        return content

    def _close(self) -> None:
        if self._stream is not None and self._file is not None:
            self._stream.close()
            self._file.close()
        self._stream = self._file = None
