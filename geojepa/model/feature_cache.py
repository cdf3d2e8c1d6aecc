"""Token features that no training changes, computed once for a corpus and kept beside it.

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
from typing import Any, Protocol

import numpy as np
from tqdm import tqdm

from geojepa.data.corpus import Corpus
from geojepa.errors import GeoJEPAError
from geojepa.files import cache_folder, whole
from geojepa.model.geometry import ENCODER_VERSION, GEOMETRY_DIM, encode_geometries
from geojepa.model.graph_network import (
    LAYERS,
    NETWORK_VERSION,
    GraphNetwork,
    encode_by_network,
)
from geojepa.model.tags import TAG_DIM, TagTable, entity_tag_embeddings

# tiles whose entities, and images of 150 kB, are held in memory at once
_LOT_TILES, _LOT_IMAGES = 256, 64


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


class PatchEncoder(Protocol):
    """Anything that turns images into features of their patches.

    Attributes:
        name: of the encoder with its version and settings: whatever changes the features.
        shape: patches of an image, and D.
    """

    @property
    def name(self) -> str: ...

    @property
    def shape(self) -> tuple[int, int]: ...

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """(n, 224, 224, 3) uint8 to (n, *shape)."""
        ...


def geometry_features(corpus: Corpus, network: GraphNetwork | None = None) -> Rows:
    """Vectors of all entities' geometries, by position in the corpus.

    Args:
        corpus: the tiles.
        network: that encodes them, (entities, LAYERS * width) float16; without it their Fourier
            transform, (entities, GEOMETRY_DIM) float32.
    """
    width, name = GEOMETRY_DIM, f"fourier {ENCODER_VERSION}"
    if network is not None:
        width, name = LAYERS * network.width, f"network {NETWORK_VERSION} {network.sha256()}"
    # the network's are a run's own, and take space for each
    kind = np.float32 if network is None else np.float16

    def kept(one: Corpus) -> np.ndarray:
        def encode(tiles: np.ndarray) -> np.ndarray:
            data = one.read(tiles)
            if network is None:
                return encode_geometries(data.geometry, data.box)
            return encode_by_network(network, data.geometry, data.box)

        tiles, shape = np.arange(len(one)), (one.entities, width)
        return cached(one, "geometry", name, shape, kind, tiles, encode)

    return Rows([kept(one) for one in _parts(corpus)])


def tag_features(corpus: Corpus, table: TagTable | None = None) -> Rows:
    """(all entities, TAG_DIM) float16 of `entity_tag_embeddings`, by position in the corpus.

    These are sums over all tags. A view that hides a task has fewer: there the sums are to be
    computed from the tags that are read.

    Args:
        corpus: the tiles.
        table: of tags; the package's own without it.
    """
    table = TagTable.load() if table is None else table

    def kept(one: Corpus) -> np.ndarray:
        table_rows = table.lookup(one.vocabulary)

        def encode(tiles: np.ndarray) -> np.ndarray:
            data = one.read(tiles)
            return entity_tag_embeddings(table_rows, data.tag_ids, data.cu_tags, table)

        digest = hashlib.sha256(table_rows.tobytes())
        digest.update(table.matrix.data)
        tiles, shape = np.arange(len(one)), (one.entities, TAG_DIM)
        return cached(one, "tags", digest.hexdigest(), shape, np.float16, tiles, encode)

    return Rows([kept(one) for one in _parts(corpus)])


def patch_features(corpus: Corpus, encoder: PatchEncoder) -> Rows:
    """(patches of all images, D) float16; image i is that of tile `flatnonzero(has_image)[i]`."""
    patches, width = encoder.shape

    def kept(one: Corpus) -> np.ndarray:
        tiles = np.flatnonzero(one.has_image)
        shape = (len(tiles) * patches, width)

        def encode(tiles: np.ndarray) -> np.ndarray:
            return encoder(one.images(tiles)).reshape(-1, width)

        return cached(one, "patches", encoder.name, shape, np.float16, tiles, encode, _LOT_IMAGES)

    return Rows([kept(one) for one in _parts(corpus)])


def cached(
    corpus: Corpus,
    kind: str,
    encoder: str,
    shape: tuple[int, int],
    dtype: type[np.floating],
    tiles: np.ndarray,
    encode: Callable[[np.ndarray], np.ndarray],
    lot: int = _LOT_TILES,
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


def _parts(corpus: Corpus) -> list[Corpus]:
    """The corpora that one is joined of."""
    several = len(corpus.paths) > 1
    return [Corpus.open(path) for path in corpus.paths] if several else [corpus]


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
