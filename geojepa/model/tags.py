"""Frozen text embeddings of OSM tags, looked up in a table that ships with the package."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from scipy.sparse import csr_array

from geojepa.errors import GeoJEPAError

TAG_DIM = 384
TABLE_PATH = Path(__file__).with_name("tag_table.safetensors")

Match = Literal["exact", "key", "stem", "dropped"]


@dataclass(frozen=True, eq=False)
class TagTable:
    """Embeddings of R tags. A tag is a (key, value); the value "" stands for the key alone."""

    tags: tuple[tuple[str, str], ...]  # of length R
    matrix: NDArray[np.float32]  # (R, TAG_DIM), rows of length 1
    metadata: dict[str, Any]  # text, model, weights_sha256, license, attribution, sources

    @classmethod
    def load(cls, path: Path | str = TABLE_PATH) -> "TagTable":
        """The table in a file written by `scripts/make_tag_table.py`, read once a process."""
        return _load(Path(path))

    @cached_property
    def row_of(self) -> dict[tuple[str, str], int]:
        """The row of each tag."""
        return {tag: row for row, tag in enumerate(self.tags)}

    def resolve(self, key: str, value: str) -> tuple[int, Match]:
        """The row that stands for a tag, and how it was found; -1 where the tag is dropped.

        The tag itself; else its key alone; else the key's stem before the last `:`, repeatedly.
        """
        rows = self.row_of
        if (key, value) in rows:
            return rows[key, value], "exact"
        if (key, "") in rows:
            return rows[key, ""], "key"
        while ":" in key:
            key = key.rpartition(":")[0]
            if (key, "") in rows:
                return rows[key, ""], "stem"
        return -1, "dropped"

    def lookup(self, vocabulary: Sequence[tuple[str, str]]) -> NDArray[np.int32]:
        """(V,) rows of `matrix` for the tags of a vocabulary, -1 where a tag is dropped."""
        rows = [self.resolve(key, value)[0] for key, value in vocabulary]
        return np.array(rows, dtype=np.int32)

    def coverage(
        self, vocabulary: Sequence[tuple[str, str]], uses: Sequence[int] | None = None
    ) -> dict[Match, int]:
        """How many tags are found exact, by key, by stem or dropped.

        Args:
            vocabulary: V tags.
            uses: how often each occurs, V counts; without it each tag counts once.
        """
        found: Counter[Match] = Counter()
        weights = [1] * len(vocabulary) if uses is None else uses
        for (key, value), weight in zip(vocabulary, weights, strict=True):
            found[self.resolve(key, value)[1]] += int(weight)
        return {match: found[match] for match in ("exact", "key", "stem", "dropped")}


@cache
def _load(path: Path) -> TagTable:
    try:
        with safe_open(path, framework="numpy") as file:
            matrix = file.get_tensor("embeddings").astype(np.float32)
            metadata = json.loads((file.metadata() or {})["tag_table"])
        tags = tuple((str(key), str(value)) for key, value in metadata.pop("tags"))
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise GeoJEPAError(
            f"{path}: not a tag table ({error}); write one with scripts/make_tag_table.py"
        ) from error
    if matrix.shape != (len(tags), TAG_DIM):
        raise GeoJEPAError(
            f"{path}: {len(tags)} tags but embeddings of shape {matrix.shape}; "
            "write it anew with scripts/make_tag_table.py"
        )
    matrix.flags.writeable = False
    return TagTable(tags, matrix, metadata)


def entity_tag_embeddings(
    table_rows: NDArray[np.integer],
    tag_ids: NDArray[np.integer],
    cu_tags: NDArray[np.integer],
    table: TagTable,
) -> NDArray[np.float32]:
    """The sum of each entity's tag embeddings; zeros for an entity without a known tag.

    Args:
        table_rows: (V,) rows of the table for each tag of the vocabulary, from `lookup`.
        tag_ids: (K,) the entities' tags one after another, as indices into the vocabulary.
        cu_tags: (N + 1,) entity n has the tags from cu_tags[n] to cu_tags[n + 1].
        table: the table that `table_rows` speaks of.

    Returns:
        (N, TAG_DIM) float32.
    """
    rows = np.asarray(table_rows)[tag_ids]
    cu = np.asarray(cu_tags, dtype=np.int64)
    # a dropped tag adds its weight 0 times the first row
    weights = (rows >= 0).astype(np.float32)
    counts = csr_array(
        (weights, np.maximum(rows, 0).astype(np.int64), cu), shape=(len(cu) - 1, len(table.matrix))
    )
    return counts @ table.matrix
