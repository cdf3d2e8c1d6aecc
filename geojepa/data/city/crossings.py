"""Where lines of the sample city meet: streets end at corridors, bridges, signals, stops."""

import numpy as np
import shapely

from geojepa.data.city import rates
from geojepa.data.city.plan import QUARTERS, STEPS, Plan, Points
from geojepa.data.city.streets import CARS, Road
from geojepa.data.city.world import World, pieces_of

WIDTH = {"motorway": 10.0, "motorway_link": 5.0, "primary": 11.0, "secondary": 9.0, "tertiary": 8.0,
         "unclassified": 6.5, "residential": 6.5, "living_street": 5.5, "pedestrian": 5.5,
         "service": 4.0, "track": 3.2, "cycleway": 2.6, "footway": 2.2, "path": 1.8,
         "rail": 3.2}  # fmt: skip

# Local streets bridge closed ground of at most this many metres.
LONGEST_BRIDGE = 190.0
# Quarters where people cross streets, and how.
CROSSED = ("old_town", "commercial", "campus")
CROSSED_BY = {"zebra": 0.45, "uncontrolled": 0.25, "marked": 0.27, "traffic_signals": 0.03}


def corridors(plan: Plan, ponds: list[shapely.Polygon]) -> shapely.Geometry:
    """Ground that local streets do not cross: river, lakes, railway, motorways."""
    return shapely.union_all(
        [plan.water.buffer(16), plan.railway.buffer(14)]
        + [axis.buffer(34) for axis in plan.motorways]
        + [pond.buffer(10) for pond in ponds]
    )


def stop_at_corridors(closed: shapely.Geometry, roads: list[Road]) -> list[Road]:
    """Cut roads where they meet closed ground, but for those that cross it by a short bridge."""
    kept = []
    for road in roads:
        if not closed.intersects(road.line):
            kept.append(road)
            continue
        ends = shapely.points(shapely.get_coordinates(road.line)[[0, -1]])
        span = road.line.intersection(closed).length
        if road.through and span < LONGEST_BRIDGE and not closed.intersects(ends).any():
            kept.append(road)
            continue
        for piece in pieces_of(road.line.difference(closed), "LineString"):
            if piece.length > 25:
                kept.append(Road(piece, road.kind, road.quarter, dict(road.tags)))
    return kept


def find_bridges(plan: Plan, roads: list[Road], ponds: list[shapely.Polygon]) -> Points:
    """Mark on each road where it is a bridge; return level crossings (n, 2)."""
    rng = np.random.default_rng([plan.seed, 7])
    lines = np.array([road.line for road in roads])
    tree = shapely.STRtree(lines)
    river = shapely.union_all([plan.water, *ponds]).buffer(13)
    level = []
    for k in tree.query(river, predicate="intersects"):
        roads[k].discs.append(river)
    for axis in plan.motorways:
        ways = [k for k in tree.query(axis.buffer(16), "intersects") if roads[k].kind == "motorway"]
        for k in sorted(tree.query(axis, predicate="intersects")):
            road = roads[k]
            if road.kind in ("motorway", "motorway_link"):
                continue
            for point in pieces_of(road.line.intersection(axis), "Point"):
                if road.kind == "rail" or rng.random() < 0.45:
                    for way in ways:
                        if lines[way].dwithin(point, 20):
                            roads[way].discs.append(point.buffer(30))
                else:
                    road.discs.append(point.buffer(38))
    for k in sorted(tree.query(plan.railway, predicate="intersects")):
        road = roads[k]
        if road.kind in ("rail", "motorway"):
            continue
        for point in pieces_of(road.line.intersection(plan.railway), "Point"):
            grade = rng.random()
            if grade < (0.6 if road.kind == "primary" else 0.3):
                road.discs.append(point.buffer(20))
            elif grade > 0.5:
                level.append(shapely.get_coordinates(point))
    for stream in plan.streams:
        for k in sorted(tree.query(stream, predicate="intersects")):
            road = roads[k]
            share = rates.STREAM_BRIDGE.get(road.kind, rates.STREAM_BRIDGE_OTHER)
            for point in pieces_of(road.line.intersection(stream), "Point"):
                if rng.random() < share:
                    road.discs.append(point.buffer(rng.uniform(7, 12)))
    return np.concatenate(level) if level else np.empty((0, 2))


