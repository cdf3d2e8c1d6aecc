"""The predictor: the latents of target tokens, from the context and from where the targets are."""

import torch
from geojepa_kernels import attention, shared_context_attention
from torch import Tensor, nn
from torch.nn.functional import pad

from geojepa.model.config import ModelConfig
from geojepa.model.tokenizer import mlp
from geojepa.model.transformer import Block, registers_of, with_registers


class Predictor(nn.Module):
    """A narrower transformer over context and mask tokens.

    With a shared context, the context attends to itself alone, and each target set to it and to
    itself, so that all sets cost one context. With a full one, every target set has a pass of its
    own over context and targets, which all attend to one another: the paper's way.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        width = config.predictor_width
        if config.has_geometry and config.has_image:
            self.project: nn.Module = nn.Linear(config.width, width)
        else:
            self.project = mlp(config.width, 4 * width, width)
        self.mask_token = nn.Parameter(torch.randn(width) * 0.02)
        self.registers = registers_of(config.registers, width)
        self.blocks = nn.ModuleList(
            Block(width, config.predictor_heads, config.dropout)
            for _ in range(config.predictor_depth)
        )
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, config.width)
        self.passes = self._full if config.predictor_context == "full" else self._shared

    def forward(
        self,
        context: Tensor,
        context_position: Tensor,
        target_position: Tensor,
        cu_context: Tensor,
        cu_targets: Tensor,
        longest: tuple[int, int],
    ) -> Tensor:
        """Guess the latents of the targets.

        Args:
            context: (C, width) latents.
            context_position: (C, width).
            target_position: (P, width).
            cu_context: (T + 1,) int32.
            cu_targets: (T * M + 1,) int32, the target sets by tile.
            longest: tokens of the longest context and of the longest target set.

        Returns:
            (P, width).
        """
        seen = self.project(context) + self.project(context_position)
        wanted = self.mask_token + self.project(target_position)
        guessed = self.passes(seen, wanted, cu_context, cu_targets, longest)
        return self.out(self.norm(guessed))

    def _shared(
        self,
        seen: Tensor,
        wanted: Tensor,
        cu_context: Tensor,
        cu_targets: Tensor,
        longest: tuple[int, int],
    ) -> Tensor:
        seen, cu_seen, _ = with_registers(seen, self.registers, cu_context)
        longest_seen = longest[0] + len(self.registers)

        def attend(q: Tensor, k: Tensor, v: Tensor, dropout_p: float) -> Tensor:
            return shared_context_attention(
                q, k, v, cu_seen, cu_targets, longest_seen, longest[1], dropout_p=dropout_p
            )

        x = torch.cat([seen, wanted])
        for block in self.blocks:
            x = block(x, attend)
        return x[len(seen) :]

    def _full(
        self,
        seen: Tensor,
        wanted: Tensor,
        cu_context: Tensor,
        cu_targets: Tensor,
        longest: tuple[int, int],
    ) -> Tensor:
        rows, cu, slots = sequences(cu_context, cu_targets, len(seen), len(wanted))
        x = torch.cat([seen, wanted]).index_select(0, rows)
        x, cu, moved = with_registers(x, self.registers, cu)
        most = sum(longest) + len(self.registers)

        def attend(q: Tensor, k: Tensor, v: Tensor, dropout_p: float) -> Tensor:
            return attention(q, k, v, cu, cu, most, most, dropout_p=dropout_p)

        for block in self.blocks:
            x = block(x, attend)
        return x.index_select(0, slots if moved is None else moved.index_select(0, slots))


def sequences(
    cu_context: Tensor, cu_targets: Tensor, context: int, targets: int
) -> tuple[Tensor, Tensor, Tensor]:
    """One sequence for each target set: its tile's context, then its targets.

    Args:
        cu_context: (T + 1,) int32.
        cu_targets: (T * M + 1,) int32, the target sets by tile.
        context: C, context tokens in all.
        targets: P, target tokens in all.

    Returns:
        rows of the (C + P) context and target tokens that make the sequences, (M C + P,) int64;
        the sequences' offsets (T * M + 1,) int32; where each target is among them, (P,) int64.
    """
    tiles = len(cu_context) - 1
    sets = (len(cu_targets) - 1) // tiles
    device = cu_context.device
    seen = cu_context.diff().long().repeat_interleave(sets, output_size=tiles * sets)
    wanted = cu_targets.diff().long()
    cu = pad((seen + wanted).cumsum(0), (1, 0))
    total = sets * context + targets
    each = torch.arange(tiles * sets, device=device)
    sequence = each.repeat_interleave(seen + wanted, output_size=total)
    place = torch.arange(total, device=device) - cu[sequence]
    behind = place - seen[sequence]  # below zero in the context
    first_seen = cu_context[:-1].long().repeat_interleave(sets, output_size=tiles * sets)
    rows = torch.where(
        behind < 0,
        first_seen[sequence] + place,
        context + cu_targets[:-1].long()[sequence] + behind,
    )
    # the targets before a sequence's are as many in the packed targets; its contexts come between
    of_target = each.repeat_interleave(wanted, output_size=targets)
    slots = torch.arange(targets, device=device) + seen.cumsum(0)[of_target]
    return rows, cu.int(), slots
