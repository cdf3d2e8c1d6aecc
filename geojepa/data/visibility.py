"""Which nodes of different parts of one geometry see each other: exact, and near ones first.

What decides is exact for the given float64 coordinates. What is only passed over is passed over by
rounded angles and distances with a wide margin, so that rounding costs time and never a result.
"""

import numpy as np
import shapely
from scipy.spatial import cKDTree

from geojepa.data.exact import nearest_pairs, orientation

# Nodes or pairs of nodes, and pairs of a node and an edge, at once: they bound the memory, and the
# first keeps directions of many nodes, a turn apart, finer than the margin.
_LOT, _LOT_AROUND = 16_384, 8_000_000
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
    around = np.maximum(np.bincount(owner[rows])[owner[rows]], _LOT_AROUND // _LOT)
    lot = np.cumsum(around) // _LOT_AROUND
    lots = np.split(rows, np.flatnonzero(np.diff(lot)) + 1)
    chosen = [_nearest_visible(node, others, blockers, some, k) for some in lots]
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
        shade = _Shade(node, blockers, others, rows[going], horizon[going])
        going = going[~shade.is_closed]
        goes_on = np.isin(seen[:, 0], rows[going])
        chosen.append(nearest_pairs(node, seen[~goes_on], k))
        seen, rows, horizon, reach = seen[goes_on], rows[going], horizon[going], 3 * reach
    return np.concatenate(chosen)


class _OtherParts:
    """Nearest nodes of other parts, however many of its own part are nearer.

    Numbers of different parts differ in some binary digit. For each digit there is a tree of all
    nodes that sets those with a 0 apart from those with a 1, and a node looks among the others.
    """

    def __init__(self, node, part, lane, last, gap):
        self.node, self.part, self.lane, self.last, self.gap = node, part, lane, last, gap
        self.box = _boxes_of_others(node, part, lane)
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
            # Squares of what is tinier than any map may underflow.
            limit = np.maximum(distance[:, -1] * (1 - 1e-9) - 1e-140, 0)
            limit[~is_near.all(axis=1)] = np.inf
            horizon[asks] = np.minimum(horizon[asks], limit)
            ask, column = np.nonzero(is_near)
            found.append(asks[ask] * len(self.node) + members[hit[ask, column]])
        ask, other = np.divmod(np.unique(np.concatenate(found)), len(self.node))
        distance = np.hypot(*(self.node[other] - self.node[rows[ask]]).T)
        is_new = (distance >= start[ask]) & (distance < horizon[ask])
        return np.stack([rows[ask], other], axis=1)[is_new], horizon

    def apart(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Directions (m, 2), from and to, in which there is no other part, and whose of `rows`."""
        low, high = self.box[rows, :2], self.box[rows, 2:]
        at = self.node[rows]
        outside = np.flatnonzero(((at < low) | (at > high)).any(axis=1))
        low, high, at = (x[outside] for x in (low, high, at))
        rays = np.stack([low, high, np.c_[low[:, 0], high[:, 1]], np.c_[high[:, 0], low[:, 1]]])
        corner = np.arctan2(*(rays - at).T[::-1]).T
        ahead = np.arctan2(*((low + high) / 2 - at).T[::-1])
        turned = np.mod(corner - ahead + np.pi, 2 * np.pi) - np.pi
        # The rest of the turn in three, none of them half a turn.
        begin = ahead + turned.max(axis=0) + 10 * _MARGIN
        third = (2 * np.pi - np.ptp(turned, axis=0) - 20 * _MARGIN) / 3
        begin = np.mod(np.concatenate([begin + i * third for i in range(3)]) + np.pi, 2 * np.pi)
        angle = np.stack([begin - np.pi, begin - np.pi + np.tile(third, 3) + 2 * _MARGIN], axis=1)
        return np.tile(outside, 3), angle


def _boxes_of_others(node, part, lane) -> np.ndarray:
    """Bounds (V, 4) of the other parts of each node's geometry; of a lone part, of itself."""
    is_first = np.diff(part, prepend=-1) != 0
    is_first[1:] |= lane[1:] != lane[:-1]
    first, number = np.flatnonzero(is_first), np.cumsum(is_first) - 1
    least = np.minimum.reduceat(np.column_stack([node, -node]), first)
    group = np.cumsum(np.diff(lane[first], prepend=-1) != 0) - 1
    start, count = np.unique(group, return_index=True, return_counts=True)[1:]
    others = np.empty_like(least)
    for i in range(4):
        order = np.lexsort((least[:, i], group))
        best, second = order[start], order[start + (count > 1)]
        is_best = np.arange(len(least)) == best[group]
        others[:, i] = least[np.where(is_best, second[group], best[group]), i]
    return np.column_stack([others[:, :2], -others[:, 2:]])[number]


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
        side = orientation(a, b, c), orientation(a, b, d)
        meets = side[0] * side[1] <= 0
        is_line = (side[0] == 0) & (side[1] == 0)
        asked = np.flatnonzero(meets & ~is_line)
        ends = c[asked], d[asked]
        meets[asked] = orientation(*ends, a[asked]) * orientation(*ends, b[asked]) < 0
        # On one line, bounds overlap in x, or in y where there is no x to overlap in.
        a, b, c, d = a[is_line], b[is_line], c[is_line], d[is_line]
        overlaps = (np.minimum(c, d) < np.maximum(a, b)) & (np.minimum(a, b) < np.maximum(c, d))
        meets[is_line] = overlaps.any(axis=1)
        return meets


class _Shade:
    """Directions in which `rows` surely see no other part beyond a radius (r,).

    An edge, cut to the disc, hides an interval of directions, and in some there is no other part.
    `is_closed` (r,): there is no gap.
    """

    def __init__(self, node, blockers, others, rows, radius):
        self.node, self.rows = node, rows
        which, edge = blockers.around(rows, radius)
        at = node.view(np.complex128)[:, 0]
        origin = at[rows[which]]
        p, q, r = at[edge[:, 0]] - origin, at[edge[:, 1]] - origin, 0.999 * radius[which]
        span = q - p
        square, along = _dot(span, span), _dot(span, p)
        root = along**2 - square * (_dot(p, p) - r**2)
        # Where the disc is tiny beside the edge, or the node lies on it, rounding could mislead.
        fine = (root > 0) & (square < 1e8 * r**2) & (square > 1e-120) & (p != 0) & (q != 0)
        fine = np.flatnonzero(fine)
        root, square, along = np.sqrt(root[fine]), square[fine], along[fine]
        enter, leave = (-along - root) / square, (-along + root) / square
        inside = (enter < 1) & (leave > 0)
        fine, enter, leave = fine[inside], enter[inside], leave[inside]
        which, edge, p, q, span = which[fine], edge[fine], p[fine], q[fine], span[fine]
        enters, leaves = enter > 0, leave < 1
        first, second = np.where(enters, p + enter * span, p), np.where(leaves, p + leave * span, q)
        end = np.where(np.stack([enters, leaves], axis=1), -1, edge)
        angle = np.angle(np.stack([first, second], axis=1))
        flips = np.mod(angle[:, 1] - angle[:, 0], 2 * np.pi) > np.pi
        angle[flips], end[flips] = angle[flips, ::-1], end[flips, ::-1]
        angle[:, 1] += np.where(angle[:, 1] < angle[:, 0], 2 * np.pi, 0)
        fine = angle[:, 1] - angle[:, 0] < np.pi - 1e-6
        apart, free = others.apart(rows)
        which, angle = np.concatenate([which[fine], apart]), np.concatenate([angle[fine], free])
        end = np.concatenate([end[fine], np.full(free.shape, -1)])
        # Directions count from 0 to a turn; what reaches over 0 is there at both ends.
        ahead, over = np.flatnonzero(angle[:, 1] >= 0), np.flatnonzero(angle[:, 0] < 0)
        angle = np.concatenate([angle[ahead], angle[over] + 2 * np.pi])
        row = np.concatenate([ahead, over])
        angle += which[row, None] * _TURN
        order = np.argsort(angle[:, 0])
        (self.start, stop), row = angle[order].T, row[order]
        self.reach = np.maximum.accumulate(stop)
        farthest = np.maximum.accumulate(np.where(stop == self.reach, np.arange(len(stop)), 0))
        self.is_closed = self._closed(end[row], which[row], farthest)

    def _closed(self, end, which, farthest) -> np.ndarray:
        asked = np.flatnonzero(self.start >= which * _TURN)
        before = asked - 1
        slack = np.where(before < 0, -np.inf, self.reach[before]) - self.start[asked]
        is_open = slack < _MARGIN
        # Two edges that meet, or all but meet, leave a gap or not: that is decided exactly.
        stop, begin = end[farthest[before], 1], end[asked, 0]
        touch = np.flatnonzero(is_open & (slack > -_MARGIN) & (stop >= 0) & (begin >= 0))
        a, b, c = self.node[self.rows[which[asked[touch]]]], self.node[stop], self.node[begin]
        is_open[touch] = orientation(a, b[touch], c[touch]) > 0
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


def _dot(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Scalar products (m,) of vectors written as complex numbers."""
    return p.real * q.real + p.imag * q.imag