def place_roads(plan: Plan, world: World, roads: list[Road]) -> list[tuple[int, Road]]:
    """Add each road to the world, cut at its bridges; return the ways of each road."""
    rng, ways = np.random.default_rng([plan.seed, 8]), []
    for road in roads:
        look = f"road:{road.kind}"
        if not road.discs:
            ways.append((world.add(road.line, road.tags, look), road))
            continue
        zone = shapely.union_all(road.discs)
        for piece in pieces_of(road.line.difference(zone), "LineString"):
            ways.append((world.add(piece, road.tags, look), road))
        tags = dict(road.tags)
        if rng.random() > rates.BRIDGE_OMITTED:
            tags["bridge"] = "viaduct" if rng.random() < 0.04 else "yes"
        if rng.random() < rates.BRIDGE_LAYER:
            tags["layer"] = "1"
        for piece in pieces_of(road.line.intersection(zone), "LineString"):
            if piece.length > 3:
                ways.append((world.add(piece, tags, f"bridge:{road.kind}"), road))
            if piece.length > 60 and rng.random() < 0.06:
                deck = piece.buffer(WIDTH[road.kind] / 2 + 1, cap_style="flat")
                world.add(deck, {"man_made": "bridge"})
    return ways


def place_signals(plan: Plan, world: World, ramp_ends: list[Points]) -> None:
    """Signals and crossings at the corners of the arterial grid and at ramps, with omissions."""
    rng, n = np.random.default_rng([plan.seed, 9]), plan.cells
    river = plan.water.buffer(20)
    for i in range(1, n):
        for j in range(1, n):
            corner = plan.cell(i, j, np.zeros((1, 2)))
            around = [QUARTERS[q] for q in plan.quarters[i - 1 : i + 1, j - 1 : j + 1].ravel()]
            share = np.mean(sorted(rates.SIGNALS[q] for q in around)[1:])
            signals = rng.random() < share and not river.contains(shapely.Point(corner[0]))
            mapped = signals and rng.random() < rates.SIGNALS_MAPPED
            arms = np.array([[1, 0], [0, 1]]) / STEPS
            near = plan.cell(i, j, arms)
            if mapped and rng.random() < 0.2:
                world.add_points(near, {"highway": "traffic_signals"})
            elif mapped:
                world.add_points(corner, {"highway": "traffic_signals"})
            if signals and rng.random() < 0.4:
                kind = "traffic_signals" if mapped and rng.random() < 0.5 else "marked"
                world.add_points(near, {"highway": "crossing", "crossing": kind})
            elif not signals and share > 0.3 and rng.random() < 0.3:
                kind = str(rng.choice(("zebra", "uncontrolled", "marked")))
                world.add_points(near[:1], {"highway": "crossing", "crossing": kind})
    for end in ramp_ends:
        if rng.random() < 0.3:
            world.add_points(end[None], {"highway": "traffic_signals"})


def place_road_nodes(plan: Plan, world: World, roads: list[Road], exits: list[Points]) -> None:
    """Turning circles, stops, crossings and bus stops, each on a vertex of its road."""
    rng = np.random.default_rng([plan.seed, 10])
    for end in exits:
        if rng.random() < 0.3:
            world.add_points(end[None], {"highway": "motorway_junction"})
    for road in roads:
        points = shapely.get_coordinates(road.line)
        chance = rng.random()
        if road.kind == "residential" and road.quarter == "residential" and chance < 0.12:
            world.add_points(points[-1:], {"highway": "turning_circle"})
        elif road.kind in ("residential", "unclassified") and chance > 0.985:
            world.add_points(points[:1], {"highway": str(rng.choice(("stop", "give_way")))})
        elif road.kind in CARS and road.quarter in CROSSED and chance < 0.08:
            kind = str(rng.choice(list(CROSSED_BY), p=list(CROSSED_BY.values())))
            middle = points[len(points) // 2][None]
            world.add_points(middle, {"highway": "crossing", "crossing": kind})
