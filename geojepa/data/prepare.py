"""From extracts to a corpus on disk: read, cut, box, label, picture, write."""

import hashlib
import json
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import datasets
import geopandas
import numpy as np
import osmium
import pyarrow as pa
import shapely

from geojepa.data.boxes import rotated_boxes
from geojepa.data.city.write import GENERATOR
from geojepa.data.cutting import (
    Grid,
    Pieces,
    cut_to_footprints,
    cut_to_grid,
    grid_of_footprints,
    to_units,
)
from geojepa.data.features import Features, repaired
from geojepa.data.imagery import SIZE, read_images
from geojepa.data.labels import TASKS, carried_tasks, evidence_bits, tile_labels
from geojepa.data.reading import read_features
from geojepa.errors import GeoJEPAError
from geojepa.files import place_of, sha256, whole

SCHEMA_VERSION = 1
MIN_ENTITIES, MAX_ENTITIES = 5, 1250
ATTRIBUTION = "© OpenStreetMap contributors, ODbL 1.0"
MADE = "lilliput: a made city, no real place"

Vocabulary = dict[tuple[str, str], int]


def prepare(
    extracts: Sequence[str | Path],
    out: str | Path,
    footprints: str | Path | None = None,
    imagery: str | Path | None = None,
    credit: str = "",
) -> Path:
    """Turn extracts into one corpus: a folder of HF datasets shards, one row a tile.

    Args:
        extracts: OpenStreetMap files or GeoParquet tables of features, one a place.
        out: folder of the corpus; it appears whole or not at all.
        footprints: polygons to cut to, as GeoParquet or any vector file; zoom-16 tiles without.
        imagery: a GeoTIFF, or a folder of images named by tile.
        credit: whose the imagery is, as every figure will say.

    Returns:
        The folder.

    Raises:
        GeoJEPAError: for unreadable input, and if no tile holds five entities.
    """
    if not extracts:
        raise GeoJEPAError("no extract given; name at least one .osm.pbf or .parquet file")
    out = Path(out)
    if out.exists() and not (out / "corpus.json").is_file() and not _is_empty_folder(out):
        raise GeoJEPAError(f"{out}: exists and is not a corpus; name another folder")
    footprint_grid = _read_footprints(Path(footprints)) if footprints else None
    vocabulary: Vocabulary = {}
    tables: list[pa.Table] = []
    places: list[dict] = []
    digest = hashlib.sha256()
    for extract in map(Path, extracts):
        place = place_of(extract)
        if place in (p["place"] for p in places):
            raise GeoJEPAError(f"{extract}: two extracts are named {place}; rename one")
        table, facts = _prepare_place(extract, place, footprint_grid, imagery, vocabulary, digest)
        if footprints and not facts["tiles"] + facts["tiles_below_limit"]:
            raise GeoJEPAError(
                f"{footprints}: no feature of {extract} lies in any footprint; "
                "give footprints of the same place"
            )
        tables.append(table)
        places.append({"place": place, "source_sha256": sha256(extract), **facts})
    if not sum(table.num_rows for table in tables):
        where = ", ".join(map(str, extracts))
        raise GeoJEPAError(
            f"{where}: no tile holds {MIN_ENTITIES} entities; give a larger or richer extract"
        )
    digest.update(json.dumps(list(vocabulary), ensure_ascii=False).encode())
    info = {
        "schema": SCHEMA_VERSION,
        "hash": digest.hexdigest()[:16],
        "attribution": MADE if all(p["made"] for p in places) else ATTRIBUTION,
        "imagery": Path(imagery).name if imagery else None,
        "imagery_credit": credit,
        "geojepa": version("geojepa"),
        "places": places,
        "vocabulary": list(vocabulary),
    }
    with whole(out) as part:
        datasets.disable_progress_bars()
        datasets.Dataset(pa.concat_tables(tables)).save_to_disk(part)
        (part / "corpus.json").write_text(json.dumps(info, ensure_ascii=False, indent=1))
    return out


def _is_made(extract: Path) -> bool:
    """Whether an extract is of a made city, as its header says."""
    if extract.suffix == ".parquet":
        return False
    header = osmium.io.Reader(str(extract), osmium.osm.NOTHING).header()
    return header.get("generator") == GENERATOR


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def _read_footprints(path: Path) -> Grid:
    if not path.is_file():
        raise GeoJEPAError(f"{path}: no such footprints; check the path")
    read = geopandas.read_parquet if path.suffix == ".parquet" else geopandas.read_file
    try:
        return grid_of_footprints(read(path))
    except GeoJEPAError as error:
        raise GeoJEPAError(f"{path}: {error}") from error
    except Exception as error:
        reason = f"{error}".splitlines()[0] if f"{error}" else type(error).__name__
        raise GeoJEPAError(
            f"{path}: not readable as polygons ({reason}); write GeoParquet"
        ) from error


