"""Shared-context attention in plain PyTorch: the judge of the kernel, and the CPU path."""

import torch
from torch import Tensor

from geojepa_kernels.attention.dropout import keep_pairs, threshold_of
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
    rows = torch.arange(len(q), device=q.device).split(contexts + targets)
    q, k, v = (x.transpose(0, 1).split(contexts + targets, 1) for x in (q, k, v))
    outputs = []
    for own in range(len(q)):
        seen = [own] if own < tiles else [(own - tiles) // sets, own]
        kept = None
        if dropout_p:
            others = torch.cat([rows[run] for run in seen])
            kept = keep_pairs(seed, rows[own], others, heads, threshold_of(dropout_p))
        keys, values = (torch.cat([x[run] for run in seen], dim=1) for x in (k, v))
        outputs.append(attend(q[own], keys, values, scale, kept, dropout_p))
    return torch.cat(outputs, dim=1).transpose(0, 1)
