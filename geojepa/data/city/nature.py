"""Water, rails, power and relations of the sample city."""

import numpy as np
import shapely
import shapely.ops

from geojepa.data.city.blocks import blob
from geojepa.data.city.plan import QUARTERS, Plan
from geojepa.data.city.streets import Road
from geojepa.data.city.world import World, pieces_of


def lakes(plan: Plan) -> list[shapely.Polygon]:
    """A lake with an island in one park in three, where the ground is free."""
    rng = np.random.default_rng([plan.seed, 15])
    found: list[shapely.Polygon] = []
    busy = shapely.union_all([plan.water, plan.railway, *plan.motorways, *plan.streams]).buffer(40)
    parks = np.argwhere(plan.quarters == QUARTERS.index("park"))
    for i, j in parks:
        centre = plan.cell(i, j, rng.uniform(0.35, 0.65, (1, 2)))
        radius = rng.uniform(90, 190)
        outline, island = blob(centre, radius, rng), blob(centre + 20, radius * 0.2, rng)
        lake = shapely.Polygon(outline, [island])
        if not busy.intersects(lake) and (not found or rng.random() < 0.5):
            found.append(lake)
    return found


def place_water(plan: Plan, world: World, ponds: list[shapely.Polygon]) -> None:
    """The river in reaches, its middle line, streams and lakes; some of it not mapped."""
    rng = np.random.default_rng([plan.seed, 16])
    world.add(plan.water, None, "water")
    west, south, east, north = plan.water.bounds
    for x in np.arange(west, east, 1400.0):
        for reach in pieces_of(
            plan.water.intersection(shapely.box(x, south, x + 1400, north)), "Polygon"
        ):
            if rng.random() < 0.85:
                world.add(reach, {"natural": "water", "water": "river"})
    for a in np.arange(0, 1, 0.125):
        piece = shapely.ops.substring(plan.river, a, a + 0.125, normalized=True)
        world.add(piece, {"waterway": "river", "name": "Lilliput Water"})
    for stream in plan.streams:
        tags = {"waterway": "stream"} if rng.random() < 0.85 else None
        world.add(stream, tags, "stream")
    for lake in ponds:
        world.add(lake, {"natural": "water", "water": "lake"}, "water")


def place_power(plan: Plan, world: World) -> None:
    """One power line across the city, a tower every 240 m."""
    side = plan.frame.side
    line = shapely.LineString([(0, 0.88 * side), (0.4 * side, 0.93 * side), (side, 0.8 * side)])
    towers = shapely.get_coordinates(
        shapely.line_interpolate_point(line, np.arange(100, line.length, 240))
    )
    world.add_points(towers, {"power": "tower"})
    for a in range(0, len(towers) - 1, 8):
        world.add(shapely.LineString(towers[a : a + 9]), {"power": "line"})


def place_relations(plan: Plan, world: World, ways: list[tuple[int, Road]]) -> None:
    """Bus routes over arterials with their stops, turn restrictions, and a city boundary."""
    rng = np.random.default_rng([plan.seed, 17])
    routes: dict[str, list[int]] = {}
    for index, road in ways:
        if road.kind in ("primary", "secondary") and "name" in road.tags:
            routes.setdefault(road.tags["name"], []).append(index)
    for number, (name, members) in enumerate(sorted(routes.items()), start=1):
        if rng.random() < 0.5 or len(members) < 2:
            continue
        stops = []
        for index in members:
            points = shapely.get_coordinates(world.things[index].geometry)
            if len(points) > 12 and rng.random() < 0.6:
                tags = {"highway": "bus_stop"} | ({"name": name} if rng.random() < 0.6 else {})
                stops.append(world.add(shapely.Point(points[len(points) // 2]), tags))
        tags = {"type": "route", "route": "bus", "ref": str(number), "name": f"Bus {number}"}
        roles = [(m, "") for m in members] + [(s, "stop") for s in stops]
        world.relations.append((tags, roles))
    small = [index for index, road in ways if road.kind in ("residential", "secondary")]
    for _ in range(len(small) // 90):
        a, b = rng.choice(small, 2, replace=False)
        world.relations.append(
            (
                {"type": "restriction", "restriction": "no_u_turn"},
                [(int(a), "from"), (int(b), "to")],
            )
        )
    side = plan.frame.side
    border = world.add(
        shapely.box(9, 9, side - 9, side - 9).exterior, {"boundary": "administrative"}
    )
    tags = {"type": "boundary", "boundary": "administrative", "admin_level": "8",
            "name": "Lilliput"}  # fmt: skip
    world.relations.append((tags, [(border, "outer")]))