def _prepare_place(
    extract: Path,
    place: str,
    footprints: Grid | None,
    imagery: str | Path | None,
    vocabulary: Vocabulary,
    digest: "hashlib._Hash",
) -> tuple[pa.Table, dict]:
    features = read_features(extract)
    features.parts = shapely.transform(features.parts, to_units)
    features = repaired(features)
    if footprints is None:
        pieces, grid = cut_to_grid(features.parts, features.owner)
    else:
        grid = footprints
        pieces = cut_to_footprints(features.parts, features.owner, grid)
    labels = tile_labels(features, pieces, grid)
    entities = np.bincount(pieces.tile, minlength=len(grid.tile_id))
    kept = np.flatnonzero(entities >= MIN_ENTITIES)
    features.skipped["footprints without a feature"] = int((entities == 0).sum())
    pieces, grid, labels = _keep(pieces, grid, labels, kept)
    columns = _entity_columns(features, pieces, len(kept), vocabulary)
    head = {
        "tile_id": pa.array(grid.tile_id),
        "place": pa.array([place] * len(kept)),
        "group": pa.array(grid.group),
        "x": pa.array(grid.xy[:, 0].astype(np.int32)),
        "y": pa.array(grid.xy[:, 1].astype(np.int32)),
        "ground_m": pa.array(grid.ground_m().astype(np.float32)),
        "footprint": pa.array(shapely.to_wkb(grid.footprint)),
    }
    head |= {task: pa.array(labels[task], from_pandas=True) for task in TASKS}
    for name, column in (head | columns).items():
        digest.update(name.encode())
        digest.update(_content(column))
    if imagery and len(kept):
        images, has_image = read_images(imagery, grid)
        digest.update(images.data)
        digest.update(has_image.data)
        head["image"] = _image_column(images, has_image)
    else:
        head["image"] = pa.nulls(len(kept), pa.large_binary())
    facts = {
        "tiles": len(kept),
        "tiles_below_limit": int((entities > 0).sum()) - len(kept),
        "tiles_above_limit": int((entities > MAX_ENTITIES).sum()),
        "features": len(features),
        "tasks": [task for task in TASKS if task in carried_tasks(features)],
        "skipped": {k: v for k, v in sorted(features.skipped.items()) if v},
        "made": _is_made(extract),
    }
    return pa.table(head | columns), facts


def _keep(
    pieces: Pieces, grid: Grid, labels: dict[str, np.ndarray], kept: np.ndarray
) -> tuple[Pieces, Grid, dict[str, np.ndarray]]:
    """Only the tiles `kept`, renumbered."""
    number = np.full(len(grid.tile_id), -1)
    number[kept] = np.arange(len(kept))
    live = number[pieces.tile] >= 0
    return (
        Pieces(pieces.feature[live], number[pieces.tile[live]], pieces.geometry[live]),
        Grid(
            [grid.tile_id[i] for i in kept],
            grid.xy[kept],
            grid.frame[kept],
            grid.footprint[kept],
            [grid.group[i] for i in kept],
            [grid.image[i] for i in kept],
        ),
        {task: values[kept] for task, values in labels.items()},
    )


def _entity_columns(
    features: Features, pieces: Pieces, tiles: int, vocabulary: Vocabulary
) -> dict[str, pa.Array]:
    """Ragged columns of the entities, in the order of the pieces (tile, then feature)."""
    tag_ids = [
        [vocabulary.setdefault(pair, len(vocabulary)) for pair in sorted(tags.items())]
        for tags in features.tags
    ]
    count = np.array([len(ids) for ids in tag_ids], dtype=np.int32)[pieces.feature]
    flat = [i for feature in pieces.feature.tolist() for i in tag_ids[feature]]
    cu_entities = np.concatenate([[0], np.cumsum(np.bincount(pieces.tile, minlength=tiles))])
    cu_tags = np.concatenate([[0], np.cumsum(count)])

    def ragged(values: pa.Array, offsets: np.ndarray) -> pa.Array:
        return pa.LargeListArray.from_arrays(pa.array(offsets.astype(np.int64)), values)

    boxes = rotated_boxes(pieces.geometry).astype(np.float32).reshape(-1)
    names = np.array(features.feature_id, dtype=object)[pieces.feature]
    return {
        "feature_id": ragged(pa.array(names, pa.string()), cu_entities),
        "kind": ragged(pa.array(features.kind[pieces.feature]), cu_entities),
        "evidence": ragged(pa.array(evidence_bits(features)[pieces.feature]), cu_entities),
        "box": ragged(pa.array(boxes), cu_entities * 8),
        "tag_count": ragged(pa.array(count), cu_entities),
        "tag_ids": ragged(pa.array(np.array(flat, dtype=np.int32)), cu_tags[cu_entities]),
        "geometry": ragged(
            pa.array(shapely.to_wkb(pieces.geometry), pa.large_binary()), cu_entities
        ),
    }


def _image_column(images: np.ndarray, has_image: np.ndarray) -> pa.Array:
    """Raw RGB bytes a tile, null where there is no image."""
    size = SIZE * SIZE * 3
    offsets = pa.py_buffer(np.arange(len(images) + 1, dtype=np.int64) * size)
    valid = pa.array(has_image).buffers()[1]
    return pa.LargeBinaryArray.from_buffers(
        pa.large_binary(), len(images), [valid, offsets, pa.py_buffer(images)]
    )


def _content(column: pa.Array) -> bytes:
    """Bytes that depend on the column's values alone."""
    sink = pa.BufferOutputStream()
    batch = pa.record_batch({"column": column})
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return sink.getvalue().to_pybytes()
