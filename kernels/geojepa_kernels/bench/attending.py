"""One shape of attention: inputs, the exact result, and calls of a way to be timed."""

from collections.abc import Sequence

import torch
from torch import Tensor

from geojepa_kernels.attention.ways import Way
from geojepa_kernels.bench.batches import Batch, SharedBatch
from geojepa_kernels.bench.flex import Attend
from geojepa_kernels.bench.timing import Run


def draw(
    batch: Batch | SharedBatch, heads: int, head_dim: int, dtype: torch.dtype, seed: int
) -> tuple[Tensor, Tensor]:
    """A random projection (tokens, 3, heads, head_dim) and gradient (tokens, heads, head_dim)."""
    generator = torch.Generator(batch.device).manual_seed(seed)
    both = torch.randn(
        batch.tokens, 4, heads, head_dim, generator=generator, device=batch.device, dtype=dtype
    )
    # apart, so that the strides of q, k and v are those of a projection
    return both[:, :3].clone(), both[:, 3].clone()


def exact(batch: Batch | SharedBatch, qkv: Tensor, grad: Tensor) -> Tensor:
    """Output and gradients of q, k, v in float64, (tokens, 4, heads, head_dim), on the CPU."""
    qkv = qkv.detach().cpu().double().requires_grad_()
    output = []
    for queries, keys in batch.groups:
        q, k, v = qkv[queries, 0], qkv[keys, 1], qkv[keys, 2]
        scores = torch.einsum("qhd,khd->hqk", q, k) / q.shape[-1] ** 0.5
        output.append(torch.einsum("hqk,khd->qhd", scores.softmax(-1), v))
    # the queries of all groups together are the tokens, in order
    out = torch.cat(output)
    out.backward(grad.cpu().double())
    assert qkv.grad is not None
    return torch.cat((out[:, None], qkv.grad), dim=1).detach()


def called(attend: Attend, qkv: Sequence[Tensor], grad: Tensor | None) -> tuple[Tensor, ...]:
    """The output, and with a gradient of it those of q, k and v."""
    out = attend(*qkv)
    return (out,) if grad is None else (out, *torch.autograd.grad(out, list(qkv), grad))


def inputs(
    way: Way, batch: Batch | SharedBatch, drawn: tuple[Tensor, Tensor], backward: bool
) -> tuple[list[Tensor], Tensor | None]:
    """q, k and v as strided views of one array, and with backward the output's gradient."""
    qkv, grad = drawn
    if way.is_padded:
        assert isinstance(batch, Batch)
        qkv, grad = batch.pad(qkv), batch.pad(grad)
    leaves = [x.detach().requires_grad_(backward) for x in qkv.unbind(-3)]
    return leaves, grad if backward else None


def largest_error(
    way: Way,
    batch: Batch | SharedBatch,
    drawn: tuple[Tensor, Tensor],
    truth: Tensor,
    backward: bool,
) -> float:
    """The largest difference from `exact` over the output and, with backward, the gradients."""
    found = called(way.prepare(batch), *inputs(way, batch, drawn, backward))
    if way.is_padded:
        assert isinstance(batch, Batch)
        found = tuple(map(batch.unpad, found))
    difference = torch.stack([x.detach().cpu().double() for x in found], dim=1)
    difference = difference - truth[:, : len(found)]
    # a way that returns no number is wrong by more than any
    return difference.abs().nan_to_num(nan=torch.inf).max().item()


def timed_run(
    way: Way, batch: Batch | SharedBatch, buffers: Sequence[tuple[Tensor, Tensor]], backward: bool
) -> Run:
    """A call of the way on one of the buffers."""
    attend = way.prepare(batch)
    ready = [inputs(way, batch, drawn, backward) for drawn in buffers]
    return lambda buffer: called(attend, *ready[buffer])
