"""Read an OpenStreetMap extract into whole features.

No area assembly is needed, which stops at unsorted files: a closed way is made an area by OSM's
own rules (`geojepa.data.keys.is_area`), and a multipolygon relation is built from the linework of
its member ways (`shapely.build_area`, even-odd, so wrong roles do no harm).
"""

import tempfile
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import osmium
import shapely
from osmium import osm
from tqdm import tqdm

from geojepa.data.features import (
    AREA_RELATIONS,
    GROUP,
    LINE,
    POINT,
    POLYGON,
    Features,
    is_entity,
)
from geojepa.data.keys import clean, is_area
from geojepa.errors import GeoJEPAError

ELEMENTS = {"n": "node", "w": "way", "r": "relation"}
_MISSING = "ways with missing nodes or a single place"


class _Node(NamedTuple):
    tags: dict[str, str]
    place: tuple[float, float]


class _Way(NamedTuple):
    tags: dict[str, str]
    wkb: str
    is_closed: bool


class _Relation(NamedTuple):
    tags: dict[str, str]
    members: list[tuple[str, int]]


def read_extract(path: Path) -> Features:
    """Features of an extract in any order; broken objects are skipped and counted.

    Raises:
        GeoJEPAError: if the file is a history of many versions.
        RuntimeError: if the file is damaged or of another format.
    """
    with osmium.io.Reader(str(path), osm.NOTHING) as reader:
        if reader.header().has_multiple_object_versions:
            raise GeoJEPAError(
                f"{path}: holds the history of each object; cut one date with osmium time-filter"
            )
    features = _read(path)
    if features.skipped[_MISSING] and _has_nodes_after_ways(path):
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "sorted.osm.pbf"
            merge = osmium.MergeInputReader()
            merge.add_file(str(path))
            with osmium.SimpleWriter(str(copy)) as writer:
                merge.apply(writer)
            features = _read(copy)
    return features


def _has_nodes_after_ways(path: Path) -> bool:
    is_way = False
    for item in osmium.FileProcessor(str(path), osm.NODE | osm.WAY):
        if is_way and isinstance(item, osm.Node):
            return True
        is_way = is_way or isinstance(item, osm.Way)
    return False


def _read(path: Path) -> Features:
    skipped: Counter[str] = Counter()
    relations = _relations(path)
    wanted: dict[str, set[int]] = {"n": set(), "w": set(), "r": set()}
    for relation in relations.values():
        for kind, ref in relation.members:
            wanted[kind].add(ref)
    processor = osmium.FileProcessor(str(path), osm.NODE | osm.WAY).with_locations()
    if not wanted["n"]:
        untagged = osmium.filter.EmptyTagFilter()
        untagged.enable_for(osm.NODE)
        processor.with_filter(untagged)
    to_wkb = osmium.geom.WKBFactory().create_linestring
    nodes: dict[int, _Node] = {}
    ways: dict[int, _Way] = {}
    for item in tqdm(processor, desc=path.name, unit=" objects", unit_scale=True, disable=None):
        is_wanted = item.id in wanted["n" if item.is_node() else "w"]
        if not item.tags and not is_wanted:
            continue
        if item.deleted:
            skipped["objects deleted"] += 1
            continue
        tags = clean({tag.k: tag.v for tag in item.tags})
        if item.is_node():
            if not item.location.valid():
                skipped["nodes without a location"] += 1
            elif tags or is_wanted:
                nodes[item.id] = _Node(tags, (item.lon, item.lat))
        elif is_entity(tags, LINE) or is_wanted:
            try:
                is_closed = item.is_closed() and len(item.nodes) > 3
                ways[item.id] = _Way(tags, to_wkb(item), is_closed)
            except (osmium.InvalidLocationError, RuntimeError):
                skipped[_MISSING] += 1
    return _assemble(
        dict(sorted(nodes.items())),
        dict(sorted(ways.items())),
        dict(sorted(relations.items())),
        skipped,
    )


def _relations(path: Path) -> dict[int, _Relation]:
    found = {}
    for item in osmium.FileProcessor(str(path), osm.RELATION):
        tags = clean({tag.k: tag.v for tag in item.tags})
        if isinstance(item, osm.Relation) and not item.deleted and is_entity(tags, GROUP):
            members = dict.fromkeys((m.type, m.ref) for m in item.members)
            found[item.id] = _Relation(tags, list(members))
    return found


def _assemble(
    nodes: dict[int, _Node],
    ways: dict[int, _Way],
    relations: dict[int, _Relation],
    skipped: Counter[str],
) -> Features:
    """Put geometries together; untagged members serve relations and are then dropped."""
    node_points = shapely.points(np.array([n.place for n in nodes.values()]).reshape(-1, 2))
    way_lines = shapely.from_wkb(np.array([w.wkb for w in ways.values()], dtype=object))
    is_polygon = np.array([w.is_closed and is_area(w.tags) for w in ways.values()], dtype=bool)
    way_shapes = way_lines.copy()
    way_shapes[is_polygon] = _polygons(way_lines[is_polygon])
    at = {"n": {key: i for i, key in enumerate(nodes)}, "w": {key: i for i, key in enumerate(ways)}}

    features = Features([], np.empty(0), [], np.empty(0), np.empty(0), skipped=skipped)
    kinds: list[int] = []
    parts: list[np.ndarray] = [np.empty(0, dtype=object)]

    def add(name: str, kind: int, tags: dict[str, str], shapes: np.ndarray) -> None:
        features.feature_id.append(name)
        features.tags.append(tags)
        kinds.append(kind)
        parts.append(shapes)

    for i, (key, node) in enumerate(nodes.items()):
        if is_entity(node.tags, POINT):
            add(f"node/{key}", POINT, node.tags, node_points[i : i + 1])
    for i, (key, way) in enumerate(ways.items()):
        if is_entity(way.tags, LINE):
            kind = POLYGON if is_polygon[i] else LINE
            add(f"way/{key}", kind, way.tags, way_shapes[i : i + 1])
    for key, relation in relations.items():
        lines, points = (
            [at[kind][ref] for k, ref in relation.members if k == kind and ref in at[kind]]
            for kind in "wn"
        )
        missing = Counter(k for k, ref in relation.members if ref not in at.get(k, relations))
        skipped["relation members outside the extract"] += missing.total()
        if relation.tags.get("type") not in AREA_RELATIONS:
            kind, shapes = GROUP, np.concatenate([node_points[points], way_shapes[lines]])
        elif missing["w"]:
            # without one of its rings, what is a hole and what an area cannot be told
            kind, shapes = POLYGON, np.empty(0, dtype=object)
        else:
            area = shapely.build_area(shapely.multilinestrings(way_lines[lines]))
            kind, shapes = POLYGON, shapely.get_parts(area)
        if len(shapes) == 0:
            skipped["relations without a complete geometry"] += 1
            continue
        names = [f"{ELEMENTS[k]}/{ref}" for k, ref in relation.members]
        features.members[len(features)] = names
        add(f"relation/{key}", kind, relation.tags, shapes)
    features.kind = np.array(kinds, dtype=np.uint8)
    features.parts = np.concatenate(parts)
    features.owner = np.repeat(np.arange(len(kinds)), [len(shapes) for shapes in parts[1:]])
    return features


def _polygons(lines: np.ndarray) -> np.ndarray:
    """Polygons (n,) from closed lines (n,)."""
    coords, index = shapely.get_coordinates(lines, return_index=True)
    return shapely.polygons(shapely.linearrings(coords, indices=index)) if len(lines) else lines
