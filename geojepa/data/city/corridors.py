"""Motorways with their ramps, and the railway of the sample city."""

from itertools import pairwise

import numpy as np
import shapely

from geojepa.data.city.plan import QUARTERS, Plan, Points
from geojepa.data.city.streets import Road, road_tags
from geojepa.data.city.world import pieces_of

# Metres from the middle of a motorway to a carriageway's, and of the railway to a track's.
CARRIAGEWAY, TRACK = 11.0, 3.0
RAMPS = {"primary": 0.8, "secondary": 0.45, "tertiary": 0.2}


def carriageways(plan: Plan) -> dict[tuple[int, int], Points]:
    """Vertices (n, 2) of each carriageway by (motorway, side), in the direction of the axis."""
    return {
        (k, side): shapely.get_coordinates(shapely.offset_curve(axis, CARRIAGEWAY * side))
        for k, axis in enumerate(plan.motorways)
        for side in (-1, 1)
    }


def _split(points: Points, every: int, first: int) -> list[Points]:
    cuts = [0, *range(first, len(points) - 2, every), len(points) - 1]
    return [points[a : b + 1] for a, b in pairwise(cuts) if b > a]


def _quarter(plan: Plan, points: Points) -> str:
    return QUARTERS[plan.quarter_at(points[len(points) // 2][None])[0]]


def corridor_roads(plan: Plan) -> list[Road]:
    """Motorway carriageways and railway tracks, cut into ways that share their end nodes."""
    roads = []
    for (k, side), points in carriageways(plan).items():
        rng = np.random.default_rng([plan.seed, 5, k, side + 1])
        for piece in _split(points, int(rng.integers(40, 70)), int(rng.integers(10, 40))):
            quarter = _quarter(plan, piece)
            tags = road_tags("motorway", quarter, "Lilliput Motorway", rng) | {"ref": f"M {k + 1}"}
            line = shapely.LineString(piece if side < 0 else piece[::-1])
            roads.append(Road(line, "motorway", quarter, tags, True))
    for side in (-1, 1):
        points = shapely.get_coordinates(shapely.offset_curve(plan.railway, TRACK * side))
        for piece in _split(points, 80, 30):
            tags = {"railway": "rail", "gauge": "1435"}
            roads.append(Road(shapely.LineString(piece), "rail", _quarter(plan, piece), tags, True))
    return roads


def _link(a: Points, bend: Points, b: Points, quarter: str, rng: np.random.Generator) -> Road:
    t = np.linspace(0, 1, 8)[:, None]
    curve = (1 - t) ** 2 * a + 2 * t * (1 - t) * bend + t**2 * b
    tags = road_tags("motorway_link", quarter, "", rng)
    return Road(shapely.LineString(curve), "motorway_link", quarter, tags, True)


def ramps(plan: Plan, arterials: list[Road]) -> tuple[list[Road], list[Points], list[Points]]:
    """Four links at some crossings of motorway and arterial; their nodes on either."""
    rng, roads, exits, ends = np.random.default_rng([plan.seed, 6]), [], [], []
    ways = carriageways(plan)
    for k in range(1, len(plan.motorways)):
        # the second motorway ends at the first
        for side in (-1, 1):
            start, bend = ways[k, side][0], ways[k, side][0] - (60, 0)
            merge = ways[0, -1][np.hypot(*(ways[0, -1] - start - (-90, 280 * side)).T).argmin()]
            roads.append(_link(start, bend, merge, "residential", rng))
            exits.append(merge)
    for k, axis in enumerate(plan.motorways):
        for road in arterials:
            for point in pieces_of(road.line.intersection(axis), "Point"):
                if rng.random() > RAMPS.get(road.kind, 0.0):
                    continue
                at, vertices = axis.project(point), shapely.get_coordinates(road.line)
                centre = np.array(point.coords[0])
                ahead = np.subtract(axis.interpolate(at + 20).coords, point.coords)[0]
                ahead /= np.hypot(*ahead)
                normal = np.array([-ahead[1], ahead[0]])
                for side in (-1, 1):
                    offset = (vertices - centre) @ normal * side
                    end = vertices[np.abs(offset - 95).argmin()]
                    if not 55 < (end - centre) @ normal * side < 140:
                        continue
                    for way in (-1, 1):
                        far = centre + 260 * way * ahead + side * CARRIAGEWAY * normal
                        start = ways[k, side][np.hypot(*(ways[k, side] - far).T).argmin()]
                        if np.hypot(*(start - far)) > 60:
                            continue
                        ends_of_link = (start, end) if way * side < 0 else (end, start)
                        bend = end + 120 * way * ahead
                        roads.append(
                            _link(ends_of_link[0], bend, ends_of_link[1], road.quarter, rng)
                        )
                        exits.append(start)
                    ends.append(end)
    return roads, exits, ends
