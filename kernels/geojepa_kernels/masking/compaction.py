"""From masks to packed tokens: which token goes where in the context and in the target sets."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad


class Compact(NamedTuple):
    """Indices into the tokens of the batch, and where each tile or target set starts.

    Attributes:
        context_index: (C,) int64, the context tokens, by tile, then token.
        cu_context: (tiles + 1,) int32.
        target_index: (P,) int64, the target tokens, by tile, then set, then token; a token of
            several sets occurs once in each.
        cu_targets: (tiles * M + 1,) int32.
    """

    context_index: Tensor
    cu_context: Tensor
    target_index: Tensor
    cu_targets: Tensor


def compact_reference(targets: Tensor, sets: int, cu_seqlens: Tensor) -> Compact:
    """The packed order of target sets given as bits, (tokens,) uint8, for tiles of `cu_seqlens`."""
    edges = cu_seqlens.long()
    context = targets == 0
    cu_context = pad(context.cumsum(0), (1, 0))[edges]
    bits = torch.arange(sets, device=targets.device, dtype=torch.uint8)[:, None]
    member = (targets >> bits) & 1  # [sets, tokens]
    before = pad(member.cumsum(1), (1, 0))[:, edges]  # [sets, tiles + 1]
    counts = before.diff(dim=1).T  # [tiles, sets]
    cu_targets = pad(counts.reshape(-1).cumsum(0), (1, 0))
    set_, token = member.nonzero(as_tuple=True)
    tile = torch.searchsorted(edges, token, right=True) - 1
    order = torch.argsort(tile * sets + set_, stable=True)
    return Compact(context.nonzero()[:, 0], cu_context.int(), token[order], cu_targets.int())
