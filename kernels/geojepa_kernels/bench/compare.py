"""The ways to attend on a CPU, timed side by side."""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from geojepa_kernels.attention.ways import CPU_WAYS, WAYS
from geojepa_kernels.bench.attending import draw, exact, largest_error, timed_run
from geojepa_kernels.bench.batches import Batch
from geojepa_kernels.bench.timing import HostClock, summary, take_turns


class Timing(NamedTuple):
    """One way's forward and backward: milliseconds (quartiles), speed, and distance from float64.

    `max_error` is the largest difference from the float64 result over the output and its gradients.
    """

    way: str
    median_ms: float
    q25: float
    q75: float
    tokens_per_s: float
    max_error: float


def compare_ways(
    lengths: Sequence[int],
    heads: int,
    head_dim: int,
    repeats: int = 5,
    seed: int = 0,
    ways: Sequence[str] = CPU_WAYS,
) -> list[Timing]:
    """Times each way's forward and backward in float32 on the CPU, taking turns.

    Args:
        lengths: of the sequences, each at least 1.
        heads: of q, k and v, which are strided views of one random projection.
        head_dim: width of a head.
        repeats: timed runs of each way, after two that are not timed.
        seed: of the random inputs and the order of turns.
        ways: which of `WAYS`.

    Returns:
        A row for each way, in the order of `ways`.

    Raises:
        RuntimeError: a way that failed.
    """
    batch = Batch(lengths)
    drawn = draw(batch, heads, head_dim, torch.float32, seed)
    truth = exact(batch, *drawn)
    errors = {way: largest_error(WAYS[way], batch, drawn, truth, backward=True) for way in ways}
    runs = {way: timed_run(WAYS[way], batch, [drawn], backward=True) for way in ways}
    times, failed = take_turns(runs, 1, HostClock(), repeats, float("inf"), seed)
    if failed:
        raise RuntimeError(f"ways that failed: {failed}")
    rows = []
    for way in ways:
        found = summary(times[way, "launched"], {})
        median, q25, q75 = (float(found[f"ms_{name}"]) for name in ("median", "q25", "q75"))
        rows.append(Timing(way, median, q25, q75, 1000 * batch.tokens / median, errors[way]))
    return rows
