"""A corpus on disk, read by rows, with the masked versions of the benchmark as views."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import datasets
import geopandas
import numpy as np
import pandas as pd
import pyarrow as pa
import shapely

from geojepa.data.imagery import SIZE
from geojepa.data.labels import TASKS, hides_tag
from geojepa.data.prepare import SCHEMA_VERSION
from geojepa.data.splits import usable
from geojepa.errors import GeoJEPAError


@dataclass(frozen=True)
class Ragged:
    """Lists of values as one flat array and int64 offsets (rows + 1)."""

    values: np.ndarray
    offsets: np.ndarray

    @classmethod
    def of(cls, column: pa.ChunkedArray) -> "Ragged":
        """From an Arrow list column; no copy where it is one chunk of numbers."""
        lists = column.combine_chunks()
        offsets = lists.offsets.to_numpy()
        values = lists.values
        if pa.types.is_large_binary(values.type) or pa.types.is_string(values.type):
            return cls(values, offsets)
        return cls(values.to_numpy(zero_copy_only=False), offsets)

    def where(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Flat positions of the values of `rows`, in order, and their offsets (rows + 1)."""
        start, count = self.offsets[rows], self.offsets[rows + 1] - self.offsets[rows]
        cu = np.concatenate([[0], np.cumsum(count)])
        return np.repeat(start - cu[:-1], count) + np.arange(cu[-1]), cu


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
        wkb = self.corpus.column("geometry").values.take(pa.array(self.entity))
        return shapely.from_wkb(wkb.to_numpy(zero_copy_only=False))

    @cached_property
    def feature_id(self) -> list[str]:
        """(N) ids such as "way/123"."""
        return self.corpus.column("feature_id").values.take(pa.array(self.entity)).to_pylist()

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

    def __init__(self, paths: list[Path], table: pa.Table, vocabulary: list, infos: list[dict]):
        self.paths = paths
        self.table = table
        self.vocabulary: list[tuple[str, str]] = vocabulary
        self.infos = infos
        self._columns: dict[str, Ragged] = {}
        images = table["image"]
        self.has_image = ~np.asarray(images.is_null())
        self._image_start = np.cumsum([0, *(len(chunk) for chunk in images.chunks)])

    @classmethod
    def open(cls, paths: str | Path | Sequence[str | Path]) -> "Corpus":
        """Open one corpus folder, or join several; tables stay memory-mapped.

        Raises:
            GeoJEPAError: if a folder is no corpus, or one of another schema.
        """
        folders = [Path(paths)] if isinstance(paths, str | Path) else [Path(p) for p in paths]
        if not folders:
            raise GeoJEPAError("no corpus given; name at least one folder made by geojepa prepare")
        tables, infos = [], []
        vocabulary: dict[tuple[str, str], int] = {}
        for folder in folders:
            if not (folder / "corpus.json").is_file():
                raise GeoJEPAError(f"{folder}: not a corpus; make one with geojepa prepare")
            try:
                info = json.loads((folder / "corpus.json").read_text())
                schema = info["schema"]
                table = datasets.load_from_disk(folder).data.table
            except (OSError, ValueError, KeyError) as error:
                raise GeoJEPAError(f"{folder}: the corpus is damaged; prepare it again") from error
            if schema != SCHEMA_VERSION:
                raise GeoJEPAError(
                    f"{folder}: schema {schema} is not {SCHEMA_VERSION}; prepare it again"
                )
            pairs = [tuple(pair) for pair in info["vocabulary"]]
            to_joint = np.array(
                [vocabulary.setdefault(p, len(vocabulary)) for p in pairs], dtype=np.int32
            )
            tables.append(_renumber(table, to_joint) if len(folders) > 1 else table)
            infos.append(info)
        places = [p["place"] for info in infos for p in info["places"]]
        twice = {p for p in places if places.count(p) > 1}
        if twice:
            raise GeoJEPAError(f"{', '.join(sorted(twice))}: in two of the corpora; name it once")
        return cls(folders, pa.concat_tables(tables), list(vocabulary), infos)

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
        names = ["tile_id", "place", "group", "x", "y", "ground_m", *TASKS]
        frame = pd.DataFrame({n: self.table[n].to_numpy(zero_copy_only=False) for n in names})
        frame["entities"] = np.diff(self.column("kind").offsets)
        frame["image"] = self.has_image
        shapes = shapely.from_wkb(self.table["footprint"].to_numpy(zero_copy_only=False))
        return geopandas.GeoDataFrame(frame, geometry=shapes, crs=4326)

    @cached_property
    def usable(self) -> np.ndarray:
        """Rows that training and benchmark take; see `splits.usable`."""
        return np.flatnonzero(usable(self.tiles))

    def column(self, name: str) -> Ragged:
        """A ragged column by name."""
        if name not in self._columns:
            self._columns[name] = Ragged.of(self.table[name])
        return self._columns[name]

    @cached_property
    def cu_tags(self) -> np.ndarray:
        """(all entities + 1,) int64 offsets into the flat tag ids."""
        return np.concatenate([[0], np.cumsum(self.column("tag_count").values, dtype=np.int64)])

    def images(self, rows: np.ndarray) -> np.ndarray:
        """(T, 224, 224, 3) uint8 of `rows`, zeros where there is none."""
        images = np.zeros((len(rows), SIZE, SIZE, 3), dtype=np.uint8)
        column = self.table["image"]
        for i, row in enumerate(rows):
            if self.has_image[row]:
                chunk = int(np.searchsorted(self._image_start, row, side="right")) - 1
                raw = column.chunk(chunk)[int(row - self._image_start[chunk])].as_buffer()
                images[i] = np.frombuffer(raw, dtype=np.uint8).reshape(SIZE, SIZE, 3)
        return images

    def read(self, rows: Sequence[int] | np.ndarray, hide: str | None = None) -> TileData:
        """Entities of `rows`; with `hide`, as the masked version of that task shows them.

        A tile may be without entities in a masked view. Nothing computed from hidden evidence
        is left: boxes and geometries are each entity's own, and groups of hidden members go.
        """
        rows = np.asarray(rows, dtype=np.int64)
        entity, cu_entities = self.column("kind").where(rows)
        owner = np.repeat(np.arange(len(rows)), np.diff(cu_entities))
        if hide is not None:
            bit = TASKS.index(hide)
            shown = (self.column("evidence").values[entity] >> bit) & 1 == 0
            entity, owner = entity[shown], owner[shown]
            counts = np.bincount(owner, minlength=len(rows))
            cu_entities = np.concatenate([[0], np.cumsum(counts)])
        at, cu_tags = Ragged(self.column("tag_ids").values, self.cu_tags).where(entity)
        tag_ids = self.column("tag_ids").values[at]
        if hide is not None:
            shown = ~self._hidden_tags(hide)[tag_ids]
            kept = np.concatenate([[0], np.cumsum(shown)])
            tag_ids, cu_tags = tag_ids[shown], kept[cu_tags]
        return TileData(
            rows=rows,
            cu_entities=cu_entities.astype(np.int32),
            kind=self.column("kind").values[entity],
            box=self.column("box").values.reshape(-1, 8)[entity],
            cu_tags=cu_tags,
            tag_ids=tag_ids,
            entity=entity,
            has_image=self.has_image[rows],
            corpus=self,
        )

    def _hidden_tags(self, task: str) -> np.ndarray:
        return np.array([hides_tag(task, key, value) for key, value in self.vocabulary], dtype=bool)


def _renumber(table: pa.Table, to_joint: np.ndarray) -> pa.Table:
    """The table with its tag ids in the joint vocabulary's numbers."""
    lists = table["tag_ids"].combine_chunks()
    values = pa.array(to_joint[lists.values.to_numpy()])
    column = pa.LargeListArray.from_arrays(lists.offsets, values)
    return table.set_column(table.column_names.index("tag_ids"), "tag_ids", column)
