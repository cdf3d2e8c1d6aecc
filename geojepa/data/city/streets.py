"""Streets of the sample city: arterials on the grid, local streets by quarter, and their tags."""

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import shapely

from geojepa.data.city import rates
from geojepa.data.city.plan import QUARTERS, STEPS, Plan, Points
from geojepa.data.city.world import Tags

TREES = ("Ash", "Birch", "Cedar", "Elder", "Fir", "Hazel", "Juniper", "Larch", "Maple", "Oak",
         "Pine", "Rowan", "Spruce", "Walnut", "Willow", "Yew")  # fmt: skip
PLACES = ("Bank", "Bridge", "Church", "Garden", "Hill", "Market", "Mill", "Orchard", "Quay",
          "School", "Spring", "Station", "Tower", "Valley")  # fmt: skip
SURFACES = {"track": ("gravel", "compacted", "ground", "dirt"), "path": ("ground", "gravel"),
            "footway": ("paved", "paving_stones", "asphalt"), "pedestrian": ("sett",)}  # fmt: skip
# Divisions of a cell into blocks, share of missing street segments, bend of a street.
PATTERN: dict[str, tuple[tuple[tuple[int, int], ...], float, float, float]] = {
    "old_town": (((8, 8), (8, 6)), 0.12, 0.03, 0.0),
    "commercial": (((4, 4), (4, 3)), 0.12, 0.01, 0.0),
    "residential": (((6, 4), (4, 6), (4, 4), (6, 3), (3, 6)), 0.12, 0.02, 0.03),
    "industrial": (((4, 3), (3, 4), (3, 3)), 0.2, 0.02, 0.0),
    "campus": (((4, 4), (6, 4)), 0.25, 0.04, 0.02),
    "park": (((4, 4), (4, 3)), 0.35, 0.06, 0.03),
    "farmland": (((3, 3), (3, 2), (2, 3)), 0.3, 0.05, 0.02),
}
# Classes of local streets and their shares.
LOCAL = {
    "old_town": {"residential": 0.4, "living_street": 0.12, "pedestrian": 0.14, "service": 0.12,
                 "unclassified": 0.1, "footway": 0.12},
    "commercial": {"residential": 0.25, "unclassified": 0.25, "service": 0.42, "tertiary": 0.08},
    "residential": {"residential": 0.86, "service": 0.05, "unclassified": 0.05, "footway": 0.04},
    "industrial": {"unclassified": 0.4, "service": 0.5, "residential": 0.1},
    "campus": {"footway": 0.5, "service": 0.3, "unclassified": 0.1, "cycleway": 0.1},
    "park": {"footway": 0.5, "path": 0.33, "cycleway": 0.1, "service": 0.07},
    "farmland": {"track": 0.55, "unclassified": 0.25, "path": 0.1, "service": 0.1},
}  # fmt: skip
# Share of narrow streets that run one way; and of streets that cross rivers and corridors.
ONEWAY = {"old_town": 0.28, "commercial": 0.2}
THROUGH = {"old_town": 0.3, "commercial": 0.2, "park": 0.35, "campus": 0.3, "residential": 0.08}
CARS = {"motorway", "motorway_link", "primary", "secondary", "tertiary", "unclassified",
        "residential", "living_street", "service"}  # fmt: skip


@dataclass
class Road:
    """A line in plan metres; `through` roads cross rivers and corridors, others stop there."""

    line: shapely.LineString
    kind: str
    quarter: str
    tags: Tags
    through: bool = False
    discs: list[shapely.Geometry] = field(default_factory=list)


def draw(shares: dict[str, float], rng: np.random.Generator) -> str:
    """One key, with probability proportional to its share."""
    weights = np.array(list(shares.values()))
    return list(shares)[int(rng.choice(len(weights), p=weights / weights.sum()))]


