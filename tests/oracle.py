"""An extract read once more, from first principles: pyosmium and shapely, no code of the library.

What makes an entity, a kind, a tile's own and a building, and which keys are bookkeeping, is
written here from the words of the method and of the benchmark. The lists of keys are data, copied.

Frame: u east and v north in zoom-16 tiles from the south-west corner of the map.
"""

import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import reduce
from itertools import pairwise

import osmium
import shapely

N = 2**16
KINDS = ("point", "line", "polygon", "group")
Tile = tuple[int, int]

# keys that say what a thing is; a place name does not
MAIN = """
advertising aerialway aeroway amenity area:highway attraction barrier bridge building building:part
club craft emergency entrance golf healthcare highway historic indoor junction landcover landuse
leisure man_made military natural office piste:type playground power public_transport railway route
seamark:type shop sport telecom tourism traffic_calming tunnel water waterway
"""
# closed ways with these keys are areas, but for some values
AREAS = """
amenity area:highway boundary building building:part craft healthcare landcover landuse office place
public_transport ruins shop tourism aeroway golf historic indoor leisure man_made military natural
"""
LINES_AMONG_AREAS = """
aeroway=runway aeroway=taxiway aeroway=taxilane aeroway=jet_bridge aeroway=parking_position
golf=cartpath golf=hole golf=path historic=citywalls historic=city_wall indoor=wall indoor=yes
leisure=track leisure=slipway man_made=cutline man_made=embankment man_made=pipeline
man_made=breakwater man_made=groyne man_made=dyke military=trench natural=coastline natural=cliff
natural=ridge natural=arete natural=tree_row natural=valley
"""
# closed ways with other keys are lines, but for these tags
AREAS_AMONG_LINES = """
highway=services highway=rest_area power=plant power=substation power=generator power=transformer
railway=station railway=turntable railway=roundhouse railway=platform waterway=riverbank
waterway=dock waterway=boatyard waterway=dam
"""
MAIN, AREAS, LINES_AMONG_AREAS, AREAS_AMONG_LINES = (
    frozenset(text.split()) for text in (MAIN, AREAS, LINES_AMONG_AREAS, AREAS_AMONG_LINES)
)
# what mappers note for mappers, also about one key, in several or numbered: name:source, note_2
NOTES = ("source", "note", "fixme", "import", "attribution", "comment", "todo")
EDITORS = ("created_by", "converted_by", "edited_by", "odbl", "history")
IMPORTS = (
    *("tiger", "yh", "kms", "ksj2", "geobase", "statscan"),
    *("canvec", "osak", "naptan", "dcgis", "massgis", "mvdgis"),
)
# what a power plant runs on
NO_NOTES = ("generator:source", "plant:source")


def is_bookkeeping(key: str) -> bool:
    """Whether a key speaks of the mapping and not of the ground."""
    if key in NO_NOTES:
        return False
    head, *others = words = key.lower().split(":")
    if others and (head in IMPORTS or words[-1] in ("source", "note", "fixme")):
        return True
    if head in EDITORS or (len(head) > 1 and head[0] == head[-1] == "_"):
        return True
    for note in NOTES:
        after = head.removeprefix(note)
        if head.startswith(note) and (not after or after[0] == "_" or after[0].isdecimal()):
            return True
    return False


@dataclass
class Thing:
    """A node, way or relation that has a geometry; parts in tile units."""

    name: str
    kind: str
    tags: dict[str, str]
    parts: list[shapely.Geometry]
    members: list[str] = field(default_factory=list)

    @property
    def cleaned(self) -> dict[str, str]:
        return {key: value for key, value in self.tags.items() if not is_bookkeeping(key)}

    @property
    def is_entity(self) -> bool:
        """Tagged, and no boundary unless described otherwise; "it is an area" is no description."""
        tags = self.cleaned
        is_boundary = "boundary" in tags or tags.get("type") == "boundary"
        if self.kind != "point" and is_boundary and tags.keys().isdisjoint(MAIN):
            return False
        if list(tags.items()) in ([("type", "multipolygon")], [("type", "boundary")]):
            return False
        return bool(tags)

    def tiles(self) -> set[Tile]:
        return set().union(*map(tiles_of, self.parts))


