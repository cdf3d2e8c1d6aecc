"""Floating-point operations of the attention kernels, as torch.utils.flop_counter counts them."""

from typing import Any

from torch import Tensor


def pairs(cu_q: Tensor, cu_k: Tensor, sets: int) -> int:
    """Pairs of a query and a key that it sees; offsets as in `launch_forward`."""
    first, second = cu_q.diff().long(), cu_k.diff().long()
    if sets == 0:
        return int((first * second).sum())
    context = first.repeat_interleave(sets)
    return int(first.square().sum() + (second * (context + second)).sum())


def forward_flops(
    q: Tensor, k: Tensor, v: Tensor, cu_q: Tensor, cu_k: Tensor, seed: Tensor, sets: int, *_: Any,
    **__: Any,
) -> int:  # fmt: skip
    """Two products, of queries with keys and of weights with values."""
    return 4 * q.shape[1] * q.shape[2] * pairs(cu_q, cu_k, sets)


def backward_flops(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, cu_q: Tensor,
    cu_k: Tensor, seed: Tensor, sets: int, *_: Any, **__: Any,
) -> int:  # fmt: skip
    """Five products, one of them the scores once more."""
    return 10 * q.shape[1] * q.shape[2] * pairs(cu_q, cu_k, sets)