def street_name(kind: str, rng: np.random.Generator) -> str:
    first = str(rng.choice(TREES if rng.random() < 0.6 else PLACES))
    ends = {"primary": ("Avenue", "Road"), "secondary": ("Avenue", "Road"), "track": ("Track",),
            "footway": ("Walk",), "path": ("Path",)}  # fmt: skip
    return f"{first} {rng.choice(ends.get(kind, ('Street', 'Lane', 'Drive', 'Court', 'Way')))}"


def road_tags(kind: str, quarter: str, name: str, rng: np.random.Generator) -> Tags:
    """Tags of a road by class and quarter, with omissions."""
    tags = {"highway": kind}
    country = quarter == "farmland"

    def often(table: dict[str, float]) -> bool:
        return rng.random() < table.get(kind, 0.0)

    if often(rates.NAME):
        tags["name"] = name
    speeds = (rates.SPEED_COUNTRY if country else rates.SPEED_TOWN).get(kind)
    if speeds and often(rates.MAXSPEED):
        speed = speeds[min(rng.geometric(0.7) - 1, len(speeds) - 1)]
        if quarter == "old_town" and kind in ("residential", "unclassified", "tertiary"):
            speed = 30
        mph = 5 * round(speed / 1.609344 / 5)
        tags["maxspeed"] = f"{mph} mph" if rng.random() < rates.MPH_SHARE else str(speed)
    if often(rates.LANES):
        wide = {"motorway": (3, 2), "motorway_link": (1,), "primary": (4, 2), "secondary": (2, 3)}
        tags["lanes"] = str(rng.choice(wide.get(kind, (2,))))
    if often(rates.SURFACE):
        tags["surface"] = str(rng.choice(SURFACES.get(kind, ("asphalt", "asphalt", "paved"))))
        if quarter == "old_town" and rng.random() < 0.4:
            tags["surface"] = str(rng.choice(("sett", "cobblestone", "paving_stones")))
    if kind in ("motorway", "motorway_link"):
        tags["oneway"] = "yes"
    elif kind in ("residential", "unclassified", "service"):
        if rng.random() < ONEWAY.get(quarter, 0.04):
            tags["oneway"] = "yes"
    elif kind in CARS and rng.random() < 0.03:
        tags["oneway"] = str(rng.choice(("no", "yes", "no")))
    if kind == "service" and rng.random() < 0.4:
        tags["service"] = "alley" if quarter == "old_town" else "parking_aisle"
    if kind == "track" and rng.random() < 0.6:
        tags["tracktype"] = f"grade{rng.integers(1, 6)}"
    if kind in CARS and rng.random() < (0.03 if country else 0.08):
        tags["lit"] = "no" if country else "yes"
    if kind in ("primary", "secondary", "tertiary", "residential") and rng.random() < 0.05:
        tags["sidewalk"] = str(rng.choice(("both", "right", "left", "none")))
    return tags


