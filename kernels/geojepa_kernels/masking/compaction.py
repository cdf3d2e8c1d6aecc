"""From masks to packed tokens: which token goes where in the context and in the target sets."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from geojepa_kernels.masking.rows import take_rows


class Sizes(NamedTuple):
    """Totals of a batch's masks on the host, as Python integers.

    Attributes:
        context: C, context tokens of all tiles.
        targets: P, target tokens of all tiles and sets; a token counts once in each of its sets.
        longest_context: tokens of the longest context.
        longest_targets: tokens of the longest target set.
        sets: tokens of each of the M target sets over all tiles, P together.
    """

    context: int
    targets: int
    longest_context: int
    longest_targets: int
    sets: tuple[int, ...]

    @classmethod
    def of(cls, numbers: Sequence[int]) -> "Sizes":
        """From the numbers of `Masks.sizes`, already on the host."""
        return cls(*numbers[:4], tuple(numbers[4:]))


@dataclass(frozen=True)
class Compact:
    """Which token goes where, and the offsets of what is packed.

    Attributes:
        context_index: (C,) int64, the context tokens, by tile, then token.
        cu_context: (tiles + 1,) int32.
        target_index: (P,) int64, the target tokens, by tile, then set, then token; a token of
            several sets occurs once in each.
        cu_targets: (tiles * M + 1,) int32.
        slots: (1 + M, tokens) int32, the row of each token in the packed context, and in the packed
            targets for each set; -1 where it is in none.
        set_index: (P,) int64, the packed targets by set, then tile, then token.
        set_slots: (1, P) int32, its inverse.
        sizes: the totals.
        by_kernel: whether rows are moved by the Triton kernel or by indexing.
    """

    context_index: Tensor
    cu_context: Tensor
    target_index: Tensor
    cu_targets: Tensor
    slots: Tensor
    set_index: Tensor
    set_slots: Tensor
    sizes: Sizes
    by_kernel: bool

    def context(self, x: Tensor) -> Tensor:
        """The context's rows of x (tokens, ...): (C, ...), differentiable."""
        return self._take(x, self.context_index, self.slots[:1])

    def targets(self, x: Tensor) -> Tensor:
        """The targets' rows of x (tokens, ...): (P, ...), differentiable."""
        return self._take(x, self.target_index, self.slots[1:])

    def by_set(self, packed: Tensor) -> tuple[Tensor, ...]:
        """Packed targets (P, ...) as one tensor a target set, over all tiles; differentiable."""
        return self._take(packed, self.set_index, self.set_slots).split(self.sizes.sets)

    def _take(self, x: Tensor, index: Tensor, slots: Tensor) -> Tensor:
        return take_rows(x, index, slots) if self.by_kernel else x[index]


def count_reference(
    targets: Tensor, sets: int, cu_seqlens: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """cu_context, cu_targets and sizes, as in `Masks`, of target sets given as bits (tokens,)."""
    edges = cu_seqlens.long()
    cu_context = pad((targets == 0).cumsum(0), (1, 0))[edges]
    before = pad(_members(targets, sets).cumsum(1), (1, 0))[:, edges]  # [sets, tiles + 1]
    counts = before.diff(dim=1).T.reshape(-1)
    cu_targets = pad(counts.cumsum(0), (1, 0))
    longest = [pad(x, (0, 1)).max() for x in (cu_context.diff(), counts)]
    totals = [cu_context[-1], cu_targets[-1], *longest, *(before[:, -1] - before[:, 0])]
    return cu_context.int(), cu_targets.int(), torch.stack(totals)


def order_reference(
    targets: Tensor, cu_seqlens: Tensor, cu_context: Tensor, cu_targets: Tensor, sizes: Sizes
) -> Compact:
    """The packed order of target sets given as bits, (tokens,) uint8, for tiles of `cu_seqlens`."""
    sets = len(sizes.sets)
    set_, token = _members(targets, sets).nonzero(as_tuple=True)
    tile = torch.searchsorted(cu_seqlens.long(), token, right=True) - 1
    order = torch.argsort(tile * sets + set_, stable=True)
    context_index = (targets == 0).nonzero()[:, 0]
    slots = torch.full((1 + sets, len(targets)), -1, dtype=torch.int32, device=targets.device)
    slots[0, context_index] = _places(context_index)
    slots[1 + set_[order], token[order]] = _places(order)
    set_slots = order.int()[None]
    set_index = torch.empty_like(order).scatter_(0, order, _places(order).long())
    return Compact(
        context_index,
        cu_context,
        token[order],
        cu_targets,
        slots,
        set_index,
        set_slots,
        sizes,
        by_kernel=False,
    )


def _members(targets: Tensor, sets: int) -> Tensor:
    """Which tokens are in which set, (sets, tokens) of 0 and 1."""
    bits = torch.arange(sets, device=targets.device, dtype=torch.uint8)[:, None]
    return (targets >> bits) & 1


def _places(x: Tensor) -> Tensor:
    return torch.arange(len(x), device=x.device, dtype=torch.int32)
