"""Graphs of entity geometries: edges along each geometry, and between parts that see each other.

A geometry falls into primitive parts: every point, line and ring (outer or inner) is one. Its
vertices are the nodes. Two nodes of different parts of one geometry see each other if the open
segment between them meets no within-geometry edge of that geometry; to touch an edge, or to run
along it, is to meet it, while an edge that only ends at or passes through one of the two nodes
does not. Nodes of different parts at one position therefore see each other at distance zero, and
a node without an edge hides nothing.
"""

from dataclasses import dataclass

import numpy as np
import shapely

from geojepa.data.features import primitive_parts
from geojepa.data.visibility import visible_pairs

POINT, LINE, OUTER, INNER = range(4)


@dataclass(frozen=True)
class Graphs:
    """Graphs of N geometries, ragged: V nodes, E edges in all.

    Attributes:
        node: (V, 2) float64, tile units, in the order of the vertices.
        part: (V,) int32, the primitive part of its geometry that a node belongs to, from 0.
        kind: (V,) int8, what the part is: `POINT`, `LINE`, `OUTER` ring or `INNER` ring of an area.
        cu_nodes: (N + 1,) int64.
        edge: (E, 2) int64 rows of `node`, first < second, sorted within each geometry, no doubles.
        is_visibility: (E,) bool: the edge joins two parts rather than running along one.
        cu_edges: (N + 1,) int64.
    """

    node: np.ndarray
    part: np.ndarray
    kind: np.ndarray
    cu_nodes: np.ndarray
    edge: np.ndarray
    is_visibility: np.ndarray
    cu_edges: np.ndarray


def geometry_graphs(geometry: np.ndarray, k: int = 1) -> Graphs:
    """Graph of each geometry, with each node's `k` nearest visible nodes of other parts.

    Equal consecutive vertices are one node and a closed part has no second node where it closes.
    Of visible nodes at the same distance those of lower x go first, then of lower y, then of
    lower row: the first two make the edges, as pairs of positions, independent of the order of
    the parts and of where a ring starts.

    Args:
        geometry: (N,) shapely geometries of any type, None or empty included, in tile units.
        k: visibility edges that a node asks for; it may get more from nodes that ask for it.
    """
    node, part, kind, cu_nodes, within = _parts(np.asarray(geometry, dtype=object))
    owner = np.repeat(np.arange(len(cu_nodes) - 1), np.diff(cu_nodes))
    seen = visible_pairs(node, part, owner, within, k) if k > 0 else within[:0]
    edge = np.concatenate([within, seen])
    order = np.lexsort(edge.T[::-1])
    edge = edge[order]
    cu_edges = np.searchsorted(edge[:, 0], cu_nodes)
    return Graphs(node, part, kind, cu_nodes, edge, order >= len(within), cu_edges)


def _parts(
    geometry: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """`node`, `part`, `kind`, `cu_nodes` of the graphs, and their edges within parts (e, 2)."""
    shape, owner = primitive_parts(geometry)
    is_area = shapely.get_type_id(shape) == 3
    ring, area = shapely.get_rings(shape[is_area], return_index=True)
    place = np.concatenate([np.flatnonzero(~is_area), np.flatnonzero(is_area)[area]])
    kind = np.where(np.diff(area, prepend=-1) != 0, OUTER, INNER)
    kind = np.concatenate([np.where(shapely.get_type_id(shape[~is_area]) == 0, POINT, LINE), kind])
    order = np.argsort(place, kind="stable")
    kind = kind[order].astype(np.int8)
    shape, owner = np.concatenate([shape[~is_area], ring])[order], owner[place[order]]

    xy, piece = shapely.get_coordinates(shape, return_index=True)
    is_first = np.diff(piece, prepend=-1) != 0
    kept = is_first.copy()
    kept[1:] |= (xy[1:] != xy[:-1]).any(axis=1)
    xy, piece, is_first = xy[kept], piece[kept], is_first[kept]
    first = np.maximum.accumulate(np.where(is_first, np.arange(len(xy)), 0))
    is_last = np.diff(piece, append=-1) != 0
    closes = is_last & ~is_first & (xy == xy[first]).all(axis=1)
    row = np.cumsum(~closes) - 1
    row[closes] = row[first[closes]]
    joins = np.flatnonzero(~is_first)
    within = np.sort(np.stack([row[joins - 1], row[joins]], axis=1), axis=1)
    within = np.unique(within, axis=0)

    node, kind, owner_of = xy[~closes], kind[piece[~closes]], owner[piece[~closes]]
    cu_nodes = np.searchsorted(owner_of, np.arange(len(geometry) + 1))
    # Parts count from zero in each geometry, and only those that have a node.
    number = np.cumsum(is_first[~closes]) - 1
    part = number - number[cu_nodes[owner_of]] if len(number) else number
    return node, part.astype(np.int32), kind, cu_nodes, within
