"""Shared-context attention in plain PyTorch: the judge of the kernel, and the CPU path."""

import torch
from torch import Tensor

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
    tiles, sets = len(contexts), len(targets) // len(contexts)
    rows = torch.arange(len(q), device=q.device).split(contexts + targets)
    q, k, v = (x.transpose(0, 1).split(contexts + targets, 1) for x in (q * scale, k, v))
    outputs = [
        attend(q[tile], k[tile], v[tile], (rows[tile], rows[tile]), seed, dropout_p)
        for tile in range(tiles)
    ]
    for own in range(tiles, len(q)):
        tile = (own - tiles) // sets
        keys, values = (torch.cat((x[tile], x[own]), dim=1) for x in (k, v))
        pairs = rows[own], torch.cat((rows[tile], rows[own]))
        outputs.append(attend(q[own], keys, values, pairs, seed, dropout_p))
    return torch.cat(outputs, dim=1).transpose(0, 1)
