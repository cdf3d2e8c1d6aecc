"""Smooth L1 on latents, and VICReg's variance and covariance terms (arXiv:2105.04906).

Every statistic is that of the whole batch, over all processes that train together, so that the
loss and its gradients do not depend on how many they are.
"""

from typing import Any

import torch
import torch.distributed
from torch import Tensor
from torch.nn import functional as F

VARIANCE_WEIGHT = 25.0


def over_processes(x: Tensor) -> Tensor:
    """The sum of x over all processes, differentiable; x itself in a single one.

    Every process computes the same loss from such sums. The backward pass adds up their gradients,
    so the mean over processes that DDP takes is the gradient of the one loss.
    """
    if not torch.distributed.is_initialized():
        return x
    return _Sum.apply(x)


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        torch.distributed.all_reduce(total)
        return total


def variance_covariance(x: Tensor) -> Tensor:
    """25 var + cov of tokens (n, D): Bardes et al., VICReg.

    var is the mean over dimensions of relu(1 - sqrt(Var + 1e-4)), population variance; cov is the
    sum of the squared off-diagonal entries of the unbiased covariance over D. Zero below two
    tokens.
    """
    x = _wide(x)
    # filled on the device: a number copied to a GPU would wait for it
    count = over_processes(x.new_full((), float(len(x))))
    centred = x - over_processes(x.sum(dim=0)) / count.clamp(min=1)
    # autocast would take the product in half precision, wide as its factors are
    with torch.autocast(x.device.type, enabled=False):
        scatter = over_processes(centred.T @ centred)
    deviation = torch.sqrt(scatter.diagonal() / count.clamp(min=1) + 1e-4)
    variance = F.relu(1 - deviation).mean()
    covariance = scatter / (count - 1).clamp(min=1)
    off_diagonal = covariance.square().sum() - covariance.diagonal().square().sum()
    return (VARIANCE_WEIGHT * variance + off_diagonal / x.shape[1]) * (count > 1)


def errors_by_set(
    predicted: Tensor,
    target: Tensor,
    target_set: Tensor,
    modality: Tensor,
    sets: int,
    modalities: int,
    beta: float,
) -> tuple[Tensor, Tensor]:
    """Smooth L1, a mean over dimensions, summed over the tokens of each set and modality.

    Args:
        predicted: (P, D).
        target: (P, D).
        target_set: (P,) int64, the set of each token, below `sets`.
        modality: (P,) uint8, below `modalities`.
        sets: target sets a tile.
        modalities: how many there are.
        beta: where the loss turns from square to absolute.

    Returns:
        Sums and numbers of tokens, (sets, modalities) each, over all processes.
    """
    error = F.smooth_l1_loss(_wide(predicted), _wide(target), beta=beta, reduction="none")
    cell = target_set * modalities + modality.long()
    # sums over rows instead of scattered additions: the same in every run on a GPU
    member = cell == torch.arange(sets * modalities, device=cell.device)[:, None]
    total = over_processes((member * error.mean(dim=1)).sum(dim=1))
    count = over_processes(member.sum(dim=1).to(total.dtype))
    return total.view(sets, modalities), count.view(sets, modalities)


def prediction_loss(total: Tensor, count: Tensor, mean: str, sets: str) -> Tensor:
    """The loss of the errors that `errors_by_set` summed.

    Args:
        total: (sets, modalities).
        count: (sets, modalities).
        mean: within a set, over its tokens ("token"), or over the tokens of each modality, then
            over the modalities that it has ("modality").
        sets: "sum" of the sets' losses, or "mean" over the sets that have tokens.
    """
    if mean == "token":
        by_set = total.sum(dim=1) / count.sum(dim=1).clamp(min=1)
    else:
        live = (count > 0).sum(dim=1).clamp(min=1)
        by_set = (total / count.clamp(min=1)).sum(dim=1) / live
    return over_sets(by_set, count.sum(dim=1), sets)


def over_sets(by_set: Tensor, count: Tensor, how: str) -> Tensor:
    """Sum of (sets,) losses, or their mean over the sets that have tokens."""
    return by_set.sum() if how == "sum" else by_set.sum() / (count > 0).sum().clamp(min=1)


def _wide(x: Tensor) -> Tensor:
    """At least float32: sums in half precision lose what a loss is made of."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
