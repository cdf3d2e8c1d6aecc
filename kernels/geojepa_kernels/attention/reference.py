"""Attention over packed sequences in plain PyTorch: the judge of the kernel, and the CPU path."""

import torch
from torch import Tensor
from torch.nn.functional import dropout, scaled_dot_product_attention

# Above so many scores a head, the blocked CPU kernel beats a stored score matrix (see README.md).
BLOCKED_SCORES = 256 * 256


def attend(q: Tensor, k: Tensor, v: Tensor, dropout_p: float) -> Tensor:
    """One sequence: softmax(q k') v; all (heads, tokens, head_dim), q already scaled.

    A query without keys returns zeros.
    """
    if dropout_p == 0 and q.shape[1] * k.shape[1] > BLOCKED_SCORES:
        return scaled_dot_product_attention(q[None], k[None], v[None], scale=1.0)[0]
    weights = torch.softmax(q @ k.transpose(1, 2), dim=-1)
    return (dropout(weights, dropout_p) if dropout_p else weights) @ v


def attention_reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    dropout_p: float,
    scale: float,
) -> Tensor:
    """Each sequence on its own, without a padded token; shapes as in `attention`."""
    queries, keys = cu_seqlens_q.diff().tolist(), cu_seqlens_k.diff().tolist()
    if not queries:
        return q.clone()
    by_sequence = zip(
        (q * scale).transpose(0, 1).split(queries, dim=1),
        k.transpose(0, 1).split(keys, dim=1),
        v.transpose(0, 1).split(keys, dim=1),
        strict=True,
    )
    return torch.cat([attend(*qkv, dropout_p) for qkv in by_sequence], dim=1).transpose(0, 1)
