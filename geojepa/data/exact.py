"""Exact signs and order of float64 geometry.

A rounded number decides only where its error bound allows, else whole numbers of any length do.
"""

import numpy as np

# Relative error bounds of a 2 x 2 determinant and of a squared distance in float64, widened; and
# what underflow can add to either.
_DETERMINANT_ERROR, _DISTANCE_ERROR, _UNDERFLOW = 4e-16, 1e-15, 1e-300


def orientation(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
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


def nearest_pairs(node: np.ndarray, pair: np.ndarray, k: int) -> np.ndarray:
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
