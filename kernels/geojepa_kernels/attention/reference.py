"""Attention over packed sequences in plain PyTorch: the judge of the kernel, and the CPU path."""

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from geojepa_kernels.attention.dropout import keep_pairs, threshold_of

# Above so many scores a head, the blocked CPU kernel beats a stored score matrix (see README.md).
BLOCKED_SCORES = 256 * 256


def attend(
    q: Tensor, k: Tensor, v: Tensor, rows: tuple[Tensor, Tensor], seed: Tensor, dropout_p: float
) -> Tensor:
    """One sequence: softmax(q k') v; all (heads, tokens, head_dim), q already scaled.

    A query without keys returns zeros. `rows` of queries and of keys, (tokens,) int64, tell pairs
    apart that drop out.
    """
    if dropout_p == 0 and q.shape[1] * k.shape[1] > BLOCKED_SCORES:
        return scaled_dot_product_attention(q[None], k[None], v[None], scale=1.0)[0]
    weights = torch.softmax(q @ k.transpose(1, 2), dim=-1)
    if dropout_p:
        kept = keep_pairs(seed, *rows, len(q), threshold_of(dropout_p))
        weights = torch.where(kept, weights / (1 - dropout_p), 0)
    return weights @ v


def attention_reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    seed: Tensor,
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
        torch.arange(len(q), device=q.device).split(queries),
        torch.arange(len(k), device=k.device).split(keys),
        strict=True,
    )
    out = [attend(q, k, v, rows, seed, dropout_p) for q, k, v, *rows in by_sequence]
    return torch.cat(out, dim=1).transpose(0, 1)
