"""The ways to compute attention over sequences of unequal length.

A way is made for a batch and then called with q, k, v (tokens, heads, head_dim); what depends on
the lengths alone it prepares once, as the layers of a network share it.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention as sdpa

from geojepa_kernels.attention import attention
from geojepa_kernels.bench.batches import Batch
from geojepa_kernels.bench.flex import Attend, flex

# A sequence joins a bucket whose longest is at most this many times as long.
BUCKET_RATIO = 1.25


class Way(NamedTuple):
    """One way to attend.

    Attributes:
        prepare: from a batch to the function of q, k and v.
        devices: kinds that it is timed on.
        is_padded: whether q, k, v and the result are padded: (sequences, longest, heads, head_dim).
    """

    prepare: Callable[[Batch], Attend]
    devices: tuple[str, ...] = ("cpu", "cuda")
    is_padded: bool = False


def ours(batch: Batch) -> Attend:
    """The operation of this package."""
    cu, longest = batch.cu_seqlens, batch.longest
    return lambda q, k, v: attention(q, k, v, cu, cu, longest, longest)


def loop(batch: Batch) -> Attend:
    """One library call a sequence."""

    def call(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        heads_first = (x.transpose(0, 1)[None].split(batch.lengths, dim=2) for x in (q, k, v))
        out = torch.cat([sdpa(*qkv) for qkv in zip(*heads_first, strict=True)], dim=2)
        return out[0].transpose(0, 1)

    return call


def all_padded(batch: Batch) -> Attend:
    """One library call for a batch that is padded already, and stays so."""
    mask = batch.mask
    return lambda q, k, v: sdpa(*(x.transpose(1, 2) for x in (q, k, v)), attn_mask=mask).transpose(
        1, 2
    )


def padded(batch: Batch) -> Attend:
    """The whole batch padded to its longest sequence, and packed again."""
    attend = all_padded(batch)
    return lambda q, k, v: batch.unpad(attend(*map(batch.pad, (q, k, v))))


def buckets(batch: Batch) -> Attend:
    """Sequences of similar length padded together."""
    groups: list[list[int]] = []
    for one in np.argsort(batch.lengths)[::-1].tolist():
        if groups and batch.lengths[groups[-1][0]] <= BUCKET_RATIO * batch.lengths[one]:
            groups[-1].append(one)
        else:
            groups.append([one])
    spans = [span for span, _ in batch.groups]
    tokens = [torch.cat([spans[one] for one in group]).to(batch.device) for group in groups]
    attends = [padded(Batch([batch.lengths[i] for i in group], batch.device)) for group in groups]
    back = torch.cat(tokens).argsort()

    def call(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        parts = zip(attends, tokens, strict=True)
        out = [attend(*(x.index_select(0, some) for x in (q, k, v))) for attend, some in parts]
        return torch.cat(out).index_select(0, back)

    return call


def block_mask(batch: Batch) -> Attend:
    """The batch as one sequence, with a mask of which tokens are of the same."""
    mask = batch.owner[:, None] == batch.owner

    def call(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        heads_first = (x.transpose(0, 1)[None] for x in (q, k, v))
        return sdpa(*heads_first, attn_mask=mask)[0].transpose(0, 1)

    return call


def nested(batch: Batch) -> Attend:
    """Nested tensors of the jagged layout, which the library's attention wants contiguous."""
    cu, ends = batch.cu_seqlens.long(), {"min_seqlen": min(batch.lengths)}
    jagged = partial(torch.nested.nested_tensor_from_jagged, **ends, max_seqlen=batch.longest)

    def call(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        heads_first = (jagged(x.contiguous(), cu).transpose(1, 2) for x in (q, k, v))
        return sdpa(*heads_first).transpose(1, 2).values()

    return call


def varlen(batch: Batch) -> Attend:
    """PyTorch's own call for packed sequences."""
    from torch.nn.attention.varlen import varlen_attn

    cu, longest = batch.cu_seqlens, batch.longest
    return lambda q, k, v: varlen_attn(q, k, v, cu, cu, longest, longest)


def flash(batch: Batch) -> Attend:
    """The library that PyTorch's call descends from, where it is installed."""
    from flash_attn import flash_attn_varlen_func

    cu, longest = batch.cu_seqlens, batch.longest
    return lambda q, k, v: flash_attn_varlen_func(q, k, v, cu, cu, longest, longest)


WAYS = {
    "ours": Way(ours),
    "loop": Way(loop, ("cpu",)),
    "buckets": Way(buckets, ("cpu",)),
    "padded": Way(padded),
    "padded throughout": Way(all_padded, ("cuda",), is_padded=True),
    "block mask": Way(block_mask, ("cpu",)),
    "nested": Way(nested),
    "flex": Way(partial(flex, counts_mask=False), ("cuda",)),
    "flex, mask counted": Way(partial(flex, counts_mask=True), ("cuda",)),
    "varlen_attn": Way(varlen, ("cuda",)),
    "flash-attn": Way(flash, ("cuda",)),
}
CPU_WAYS = tuple(name for name, way in WAYS.items() if "cpu" in way.devices)
