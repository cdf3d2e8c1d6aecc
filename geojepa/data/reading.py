"""Read an OpenStreetMap extract, or a GeoParquet table of features, into whole features.

The reader needs no area assembly, which stops at unsorted files: a closed way is made an area by
OSM's own rules (`geojepa.data.keys.is_area`), and a multipolygon relation is built from the
linework of its member ways (`shapely.build_area`, even-odd, so wrong roles do no harm).
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import geopandas
import numpy as np
import osmium
import pyarrow.parquet
import shapely
from osmium import osm
from tqdm import tqdm

from geojepa.data.keys import MAIN_KEYS, clean, is_area
from geojepa.errors import GeoJEPAError

POINT, LINE, POLYGON, GROUP = range(4)
KINDS = ("point", "line", "polygon", "group")


@dataclass
class Features:
    """Tagged features of one place, in EPSG:4326.

    `owner` numbers the feature that each primitive part (point, line or polygon) belongs to;
    `members` maps a relation's row to the ids of its members; `carries` names the tasks whose
    keys the source can hold at all (None: all of them).
    """

    feature_id: list[str]
    kind: np.ndarray
    tags: list[dict[str, str]]
    parts: np.ndarray
    owner: np.ndarray
    members: dict[int, list[str]] = field(default_factory=dict)
    skipped: Counter[str] = field(default_factory=Counter)
    is_table: bool = False

    def __len__(self) -> int:
        return len(self.feature_id)


def read_features(path: str | Path) -> Features:
    """Read `path` (.osm.pbf, .osm.gz, .osm.bz2, .osm or .parquet).

    Raises:
        GeoJEPAError: if the file is missing, empty, damaged or of another kind.
    """
    path = Path(path)
    if not path.is_file():
        raise GeoJEPAError(f"{path}: no such file; check the path of the extract")
    if path.stat().st_size == 0:
        raise GeoJEPAError(f"{path}: the file is empty; download or copy the extract again")
    if path.suffix == ".parquet":
        return _read_table(path)
    try:
        return _read_osm(path)
    except (RuntimeError, osmium.InvalidLocationError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise GeoJEPAError(
            f"{path}: cannot be read as OpenStreetMap data ({reason}); "
            "it is damaged or of another format: download the extract again"
        ) from error


def _is_entity(tags: dict[str, str], is_relation: bool, is_closed: bool = False) -> bool:
    """Whether cleaned tags make an entity; bare boundaries do not (METHOD.md, section 2)."""
    described = not MAIN_KEYS.isdisjoint(tags.keys() - {"place"})
    if "boundary" in tags and not described:
        return False
    if is_relation:
        return bool(tags.keys() - {"type"}) or tags.get("type") not in ("multipolygon", "boundary")
    return bool(tags)


def _is_multipolygon(tags: dict[str, str]) -> bool:
    return tags.get("type") in ("multipolygon", "boundary")


def _relations(path: Path) -> dict[int, tuple[dict[str, str], list[tuple[str, int]]]]:
    found = {}
    for relation in osmium.FileProcessor(str(path), osm.RELATION):
        tags = clean({tag.k: tag.v for tag in relation.tags})
        if not relation.deleted and _is_entity(tags, is_relation=True):
            found[relation.id] = (tags, [(m.type, m.ref) for m in relation.members])
    return found


def _read_osm(path: Path) -> Features:
    skipped: Counter[str] = Counter()
    relations = _relations(path)
    wanted_ways = {ref for _, members in relations.values() for kind, ref in members if kind == "w"}
    wanted_nodes = {
        ref for _, members in relations.values() for kind, ref in members if kind == "n"
    }
    processor = osmium.FileProcessor(str(path), osm.NODE | osm.WAY).with_locations()
    if not wanted_nodes:
        untagged = osmium.filter.EmptyTagFilter()
        untagged.enable_for(osm.NODE)
        processor.with_filter(untagged)
    to_wkb = osmium.geom.WKBFactory().create_linestring
    nodes: dict[int, tuple[dict[str, str], float, float]] = {}
    ways: dict[int, tuple[dict[str, str], str, bool]] = {}
    for item in tqdm(processor, desc=path.name, unit=" objects", unit_scale=True, disable=None):
        if item.is_node():
            if not item.tags and item.id not in wanted_nodes:
                continue
            if item.deleted or not item.location.valid():
                skipped["nodes deleted or without a location"] += 1
                continue
            tags = clean({tag.k: tag.v for tag in item.tags})
            if _is_entity(tags, is_relation=False) or item.id in wanted_nodes:
                nodes[item.id] = (tags, item.lon, item.lat)
        elif item.tags or item.id in wanted_ways:
            tags = clean({tag.k: tag.v for tag in item.tags})
            if item.deleted or not (_is_entity(tags, False) or item.id in wanted_ways):
                continue
            try:
                ways[item.id] = (tags, to_wkb(item), item.is_closed() and len(item.nodes) > 3)
            except (osmium.InvalidLocationError, RuntimeError):
                skipped["ways with missing nodes or a single place"] += 1
    return _assemble(nodes, ways, relations, skipped)


def _assemble(nodes, ways, relations, skipped) -> Features:  # type: ignore[no-untyped-def]
    """Put geometries together; untagged members serve relations and are then dropped."""
    node_points = shapely.points([(lon, lat) for _, lon, lat in nodes.values()] or np.empty((0, 2)))
    way_lines = shapely.from_wkb(np.array([wkb for _, wkb, _ in ways.values()], dtype=object))
    is_polygon = np.array([c and is_area(tags) for tags, _, c in ways.values()], dtype=bool)
    way_shapes = way_lines.copy()
    way_shapes[is_polygon] = polygons_of(way_lines[is_polygon])
    at_node = {key: i for i, key in enumerate(nodes)}
    at_way = {key: i for i, key in enumerate(ways)}

    ids: list[str] = []
    kinds: list[int] = []
    tags_of: list[dict[str, str]] = []
    parts: list[np.ndarray] = []
    owners: list[np.ndarray] = []
    members_of: dict[int, list[str]] = {}

    def add(name: str, kind: int, tags: dict[str, str], shapes: np.ndarray) -> None:
        parts.append(shapes)
        owners.append(np.full(len(shapes), len(ids)))
        ids.append(name)
        kinds.append(kind)
        tags_of.append(tags)

    for i, key in enumerate(nodes):
        if _is_entity(nodes[key][0], False):
            add(f"node/{key}", POINT, nodes[key][0], node_points[i : i + 1])
    for i, key in enumerate(ways):
        if _is_entity(ways[key][0], False):
            kind = POLYGON if is_polygon[i] else LINE
            add(f"way/{key}", kind, ways[key][0], way_shapes[i : i + 1])
    for key, (tags, members) in relations.items():
        names = [
            {"n": "node", "w": "way", "r": "relation"}[kind] + f"/{ref}" for kind, ref in members
        ]
        lines = [
            at_way[ref] for kind, ref in dict.fromkeys(members) if kind == "w" and ref in at_way
        ]
        skipped["relation members outside the extract"] += sum(
            ref not in (at_way if kind == "w" else at_node if kind == "n" else relations)
            for kind, ref in members
        )
        if _is_multipolygon(tags):
            area = shapely.build_area(shapely.multilinestrings(way_lines[lines])) if lines else None
            shapes = shapely.get_parts(area) if area is not None else np.empty(0, dtype=object)
            kind = POLYGON
        else:
            points = [at_node[r] for t, r in dict.fromkeys(members) if t == "n" and r in at_node]
            shapes = np.concatenate([node_points[points], way_shapes[lines]])
            kind = GROUP
        if len(shapes) == 0:
            skipped["relations without a complete geometry"] += 1
            continue
        members_of[len(ids)] = names
        add(f"relation/{key}", kind, tags, shapes)
    return _valid(
        Features(
            ids,
            np.array(kinds, dtype=np.uint8),
            tags_of,
            np.concatenate(parts) if parts else np.empty(0, dtype=object),
            np.concatenate(owners) if owners else np.empty(0, dtype=int),
            members_of,
            skipped,
        )
    )


def polygons_of(lines: np.ndarray) -> np.ndarray:
    """Polygons (n,) from closed lines (n,)."""
    coords, index = shapely.get_coordinates(lines, return_index=True)
    return shapely.polygons(shapely.linearrings(coords, indices=index)) if len(lines) else lines


def _valid(features: Features) -> Features:
    """Repair self-crossing polygons and keep what of them has an area."""
    parts, owner = features.parts, features.owner
    broken = ~shapely.is_valid(parts)
    if broken.any():
        features.skipped["polygons repaired"] = int(broken.sum())
        fixed, index = shapely.get_parts(
            shapely.make_valid(parts[broken], method="structure", keep_collapsed=False),
            return_index=True,
        )
        fixed, deeper = shapely.get_parts(fixed, return_index=True)
        polygonal = shapely.get_dimensions(fixed) == 2
        parts = np.concatenate([parts[~broken], fixed[polygonal]])
        owner = np.concatenate([owner[~broken], owner[broken][index][deeper][polygonal]])
    order = np.argsort(owner, kind="stable")
    features.parts, features.owner = parts[order], owner[order]
    return features


def _read_table(path: Path) -> Features:
    """Wide tag columns, as osmnx, srai and quackosm write them; nulls are absent tags."""
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
    if {"element", "id"} <= set(table.index.names):
        ids = [f"{element}/{number}" for element, number in table.index]
    elif "feature_id" in table.columns:
        ids = table.pop("feature_id").astype(str).tolist()
    else:
        ids = table.index.astype(str).tolist()
    geometry = table.geometry.to_numpy()
    columns = [c for c in table.columns if c != table.geometry.name]
    tags = [clean(row) for row in _rows(table[columns])]
    kept = np.array([_is_entity(t, False) for t in tags]) & ~shapely.is_missing(geometry)
    skipped: Counter[str] = Counter({"features without a tag or a geometry": int((~kept).sum())})
    rows = np.flatnonzero(kept)
    parts, owner = _flat_parts(geometry[rows])
    kind = np.full(len(rows), GROUP, dtype=np.uint8)
    dimension = shapely.get_dimensions(geometry[rows])
    single = shapely.get_type_id(geometry[rows]) != 7
    kind[single] = dimension[single]
    return _valid(
        Features(
            [ids[i] for i in rows],
            kind,
            [tags[i] for i in rows],
            parts,
            owner,
            skipped=skipped,
            is_table=True,
        )
    )


def _rows(columns: geopandas.GeoDataFrame) -> Iterable[dict[str, str]]:
    rows: list[dict[str, str]] = [{} for _ in range(len(columns))]
    for key in columns.columns:
        values = columns[key].dropna()
        for i, value in zip(np.flatnonzero(columns[key].notna()), values, strict=True):
            rows[i][str(key)] = str(value)
    return rows


def _flat_parts(geometry: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Primitive parts of any geometries, collections of collections included, and their owner."""
    parts, owner = geometry, np.arange(len(geometry))
    while (shapely.get_type_id(parts) > 3).any():
        parts, index = shapely.get_parts(parts, return_index=True)
        owner = owner[index]
    return parts, owner
