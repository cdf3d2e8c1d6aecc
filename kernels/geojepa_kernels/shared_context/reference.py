"""Shared-context attention in plain PyTorch: the judge of the kernel, and the CPU path."""

import torch
from torch import Tensor

from geojepa_kernels.attention.dropout import keep_pairs, row_words, threshold_of
from geojepa_kernels.attention.reference import attend


def shared_context_reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_context: Tensor,
    cu_targets: Tensor,
    seed: Tensor,
    dropout_p: float,
    scale: float,
) -> Tensor:
    """Each context and each target set on its own; shapes as in `shared_context_attention`."""
    contexts, targets = cu_context.diff().tolist(), cu_targets.diff().tolist()
    if not contexts:
        return q.clone()
    tiles, sets, heads = len(contexts), len(targets) // len(contexts), q.shape[1]
    runs = contexts + targets
    seen = [(own,) if own < tiles else ((own - tiles) // sets, own) for own in range(len(runs))]

    def of_seen(rows: Tensor) -> list[Tensor]:
        """What each run sees of rows (heads, tokens, ...)."""
        parts = rows.split(runs, dim=1)
        return [torch.cat([parts[run] for run in those], dim=1) for those in seen]

    kept: list[Tensor] | list[None] = [None] * len(runs)
    if dropout_p:
        asking = row_words(seed, len(q), heads, 0).split(runs, dim=1)
        asked = of_seen(row_words(seed, len(k), heads, 1))
        kept = keep_pairs(list(asking), asked, threshold_of(dropout_p))
    own = (q * scale).transpose(0, 1).split(runs, dim=1)
    every = zip(own, of_seen(k.transpose(0, 1)), of_seen(v.transpose(0, 1)), kept, strict=True)
    outputs = [attend(*qkv, pairs, dropout_p) for *qkv, pairs in every]
    return torch.cat(outputs, dim=1).transpose(0, 1)
