"""Read a GeoParquet table of features: wide tag columns, as osmnx, srai and quackosm write them."""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import geopandas
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import shapely

from geojepa.data.cutting import to_units
from geojepa.data.features import GROUP, Features, is_wanted, repaired
from geojepa.data.vocabulary import Pair, Tagging, Vocabulary
from geojepa.errors import GeoJEPAError

# rows that are held at once
BATCH_ROWS = 1 << 16


def row_groups(path: Path) -> list[tuple[int, int]]:
    """First and last but one of the row groups of a GeoParquet table that go together.

    Raises:
        GeoJEPAError: if the file is damaged or of another format.
    """
    with _named(path):
        metadata = pyarrow.parquet.read_metadata(path)
    rows = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
    block = np.cumsum([0, *rows])[:-1] // BATCH_ROWS
    begins = np.flatnonzero(np.diff(block, prepend=-1)).tolist()
    return list(pairwise([*begins, len(rows)]))


def read_table(path: Path, start: int, stop: int, vocabulary: Vocabulary) -> Iterator[Features]:
    """Features of row groups of a GeoParquet table; nulls and empty values are absent tags.

    Raises:
        GeoJEPAError: if the file is damaged, no GeoParquet, or without a CRS.
    """
    with _named(path):
        file = pyarrow.parquet.ParquetFile(path)
        first = sum(file.metadata.row_group(i).num_rows for i in range(start))
        batches = file.iter_batches(BATCH_ROWS, row_groups=range(start, stop))
    while True:
        with _named(path):
            batch = next(batches, None)
            if batch is None:
                return
            # geopandas reads whole files only: this one is in memory
            part = pa.Table.from_batches([batch])
            part = part.replace_schema_metadata(file.schema_arrow.metadata)
            # text that is not UTF-8 shows itself only here
            part.validate(full=True)
            # bytes are no text, but may be geometry
            geo = json.loads((part.schema.metadata or {}).get(b"geo", b"{}"))
            shapes = geo.get("columns", {})
            no_text = [f.name for f in part.schema if pa.types.is_binary(f.type)]
            part = part.drop_columns([name for name in no_text if name not in shapes])
            sink = pa.BufferOutputStream()
            pyarrow.parquet.write_table(part, sink, compression="none")
            table = geopandas.read_parquet(pa.BufferReader(sink.getvalue()))
        yield _features(table, path, first, vocabulary)
        first += len(table)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Name the file and the remedy, whatever its content makes the libraries stumble over."""
    try:
        yield
    except Exception as error:
        reason = f"{error}".splitlines()[0] if f"{error}" else type(error).__name__
        raise GeoJEPAError(
            f"{path}: cannot be read as GeoParquet ({reason}); write it with geopandas, "
            "srai or quackosm, with a geometry column"
        ) from error


def _features(
    table: geopandas.GeoDataFrame, path: Path, first: int, vocabulary: Vocabulary
) -> Features:
    """Features of some rows, of which `first` come before."""
    if table.crs is None:
        raise GeoJEPAError(f"{path}: has no coordinate reference system; set one and write again")
    table = table.to_crs(4326)
    ids = _ids(table, first)
    geometry = table.geometry.to_numpy()
    with _named(path):
        tags = _tags(table.select_dtypes(exclude="geometry"), vocabulary)
    kind = _kinds(geometry)
    kept = is_wanted(tags, kind) & ~shapely.is_missing(geometry)
    kept &= ~shapely.is_empty(geometry) & np.isfinite(shapely.bounds(geometry)).all(axis=1)
    rows = np.flatnonzero(kept)
    skipped = Counter({"features without a tag or a geometry": int((~kept).sum())})
    parts, owner = _flat_parts(geometry[rows])
    parts, owner = repaired(shapely.transform(parts, to_units), owner, skipped)
    return Features.of(
        np.zeros(len(rows), dtype=np.int64),
        pa.array(ids[rows], pa.string()),
        kind[rows].astype(np.uint8),
        tags.take(rows),
        parts,
        owner,
        skipped,
    )


def _ids(table: geopandas.GeoDataFrame, first: int) -> np.ndarray:
    """Names of the rows (n,): osmnx's index, a column `feature_id`, the index, or their number."""
    if {"element", "id"} <= set(table.index.names):
        names = [f"{element}/{number}" for element, number in table.index]
    elif "feature_id" in table.columns:
        names = table.pop("feature_id").astype(str).tolist()
    elif isinstance(table.index, pd.RangeIndex):
        names = [str(first + row) for row in range(len(table))]
    else:
        names = table.index.astype(str).tolist()
    return np.array(names, dtype=object)


def _kinds(geometry: np.ndarray) -> np.ndarray:
    """(n,) kinds: by dimension, and a group where a collection mixes them."""
    dimension = shapely.get_dimensions(geometry)
    return np.where((shapely.get_type_id(geometry) == 7) | (dimension < 0), GROUP, dimension)


def _tags(columns: pd.DataFrame, vocabulary: Vocabulary) -> Tagging:
    """What the tags of n rows say."""
    distinct: list[Pair] = []
    rows, index = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for key in columns.columns:
        text = columns[key].dropna().astype(str).str.strip()
        code, values = pd.factorize(text[text != ""])
        rows.append(np.flatnonzero(columns[key].notna())[(text != "").to_numpy()])
        index.append(code + len(distinct))
        distinct += [(str(key), value) for value in values.tolist()]
    row, flat = np.concatenate(rows), np.concatenate(index)
    order = np.argsort(row, kind="stable")
    cu = np.append(0, np.cumsum(np.bincount(row, minlength=len(columns))))
    return vocabulary.describe(distinct, flat[order], cu)


def _flat_parts(geometry: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Primitive parts of any geometries, collections of collections included, and their owner."""
    parts, owner = geometry, np.arange(len(geometry))
    while (shapely.get_type_id(parts) > 3).any():
        parts, index = shapely.get_parts(parts, return_index=True)
        owner = owner[index]
    shown = ~shapely.is_empty(parts)
    return parts[shown], owner[shown]
