"""Systems to beat that need no training of their own: constants, counts and pooled tag embeddings.

A system turns tiles into features; `benchmark` puts heads on them. See `System` for the interface.
"""

from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np
from scipy.sparse import csr_array

from geojepa.data.corpus import Corpus, TileData
from geojepa.data.splits import Split
from geojepa.model.tags import TagTable, entity_tag_embeddings

KINDS = 4
# tiles whose entities are held in memory at once
CHUNK = 512
# TagCount keeps the most common tags and keys, those on at least so many training tiles
MIN_TILES, MAX_TAGS = 5, 500


class System(Protocol):
    """Anything the benchmark can measure.

    Attributes:
        name: unique in a table.
        kind: "constant", "frozen" or "supervised".
        modalities: such as "T" or "GTI", "-" where it reads none.
        probes: heads of its own; None takes those of the benchmark.
        seeds: pretraining seeds; one where nothing is drawn.
        per_split: whether features differ between splits.
        parameters, seconds, device: size, pretraining time and where, for the table.
        settings: a digest of what tells it from others of its name, empty where nothing does.
    """

    name: str
    kind: str
    modalities: str
    per_split: bool
    parameters: int
    seconds: float
    device: str
    settings: str

    @property
    def probes(self) -> tuple[str, ...] | None: ...

    @property
    def seeds(self) -> Sequence[int]: ...

    def features(self, rows: np.ndarray, hide: str | None, split: Split, seed: int) -> np.ndarray:
        """Return features (len(rows), F) of the view that hides a task; zeros without tokens."""
        ...

    def seen(self, split: Split, seed: int) -> np.ndarray | None:
        """Return the `tile_keys` that the encoder was trained on; None if it was not trained."""
        ...

    def commit(self, split: Split, seed: int) -> str:
        """Return the commit of the code that trained it, empty if it was not trained."""
        ...


class Baseline:
    """What the systems of this file share: they read a corpus and are not trained."""

    name = "Dummy"
    kind = "frozen"
    modalities = "T"
    probes: tuple[str, ...] | None = None
    seeds: Sequence[int] = (0,)
    per_split = False
    parameters = 0
    seconds = 0.0
    device = "cpu"
    settings = ""

    def __init__(self, corpus: Corpus) -> None:
        self.corpus = corpus

    def commit(self, split: Split, seed: int) -> str:
        """None."""
        return ""

    def seen(self, split: Split, seed: int) -> np.ndarray | None:
        """No tile: nothing is pretrained."""
        return None

    def features(self, rows: np.ndarray, hide: str | None, split: Split, seed: int) -> np.ndarray:
        """Features (len(rows), F) float32, read in chunks."""
        chunks = np.split(rows, range(CHUNK, len(rows), CHUNK))
        return np.concatenate([self.pool(self.corpus.read(part, hide)) for part in chunks])

    def pool(self, tiles: TileData) -> np.ndarray:
        """Features of some tiles: (T, F) float32."""
        raise NotImplementedError


class Dummy(Baseline):
    """The best constant of train."""

    kind = "constant"
    modalities = "-"

    def pool(self, tiles: TileData) -> np.ndarray:
        """Nothing: (T, 0)."""
        return np.zeros((len(tiles.rows), 0), np.float32)


class Count(Baseline):
    """The number of entities by kind, and its logarithm: how much a bare count explains."""

    name = "Count"
    modalities = "-"

    def pool(self, tiles: TileData) -> np.ndarray:
        """Counts and log1p counts of points, lines, polygons and groups: (T, 8)."""
        owner = _owner(tiles.cu_entities)
        flat = np.bincount(owner * KINDS + tiles.kind, minlength=len(tiles.rows) * KINDS)
        counts = flat.reshape(-1, KINDS).astype(np.float32)
        return np.concatenate([counts, np.log1p(counts)], axis=1)


class TagCount(Baseline):
    """How many entities carry each common tag and key, as log1p, under a supervised head."""

    name = "TagCount"
    kind = "supervised"
    probes: tuple[str, ...] | None = ("GBM", "MLP")
    per_split = True

    def features(self, rows: np.ndarray, hide: str | None, split: Split, seed: int) -> np.ndarray:
        """Log1p counts of the tags and keys common on the split's training tiles: (T, <= 1000)."""
        tiles = self.corpus.read(rows, hide)
        keys = np.unique([key for key, _ in self.corpus.vocabulary], return_inverse=True)[1]
        is_train = np.isin(rows, split.train)
        counts = (
            _common(tiles.tag_ids, tiles, is_train),
            _common(keys[tiles.tag_ids], tiles, is_train),
        )
        return np.log1p(np.concatenate(counts, axis=1))


class TagPool(Baseline):
    """Frozen tag embeddings summed to entities, pooled by mean or sum, and by max."""

    def __init__(self, corpus: Corpus, first: Literal["mean", "sum"] = "mean") -> None:
        super().__init__(corpus)
        self.first = first
        self.name = f"TagPool ({first}, max)"
        self.table = TagTable.load()
        self.table_rows = self.table.lookup(corpus.vocabulary)

    def pool(self, tiles: TileData) -> np.ndarray:
        """Mean or sum, and max, over a tile's entities: (T, 768)."""
        entities = entity_tag_embeddings(self.table_rows, tiles.tag_ids, tiles.cu_tags, self.table)
        count = np.diff(tiles.cu_entities)
        out = np.zeros((len(count), 2, entities.shape[1]), np.float32)
        filled = np.flatnonzero(count)
        starts = tiles.cu_entities[filled]
        if len(filled):
            out[filled, 0] = np.add.reduceat(entities, starts)
            out[filled, 1] = np.maximum.reduceat(entities, starts)
        if self.first == "mean":
            out[filled, 0] /= count[filled, None]
        return out.reshape(len(count), -1)


def baselines(corpus: Corpus) -> list[System]:
    """Every system of this file, on one corpus."""
    pools = (TagPool(corpus, "mean"), TagPool(corpus, "sum"))
    return [Dummy(corpus), Count(corpus), TagCount(corpus), *pools]


def _common(names: np.ndarray, tiles: TileData, is_train: np.ndarray) -> np.ndarray:
    """Counts (T, <= MAX_TAGS) of the names (K,) that are most common on training tiles."""
    shape = (len(tiles.rows), int(names.max(initial=0)) + 1)
    ones = np.ones(len(names), np.float32)
    counts = csr_array((ones, names, tiles.cu_tags[tiles.cu_entities]), shape=shape)
    counts.sum_duplicates()
    on_tiles = counts[np.flatnonzero(is_train)].count_nonzero(axis=0)
    most = np.argsort(-on_tiles, kind="stable")[:MAX_TAGS]
    return counts[:, np.sort(most[on_tiles[most] >= MIN_TILES])].toarray()


def _owner(cu_entities: np.ndarray) -> np.ndarray:
    return np.repeat(np.arange(len(cu_entities) - 1), np.diff(cu_entities))
