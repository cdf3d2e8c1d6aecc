"""A corpus on disk, read by rows, with the masked versions of the benchmark as views."""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import geopandas
import numpy as np
import pandas as pd
import pyarrow as pa
import shapely

from geojepa.data.labels import LABELS, hides_tag
from geojepa.data.meaning import TASKS
from geojepa.data.shards import Entities, Shard
from geojepa.data.splits import usable
from geojepa.data.writing import IMAGE_SIZE as SIZE
from geojepa.data.writing import SCHEMA, SCHEMA_VERSION
from geojepa.errors import GeoJEPAError
from geojepa.files import recover

if TYPE_CHECKING:
    import datasets


@dataclass
class TileData:
    """Ragged entities of some tiles; N entities and K tags in all.

    Attributes:
        rows: (T,) rows of the corpus.
        cu_entities: (T + 1,) int32.
        kind: (N,) uint8: 0 point, 1 line, 2 polygon, 3 group.
        box: (N, 8) float32, tile units.
        cu_tags: (N + 1,) int64.
        tag_ids: (K,) int32 into the corpus's vocabulary.
        entity: (N,) int64, position of the entity in the corpus.
        has_image: (T,) bool.
    """

    rows: np.ndarray
    cu_entities: np.ndarray
    kind: np.ndarray
    box: np.ndarray
    cu_tags: np.ndarray
    tag_ids: np.ndarray
    entity: np.ndarray
    has_image: np.ndarray
    corpus: "Corpus"

    @cached_property
    def geometry(self) -> np.ndarray:
        """(N,) shapely geometries in tile units, clipped to the tile."""
        wkb = self.corpus.values("geometry", self.entity)
        return shapely.from_wkb(wkb.to_numpy(zero_copy_only=False))

    @cached_property
    def feature_id(self) -> list[str]:
        """(N) ids such as "way/123"."""
        return self.corpus.values("feature_id", self.entity).to_pylist()

    @cached_property
    def share(self) -> np.ndarray:
        """(N,) float32, the share of each feature's area, length or points inside its tile."""
        return self.corpus.values("share", self.entity).to_numpy()

    @cached_property
    def image(self) -> np.ndarray | None:
        """(T, 224, 224, 3) uint8, zeros where there is no image; None in a corpus without."""
        return self.corpus.images(self.rows) if self.corpus.has_images else None

    def tags(self) -> list[dict[str, str]]:
        """(N) tags of each entity; values of identifying keys are empty."""
        pairs = [self.corpus.vocabulary[i] for i in self.tag_ids]
        bounds = self.cu_tags.tolist()
        return [dict(pairs[a:b]) for a, b in pairwise(bounds)]


