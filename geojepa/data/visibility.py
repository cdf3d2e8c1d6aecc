"""Which nodes of different parts of one geometry see each other: exact, and near ones first.

All comparisons hold for the given float64 coordinates: a rounded number decides only where its
error bound allows, else whole numbers of any length do. What is merely pruned is pruned by angles
with a wide margin, so that rounding costs time and never a result.
"""

import numpy as np
import shapely
from scipy.spatial import cKDTree

# Nodes, and pairs of nodes, worked on at once: bound memory, change no result.
_LOT = 16_384
# Relative error bounds of a 2 x 2 determinant and of a squared distance in float64, widened; and
# what underflow can add to either.
_DETERMINANT_ERROR, _DISTANCE_ERROR, _UNDERFLOW = 4e-16, 1e-15, 1e-300
# Radians by which a shaded direction must be inside; directions of one node are a turn apart.
_MARGIN, _TURN = 1e-8, 32.0


def visible_pairs(
    node: np.ndarray, part: np.ndarray, owner: np.ndarray, edge: np.ndarray, k: int
) -> np.ndarray:
    """Pairs of each node and the `k` nearest that it sees in other parts of its geometry.

    Args:
        node: (V, 2) float64, finite.
        part: (V,) part of its geometry that a node belongs to, from 0.
        owner: (V,) geometry that a node belongs to, ascending.
        edge: (E, 2) rows of `node` that block the view, both in one geometry.
        k: at least 1; at equal distance lower x, then lower y, then lower row goes first.

    Returns:
        (P, 2) rows of `node`, first < second, no doubles.
    """
    last = np.zeros(len(node), dtype=np.int64)
    np.maximum.at(last, owner, part)
    rows = np.flatnonzero(last[owner])
    if not len(rows):
        return np.empty((0, 2), dtype=np.int64)
    # Geometries stand side by side, too far apart for one to reach another.
    gap = 1 + 2 * np.ptp(node[rows], axis=0).sum()
    lane = np.zeros(len(node))
    lane[rows] = np.unique(owner[rows], return_inverse=True)[1] * gap
    others = _OtherParts(node, part, lane, last[owner], gap)
    blockers = _Blockers(node, edge[last[owner[edge[:, 0]]] > 0], lane)
    lots = np.split(rows, range(_LOT, len(rows), _LOT))
    chosen = [_nearest_visible(node, others, blockers, lot, k) for lot in lots]
    return np.unique(np.sort(np.concatenate(chosen), axis=1), axis=0)


def _nearest_visible(node, others, blockers, rows: np.ndarray, k: int) -> np.ndarray:
    """Pairs (m, 2) of `rows` and the `k` nearest nodes of other parts that each sees.

    Nodes are looked at ring by ring. A row is done once it has seen enough, has looked at all, or
    edges around it hide everything farther away.
    """
    seen = np.empty((0, 2), dtype=np.int64)
    chosen, horizon, reach, shade = [], np.zeros(len(rows)), 2 * k, None
    while len(rows):
        pair, horizon = others.beyond(rows, horizon, reach)
        if shade is not None:
            pair = pair[~shade.hides(pair)]
        seen = np.concatenate([seen, pair[~blockers.meet(pair)]])
        found = np.bincount(seen[:, 0], minlength=rows[-1] + 1)[rows]
        going = np.flatnonzero((found < k) & np.isfinite(horizon))
        shade = _Shade(node, blockers, rows[going], horizon[going])
        going = going[~shade.is_closed]
        goes_on = np.isin(seen[:, 0], rows[going])
        chosen.append(_first(node, seen[~goes_on], k))
        seen, rows, horizon, reach = seen[goes_on], rows[going], horizon[going], 3 * reach
    return np.concatenate(chosen)


class _OtherParts:
    """Nearest nodes of other parts, however many of its own part are nearer.

    Numbers of different parts differ in some binary digit. For each digit there is a tree of all
    nodes that sets those with a 0 apart from those with a 1, and a node looks among the others.
    """

    def __init__(self, node, part, lane, last, gap):
        self.node, self.part, self.lane, self.last, self.gap = node, part, lane, last, gap
        self.trees = []
        for digit in range(int(last.max()).bit_length()):
            rows = np.flatnonzero(last >> digit)
            self.trees.append((rows, cKDTree(self._at(rows, part[rows] >> digit & 1))))

    def _at(self, rows: np.ndarray, bit: np.ndarray) -> np.ndarray:
        return np.column_stack([self.node[rows], 2 * self.lane[rows] + self.gap * bit])

    def beyond(self, rows: np.ndarray, start: np.ndarray, reach: int):
        """Pairs (m, 2) of `rows` and nodes of other parts from a distance `start` (r,) on.

        Also the distance (r,) up to which these are all. In a tree it takes `reach` nodes to get
        there; it is infinite where the geometry holds no more.
        """
        horizon = np.full(len(rows), np.inf)
        found = []
        for digit, (members, tree) in enumerate(self.trees):
            asks = np.flatnonzero(self.last[rows] >> digit)
            bit = 1 - (self.part[rows[asks]] >> digit & 1)
            distance, hit = tree.query(self._at(rows[asks], bit), k=np.arange(1, reach + 1))
            is_near = distance < self.gap / 2
            limit = np.where(is_near.all(axis=1), distance[:, -1] * (1 - 1e-9), np.inf)
            horizon[asks] = np.minimum(horizon[asks], limit)
            ask, column = np.nonzero(is_near)
            found.append(asks[ask] * len(self.node) + members[hit[ask, column]])
        ask, other = np.divmod(np.unique(np.concatenate(found)), len(self.node))
        distance = np.hypot(*(self.node[other] - self.node[rows[ask]]).T)
        is_new = (distance >= start[ask]) & (distance < horizon[ask])
        return np.stack([rows[ask], other], axis=1)[is_new], horizon


