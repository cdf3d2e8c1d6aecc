"""Batches of sequences, and what the ways to attend need to know of them.

Everything here depends on the lengths alone: a training step makes it once for all its layers.
"""

from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor

Rule = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def starts(lengths: Sequence[int]) -> list[int]:
    """Where each of some sequences in a row starts, and the end."""
    return [0, *torch.tensor(lengths, dtype=torch.int64).cumsum(0).tolist()]


def offsets(lengths: Sequence[int], device: torch.device) -> Tensor:
    """The same as (sequences + 1,) int32 on a device."""
    return torch.tensor(starts(lengths), dtype=torch.int32, device=device)


class Batch:
    """Sequences one after another, each of which attends to itself.

    Attributes:
        lengths: tokens of each sequence, at least 1.
        device: of all tensors.
        tokens: of all sequences.
        longest: tokens of the longest.
        pairs: of a query and a key, a head.
    """

    def __init__(self, lengths: Sequence[int], device: torch.device | str = "cpu"):
        self.lengths = [int(length) for length in lengths]
        self.device = torch.device(device)
        self.tokens = sum(self.lengths)
        self.longest = max(self.lengths)
        self.pairs = sum(length**2 for length in self.lengths)

    @cached_property
    def cu_seqlens(self) -> Tensor:
        """(sequences + 1,) int32."""
        return offsets(self.lengths, self.device)

    @cached_property
    def owner(self) -> Tensor:
        """(tokens,) int32, the sequence of each token."""
        counts = torch.tensor(self.lengths, device=self.device)
        sequences = torch.arange(len(self.lengths), device=self.device, dtype=torch.int32)
        return sequences.repeat_interleave(counts)

    @cached_property
    def place(self) -> Tensor:
        """(tokens,) int64, where each token is among the (sequences * longest) padded ones."""
        first = self.cu_seqlens[:-1].long()[self.owner]
        return torch.arange(self.tokens, device=self.device) - first + self.owner * self.longest

    @cached_property
    def mask(self) -> Tensor | None:
        """(sequences, 1, 1, longest) bool, where tokens are; None if there is no padding."""
        if min(self.lengths) == self.longest:
            return None
        counts = torch.tensor(self.lengths, device=self.device)
        live = torch.arange(self.longest, device=self.device) < counts[:, None]
        return live[:, None, None]

    def pad(self, x: Tensor) -> Tensor:
        """(tokens, ...) to (sequences, longest, ...), zeros where there is no token."""
        padded = x.new_zeros(len(self.lengths) * self.longest, *x.shape[1:])
        padded = padded.index_copy(0, self.place, x)
        return padded.unflatten(0, (len(self.lengths), self.longest))

    def unpad(self, x: Tensor) -> Tensor:
        """(sequences, longest, ...) to (tokens, ...)."""
        return x.flatten(0, 1).index_select(0, self.place)

    @cached_property
    def groups(self) -> list[tuple[Tensor, Tensor]]:
        """Queries and the keys they attend to, as indices of tokens."""
        return [(span, span) for span in torch.arange(self.tokens).split(self.lengths)]

    def rule(self) -> Rule:
        """Who may see whom, as FlexAttention asks for it."""
        owner = self.owner

        def same_sequence(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            return owner[query] == owner[key]

        return same_sequence


class SharedBatch:
    """Tiles whose target sets attend to one context, packed as `shared_context_attention` reads.

    Attributes:
        contexts: tokens of each tile's context.
        targets: tokens of each target set, by tile, then set.
        sets: target sets of a tile.
        device: of all tensors.
        tokens: of contexts and target sets.
        longest: tokens of the longest context and of the longest target set.
        pairs: of a query and a key, a head.
    """

    def __init__(
        self, contexts: Sequence[int], targets: Sequence[int], device: torch.device | str = "cpu"
    ):
        self.contexts, self.targets = list(contexts), list(targets)
        self.sets = len(self.targets) // len(self.contexts)
        self.device = torch.device(device)
        self.lengths = self.contexts + self.targets
        self.tokens = sum(self.lengths)
        self.longest = max(self.contexts), max(self.targets)
        seen = [self.contexts[one // self.sets] for one in range(len(self.targets))]
        self.pairs = sum(n * n for n in self.contexts)
        self.pairs += sum(t * (t + n) for t, n in zip(self.targets, seen, strict=True))

    @cached_property
    def cu_context(self) -> Tensor:
        """(tiles + 1,) int32."""
        return offsets(self.contexts, self.device)

    @cached_property
    def cu_targets(self) -> Tensor:
        """(tiles * sets + 1,) int32, counted from the first target token."""
        return offsets(self.targets, self.device)

    @cached_property
    def groups(self) -> list[tuple[Tensor, Tensor]]:
        """Queries and the keys they attend to: contexts, then target sets."""
        spans = [torch.arange(*ends) for ends in pairwise(starts(self.lengths))]
        tiles = len(self.contexts)
        own = [(span, span) for span in spans[:tiles]]
        for one, span in enumerate(spans[tiles:]):
            own.append((span, torch.cat((spans[one // self.sets], span))))
        return own

    def rule(self) -> Rule:
        """Who may see whom, as FlexAttention asks for it."""
        tiles, count = len(self.contexts), torch.tensor(self.lengths)
        tile = torch.cat((torch.arange(tiles), torch.arange(len(self.targets)) // self.sets))
        set_ = torch.cat((torch.full((tiles,), -1), torch.arange(len(self.targets)) % self.sets))
        tile, set_ = (x.int().repeat_interleave(count).to(self.device) for x in (tile, set_))

        def context_or_own_set(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            return (tile[query] == tile[key]) & ((set_[key] == -1) | (set_[key] == set_[query]))

        return context_or_own_set