def arterials(plan: Plan) -> list[Road]:
    """The grid between cells, cut where class or name changes; vertices every 1/24 cell."""
    roads: list[Road] = []
    n = plan.cells
    for axis in (0, 1):
        for k in range(1, n):
            rng = np.random.default_rng([plan.seed, 2, axis, k])
            main = (k - n // 2) % 3 == 0
            name = street_name("primary", rng)
            run: list[tuple[str, str, Points]] = []
            for j in range(n):
                beside = {(0, k - 1, j), (0, k, j)} if axis == 0 else {(0, j, k - 1), (0, j, k)}
                kinds = sorted(QUARTERS[plan.quarters[a, b]] for _, a, b in beside)
                t = np.arange(STEPS + 1) / STEPS
                edge = np.zeros_like(t)
                i_j = (k, j) if axis == 0 else (j, k)
                st = np.stack([edge, t] if axis == 0 else [t, edge], axis=1)
                points = plan.cell(*i_j, st)
                country = kinds == ["farmland", "farmland"]
                if main:
                    kind = "tertiary" if kinds == ["old_town", "old_town"] else "primary"
                else:
                    kind = "secondary" if (k % 2 == 0) and not country else "tertiary"
                    if country and rng.random() < 0.5:
                        kind = "unclassified"
                quarter = kinds[int(rng.integers(2))]
                if run and (run[-1][0] != kind or len(run) >= 2 or rng.random() < 0.5):
                    roads.append(_join(run, name, rng))
                    run = []
                run.append((kind, quarter, points))
                if rng.random() < 0.12:
                    name = street_name(kind, rng)
            roads.append(_join(run, name, rng))
    return roads


def _join(run: list[tuple[str, str, Points]], name: str, rng: np.random.Generator) -> Road:
    kind, quarter, _ = run[0]
    points = np.concatenate([run[0][2], *(p[1:] for _, _, p in run[1:])])
    return Road(
        shapely.LineString(points), kind, quarter, road_tags(kind, quarter, name, rng), True
    )


def lattice(plan: Plan, i: int, j: int) -> Points:
    """Corners of the blocks of a cell, in fractions of it: (columns + 1, rows + 1, 2)."""
    rng = np.random.default_rng([plan.seed, 3, i, j])
    shapes, _, jitter, _ = PATTERN[QUARTERS[plan.quarters[i, j]]]
    a, b = shapes[int(rng.integers(len(shapes)))]
    corners = np.stack(np.meshgrid(np.arange(a + 1) / a, np.arange(b + 1) / b, indexing="ij"), -1)
    corners[1:-1, 1:-1] += rng.normal(0, jitter, (a - 1, b - 1, 2))
    return corners


def local_streets(plan: Plan, i: int, j: int, corners: Points) -> list[Road]:
    """Streets between the blocks of a cell, some segments missing, some with a cul-de-sac."""
    rng = np.random.default_rng([plan.seed, 4, i, j])
    quarter = QUARTERS[plan.quarters[i, j]]
    _, gap, _, bend = PATTERN[quarter]
    bend *= float(rng.random() < 0.6)
    roads = []
    lines = [corners[k] for k in range(1, corners.shape[0] - 1)]
    lines += [corners[:, k] for k in range(1, corners.shape[1] - 1)]
    for line in lines:
        name, kind = street_name("residential", rng), draw(LOCAL[quarter], rng)
        runs: list[list[Points]] = [[]]
        for a, b in pairwise(line):
            if rng.random() < gap:
                runs.append([])
                continue
            if rng.random() < 0.6:
                runs.append([])
            side = np.array([a[1] - b[1], b[0] - a[0]]) / np.hypot(*(b - a))
            t = np.linspace(0, 1, 7 if bend else 3)[:, None]
            curve = a + (b - a) * t + side * np.sin(np.pi * t) * bend * rng.choice((-1, 1))
            runs[-1].append(curve)
            if quarter == "residential" and rng.random() < 0.3:
                reach = rng.choice((-1, 1)) * (0.06 + 0.05 * rng.random())
                stub = curve[len(curve) // 2] + np.outer([0, 0.5, 1], side) * reach
                tags = road_tags(kind, quarter, street_name("residential", rng), rng)
                roads.append(Road(shapely.LineString(plan.cell(i, j, stub)), kind, quarter, tags))
        for run in filter(None, runs):
            points = plan.cell(i, j, np.concatenate([run[0], *(p[1:] for p in run[1:])]))
            one = draw(LOCAL[quarter], rng) if rng.random() < 0.3 else kind
            tags, through = (
                road_tags(one, quarter, name, rng),
                rng.random() < THROUGH.get(quarter, 0),
            )
            roads.append(Road(shapely.LineString(points), one, quarter, tags, through))
    return roads


def sidewalks(plan: Plan, main: list[Road]) -> list[Road]:
    """Footways drawn beside some arterials in town."""
    rng, roads = np.random.default_rng([plan.seed, 20]), []
    for road in main:
        if road.quarter in ("farmland", "industrial", "park") or rng.random() > 0.18:
            continue
        for side in (-1, 1):
            line = shapely.offset_curve(road.line, 9.5 * side)
            tags = road_tags("footway", road.quarter, "", rng) | {"footway": "sidewalk"}
            tags.pop("name", None)
            roads.append(Road(line, "footway", road.quarter, tags, True))
    return roads
