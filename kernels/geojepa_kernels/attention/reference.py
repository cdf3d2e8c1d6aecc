"""Attention over packed sequences in plain PyTorch: the judge of the kernel, and the CPU path."""

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from geojepa_kernels.attention.dropout import keep_pairs, row_words, threshold_of

# Above so many scores a head, the blocked CPU kernel beats a stored score matrix (see README.md).
BLOCKED_SCORES = 256 * 256


def attend(q: Tensor, k: Tensor, v: Tensor, kept: Tensor | None, dropout_p: float) -> Tensor:
    """One sequence: softmax(q k') v; all (heads, tokens, head_dim), q already scaled.

    A query without keys returns zeros. `kept` (heads, queries, keys) are the pairs that do not drop
    out; None if none does.
    """
    if kept is None and q.shape[1] * k.shape[1] > BLOCKED_SCORES:
        return scaled_dot_product_attention(q[None], k[None], v[None], scale=1.0)[0]
    # bmm, not @: a fifth of the nodes for autograd, and sequences are many and short
    weights = torch.softmax(torch.bmm(q, k.transpose(1, 2)), dim=-1)
    if kept is not None:
        weights = weights * kept
        v = v / (1 - dropout_p)
    return torch.bmm(weights, v)


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
    kept: list[Tensor] | list[None] = [None] * len(queries)
    if dropout_p:
        asking = row_words(seed, len(q), q.shape[1], 0).split(queries, dim=1)
        asked = row_words(seed, len(k), q.shape[1], 1).split(keys, dim=1)
        kept = keep_pairs(list(asking), list(asked), threshold_of(dropout_p))
    by_sequence = zip(
        (q * scale).transpose(0, 1).split(queries, dim=1),
        k.transpose(0, 1).split(keys, dim=1),
        v.transpose(0, 1).split(keys, dim=1),
        kept,
        strict=True,
    )
    out = [attend(*qkv, pairs, dropout_p) for *qkv, pairs in by_sequence]
    return torch.cat(out, dim=1).transpose(0, 1)
