"""Shapes that fill the blocks of a cell: slots of a block, houses along a street, blobs."""

import numpy as np
import shapely
from numpy.typing import NDArray

from geojepa.data.city.plan import Plan, Points

Shapes = NDArray[np.object_]
# Corners of a house in units of its half width and half depth: a rectangle, and an L.
RECTANGLE = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)])
ELL = np.array([(-1, -1), (1, -1), (1, 0.1), (0.1, 0.1), (0.1, 1), (-1, 1)])


def slots(
    plan: Plan,
    i: int,
    j: int,
    corners: Points,
    grid: tuple[int, int],
    margin: float,
    shrink: tuple[float, float],
    rng: np.random.Generator,
) -> Points:
    """Quads (n, 4, 2) in plan metres: every block of a cell cut into a grid of slots.

    Args:
        plan: The plan.
        i: Column of the cell.
        j: Row of the cell.
        corners: Corners of the blocks in fractions of the cell, (a + 1, b + 1, 2).
        grid: Slots across and along a block.
        margin: Share of the block left free on each side.
        shrink: Least and greatest share of a slot's width and height that its quad takes.
        rng: Draws the sizes.
    """
    blocks = [corners[:-1, :-1], corners[1:, :-1], corners[1:, 1:], corners[:-1, 1:]]
    p00, p10, p11, p01 = (b.reshape(-1, 1, 1, 2) for b in blocks)
    across, along = ((np.arange(g) + 0.5) / g for g in grid)
    s0, t0 = (c.ravel() for c in np.meshgrid(across, along, indexing="ij"))
    half = rng.uniform(*shrink, (len(p00), len(s0), 2)) / 2 / np.array(grid)
    free = 1 - 2 * margin
    st = np.stack([s0, t0], -1)[None, :, None] + half[:, :, None] * RECTANGLE
    s, t = (margin + free * st)[..., 0:1], (margin + free * st)[..., 1:2]
    quads = p00 * (1 - s) * (1 - t) + p10 * s * (1 - t) + p11 * s * t + p01 * (1 - s) * t
    return plan.cell(i, j, quads.reshape(-1, 4, 2))


def squared(quads: Points) -> Points:
    """Each quad (n, 4, 2) as the parallelogram of its middles, made a rectangle."""
    centre = quads.mean(axis=1)
    east = (quads[:, 1] + quads[:, 2] - quads[:, 0] - quads[:, 3]) / 4
    north = (quads[:, 2] + quads[:, 3] - quads[:, 0] - quads[:, 1]) / 4
    length = np.hypot(*north.T)[:, None]
    unit = east / np.hypot(*east.T)[:, None]
    north = np.stack([-unit[:, 1], unit[:, 0]], axis=1) * length
    return centre[:, None] + RECTANGLE[:, :1] * east[:, None] + RECTANGLE[:, 1:] * north[:, None]


def ell(quads: Points, rng: np.random.Generator) -> Shapes:
    """Rectangles (n, 4, 2) with a corner cut out, each turned by a random quarter."""
    turn = (np.arange(4) + rng.integers(0, 4, (len(quads), 1))) % 4
    turned = np.take_along_axis(quads, turn[..., None], axis=1)
    centre = turned.mean(axis=1)[:, None]
    east = (turned[:, 1] - turned[:, 0])[:, None] / 2
    north = (turned[:, 3] - turned[:, 0])[:, None] / 2
    return shapely.polygons(centre + ELL[:, :1] * east + ELL[:, 1:] * north)


def houses_along(
    line: shapely.LineString, spacing: float, setback: float, rng: np.random.Generator
) -> Shapes:
    """Houses on both sides of a street: 8-18 m wide, some L-shaped, some a little turned."""
    count = int((line.length - 30) / spacing)
    if count < 1:
        return np.empty(0, object)
    at = 20 + spacing * (np.arange(count) + rng.uniform(0.2, 0.8, (2, count))).ravel()
    here = shapely.get_coordinates(shapely.line_interpolate_point(line, at))
    ahead = shapely.get_coordinates(shapely.line_interpolate_point(line, at + 4)) - here
    ahead /= np.maximum(np.hypot(*ahead.T), 1e-6)[:, None]
    side = np.repeat([-1.0, 1.0], count)[:, None]
    normal = np.stack([-ahead[:, 1], ahead[:, 0]], axis=1) * side
    half = np.stack([rng.uniform(4.5, 8, len(at)), rng.uniform(4, 6.5, len(at))], axis=1)
    centre = here + normal * (setback + half[:, 1:] + rng.uniform(0, 4, (len(at), 1)))
    turn = rng.normal(0, 0.04, len(at)) + (rng.random(len(at)) < 0.08) * rng.uniform(-0.6, 0.6)
    cos, sin = np.cos(turn)[:, None], np.sin(turn)[:, None]
    ahead, normal = ahead * cos + normal * sin, normal * cos - ahead * sin
    quads = (
        centre[:, None]
        + (RECTANGLE[:, :1] * half[:, None, :1]) * ahead[:, None]
        + (RECTANGLE[:, 1:] * half[:, None, 1:]) * normal[:, None]
    )
    is_ell = rng.random(len(at)) < 0.3
    shapes = shapely.polygons(quads)
    shapes[is_ell] = ell(quads[is_ell], rng)
    return shapes


def blob(centre: Points, radius: float, rng: np.random.Generator, points: int = 28) -> Points:
    """A rough round outline (points, 2)."""
    angle = np.arange(points) / points * 2 * np.pi
    a, b = rng.uniform(0, 2 * np.pi, 2)
    r = radius * (1 + 0.18 * np.sin(2 * angle + a) + 0.1 * np.sin(3 * angle + b))
    return centre + r[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)


def drop_overlaps(shapes: Shapes, roads: Shapes, clearance: float) -> NDArray[np.bool_]:
    """Which shapes stand clear of the roads (by metres) and of every earlier shape that stays."""
    keep = np.ones(len(shapes), bool)
    tree = shapely.STRtree(shapes)
    keep[tree.query(roads, predicate="dwithin", distance=clearance)[1]] = False
    first, second = tree.query(shapes, predicate="intersects")
    order = np.lexsort((second, first))
    for a, b in zip(first[order], second[order], strict=True):
        if a < b and keep[a]:
            keep[b] = False
    return keep
