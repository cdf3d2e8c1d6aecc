"""The cases of each operation: which shapes, against what."""

from collections.abc import Mapping

import torch

from geojepa_kernels.attention.ways import WAYS, Way
from geojepa_kernels.bench.attending import draw, exact, largest_error, timed_run
from geojepa_kernels.bench.batches import Batch, SharedBatch
from geojepa_kernels.bench.bounds import attention_work
from geojepa_kernels.bench.contest import Entry, Judge
from geojepa_kernels.bench.rows import Row
from geojepa_kernels.bench.shared_ways import SHARED_WAYS

# of the inputs of a contest together, in sizes of the L2 cache
CACHES = 4
MOST_BUFFERS = 32
PASSES = {"forward": False, "forward+backward": True}
SAMPLE = (1, 7, 50, 63, 129)
SHARED_SAMPLE = ((1, 40, 70), (1, 2, 30, 35, 10, 65))


def count_buffers(nbytes: int, device: torch.device) -> int:
    """So many buffers of that size that they do not fit the device's cache, and at least two."""
    cache = torch.cuda.get_device_properties(device).L2_cache_size if device.type == "cuda" else 0
    return min(MOST_BUFFERS, max(2, -(-CACHES * cache // nbytes)))


def sample_of(batch: Batch | SharedBatch) -> Batch | SharedBatch:
    """A small batch of the same kind and device, on which ways are checked."""
    if isinstance(batch, Batch):
        return Batch(SAMPLE, batch.device)
    return SharedBatch(*SHARED_SAMPLE, batch.device)


def attention_rows(
    judge: Judge,
    operation: str,
    case: str,
    batch: Batch | SharedBatch,
    heads: int,
    head_dim: int,
    dtype: torch.dtype,
) -> list[Row]:
    """Rows of one shape of attention or shared-context attention, forward and backward."""
    ways: Mapping[str, Way] = WAYS if isinstance(batch, Batch) else SHARED_WAYS
    device, itemsize = batch.device, dtype.itemsize
    ways = {name: way for name, way in ways.items() if device.type in way.devices}
    sample = sample_of(batch)
    small = draw(sample, heads, head_dim, dtype, seed=0)
    truth = exact(sample, *small)
    count = count_buffers(3 * batch.tokens * heads * head_dim * itemsize, device)
    buffers = [draw(batch, heads, head_dim, dtype, seed) for seed in range(1, count + 1)]
    longest = batch.longest if isinstance(batch, Batch) else max(batch.longest)
    tiles = len(batch.lengths) if isinstance(batch, Batch) else len(batch.contexts)
    rows: list[Row] = []
    for name, backward in PASSES.items():
        entries = {
            key: Entry(
                lambda way=way, b=backward: largest_error(way, sample, small, truth, b),
                lambda way=way, b=backward: timed_run(way, batch, buffers, b),
            )
            for key, way in ways.items()
        }
        facts: dict[str, str | int] = {
            **{"operation": operation, "case": case, "tiles": tiles, "tokens": batch.tokens},
            **{"longest": longest, "heads": heads, "head_dim": head_dim},
            **{"dtype": str(dtype).removeprefix("torch."), "pass": name},
        }
        work = attention_work(batch.tokens, batch.pairs, heads, head_dim, itemsize, backward)
        rows += judge.rows(facts, entries, count, work)
    return rows