def place(lon: float, lat: float) -> tuple[float, float]:
    mercator = math.log(math.tan(math.pi / 4 + math.radians(lat) / 2)) / (2 * math.pi)
    return (lon / 360 + 0.5) * N, (0.5 + mercator) * N


def tile(u: float, v: float) -> Tile:
    """Column and row of a place; on a border it belongs to the tile east or north of it."""
    return math.floor(u), N - 1 - math.floor(v)


def tiles_of(part: shapely.Geometry) -> set[Tile]:
    if part.geom_type == "Point":
        return {tile(part.x, part.y)}
    west, south, east, north = part.bounds
    columns = range(math.floor(west), math.floor(east) + 1)
    rows = range(math.floor(south), math.floor(north) + 1)
    if len(columns) == len(rows) == 1:
        return {tile(west, south)}
    if part.geom_type == "LineString":
        return tiles_along(part.coords)
    squares = {(u, v): shapely.box(u, v, u + 1, v + 1) for u in columns for v in rows}
    shapely.prepare(part)
    met = {
        cell
        for cell, square in squares.items()
        if part.contains(square) or (part.intersects(square) and part.intersection(square).area > 0)
    }
    return {tile(*cell) for cell in met}


def tiles_along(line) -> set[Tile]:
    """Tiles that any segment meets, by the places where it crosses their borders."""
    found = set()
    for a, b in pairwise(line):
        cuts = {0.0, 1.0}
        for axis in (0, 1):
            low, high = sorted((a[axis], b[axis]))
            for border in range(math.ceil(low), math.floor(high) + 1):
                if b[axis] != a[axis]:
                    cuts.add((border - a[axis]) / (b[axis] - a[axis]))
        for s, t in pairwise(sorted(cuts)):
            found.add(tile(*(a[k] + (s + t) / 2 * (b[k] - a[k]) for k in (0, 1))))
    return found


def makes_area(tags: dict[str, str]) -> bool:
    if tags.get("area") in ("yes", "no"):
        return tags["area"] == "yes"
    for key, value in tags.items():
        tag = f"{key}={value}"
        if key in AREAS and value != "no" and tag not in LINES_AMONG_AREAS:
            return True
        if tag in AREAS_AMONG_LINES:
            return True
    return False


def without_repeats(line: list) -> list:
    return [place for i, place in enumerate(line) if not i or place != line[i - 1]]


def polygons(ring: list) -> list[shapely.Polygon]:
    """What a closed line encloses, also where it crosses itself."""
    shape = shapely.Polygon(ring)
    if shape.is_valid:
        return [shape]
    shape = shapely.make_valid(shape, method="structure", keep_collapsed=False)
    return [p for p in shapely.get_parts(shapely.get_parts(shape)) if p.area > 0]


def area_of_rings(ways: list[tuple[list[int], list]]) -> list[shapely.Polygon]:
    """Even-odd area of the rings that ways (node ids, places) make end to end."""
    open_ways = [way for way in ways if len(way[0]) > 1]
    rings = []
    while open_ways:
        ids, places = (list(some) for some in open_ways.pop(0))
        while ids[0] != ids[-1]:
            found = next((w for w in open_ways if ids[-1] in (w[0][0], w[0][-1])), None)
            if found is None:
                # it does not close: what is a hole and what an area cannot be told
                return []
            open_ways.remove(found)
            step = 1 if found[0][0] == ids[-1] else -1
            ids += found[0][::step][1:]
            places += found[1][::step][1:]
        if len(without_repeats(places)) > 3:
            rings.append(shapely.make_valid(shapely.Polygon(without_repeats(places))))
    whole = reduce(shapely.symmetric_difference, rings, shapely.Polygon())
    return [p for p in shapely.get_parts(whole) if p.geom_type == "Polygon" and p.area > 0]


