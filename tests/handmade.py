"""Extracts made by hand: objects as Python literals, written by osmium."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import osmium
import shapely
from osmium.osm import mutable

from geojepa.data.extract import export_extract, read_objects
from geojepa.data.grid import to_degrees
from geojepa.data.relations import read_relations
from geojepa.data.table import read_table, row_groups
from geojepa.data.vocabulary import Vocabulary


def node(number: int, lon: float, lat: float, **tags: str) -> mutable.Node:
    """A node; "__" in a key stands for a colon."""
    return mutable.Node(id=number, version=1, location=(lon, lat), tags=_keys(tags))


def way(number: int, nodes: list[int], **tags: str) -> mutable.Way:
    """A way along nodes."""
    return mutable.Way(id=number, version=1, nodes=nodes, tags=_keys(tags))


def relation(number: int, members: list[tuple[str, int, str]], **tags: str) -> mutable.Relation:
    """A relation of members (type "n", "w" or "r", id, role)."""
    return mutable.Relation(id=number, version=1, members=members, tags=_keys(tags))


def write_osm(path: Path, objects: list) -> Path:
    """Write objects in the order given, in the format of the path's suffix."""
    with osmium.SimpleWriter(str(path), overwrite=True) as writer:
        for item in objects:
            writer.add(item)
    return path


@dataclass
class Whole:
    """All features of a file, with their tags spelled out; parts in degrees."""

    feature_id: list[str]
    kind: np.ndarray
    tags: list[dict[str, str]]
    parts: np.ndarray
    owner: np.ndarray
    skipped: Counter[str]

    def __len__(self) -> int:
        return len(self.feature_id)


def read_features(path: Path, folder: Path) -> Whole:
    """Read a file by the jobs of `prepare`, through a scratch folder."""
    vocabulary, skipped = Vocabulary(), Counter[str]()
    if path.suffix == ".parquet":
        groups = row_groups(path)
        found = [some for a, b in groups for some in read_table(path, a, b, vocabulary)]
    else:
        blocks = export_extract(path, folder, skipped)
        found = [read_objects(folder, start, stop, vocabulary) for start, stop in blocks]
        found.append(read_relations(folder, vocabulary))
    pairs = list(vocabulary.pairs)
    rows = []
    for features in found:
        bounds = features.tags.cu.tolist()
        for row in np.flatnonzero(features.is_entity).tolist():
            tags = dict(pairs[i] for i in features.tags.tag[bounds[row] : bounds[row + 1]])
            parts = shapely.transform(features.parts[features.owner == row], to_degrees)
            rows.append((features.name[row].as_py(), features.kind[row], tags, parts))
    rows.sort(key=lambda row: row[0])
    return Whole(
        [name for name, _, _, _ in rows],
        np.array([kind for _, kind, _, _ in rows]),
        [tags for _, _, tags, _ in rows],
        np.concatenate([np.empty(0, object), *(parts for _, _, _, parts in rows)]),
        np.repeat(np.arange(len(rows)), [len(parts) for _, _, _, parts in rows]),
        sum((features.skipped for features in found), skipped),
    )


def _keys(tags: dict[str, str]) -> dict[str, str]:
    return {key.replace("__", ":"): value for key, value in tags.items()}
