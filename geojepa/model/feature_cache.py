"""Where token features are kept that no training changes: once for a corpus, beside it.

Features of a kind are a matrix, one row an entity or an image patch, in the memory-mapped file
`features/<kind>-<key>.npy` of the corpus's folder, with a .json that says what they are. The key
is a hash of that: corpus, kind, encoder, type and shape. What cannot be kept there is kept in the
user's cache, and else in memory.
"""

import hashlib
import io
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from geojepa.data.corpus import Corpus
from geojepa.errors import GeoJEPAError
from geojepa.files import cache_folder, whole

# tiles whose entities are in memory at once
LOT_TILES = 256


class Rows:
    """Matrices (N_i, D) read as one (N, D): rows are gathered, the rest stays on disk."""

    def __init__(self, parts: Sequence[np.ndarray]):
        self._parts = [np.asarray(part) for part in parts]
        self._first = np.append(0, np.cumsum([len(part) for part in parts]))
        self.shape = (int(self._first[-1]), parts[0].shape[1])
        self.dtype = parts[0].dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """(n, D), a copy of `rows`, which are (n,) non-negative numbers."""
        if len(self._parts) == 1:
            return self._parts[0][rows]
        out = np.empty((len(rows), self.shape[1]), self.dtype)
        part = np.searchsorted(self._first, rows, side="right") - 1
        for number in np.unique(part).tolist():
            mine = part == number
            out[mine] = self._parts[number][rows[mine] - self._first[number]]
        return out


def cached(
    corpus: Corpus,
    kind: str,
    encoder: str,
    shape: tuple[int, int],
    dtype: type[np.floating],
    tiles: np.ndarray,
    encode: Callable[[np.ndarray], np.ndarray],
    lot: int = LOT_TILES,
) -> np.ndarray:
    """Features of one corpus, memory-mapped from the cache; computed if they are not there.

    Several processes may ask at once: each that finds nothing computes the same file.

    Args:
        corpus: one that is not joined.
        kind: what the file is named after.
        encoder: whatever changes the features: name, version, hash, settings.
        shape: (N, D) of the whole.
        dtype: float16 or float32.
        tiles: (T,) rows of the corpus.
        encode: features (n, D) of a lot of tiles.
        lot: tiles that are in memory at once, at most twice as many.

    Returns:
        (N, D), read-only.

    Raises:
        ValueError: if `encode` makes another number of features than `shape` says.
    """
    about = {
        "kind": kind,
        "corpus": corpus.hash,
        "encoder": encoder,
        "dtype": np.dtype(dtype).name,
        "shape": list(shape),
    }
    key = hashlib.sha256(json.dumps(about).encode()).hexdigest()[:16]
    folders = corpus.paths[0], cache_folder()
    paths = [folder / "features" / f"{kind}-{key}.npy" for folder in folders]
    for path in paths:
        if (found := _opened(path, about)) is not None:
            return found

    def encoded() -> Iterator[np.ndarray]:
        done = 0
        lots = np.array_split(tiles, max(1, len(tiles) // lot))
        for some in tqdm(lots, desc=kind, disable=None):
            features = encode(some)
            done += len(features)
            yield np.ascontiguousarray(features, dtype)
        if done != shape[0]:
            raise ValueError(f"{kind}: {done} features of {encoder}, not {shape[0]}")

    for path in paths:
        try:
            _write(path, about, encoded())
        except GeoJEPAError as error:
            if not isinstance(error.__cause__, OSError):
                raise
            continue
        if (found := _opened(path, about)) is not None:
            return found
    print(
        f"{corpus.name}: {kind} features are held in memory, as neither {paths[0].parent} nor "
        f"{paths[1].parent} can be written; name a folder in GEOJEPA_CACHE",
        file=sys.stderr,
    )
    held = np.concatenate(list(encoded()))
    held.flags.writeable = False
    return held


def _header(about: dict[str, Any]) -> bytes:
    """The first bytes of the .npy file."""
    start = io.BytesIO()
    descr = np.lib.format.dtype_to_descr(np.dtype(about["dtype"]))
    fields = {"descr": descr, "fortran_order": False, "shape": tuple(about["shape"])}
    np.lib.format.write_array_header_1_0(start, fields)
    return start.getvalue()


def _opened(path: Path, about: dict[str, Any]) -> np.ndarray | None:
    """The features of a file; None if it is not there, damaged, or of something else."""
    header, shape, dtype = _header(about), tuple(about["shape"]), np.dtype(about["dtype"])
    try:
        said = json.loads(path.with_suffix(".json").read_text())
        with open(path, "rb") as file:
            start = file.read(len(header))
            size = file.seek(0, os.SEEK_END)
        if (said, start, size) != (about, header, len(header) + np.prod(shape) * dtype.itemsize):
            return None
        return np.memmap(path, dtype, "r", len(header), shape)
    except (OSError, ValueError):
        return None


def _write(path: Path, about: dict[str, Any], encoded: Iterator[np.ndarray]) -> None:
    """Write the features, then what they are: a file without its .json does not count."""
    with whole(path) as part, open(part, "wb") as file:
        file.write(_header(about))
        for features in encoded:
            file.write(features.data)
    with whole(path.with_suffix(".json")) as part:
        part.write_text(json.dumps(about, indent=1) + "\n")