def things(path) -> Iterator[Thing]:
    """All tagged objects of a file, whatever its order, that have a geometry."""
    nodes, ways, relations = {}, {}, {}
    for item in osmium.FileProcessor(str(path)):
        if item.deleted:
            continue
        tags = {key: value for key, value in item.tags}
        if item.is_node():
            if item.location.valid():
                nodes[item.id] = (place(item.location.lon, item.location.lat), tags)
        elif item.is_way():
            ways[item.id] = ([n.ref for n in item.nodes], tags)
        else:
            members = [(m.type, m.ref) for m in item.members]
            relations[item.id] = (list(dict.fromkeys(members)), tags)
    for ref, (where, tags) in nodes.items():
        if tags:
            yield Thing(f"node/{ref}", "point", tags, [shapely.Point(where)])
    shapes = {}
    for ref, (ids, tags) in ways.items():
        if not all(i in nodes for i in ids):
            continue
        line = without_repeats([nodes[i][0] for i in ids])
        if len(line) < 2:
            continue
        is_closed = len(ids) > 3 and ids[0] == ids[-1]
        if is_closed and makes_area(tags):
            kind, parts = "polygon", polygons(line) if len(line) > 3 else []
        else:
            kind, parts = "line", [shapely.LineString(line)]
        if len(line) > 3 or kind == "line":
            shapes[ref] = parts, ids, [nodes[i][0] for i in ids]
        if tags and parts:
            yield Thing(f"way/{ref}", kind, tags, parts)
    long = {"n": "node", "w": "way", "r": "relation"}
    for ref, (members, tags) in relations.items():
        if tags.get("type") in ("multipolygon", "boundary"):
            refs = [i for kind, i in members if kind == "w"]
            # without one of its rings, what is a hole and what an area cannot be told
            known = all(i in shapes for i in refs)
            kind = "polygon"
            parts = area_of_rings([shapes[i][1:] for i in refs]) if known else []
        else:
            kind = "group"
            parts = [
                shapely.Point(nodes[i][0]) for kind, i in members if kind == "n" and i in nodes
            ]
            parts += [p for k, i in members if k == "w" and i in shapes for p in shapes[i][0]]
        if parts and tags:
            yield Thing(
                f"relation/{ref}", kind, tags, parts, [f"{long[k]}/{i}" for k, i in members]
            )


def entity_counts(found: list[Thing]) -> dict[Tile, list[int]]:
    """Of each tile, how many points, lines, polygons and groups meet it."""
    counts: dict[Tile, list[int]] = defaultdict(lambda: [0] * 4)
    for thing in found:
        if thing.is_entity:
            for where in thing.tiles():
                counts[where][KINDS.index(thing.kind)] += 1
    return counts


def building_counts(found: list[Thing]) -> dict[Tile, int]:
    """Buildings by the tile of their representative point, that of the largest part."""

    def is_building(thing: Thing) -> bool:
        is_solid = thing.kind in ("point", "polygon")
        return is_solid and thing.is_entity and thing.tags.get("building", "no") != "no"

    buildings = {thing.name: thing for thing in found if is_building(thing)}
    # the outer way of a building is that building
    again = set()
    for thing in buildings.values():
        for name in thing.members:
            if name in buildings:
                own = shapely.union_all(buildings[name].parts)
                common = shapely.intersection(own, shapely.union_all(thing.parts)).area
                again |= {name} if common > 0.01 * own.area else set()
    counts: dict[Tile, int] = defaultdict(int)
    for name in buildings.keys() - again:
        point = max(buildings[name].parts, key=lambda p: p.area).representative_point()
        counts[tile(point.x, point.y)] += 1
    return counts
