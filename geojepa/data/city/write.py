"""Write the sample city as an OpenStreetMap extract and a table of true quarters."""

from pathlib import Path

import numpy as np
import osmium
import osmium.osm.mutable
import pandas as pd
import shapely

from geojepa.data.city.plan import Frame, Plan
from geojepa.data.city.world import Tags, Thing, World
from geojepa.data.extract import GENERATOR
from geojepa.files import whole


def write_extract(path: Path, world: World, frame: Frame) -> None:
    """Nodes, ways, relations by id, without dates; equal points are one node."""
    things = [(k, thing) for k, thing in enumerate(world.things) if thing.tags is not None]
    lines = [_lines(thing) for _, thing in things]
    flat = [line for parts in lines for line in parts]
    degrees = frame.to_degrees(np.concatenate(flat))
    units = np.round(degrees * 1e7).astype(np.int64)
    nodes, index = np.unique(units, axis=0, return_inverse=True)
    refs = np.split(index.ravel() + 1, np.cumsum([len(line) for line in flat])[:-1])

    node_tags: dict[int, Tags] = {}
    ways: list[tuple[list[int], Tags]] = []
    relations: list[tuple[Tags, list[tuple[str, int, str]]]] = []
    members: dict[int, tuple[str, int]] = {}
    at = 0
    for (k, thing), parts in zip(things, lines, strict=True):
        own, at = refs[at : at + len(parts)], at + len(parts)
        tags = thing.tags or {}
        if thing.geometry.geom_type == "Point":
            node = int(own[0][0])
            node_tags.setdefault(node, {}).update(tags)
            members[k] = ("n", node)
            continue
        rings = [_without_repeats(ring) for ring in own]
        if len(rings[0]) < 2:
            continue
        first = len(ways) + 1
        if len(rings) == 1:
            ways.append((rings[0], tags))
            members[k] = ("w", first)
        else:
            ways += [(ring, {}) for ring in rings]
            roles = [("w", first + n, "inner" if n else "outer") for n in range(len(rings))]
            relations.append(({"type": "multipolygon"} | tags, roles))
    for tags, parts_of_it in world.relations:
        known = [(*members[k], role) for k, role in parts_of_it if k in members]
        if known:
            relations.append((tags, known))

    header = osmium.io.Header()
    header.set("generator", GENERATOR)
    west_south, east_north = frame.to_degrees(np.array([[0.0, 0.0], [frame.side, frame.side]]))
    header.add_box(osmium.osm.Box(*west_south.tolist(), *east_north.tolist()))
    with whole(path) as part:
        writer = osmium.SimpleWriter(osmium.io.File(str(part), "pbf"), header=header)
        mutable = osmium.osm.mutable
        for node, (lon, lat) in enumerate((nodes / 1e7).tolist(), start=1):
            tags = node_tags.get(node, {})
            writer.add_node(mutable.Node(id=node, version=1, location=(lon, lat), tags=tags))
        for way, (way_refs, tags) in enumerate(ways, start=1):
            writer.add_way(mutable.Way(id=way, version=1, nodes=way_refs, tags=tags))
        for number, (tags, roles) in enumerate(relations, start=1):
            writer.add_relation(mutable.Relation(id=number, version=1, members=roles, tags=tags))
        writer.close()


def _lines(thing: Thing) -> list[np.ndarray]:
    """The coordinates (n, 2) of a point, a line, or each ring of a polygon, outer first."""
    shape = thing.geometry
    if shape.geom_type == "Polygon":
        return [shapely.get_coordinates(ring) for ring in (shape.exterior, *shape.interiors)]
    return [shapely.get_coordinates(shape)]


def _without_repeats(refs: np.ndarray) -> list[int]:
    return refs[np.concatenate([[True], refs[1:] != refs[:-1]])].tolist()


def write_quarters(path: Path, plan: Plan) -> None:
    """CSV of tile_id and the quarter that covers most of the tile."""
    rows = list(plan.tile_quarters().items())
    with whole(path) as part:
        pd.DataFrame(rows, columns=["tile_id", "quarter"]).to_csv(part, index=False)
