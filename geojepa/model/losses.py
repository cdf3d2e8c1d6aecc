"""Smooth L1 on latents, and VICReg's variance and covariance terms (METHOD.md, section 4)."""

import torch
from torch import Tensor
from torch.nn import functional as F

VARIANCE_WEIGHT = 25.0


def variance_covariance(x: Tensor) -> Tensor:
    """25 var + cov of tokens (n, D): Bardes et al., VICReg (arXiv:2105.04906).

    var is the mean over dimensions of relu(1 - sqrt(Var + 1e-4)), population variance; cov is the
    sum of the squared off-diagonal entries of the unbiased covariance over D. Zero below two
    tokens.
    """
    if len(x) < 2:
        return x.sum() * 0
    deviation = torch.sqrt(x.var(dim=0, correction=0) + 1e-4)
    variance = F.relu(1 - deviation).mean()
    centred = x - x.mean(dim=0)
    covariance = centred.T @ centred / (len(x) - 1)
    off_diagonal = covariance.square().sum() - covariance.diagonal().square().sum()
    return VARIANCE_WEIGHT * variance + off_diagonal / x.shape[1]


def prediction_loss(
    predicted: Tensor, target: Tensor, target_set: Tensor, modality: Tensor, sets: int, beta: float
) -> Tensor:
    """Smooth L1, a mean within each modality of each set, then over modalities and sets.

    Args:
        predicted: (P, D).
        target: (P, D).
        target_set: (P,) int64, the set of each token, below `sets`.
        modality: (P,) uint8, 0 or 1.
        sets: target sets a tile.
        beta: where the loss turns from square to absolute.
    """
    error = F.smooth_l1_loss(predicted, target, beta=beta, reduction="none").mean(dim=1)
    cell = target_set * 2 + modality.long()
    # sums over rows instead of scattered additions: the same in every run on a GPU
    member = cell == torch.arange(sets * 2, device=cell.device)[:, None]  # [2 sets, P]
    count = member.sum(dim=1)
    mean = (member * error).sum(dim=1) / count.clamp(min=1)
    live = (count > 0).view(sets, 2)
    by_set = mean.view(sets, 2).sum(dim=1) / live.sum(dim=1).clamp(min=1)
    return by_set.sum() / live.any(dim=1).sum().clamp(min=1)