class Corpus:
    """One prepared corpus, or several joined; see `Corpus.open`."""

    def __init__(self, paths: list[Path], shards: list[Shard], infos: list[dict]):
        self.paths = paths
        self.infos = infos
        self._shards = shards
        vocabulary: dict[tuple[str, str], int] = {}
        # of each corpus, its tags as rows of the joint vocabulary
        self._to_joint = [
            np.array(
                [vocabulary.setdefault((k, v), len(vocabulary)) for k, v in info["vocabulary"]],
                dtype=np.int32,
            )
            for info in infos
        ]
        self.vocabulary = list(vocabulary)
        self._hidden: dict[str, np.ndarray] = {}
        self._corpus_of = np.repeat(np.arange(len(infos)), [info["shards"] for info in infos])
        self._first_row = np.append(0, np.cumsum([len(shard.count) for shard in shards]))
        self._first_entity = np.append(0, np.cumsum([shard.entities for shard in shards]))
        self.table = pa.concat_tables([shard.table for shard in shards])
        self.has_image = self.table["image"].is_valid().to_numpy()

    @classmethod
    def open(cls, paths: str | Path | Sequence[str | Path]) -> "Corpus":
        """Open one corpus folder, or join several; tables stay memory-mapped.

        Raises:
            GeoJEPAError: if a folder is no corpus, or one of another schema.
        """
        folders = [Path(paths)] if isinstance(paths, str | Path) else [Path(p) for p in paths]
        if not folders:
            raise GeoJEPAError("no corpus given; name at least one folder made by geojepa prepare")
        shards, infos = [], []
        for folder in folders:
            with suppress(OSError):
                recover(folder)
            if not (folder / "corpus.json").is_file():
                raise GeoJEPAError(f"{folder}: not a corpus; make one with geojepa prepare")
            try:
                info = json.loads((folder / "corpus.json").read_text())
                schema = info["schema"]
                state = json.loads((folder / "state.json").read_text())
                files = [folder / file["filename"] for file in state["_data_files"]]
                mine = [Shard(file) for file in files] if schema == SCHEMA_VERSION else []
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise GeoJEPAError(f"{folder}: the corpus is damaged; prepare it again") from error
            if schema != SCHEMA_VERSION:
                raise GeoJEPAError(
                    f"{folder}: schema {schema} is not {SCHEMA_VERSION}; prepare it again"
                )
            shards += mine
            infos.append(info | {"shards": len(mine)})
        places = [p["place"] for info in infos for p in info["places"]]
        twice = {p for p in places if places.count(p) > 1}
        if twice:
            raise GeoJEPAError(f"{', '.join(sorted(twice))}: in two of the corpora; name it once")
        return cls(folders, shards, infos)

    def __len__(self) -> int:
        return self.table.num_rows

    @property
    def name(self) -> str:
        """Names of the folders, joined."""
        return "+".join(path.name for path in self.paths)

    @property
    def hash(self) -> str:
        """Content hash; of several corpora, theirs in order."""
        return "+".join(info["hash"] for info in self.infos)

    @property
    def attribution(self) -> str:
        """What every figure and table drawn from this corpus must say."""
        return "; ".join(dict.fromkeys(info["attribution"] for info in self.infos))

    @property
    def has_images(self) -> bool:
        """Whether any tile has an image."""
        return bool(self.has_image.any())

    @cached_property
    def tiles(self) -> geopandas.GeoDataFrame:
        """One row a tile: names, place, labels and footprint (EPSG:4326)."""
        names = ["tile_id", "place", "group", "x", "y", "ground_m", *LABELS]
        frame = pd.DataFrame({n: self.table[n].to_numpy(zero_copy_only=False) for n in names})
        frame["entities"] = np.concatenate([shard.count for shard in self._shards])
        frame["image"] = self.has_image
        shapes = shapely.from_wkb(self.table["footprint"].to_numpy(zero_copy_only=False))
        return geopandas.GeoDataFrame(frame, geometry=shapes, crs=4326)

    @cached_property
    def usable(self) -> np.ndarray:
        """Rows that training and benchmark take; see `splits.usable`."""
        return np.flatnonzero(usable(self.tiles))

    @property
    def dataset(self) -> "datasets.Dataset":
        """The same tiles as HF datasets has them, memory-mapped: every column of `SCHEMA`."""
        import datasets

        return datasets.concatenate_datasets([datasets.load_from_disk(p) for p in self.paths])

    @property
    def entities(self) -> int:
        """Entities of all tiles."""
        return int(self._first_entity[-1])

    @cached_property
    def tag_uses(self) -> np.ndarray:
        """(V,) how often each tag of the vocabulary occurs."""
        uses = np.zeros(len(self.vocabulary), dtype=np.int64)
        for shard, number in zip(self._shards, self._corpus_of.tolist(), strict=True):
            joint = self._to_joint[number]
            uses[joint] += shard.tag_uses(len(joint))
        return uses

    def values(self, name: str, entity: np.ndarray) -> pa.Array:
        """Values (N,) of a ragged column for entities by their position in the corpus."""
        shard = np.searchsorted(self._first_entity, entity, side="right") - 1
        order = np.argsort(shard, kind="stable")
        back = np.empty(len(order), dtype=np.int64)
        back[order] = np.arange(len(order))
        some = [pa.array([], SCHEMA.field(name).type.value_type)]
        for number in np.unique(shard).tolist():
            mine = entity[shard == number] - self._first_entity[number]
            some.append(self._shards[number].values(name, mine))
        return pa.concat_arrays(some).take(pa.array(back))

    def images(self, rows: np.ndarray) -> np.ndarray:
        """(T, 224, 224, 3) uint8 of `rows`, zeros where there is none."""
        images = np.zeros((len(rows), SIZE, SIZE, 3), dtype=np.uint8)
        for i, row in enumerate(np.asarray(rows).tolist()):
            number = int(np.searchsorted(self._first_row, row, side="right")) - 1
            pixels = self._shards[number].image(row - self._first_row[number])
            if pixels is not None:
                images[i] = pixels.reshape(SIZE, SIZE, 3)
        return images

    def read(self, rows: Sequence[int] | np.ndarray, hide: str | None = None) -> TileData:
        """Entities of `rows`; with `hide`, as the masked version of that task shows them.

        A tile may be without entities in a masked view. Nothing computed from hidden evidence
        is left: boxes and geometries are each entity's own, and groups of hidden members go.
        """
        rows = np.asarray(rows)
        if rows.dtype == bool or (len(rows) and not 0 <= rows.min() <= rows.max() < len(self)):
            raise GeoJEPAError(f"rows are numbers from 0 to {len(self) - 1}; give such")
        rows = rows.astype(np.int64)
        some = self._entities(rows)
        if hide is not None:
            bit = TASKS.index(hide)
            shown = np.flatnonzero((some.evidence >> bit) & 1 == 0)
            owner = np.repeat(np.arange(len(rows)), np.diff(some.cu_entities))[shown]
            counts = np.bincount(owner, minlength=len(rows))
            some = some.take(shown, np.append(0, np.cumsum(counts)))
            is_kept = ~self._hidden_tags(hide)[some.tag_ids]
            some.tag_ids = some.tag_ids[is_kept]
            some.cu_tags = np.append(0, np.cumsum(is_kept))[some.cu_tags]
        return TileData(
            rows=rows,
            cu_entities=some.cu_entities.astype(np.int32),
            kind=some.kind,
            box=some.box,
            cu_tags=some.cu_tags,
            tag_ids=some.tag_ids,
            entity=some.entity,
            has_image=self.has_image[rows],
            corpus=self,
        )

    def is_changed(self, rows: np.ndarray, hide: str) -> np.ndarray:
        """Which tiles look different where a task's evidence is hidden: (T,) bool.

        Hiding only removes: a tile with as many entities and tags is the same.
        """
        counts = []
        for view in (None, hide):
            tiles = self.read(rows, view)
            counts.append([np.diff(tiles.cu_entities), np.diff(tiles.cu_tags[tiles.cu_entities])])
        return (np.array(counts[0]) != np.array(counts[1])).any(axis=0)

    def _entities(self, rows: np.ndarray) -> Entities:
        shard = np.searchsorted(self._first_row, rows, side="right") - 1
        order = np.argsort(shard, kind="stable")
        found = []
        for number in np.unique(shard).tolist():
            some = self._shards[number].read(rows[shard == number] - self._first_row[number])
            some.entity += self._first_entity[number]
            if len(self.infos) > 1:
                some.tag_ids = self._to_joint[self._corpus_of[number]][some.tag_ids]
            found.append(some)
        if len(found) == 1:
            return found[0]
        back = np.empty(len(order), dtype=np.int64)
        back[order] = np.arange(len(order))
        return Entities.join(found).take_tiles(back)

    def _hidden_tags(self, task: str) -> np.ndarray:
        if task not in self._hidden:
            hidden = [hides_tag(task, key, value) for key, value in self.vocabulary]
            self._hidden[task] = np.array(hidden, dtype=bool)
        return self._hidden[task]
