"""What is measured: errors, ranks, skill, the thinned set, and intervals over test blocks.

Every metric takes weights of shape (R, n), one row for each replicate, and returns (R,). A row
of ones is the metric itself; a row that counts how often a bootstrap drew each tile's block is a
replicate. Two systems measured under the same weights are paired.
"""

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
from scipy.stats import rankdata

REPLICATES = 1000
BINARY = frozenset({"bridge", "car_bridge"})
# floats that one chunk of replicates may hold
CHUNK = 4_000_000

Metric = Callable[..., np.ndarray]


def best_constant(task: str, label: np.ndarray) -> float:
    """Return the constant of least MAE on train: the median, or the majority of 0 and 1."""
    if task in BINARY:
        return float(np.mean(label) > 0.5)
    return float(np.median(label))


def mae(weight: np.ndarray, label: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Mean absolute error; of 0 and 1, the error rate. Shapes: (R, n), (n,), (n,) -> (R,)."""
    return _ratio(weight @ np.abs(label - value), weight.sum(1))


def skill(
    weight: np.ndarray, label: np.ndarray, value: np.ndarray, constant: np.ndarray
) -> np.ndarray:
    """1 - MAE / MAE of train's best constant, which each tile carries. NaN where that is 0."""
    return 1 - _ratio(weight @ np.abs(label - value), weight @ np.abs(label - constant))


def auroc(weight: np.ndarray, label: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Probability that a tile with label > 0 outranks one without, ties counting half."""
    hits, misses = _cumulated(weight, label, score)
    area = np.diff(hits, axis=1, prepend=0) * (misses[:, -1:] - misses)
    ties = np.diff(hits, axis=1, prepend=0) * np.diff(misses, axis=1, prepend=0)
    return _ratio((area + ties / 2).sum(1), hits[:, -1] * misses[:, -1])


def average_precision(weight: np.ndarray, label: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Mean, over tiles with label > 0, of the precision at their score, as scikit-learn's."""
    hits, misses = _cumulated(weight, label, score)
    precision = _ratio(hits, hits + misses)
    gained = np.diff(hits, axis=1, prepend=0)
    return _ratio(np.nansum(precision * gained, axis=1), hits[:, -1])


def spearman(label: np.ndarray, score: np.ndarray) -> float:
    """Spearman's rho; NaN where one side is constant."""
    if not len(label) or np.ptp(label) == 0 or np.ptp(score) == 0:
        return float("nan")
    return float(np.corrcoef(rankdata(label), rankdata(score))[0, 1])


def mae_positive(label: np.ndarray, value: np.ndarray) -> float:
    """MAE on the tiles whose label is positive; NaN where there is none."""
    positive = label > 0
    return float(np.abs(label - value)[positive].mean()) if positive.any() else float("nan")


def thinned(label: np.ndarray, place: np.ndarray, keys: np.ndarray, seed: int = 0) -> np.ndarray:
    """Draw label-0 tiles down, never up, to the positives of their place.

    The draw depends on seed and tile alone, not on the order of rows or on other tiles.

    Args:
        label: (T,), NaN where a tile has none; such tiles are dropped.
        place, keys: (T,) strings, the tile's place and its unique name.
        seed: of the draw.

    Returns:
        (T,) bool, the tiles kept.
    """
    keep = label > 0
    draw = hashed(keys, f"thin {seed}")
    for name in np.unique(place):
        zeros = np.flatnonzero((place == name) & (label == 0))
        room = np.count_nonzero(keep & (place == name))
        keep[zeros[np.argsort(draw[zeros])[:room]]] = True
    return keep


def hashed(keys: np.ndarray, salt: str) -> np.ndarray:
    """One uint64 for each key, a pseudo-random draw that depends on key and salt alone."""
    digests = (hashlib.blake2b(f"{salt}/{key}".encode(), digest_size=8).digest() for key in keys)
    return np.frombuffer(b"".join(digests), np.uint64)


def block_draws(count: int, replicates: int = REPLICATES) -> np.ndarray:
    """How often each bootstrap draws each of `count` blocks: (1 + replicates, count).

    The first row is ones, the sample itself.
    """
    draw = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), replicates)
    return np.concatenate([np.ones((1, count), np.int64), draw])


def replicate(
    metric: Metric, draws: np.ndarray, block: np.ndarray, *columns: np.ndarray
) -> np.ndarray:
    """Apply a metric to the sample and to every replicate.

    Args:
        metric: `metric(weight, *columns)`.
        draws: (R, blocks) of `block_draws`.
        block: (n,) the block of each tile, a column of draws.
        columns: (n,) each.

    Returns:
        (R,), the sample's own value first; from a single block nothing is known of the spread,
        and the rest is NaN.
    """
    if draws.shape[1] < 2:
        own = metric(np.ones((1, len(block))), *columns)
        return np.concatenate([own, np.full(len(draws) - 1, np.nan)])
    step = max(1, CHUNK // max(1, len(block)))
    parts = (draws[i : i + step, block].astype(float) for i in range(0, len(draws), step))
    return np.concatenate([metric(part, *columns) for part in parts])


def mean_of_parts(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Mean of the replicates (R,) of several parts of the map, each resampled on its own.

    All parts' draws come from one seed, so each part's replicates are shuffled first.
    """
    order = np.random.default_rng(0)
    shuffled = [np.concatenate([part[:1], order.permutation(part[1:])]) for part in parts]
    return np.mean(shuffled, axis=0)


def interval(values: np.ndarray) -> tuple[float, float, float]:
    """Return value, low and high of a 95 % percentile interval from the values of `replicate`.

    The difference of two systems' replicates has the paired interval of their difference.
    """
    if np.isnan(values[1:]).all():
        return float(values[0]), float("nan"), float("nan")
    low, high = np.nanpercentile(values[1:], [2.5, 97.5])
    return float(values[0]), float(low), float(high)


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    out = np.full(np.broadcast_shapes(np.shape(above), np.shape(below)), np.nan)
    return np.divide(above, below, out=out, where=below > 0)


def _cumulated(
    weight: np.ndarray, label: np.ndarray, score: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Weight of tiles with and without the label at each distinct score or above, best first."""
    order = np.argsort(-score, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(score[order]) != 0, True))
    positive = (label[order] > 0).astype(float)
    hits = (weight[:, order] * positive).cumsum(1)[:, ends]
    misses = (weight[:, order] * (1 - positive)).cumsum(1)[:, ends]
    return hits, misses