class _Blockers:
    """The edges within geometries, to ask which segments they meet."""

    def __init__(self, node, edge, lane):
        self.node, self.edge = node, edge
        # Adding a lane rounds, but never swaps two coordinates, so overlapping bounds stay so.
        self.beside = node + np.column_stack([lane, np.zeros(len(lane))])
        self.tree = shapely.STRtree(shapely.linestrings(self.beside[edge]))

    def around(self, rows: np.ndarray, radius: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Row, and edge (2,), of each pair of a row and an edge near it, perhaps some beyond."""
        low, high = self.beside[rows] - radius[:, None], self.beside[rows] + radius[:, None]
        which, edge = self.tree.query(shapely.box(*low.T, *high.T))
        return which, self.edge[edge]

    def meet(self, pair: np.ndarray) -> np.ndarray:
        """Whether an edge meets the open segment of each pair (m, 2) of rows."""
        blocked = np.zeros(len(pair), dtype=bool)
        apart = np.flatnonzero((self.node[pair[:, 0]] != self.node[pair[:, 1]]).any(axis=1))
        for lot in np.split(apart, range(_LOT, len(apart), _LOT)):
            which, edge = self.tree.query(shapely.linestrings(self.beside[pair[lot]]))
            blocked[lot[which[self._meets(pair[lot[which]], self.edge[edge])]]] = True
        return blocked

    def _meets(self, ab: np.ndarray, cd: np.ndarray) -> np.ndarray:
        """Whether closed segments cd meet open segments ab; rows (m, 2) both."""
        a, b, c, d = (self.node[rows] for rows in (*ab.T, *cd.T))
        side = _orientation(a, b, c), _orientation(a, b, d)
        meets = side[0] * side[1] <= 0
        is_line = (side[0] == 0) & (side[1] == 0)
        try_ = np.flatnonzero(meets & ~is_line)
        a_, b_, c_, d_ = a[try_], b[try_], c[try_], d[try_]
        meets[try_] = _orientation(c_, d_, a_) * _orientation(c_, d_, b_) < 0
        # On one line, bounds overlap in x, or in y where there is no x to overlap in.
        overlaps = (np.minimum(c, d) < np.maximum(a, b)) & (np.minimum(a, b) < np.maximum(c, d))
        meets[is_line] = overlaps[is_line].any(axis=1)
        return meets


class _Shade:
    """Directions in which edges within a radius (r,) of `rows` surely hide what lies beyond it.

    An edge, cut to the disc, hides an interval of directions. `is_closed` (r,): there is no gap.
    """

    def __init__(self, node, blockers, rows, radius):
        self.node, self.rows = node, rows
        which, edge = blockers.around(rows, radius)
        p, q = (node[edge[:, i]] - node[rows[which]] for i in (0, 1))
        span, r = q - p, 0.999 * radius[which]
        square, along = (span**2).sum(axis=1), (span * p).sum(axis=1)
        root = along**2 - square * ((p**2).sum(axis=1) - r**2)
        # Where the disc is tiny beside the edge, or the node lies on it, rounding could mislead.
        fine = (root > 0) & (square < 1e8 * r**2) & p.any(axis=1) & q.any(axis=1)
        which, edge, p, span, q = which[fine], edge[fine], p[fine], span[fine], q[fine]
        square, along, root = square[fine], along[fine], np.sqrt(root[fine])
        enter, leave = (-along - root) / square, (-along + root) / square
        enters, leaves = enter > 0, leave < 1
        first = np.where(enters[:, None], p + enter[:, None] * span, p)
        second = np.where(leaves[:, None], p + leave[:, None] * span, q)
        end = np.where(np.stack([enters, leaves], axis=1), -1, edge)
        angle = np.stack([np.arctan2(*first.T[::-1]), np.arctan2(*second.T[::-1])], axis=1)
        flips = np.mod(angle[:, 1] - angle[:, 0], 2 * np.pi) > np.pi
        angle[flips], end[flips] = angle[flips, ::-1], end[flips, ::-1]
        angle[:, 1] += np.where(angle[:, 1] < angle[:, 0], 2 * np.pi, 0)
        fine = (enter < 1) & (leave > 0) & (angle[:, 1] - angle[:, 0] < np.pi - 1e-6)
        # Two rounds, so that each start in the middle round is after all that reaches over it.
        angle, end, which = angle[fine], np.tile(end[fine], (2, 1)), np.tile(which[fine], 2)
        angle = np.concatenate([angle, angle + 2 * np.pi])
        order = np.lexsort((angle[:, 0], which))
        angle, end, which = angle[order], end[order], which[order]
        self.start = which * _TURN + angle[:, 0]
        stop = which * _TURN + angle[:, 1]
        self.reach = np.maximum.accumulate(stop)
        farthest = np.maximum.accumulate(np.where(stop == self.reach, np.arange(len(stop)), 0))
        self.is_closed = self._closed(angle, end, which, farthest)

    def _closed(self, angle, end, which, farthest) -> np.ndarray:
        asked = np.flatnonzero((angle[:, 0] >= 0) & (angle[:, 0] < 2 * np.pi))
        before = asked - 1
        slack = np.where(before < 0, -np.inf, self.reach[before]) - self.start[asked]
        is_open = slack < _MARGIN
        # Two edges that meet, or all but meet, leave a gap or not: that is decided exactly.
        stop, begin = end[farthest[before], 1], end[asked, 0]
        touch = np.flatnonzero(is_open & (slack > -_MARGIN) & (stop >= 0) & (begin >= 0))
        a, b, c = self.node[self.rows[which[asked[touch]]]], self.node[stop], self.node[begin]
        is_open[touch] = _orientation(a, b[touch], c[touch]) > 0
        count = np.bincount(which[asked], minlength=len(self.rows))
        gaps = np.bincount(which[asked[is_open]], minlength=len(self.rows))
        return (count > 0) & (gaps == 0)

    def hides(self, pair: np.ndarray) -> np.ndarray:
        """Whether the second row of each pair (m, 2), beyond the radius, is surely hidden."""
        if not len(self.start):
            return np.zeros(len(pair), dtype=bool)
        ray = self.node[pair[:, 1]] - self.node[pair[:, 0]]
        angle = np.mod(np.arctan2(ray[:, 1], ray[:, 0]), 2 * np.pi)
        at = np.searchsorted(self.rows, pair[:, 0]) * _TURN + angle
        before = np.searchsorted(self.start, at - _MARGIN) - 1
        return (before >= 0) & (self.reach[before] > at + _MARGIN)


def _orientation(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Exact sign (m,) of the turn a, b, c: 1 to the left, -1 to the right, 0 straight on."""
    along, to = b - a, (c - a)[:, ::-1]
    # A difference of two floats has the right sign, zero included, and so has a product.
    sign = np.sign(along) * np.sign(to)
    turn = sign[:, 0] - sign[:, 1]
    same = np.flatnonzero((turn == 0) & (sign[:, 0] != 0))
    product = along[same] * to[same]
    turn[same] = product[:, 0] - product[:, 1]
    bound = _DETERMINANT_ERROR * np.abs(product).sum(axis=1) + _UNDERFLOW
    doubtful = same[np.abs(turn[same]) <= bound]
    if len(doubtful):
        p, q, r = _whole(np.stack([a[doubtful], b[doubtful], c[doubtful]]))
        exact = (q - p)[:, 0] * (r - p)[:, 1] - (q - p)[:, 1] * (r - p)[:, 0]
        turn[doubtful] = (exact > 0).astype(float) - (exact < 0)
    return np.sign(turn)


def _first(node: np.ndarray, pair: np.ndarray, k: int) -> np.ndarray:
    """The `k` pairs of each first row that come first by distance, x, y and row, exactly."""
    a, b = node[pair[:, 0]], node[pair[:, 1]]
    square = ((b - a) ** 2).sum(axis=1)
    order = np.lexsort((square, pair[:, 0]))
    row, square = pair[order, 0], square[order]
    is_near = np.diff(square) <= _DISTANCE_ERROR * square[1:] + _UNDERFLOW
    # Within a run of squares too close to tell, whole numbers rank them.
    run = np.cumsum(np.concatenate([[True], ~(is_near & (row[1:] == row[:-1]))])[: len(pair)])
    doubtful = order[np.bincount(run)[run] > 1]
    rank = np.zeros(len(pair), dtype=np.int64)
    if len(doubtful):
        p, q = _whole(np.stack([a[doubtful], b[doubtful]]))
        rank[doubtful] = np.unique(((q - p) ** 2).sum(axis=1), return_inverse=True)[1]
    run[order] = run.copy()
    order = np.lexsort((pair[:, 1], b[:, 1], b[:, 0], rank, run))
    row = pair[order, 0]
    return pair[order[np.arange(len(row)) - np.searchsorted(row, row) < k]]


def _whole(value: np.ndarray) -> np.ndarray:
    """Finite floats times one power of two that makes whole numbers of all: Python integers."""
    mantissa, exponent = np.frexp(value)
    shift = exponent - exponent.min()
    return (mantissa * 2.0**53).astype(np.int64).astype(object) << shift.astype(object)
