"""How many directions a set of embeddings uses."""

import numpy as np
from scipy.linalg import eigh

# what LiDAR adds to the scatter within a class
DELTA = 1e-4


def effective_rank(x: np.ndarray) -> float:
    """exp of the entropy of the normalised singular values of (n, D), centred (RankMe).

    Garrido et al., arXiv:2210.02885; 1 means collapse to a line, at most min(n, D).
    """
    values = np.linalg.svd(x - x.mean(axis=0), compute_uv=False)
    return _exp_entropy(values.astype(np.float64))


def lidar(views: np.ndarray) -> float:
    """LiDAR of (views, n, D) embeddings: the rank of what tells classes apart (arXiv:2312.04000).

    exp of the entropy of the eigenvalues of between-class scatter in units of within-class scatter;
    a tile or a token is a class, its views are the samples. 1 where there is no class.
    """
    if views.shape[1] == 0:
        return 1.0
    views = views.astype(np.float64)
    mean = views.mean(axis=0)
    between = np.cov(mean.T, bias=True)
    apart = (views - mean).reshape(-1, views.shape[-1])
    within = apart.T @ apart / len(apart) + DELTA * np.eye(views.shape[-1])
    values = eigh(between, within, eigvals_only=True).clip(min=0)
    return _exp_entropy(values)


def _exp_entropy(values: np.ndarray) -> float:
    """Of shares that add up to one; 1 where all values are zero."""
    if values.sum() == 0:
        return 1.0
    share = values / values.sum() + 1e-12
    return float(np.exp(-(share * np.log(share)).sum()))
