"""Pre-norm transformers over packed tokens: blocks, and the encoder."""

from collections.abc import Callable

import torch
from geojepa_kernels import attention
from torch import Tensor, nn

from geojepa.model.config import ModelConfig
from geojepa.model.tokenizer import mlp

Attend = Callable[[Tensor, Tensor, Tensor, float], Tensor]


class Block(nn.Module):
    """Attention and a ReLU feed-forward of four times the width, each after a norm."""

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.norm_attention = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm_feed = nn.LayerNorm(width)
        self.feed = mlp(width, 4 * width, width, activation=nn.ReLU, dropout=dropout)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, attend: Attend) -> Tensor:
        """(S, width) to (S, width); `attend` maps q, k, v (S, heads, head_dim) to the like."""
        mixed = attend(*self.ask(x), self.dropout if self.training else 0.0)
        return self.answer(x, mixed)

    def ask(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values (S, heads, head_dim) of (S, width)."""
        q, k, v = self.qkv(self.norm_attention(x)).unflatten(1, (3, self.heads, -1)).unbind(1)
        return q, k, v

    def answer(self, x: Tensor, mixed: Tensor) -> Tensor:
        """(S, width) from what went in and the values mixed by attention (S, heads, head_dim)."""
        x = x + self.drop(self.out(mixed.flatten(1)))
        return x + self.drop(self.feed(self.norm_feed(x)))


class Encoder(nn.Module):
    """Each tile's tokens attend to one another, and to the tile's registers."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.registers = registers_of(config.registers, config.width)
        self.blocks = nn.ModuleList(
            Block(config.width, config.heads, config.dropout) for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(config.width)

    def forward(self, x: Tensor, cu_seqlens: Tensor, max_seqlen: int) -> Tensor:
        """(S, width) packed tokens, (T + 1,) int32 offsets, longest tile; returns (S, width)."""
        return self.depths(x, cu_seqlens, max_seqlen, 1)[0]

    def depths(self, x: Tensor, cu_seqlens: Tensor, max_seqlen: int, count: int) -> list[Tensor]:
        """As `forward`, after `count` evenly spaced blocks, the last one and the norm the last."""
        x, cu, slots = with_registers(x, self.registers, cu_seqlens)
        longest = max_seqlen + len(self.registers)

        def attend(q: Tensor, k: Tensor, v: Tensor, dropout_p: float) -> Tensor:
            return attention(q, k, v, cu, cu, longest, longest, dropout_p=dropout_p)

        kept = {len(self.blocks) * part // count for part in range(1, count + 1)}
        found = []
        for number, block in enumerate(self.blocks, 1):
            x = block(x, attend)
            if number in kept:
                found.append(x if slots is None else x.index_select(0, slots))
        return [*found[:-1], self.norm(found[-1])]


def registers_of(count: int, width: int) -> nn.Parameter:
    """Learned tokens that are put before each sequence; none are trained where there are none."""
    return nn.Parameter(torch.randn(count, width) * 0.02, requires_grad=count > 0)


def with_registers(
    x: Tensor, registers: Tensor, cu_seqlens: Tensor
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Put the registers (r, width) before each tile's tokens.

    Returns the tokens, their offsets, and where the tile's own tokens are (None without registers).
    """
    count, tiles = len(registers), len(cu_seqlens) - 1
    if count == 0:
        return x, cu_seqlens, None
    tile = torch.arange(tiles, device=x.device).repeat_interleave(
        cu_seqlens.diff().long(), output_size=len(x)
    )
    slots = torch.arange(len(x), device=x.device) + count * (tile + 1)
    first = cu_seqlens[:-1].long() + count * torch.arange(tiles, device=x.device)
    register_slots = (first[:, None] + torch.arange(count, device=x.device)).flatten()
    joined = x.new_empty(len(x) + count * tiles, x.shape[1])
    joined = joined.index_copy(0, slots, x)
    joined = joined.index_copy(0, register_slots, registers.to(x.dtype).repeat(tiles, 1))
    cu = cu_seqlens + count * torch.arange(tiles + 1, device=x.device, dtype=cu_seqlens.dtype)
    return joined, cu, slots
