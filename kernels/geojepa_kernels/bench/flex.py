"""FlexAttention by a rule of who sees whom, its block mask made beforehand or at each call."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from geojepa_kernels.bench.batches import Batch, SharedBatch

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


@lru_cache
def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function under torch.compile, for any number of tokens."""
    # one for each head size, dtype and pass, where the library's own limit is 8
    torch._dynamo.config.recompile_limit = 64
    return torch.compile(function, dynamic=True)


def flex(batch: Batch | SharedBatch, counts_mask: bool) -> Attend:
    """Attention by the batch's rule.

    Args:
        batch: on a GPU, where both functions are compiled, or on a CPU, where neither is.
        counts_mask: whether each call makes the block mask, as the first layer of a step does, or
            finds it made, as the others do.
    """
    is_gpu = batch.device.type == "cuda"
    attend, make_mask = (
        compiled(one) if is_gpu else one for one in (flex_attention, create_block_mask)
    )
    # made beforehand, it need not be made fast
    make = make_mask if counts_mask else create_block_mask
    size, rule = batch.tokens, batch.rule()

    def masked() -> Any:
        return make(rule, None, None, size, size, device=str(batch.device))

    made = None if counts_mask else masked()

    def call(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        heads_first = (x.transpose(0, 1)[None] for x in (q, k, v))
        out = attend(*heads_first, block_mask=masked() if made is None else made)
        return out[0].transpose(0, 1)

    return call
