"""The ways to compute attention over sequences of unequal length, timed side by side.

Each way takes q, k, v (tokens, heads, head_dim) and the lengths of the sequences, which attend to
themselves, and returns (tokens, heads, head_dim).
"""

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention as sdpa
from torch.nn.utils.rnn import pad_sequence

from geojepa_kernels.attention import attention

# A sequence joins a bucket whose longest is at most this many times as long.
BUCKET_RATIO = 1.25


class Timing(NamedTuple):
    """One way's forward and backward: milliseconds (quartiles), speed, and distance from float64.

    `max_error` is the largest difference from the float64 result over the output and its gradient.
    """

    way: str
    median_ms: float
    q25: float
    q75: float
    tokens_per_s: float
    max_error: float


def ours(q: Tensor, k: Tensor, v: Tensor, lengths: list[int]) -> Tensor:
    """The operation of this package."""
    cu = torch.tensor([0, *lengths]).cumsum(0).int()
    return attention(q, k, v, cu, cu, max(lengths), max(lengths))


def loop(q: Tensor, k: Tensor, v: Tensor, lengths: list[int]) -> Tensor:
    """One library call a sequence."""
    heads_first = (x.transpose(0, 1)[None].split(lengths, dim=2) for x in (q, k, v))
    out = torch.cat([sdpa(*qkv) for qkv in zip(*heads_first, strict=True)], dim=2)
    return out[0].transpose(0, 1)


def padded_group(parts: Sequence[Sequence[Tensor]], lengths: list[int]) -> list[Tensor]:
    """One library call for some sequences, padded to the longest, their padding masked."""
    q, k, v = (pad_sequence(list(part), batch_first=True).transpose(1, 2) for part in parts)
    live = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    mask = None if bool(live.all()) else live[:, None, None]
    out = sdpa(q, k, v, attn_mask=mask).transpose(1, 2)
    return [one[:length] for one, length in zip(out, lengths, strict=True)]


def padded(q: Tensor, k: Tensor, v: Tensor, lengths: list[int]) -> Tensor:
    """The whole batch padded to its longest sequence."""
    return torch.cat(padded_group([x.split(lengths) for x in (q, k, v)], lengths))


def buckets(q: Tensor, k: Tensor, v: Tensor, lengths: list[int]) -> Tensor:
    """Sequences of similar length padded together."""
    parts = [x.split(lengths) for x in (q, k, v)]
    groups: list[list[int]] = []
    for one in np.argsort(lengths)[::-1].tolist():
        if groups and lengths[groups[-1][0]] <= BUCKET_RATIO * lengths[one]:
            groups[-1].append(one)
        else:
            groups.append([one])
    out: dict[int, Tensor] = {}
    for group in groups:
        members = [[part[one] for one in group] for part in parts]
        results = padded_group(members, [lengths[one] for one in group])
        out.update(zip(group, results, strict=True))
    return torch.cat([out[one] for one in range(len(lengths))])


def block_mask(q: Tensor, k: Tensor, v: Tensor, lengths: list[int]) -> Tensor:
    """The batch as one sequence, with a mask of which tokens are of the same."""
    owner = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    q, k, v = (x.transpose(0, 1)[None] for x in (q, k, v))
    return sdpa(q, k, v, attn_mask=owner[:, None] == owner)[0].transpose(0, 1)


def nested(q: Tensor, k: Tensor, v: Tensor, lengths: list[int]) -> Tensor:
    """Nested tensors of the jagged layout."""
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    q, k, v = (
        torch.nested.nested_tensor_from_jagged(x.contiguous(), offsets).transpose(1, 2)
        for x in (q, k, v)
    )
    return sdpa(q, k, v).transpose(1, 2).values()


WAYS: dict[str, Callable[[Tensor, Tensor, Tensor, list[int]], Tensor]] = {
    "ours": ours,
    "loop": loop,
    "buckets": buckets,
    "padded": padded,
    "block mask": block_mask,
    "nested": nested,
}


def exact(qkv: Tensor, grad: Tensor, lengths: list[int]) -> Tensor:
    """Output and gradient in float64, (tokens, 4, heads, head_dim), sequence by sequence."""
    qkv = qkv.detach().double().requires_grad_()
    out = []
    for q, k, v in (one.unbind(1) for one in qkv.split(lengths)):
        scores = torch.einsum("qhd,khd->hqk", q, k) / q.shape[-1] ** 0.5
        out.append(torch.einsum("hqk,khd->qhd", scores.softmax(-1), v))
    output = torch.cat(out)
    output.backward(grad.double())
    assert qkv.grad is not None
    return torch.cat((output[:, None], qkv.grad), dim=1).detach()


def compare_ways(
    lengths: Sequence[int],
    heads: int,
    head_dim: int,
    repeats: int = 5,
    seed: int = 0,
    ways: Sequence[str] = tuple(WAYS),
) -> list[Timing]:
    """Times each way's forward and backward in float32 on the CPU, taking turns.

    Args:
        lengths: of the sequences, each at least 1.
        heads: of q, k and v, which are strided views of one random projection.
        head_dim: width of a head.
        repeats: timed runs of each way, after one that is not timed.
        seed: of the random inputs.
        ways: which of `WAYS`.

    Returns:
        A row for each way, in the order of `ways`.
    """
    lengths = [int(length) for length in lengths]
    generator = torch.Generator().manual_seed(seed)
    tokens = sum(lengths)
    qkv = torch.randn(tokens, 3, heads, head_dim, generator=generator).requires_grad_()
    grad = torch.randn(tokens, heads, head_dim, generator=generator)
    truth = exact(qkv, grad, lengths)
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    errors: dict[str, float] = {}
    for repeat in range(repeats + 1):
        for turn in torch.randperm(len(ways), generator=generator).tolist():
            way = ways[turn]
            qkv.grad = None
            start = perf_counter()
            q, k, v = qkv.unbind(1)
            out = WAYS[way](q, k, v, lengths)
            out.backward(grad)
            if repeat:
                seconds[way].append(perf_counter() - start)
            else:
                assert qkv.grad is not None
                found = torch.cat((out[:, None], qkv.grad), dim=1).detach()
                errors[way] = (found - truth).abs().max().item()
    rows = []
    for way in ways:
        q25, median, q75 = np.quantile(seconds[way], [0.25, 0.5, 0.75]).tolist()
        rows.append(Timing(way, 1e3 * median, 1e3 * q25, 1e3 * q75, tokens / median, errors[way]))
    return rows
