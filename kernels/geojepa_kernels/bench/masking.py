"""Masks and their compaction beside the plain PyTorch version on the same device."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from geojepa_kernels.bench.batches import Batch, SharedBatch
from geojepa_kernels.bench.bounds import Work
from geojepa_kernels.bench.contest import Entry, Judge
from geojepa_kernels.bench.rows import Row
from geojepa_kernels.masking import STRATEGIES, Masks, Sizes, compact, draw_masks

# of the small models and the published ones alike, per mille
RULE = {"seed": 0, "size": 350, "min_context": 150}
IMPLS = {"ours": "auto", "reference": "reference"}
# steps that a block of calls draws masks for
STEPS = 8
WIDTH = 384
SAMPLE = (1, 7, 50, 63, 129)


class Tokens(NamedTuple):
    """What masks are drawn from: centres spread evenly over each tile, two modalities."""

    cu_seqlens: Tensor
    box: Tensor
    modality: Tensor
    tile_key: Tensor
    max_seqlen: int


def scatter(batch: Batch, seed: int = 0) -> Tokens:
    """Random tokens of the batch's tiles, the same on every device."""
    generator = torch.Generator().manual_seed(seed)
    box = torch.rand(batch.tokens, 2, generator=generator).repeat(1, 4)
    modality = torch.randint(2, (batch.tokens,), generator=generator).byte()
    key = torch.arange(len(batch.lengths))
    on_device = (x.to(batch.device) for x in (box, modality, key))
    return Tokens(batch.cu_seqlens, *on_device, batch.longest)


def draw(tokens: Tokens, strategy: str, impl: str, step: int = 0) -> Masks:
    """The masks of a step."""
    return draw_masks(*tokens, strategy=strategy, step=step, impl=impl, **RULE)


def shared_batch(batch: Batch) -> SharedBatch:
    """Contexts and target sets of the batch's tiles under area masks, at least a token each."""
    masks = draw(scatter(Batch(batch.lengths)), "area", "reference")
    contexts, targets = (x.diff().clamp(min=1) for x in (masks.cu_context, masks.cu_targets))
    return SharedBatch(contexts.tolist(), targets.tolist(), batch.device)


class Packing(NamedTuple):
    """Masks of a batch with all that compaction needs, and values to be packed."""

    masks: Masks
    cu_seqlens: Tensor
    sizes: Sizes
    values: list[Tensor]
    grads: list[tuple[Tensor, Tensor]]


def packing(tokens: Tokens, dtype: torch.dtype, buffers: int) -> Packing:
    """Area masks of the tokens, their sizes on the host, values (tokens, 384) and gradients."""
    masks = draw(tokens, "area", "auto")
    sizes = Sizes.of(masks.sizes.tolist())
    random = partial(torch.randn, device=tokens.box.device, dtype=dtype)
    values = [random(len(tokens.box), WIDTH).requires_grad_() for _ in range(buffers)]
    rows = sizes.context, sizes.targets
    grads = [(random(rows[0], WIDTH), random(rows[1], WIDTH)) for _ in range(buffers)]
    return Packing(masks, tokens.cu_seqlens, sizes, values, grads)


def in_float64(pack: Packing) -> Packing:
    """The same, with the same numbers in float64."""
    values = [x.detach().double().requires_grad_() for x in pack.values]
    return pack._replace(values=values, grads=[(a.double(), b.double()) for a, b in pack.grads])


def order(pack: Packing, impl: str, buffer: int) -> tuple[Tensor, ...]:
    """The indices alone."""
    found = compact(pack.masks, pack.cu_seqlens, pack.sizes, impl=impl)
    return found.context_index, found.target_index


def forward(pack: Packing, impl: str, buffer: int) -> tuple[Tensor, ...]:
    """The indices, and values packed by them."""
    found = compact(pack.masks, pack.cu_seqlens, pack.sizes, impl=impl)
    values = pack.values[buffer]
    return found.context(values), found.targets(values)


def backward(pack: Packing, impl: str, buffer: int) -> tuple[Tensor, ...]:
    """The same, and the gradient of the values."""
    out = forward(pack, impl, buffer)
    return (*out, *torch.autograd.grad(out, pack.values[buffer], pack.grads[buffer]))


COMPACTIONS: dict[str, Callable[[Packing, str, int], tuple[Tensor, ...]]] = {
    "indices": order,
    "indices, values": forward,
    "indices, values, gradient": backward,
}


def difference(found: tuple[Tensor, ...], wanted: tuple[Tensor, ...]) -> float:
    """The largest, over all tensors; infinite where shapes differ."""
    if [x.shape for x in found] != [x.shape for x in wanted]:
        return float("inf")
    both = zip(found, wanted, strict=True)
    return max((a.double() - b.double()).abs().max().item() for a, b in both)


def drawing_rows(judge: Judge, case: str, batch: Batch, strategy: str) -> list[Row]:
    """Rows of one strategy; the error is the number of wrong tokens in a small batch."""
    tokens, small = scatter(batch), scatter(Batch(SAMPLE, batch.device))
    truth = draw(scatter(Batch(SAMPLE)), strategy, "reference").targets

    def check(impl: str) -> float:
        return float((draw(small, strategy, impl).targets.cpu() != truth).sum())

    entries = {
        way: Entry(
            partial(check, impl),
            lambda impl=impl: lambda step: draw(tokens, strategy, impl, step),
        )
        for way, impl in IMPLS.items()
    }
    # offsets, tile keys and, where they are read, boxes or modalities; a byte a token is written
    read = {"random": 0, "modality": 1}.get(strategy, 32)
    work = Work(batch.tokens * (read + 1) + 12 * len(batch.lengths))
    facts = {**_facts(case, batch), "pass": f"draw {strategy}", "buffers": 1}
    return judge.rows(facts, entries, STEPS, work)


def compaction_rows(
    judge: Judge, case: str, batch: Batch, name: str, buffers: int, dtype: torch.dtype
) -> list[Row]:
    """Rows of one of `COMPACTIONS`; the error is from float64 in a small batch."""
    small = packing(scatter(Batch(SAMPLE, batch.device)), dtype, 1)
    pack = packing(scatter(batch), dtype, buffers)
    run = COMPACTIONS[name]

    def check(impl: str) -> float:
        return difference(run(small, impl, 0), run(in_float64(small), "reference", 0))

    entries = {
        way: Entry(partial(check, impl), lambda impl=impl: partial(run, pack, impl))
        for way, impl in IMPLS.items()
    }
    rows = pack.sizes.context + pack.sizes.targets
    # masks are read and indices written; each value is read once and written where it goes
    values = (batch.tokens + rows) * WIDTH * dtype.itemsize
    work = Work(batch.tokens + 8 * rows + list(COMPACTIONS).index(name) * values)
    facts = {**_facts(case, batch), "dtype": str(dtype).removeprefix("torch.")}
    return judge.rows({**facts, "pass": f"compact: {name}"}, entries, buffers, work)


def masking_rows(
    judge: Judge, case: str, batch: Batch, buffers: int, dtype: torch.dtype
) -> Iterator[list[Row]]:
    """Rows of each strategy and each compaction, one list after another."""
    for strategy in STRATEGIES:
        yield drawing_rows(judge, case, batch, strategy)
    for name in COMPACTIONS:
        yield compaction_rows(judge, case, batch, name, buffers, dtype)


def _facts(case: str, batch: Batch) -> dict[str, str | int]:
    return {
        **{"operation": "masking", "case": case, "tiles": len(batch.lengths)},
        **{"tokens": batch.tokens, "longest": batch.longest},
    }
