"""The ways to compute shared-context attention, beside the operation of this package."""

from functools import partial

import torch
from torch import Tensor

from geojepa_kernels.attention import attention
from geojepa_kernels.attention.ways import Way
from geojepa_kernels.bench.batches import SharedBatch, offsets
from geojepa_kernels.bench.flex import Attend, flex
from geojepa_kernels.shared_context import shared_context_attention


def ours(batch: SharedBatch) -> Attend:
    """Contexts and target sets in one call."""
    layout = batch.cu_context, batch.cu_targets, *batch.longest
    return lambda q, k, v: shared_context_attention(q, k, v, *layout)


def join(batch: SharedBatch, sets: list[int]) -> Attend:
    """Some target sets of all tiles as packed cross-attention, each with a copy of its context."""
    tiles, device = len(batch.contexts), batch.device
    chosen = [tiles + one for one in range(len(batch.targets)) if one % batch.sets in sets]
    groups = [batch.groups[one] for one in chosen]
    queries, keys = (torch.cat([pair[i] for pair in groups]).to(device) for i in (0, 1))
    counts = [[len(pair[i]) for pair in groups] for i in (0, 1)]
    layout = *(offsets(some, device) for some in counts), *map(max, counts)

    def call(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attention(
            q.index_select(0, queries), k.index_select(0, keys), v.index_select(0, keys), *layout
        )

    return call


def of_contexts(batch: SharedBatch) -> Attend:
    """The contexts alone."""
    cu, longest, end = batch.cu_context, batch.longest[0], sum(batch.contexts)
    return lambda q, k, v: attention(q[:end], k[:end], v[:end], cu, cu, longest, longest)


def joined(batch: SharedBatch) -> Attend:
    """Contexts once, then all target sets, whose keys are gathered with copies of the context."""
    contexts, targets = of_contexts(batch), join(batch, list(range(batch.sets)))
    return lambda *qkv: torch.cat((contexts(*qkv), targets(*qkv)))


def passes(batch: SharedBatch) -> Attend:
    """A pass for each target set, over the contexts and that set; contexts are their mean."""
    contexts = of_contexts(batch)
    by_set = [join(batch, [one]) for one in range(batch.sets)]
    spans = torch.arange(sum(batch.targets)).split(batch.targets)
    order = torch.cat([span for one in range(batch.sets) for span in spans[one :: batch.sets]])
    back = order.argsort().to(batch.device)

    def call(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        mean = torch.stack([contexts(q, k, v) for _ in by_set]).mean(0)
        found = torch.cat([targets(q, k, v) for targets in by_set])
        return torch.cat((mean, found.index_select(0, back)))

    return call


SHARED_WAYS = {
    "ours": Way(ours),
    "joined keys": Way(joined),
    "passes": Way(passes),
    "flex": Way(partial(flex, counts_mask=False), ("cuda",)),
    "flex, mask counted": Way(partial(flex, counts_mask=True), ("cuda",)),
}
