"""What may stand on the blocks of a cell of the sample city, and what stands in the end."""

import numpy as np
import shapely

from geojepa.data.city.blocks import Shapes, blob, drop_overlaps, ell, houses_along, slots, squared
from geojepa.data.city.plan import QUARTERS, Plan, Points
from geojepa.data.city.streets import Road
from geojepa.data.city.uses import SLOTS
from geojepa.data.city.world import pieces_of

Plot = tuple[shapely.Geometry, str]
# Longest diagonal of a pitch and of a playground, in metres.
LIMIT = {"pitch": 110.0, "playground": 44.0}


def plots(plan: Plan, i: int, j: int, corners: Points, roads: list[Road]) -> list[Plot]:
    """Everything that may stand in a cell, as (polygon, use), before overlaps are dropped."""
    rng = np.random.default_rng([plan.seed, 12, i, j])
    quarter = QUARTERS[plan.quarters[i, j]]
    grid, margin, shrink, uses = SLOTS[quarter]
    quads = slots(plan, i, j, corners, grid, margin, shrink, rng)
    share = np.array(list(uses.values()))
    drawn = rng.choice(list(uses), len(quads), p=share / share.sum())
    found: list[Plot] = []
    if quarter == "old_town":
        # some blocks are one building around a yard
        size = grid[0] * grid[1]
        for k in np.flatnonzero(rng.random(len(quads) // size) < 0.14) * size:
            block = shapely.MultiPoint(quads[k : k + size].reshape(-1, 2)).convex_hull
            yard = block.buffer(-13, join_style="mitre")
            found.append((block.difference(yard), "building"))
            drawn[k : k + size] = "empty"
    for use in uses:
        if use != "empty" and (drawn == use).any():
            found += _plots_of(use, quads[drawn == use], quarter, rng)
    for road in roads:
        if quarter == "residential" and road.kind in ("residential", "unclassified"):
            found += [(s, "building") for s in houses_along(road.line, 27, 9, rng)]
        elif quarter == "farmland" and road.kind != "path" and rng.random() < 0.25:
            yard = road.line.interpolate(rng.uniform(0.2, 0.8), normalized=True).buffer(75)
            for piece in pieces_of(road.line.intersection(yard), "LineString"):
                found += [(s, "building") for s in houses_along(piece, 34, 8, rng)]
    return found


def _plots_of(use: str, quads: Points, quarter: str, rng: np.random.Generator) -> list[Plot]:
    """Quads (n, 4, 2) of one use, given their shape."""
    centre, diagonal = quads.mean(axis=1)[:, None], np.hypot(*(quads[:, 2] - quads[:, 0]).T)
    if use == "building":
        quads = squared(quads)
        is_ell = rng.random(len(quads)) < (0.15 if quarter == "industrial" else 0.35)
        shapes = [*shapely.polygons(quads[~is_ell]), *ell(quads[is_ell], rng)]
    elif use == "flats":
        towers = shapely.buffer(ell(squared(quads), rng), -22, join_style="mitre")
        return [(s, "building") for tower in towers for s in pieces_of(tower, "Polygon")]
    elif use in ("wood", "pond") and quarter != "farmland":
        radius = diagonal * (0.27 if use == "wood" else 0.16)
        shapes = [shapely.Polygon(blob(c, r, rng)) for c, r in zip(centre, radius, strict=True)]
    elif use in LIMIT:
        scale = np.minimum(1, LIMIT[use] / diagonal)[:, None, None]
        shapes = [*shapely.polygons(centre + (squared(quads) - centre) * scale)]
    else:
        shapes = [*shapely.polygons(quads)]
    found = [(shape, use) for shape in shapes]
    if use == "school":
        inner = centre + (squared(quads) - centre) * 0.45
        found += [(shape, "building") for shape in ell(inner, rng)]
    return found


def settle(found: list[Plot], roads: Shapes, closed: shapely.Geometry) -> list[bool]:
    """Which plots stand: clear of roads, river, corridors and each other."""
    shapes = np.array([shape for shape, _ in found], object)
    uses = np.array([use for _, use in found])
    solid = uses == "building"
    keep = ~shapely.intersects(closed, shapes) & shapely.is_valid(shapes)
    index = np.flatnonzero(solid & keep)
    keep[index] = drop_overlaps(shapes[index], roads, 4.5)
    blocking = np.flatnonzero(~solid & keep & ~np.isin(uses, ("field", "school", "green")))
    tree = shapely.STRtree(shapes[index][keep[index]])
    keep[blocking[tree.query(shapes[blocking], predicate="intersects")[0]]] = False
    return keep.tolist()
