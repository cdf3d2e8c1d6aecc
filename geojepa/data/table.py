"""Read a GeoParquet table of features: wide tag columns, as osmnx, srai and quackosm write them."""

from collections import Counter
from pathlib import Path

import geopandas
import numpy as np
import pandas as pd
import pyarrow.parquet
import shapely

from geojepa.data.features import GROUP, Features, is_entity
from geojepa.data.keys import clean
from geojepa.errors import GeoJEPAError


def read_table(path: Path) -> Features:
    """Features of a GeoParquet table; nulls and empty values are absent tags.

    Raises:
        GeoJEPAError: if the file is damaged, no GeoParquet, or without a CRS.
    """
    try:
        pyarrow.parquet.read_metadata(path)
        table = geopandas.read_parquet(path)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise GeoJEPAError(
            f"{path}: cannot be read as GeoParquet ({reason}); write it with geopandas, "
            "srai or quackosm, with a geometry column"
        ) from error
    if table.crs is None:
        raise GeoJEPAError(f"{path}: has no coordinate reference system; set one and write again")
    table = table.to_crs(4326)
    ids = _ids(table)
    order = np.argsort(ids, kind="stable")
    table, ids = table.iloc[order], ids[order]
    geometry = table.geometry.to_numpy()
    tags = [clean(row) for row in _rows(table.drop(columns=table.geometry.name))]
    kind = _kinds(geometry)
    is_kept = [is_entity(t, k) for t, k in zip(tags, kind.tolist(), strict=True)]
    kept = np.array(is_kept, dtype=bool) & ~shapely.is_missing(geometry)
    kept &= ~shapely.is_empty(geometry) & np.isfinite(shapely.bounds(geometry)).all(axis=1)
    rows = np.flatnonzero(kept)
    parts, owner = _flat_parts(geometry[rows])
    skipped = Counter({"features without a tag or a geometry": int((~kept).sum())})
    return Features(
        ids[rows].tolist(),
        kind[rows],
        [tags[i] for i in rows],
        parts,
        owner,
        skipped=skipped,
        is_table=True,
    )


def _ids(table: geopandas.GeoDataFrame) -> np.ndarray:
    """Names of the rows (n,), from osmnx's index, a column `feature_id`, or the index."""
    if {"element", "id"} <= set(table.index.names):
        names = [f"{element}/{number}" for element, number in table.index]
    elif "feature_id" in table.columns:
        names = table.pop("feature_id").astype(str).tolist()
    else:
        names = table.index.astype(str).tolist()
    return np.array(names, dtype=object)


def _kinds(geometry: np.ndarray) -> np.ndarray:
    """(n,) kinds: by dimension, and a group where a collection mixes them."""
    dimension = shapely.get_dimensions(geometry)
    return np.where((shapely.get_type_id(geometry) == 7) | (dimension < 0), GROUP, dimension)


def _rows(columns: pd.DataFrame) -> list[dict[str, str]]:
    rows: list[dict[str, str]] = [{} for _ in range(len(columns))]
    for key in columns.columns:
        present = columns[key].notna().to_numpy()
        for i, value in zip(np.flatnonzero(present), columns[key][present], strict=True):
            if text := str(value).strip():
                rows[i][str(key)] = text
    return rows


def _flat_parts(geometry: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Primitive parts of any geometries, collections of collections included, and their owner."""
    parts, owner = geometry, np.arange(len(geometry))
    while (shapely.get_type_id(parts) > 3).any():
        parts, index = shapely.get_parts(parts, return_index=True)
        owner = owner[index]
    shown = ~shapely.is_empty(parts)
    return parts[shown], owner[shown]
