"""How many directions a set of embeddings uses."""

import numpy as np


def effective_rank(x: np.ndarray) -> float:
    """exp of the entropy of the normalised singular values of (n, D), centred (RankMe).

    Garrido et al., arXiv:2210.02885; 1 means collapse to a line, at most min(n, D).
    """
    values = np.linalg.svd(x - x.mean(axis=0), compute_uv=False).astype(np.float64)
    if values.sum() == 0:
        return 1.0
    share = values / values.sum() + 1e-12
    return float(np.exp(-(share * np.log(share)).sum()))
