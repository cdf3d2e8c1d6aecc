"""Read a GeoParquet table of features, as osmnx, srai and quackosm write them.

Tags are columns of text, or a column `tags` that holds maps, structs, lists of pairs or JSON.
"""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import shapely

from geojepa.data.features import GROUP, Features, is_wanted, primitive_parts, repaired
from geojepa.data.grid import to_units
from geojepa.data.vocabulary import Pair, Tagging, Vocabulary
from geojepa.errors import GeoJEPAError

# rows that are held at once
BATCH_ROWS = 1 << 16
NESTED = "lists, maps and structs in columns other than tags"
NO_TAGS = "values of a column tags that are neither a map nor JSON"


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
            nested = [f.name for f in part.schema if pa.types.is_nested(f.type)]
            nested = [name for name in nested if name not in {"tags", *shapes, *_boxes(shapes)}]
            skipped = Counter({NESTED: sum(len(part) - part[name].null_count for name in nested)})
            no_text = [name for name in no_text if name not in shapes]
            part = part.drop_columns(no_text + nested)
            sink = pa.BufferOutputStream()
            pyarrow.parquet.write_table(part, sink, compression="none")
            table = geopandas.read_parquet(pa.BufferReader(sink.getvalue()))
        yield _features(table, path, first, vocabulary, skipped)
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


def _boxes(shapes: dict[str, dict]) -> list[str]:
    """Columns that hold the bounding boxes of geometry columns."""
    coverings = [shape.get("covering", {}).get("bbox", {}) for shape in shapes.values()]
    return [path[0] for covering in coverings for path in covering.values()]


def _features(
    table: geopandas.GeoDataFrame,
    path: Path,
    first: int,
    vocabulary: Vocabulary,
    skipped: Counter[str],
) -> Features:
    """Features of some rows, of which `first` come before."""
    if table.crs is None:
        raise GeoJEPAError(f"{path}: has no coordinate reference system; set one and write again")
    table = table.to_crs(4326)
    ids = _ids(table, first)
    geometry = table.geometry.to_numpy()
    with _named(path):
        tags = _tags(table.select_dtypes(exclude="geometry"), vocabulary, skipped)
    kind = _kinds(geometry)
    kept = is_wanted(tags, kind) & ~shapely.is_missing(geometry)
    kept &= ~shapely.is_empty(geometry) & np.isfinite(shapely.bounds(geometry)).all(axis=1)
    rows = np.flatnonzero(kept)
    skipped["features without a tag or a geometry"] += int((~kept).sum())
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
    """Names of the rows (n,): a column `feature_id`, the index, or their number.

    Levels of an index, such as osmnx's of element and id, are joined: "way/12".
    """
    if "feature_id" in table.columns:
        names = table.pop("feature_id").astype(str).tolist()
    elif isinstance(table.index, pd.MultiIndex):
        names = ["/".join(map(str, levels)) for levels in table.index]
    elif isinstance(table.index, pd.RangeIndex):
        names = [str(first + row) for row in range(len(table))]
    else:
        names = table.index.astype(str).tolist()
    return np.array(names, dtype=object)


def _kinds(geometry: np.ndarray) -> np.ndarray:
    """(n,) kinds: by dimension, and a group where a collection mixes them."""
    dimension = shapely.get_dimensions(geometry)
    return np.where((shapely.get_type_id(geometry) == 7) | (dimension < 0), GROUP, dimension)


def _tags(columns: pd.DataFrame, vocabulary: Vocabulary, skipped: Counter[str]) -> Tagging:
    """What the tags of n rows say."""
    distinct: list[Pair] = []
    rows, index = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for key in columns.columns:
        row = np.flatnonzero(columns[key].notna())
        if key == "tags":
            found = [_pairs(value) for value in columns[key].iloc[row]]
            skipped[NO_TAGS] += found.count(None)
            row = np.repeat(row, [len(pairs or ()) for pairs in found])
            flat = [pair for pairs in found for pair in pairs or ()]
            number = {pair: i for i, pair in enumerate(dict.fromkeys(flat))}
            code, values = np.array([number[pair] for pair in flat], dtype=np.int64), list(number)
        else:
            text = columns[key].dropna().astype(str).str.strip()
            row = row[(text != "").to_numpy()]
            code, found = pd.factorize(text[text != ""])
            values = [(str(key), value) for value in found.tolist()]
        rows.append(row)
        index.append(code + len(distinct))
        distinct += values
    row = np.concatenate(rows)
    order = np.argsort(row, kind="stable")
    cu = np.append(0, np.cumsum(np.bincount(row, minlength=len(columns))))
    return vocabulary.describe(distinct, np.concatenate(index)[order], cu)


def _pairs(value: Any) -> list[Pair] | None:
    """Tags of a map, a struct, a list of pairs or JSON text, without empty ones; else None."""
    try:
        items = json.loads(value) if isinstance(value, str) else value
        items = items.items() if isinstance(items, dict) else items
        pairs = [item.values() if isinstance(item, dict) else item for item in items]
        return [(str(k), f"{v}".strip()) for k, v in pairs if v is not None and f"{v}".strip()]
    except (TypeError, ValueError):
        return None


def _flat_parts(geometry: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Primitive parts of any geometries that are not empty, and their owner."""
    parts, owner = primitive_parts(geometry)
    shown = ~shapely.is_empty(parts)
    return parts[shown], owner[shown]
