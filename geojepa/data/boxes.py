"""Exact minimum rotated rectangles, vectorised over ragged hulls."""

import numpy as np
import shapely

MIN_SIDE = 0.005
_TIE = 1e-9
# vertices turned to an edge, times edges, at once: what fits a processor's cache
_LOT = 1 << 16


def rotated_boxes(geometry: np.ndarray) -> np.ndarray:
    """Minimum-area rotated rectangle of each geometry.

    A minimal rectangle has a side along an edge of the convex hull, so every hull edge is tried.
    Ties go to the smallest angle in [0, 90) degrees; sides are widened to at least 0.005 about
    the centre.

    Args:
        geometry: (n,) non-empty shapely geometries, in tile units.

    Returns:
        (n, 8) float64: four corners x, y, counter-clockwise from the lowest y, then lowest x.
    """
    boxes = np.empty((len(geometry), 8))
    points, index = shapely.get_coordinates(_hulls(geometry), return_index=True)
    count = np.bincount(index, minlength=len(geometry))
    start = np.cumsum(count) - count
    # Hulls of one size go together, as one dense array; large ones in small lots.
    for size in np.unique(count):
        rows = np.flatnonzero(count == size)
        lot = max(1, int(_LOT // max(size * size, 1)))
        for first in range(0, len(rows), lot):
            some = rows[first : first + lot]
            corner = points[start[some, None] + np.arange(size)]
            boxes[some] = _boxes_of_hulls(corner)
    return boxes


def _hulls(geometry: np.ndarray) -> np.ndarray:
    """(n,) geometries with the vertices of the convex hulls; what is convex is its own."""
    kind = shapely.get_type_id(geometry)
    hull = geometry.copy()
    hull[kind == 3] = shapely.get_exterior_ring(geometry[kind == 3])
    is_convex = (kind == 0) | ((kind == 1) & (shapely.get_num_points(geometry) == 2))
    rings = np.flatnonzero(kind == 3)
    if len(rings):
        points, index = shapely.get_coordinates(hull[rings], return_index=True)
        edge = np.flatnonzero(index[1:] == index[:-1])
        step, index = points[edge + 1] - points[edge], index[edge]
        first = np.flatnonzero(np.diff(index, prepend=-1))
        # the edge after each; the first after the last
        after = np.append(np.arange(1, len(edge)), 0)
        after[np.append(first[1:], len(edge)) - 1] = first
        turn = step[:, 0] * step[after, 1] - step[:, 1] * step[after, 0]
        low, high = np.minimum.reduceat(turn, first), np.maximum.reduceat(turn, first)
        is_convex[rings] = (low >= 0) | (high <= 0)
    hull[~is_convex] = shapely.convex_hull(geometry[~is_convex])
    return hull


def _boxes_of_hulls(hull: np.ndarray) -> np.ndarray:
    """(m, 8) boxes from hulls (m, k, 2), closed or a segment or a point."""
    edge = np.diff(hull, axis=1) if hull.shape[1] > 1 else np.zeros((len(hull), 1, 2))
    cos, sin = _directions(edge)
    low, high = _extents(hull - hull[:, :1], cos[:, :, None], sin[:, :, None])
    area = (high - low).prod(axis=2)
    # A segment has no area at any angle: its own direction is wanted, and is its only edge.
    extent = (high - low).max(axis=2)
    tied = area <= area.min(axis=1, keepdims=True) + _TIE * extent.max(axis=1, keepdims=True) ** 2
    best = np.argmin(np.where(tied, sin / cos, np.inf), axis=1)
    row = np.arange(len(hull))
    low, high, cos, sin = low[row, best], high[row, best], cos[row, best], sin[row, best]
    middle, half = (low + high) / 2, np.maximum(high - low, MIN_SIDE) / 2
    u = middle[:, :1] + half[:, :1] * np.array([-1, 1, 1, -1])
    v = middle[:, 1:] + half[:, 1:] * np.array([-1, -1, 1, 1])
    x = hull[:, :1, 0] + cos[:, None] * u - sin[:, None] * v
    y = hull[:, :1, 1] + sin[:, None] * u + cos[:, None] * v
    # With the angle in [0, 90) the first corner is the lowest; it stays so where two are level.
    return np.stack([x, y], axis=2).reshape(len(hull), 8)


def _directions(edge: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cosine and sine (m, e) of edges (m, e, 2), turned by quarters into [0, 90) degrees.

    Without an angle: NumPy's trigonometry differs from one processor to another, square roots do
    not.
    """
    x, y = np.where(edge[..., 1:] < 0, -edge, edge).transpose(2, 0, 1)
    x, y = np.where(x > 0, (x, y), (y, -x))
    # A quarter turn is no turn: rounding must not tell 0 from 90 degrees. A point has no direction.
    level = x <= 1e-12 * y
    x, y = np.where(level, 1.0, x), np.where(level, 0.0, y)
    length = np.sqrt(x * x + y * y)
    return x / length, y / length


def _extents(hull: np.ndarray, cos: np.ndarray, sin: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least and greatest along and across each edge (m, e, 2), of hulls (m, k, 2).

    `cos` and `sin` (m, e, 1) are those of the edges.
    """
    low = np.empty((*cos.shape[:2], 2))
    high = np.empty_like(low)
    x, y = hull[:, None, :, 0], hull[:, None, :, 1]
    # one outline may have ten thousands of vertices and edges
    lot = max(1, _LOT // (len(hull) * hull.shape[1]))
    for first in range(0, cos.shape[1], lot):
        some = slice(first, first + lot)
        c, s = cos[:, some], sin[:, some]
        for axis, turned in enumerate((c * x + s * y, -s * x + c * y)):
            low[:, some, axis] = turned.min(axis=2)
            high[:, some, axis] = turned.max(axis=2)
    return low, high
