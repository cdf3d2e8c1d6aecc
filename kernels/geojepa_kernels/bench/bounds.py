"""What a device can do at best, measured, and the least work of an operation."""

from typing import NamedTuple

import torch

from geojepa_kernels.bench.timing import Clock

# bytes copied and side of the matrices, by kind of device
SIZES = {"cuda": (1 << 30, 8192), "cpu": (1 << 24, 256)}
REPEATS = 20


class Rates(NamedTuple):
    """Measured by a copy (bytes read and written a second) and a product of square matrices."""

    bytes_per_s: float
    operations_per_s: float


class Work(NamedTuple):
    """The fewest bytes that an operation moves, and its arithmetic operations."""

    bytes: int
    operations: int = 0


def measure_rates(device: torch.device, dtype: torch.dtype, clock: Clock) -> Rates:
    """Medians over 20 runs each, of random numbers of the dtype; float32 without TF32."""
    size, side = SIZES[device.type]
    source = torch.randn(size // dtype.itemsize, device=device, dtype=dtype)
    target = torch.empty_like(source)
    a, b = torch.randn(2, side, side, device=device, dtype=dtype)

    def median(work) -> float:
        found = [clock.seconds(work, clock.names[-1]) or float("nan") for _ in range(REPEATS)]
        return sorted(found)[REPEATS // 2]

    target.copy_(source)
    _ = a @ b
    copied = median(lambda: target.copy_(source))
    multiplied = median(lambda: a @ b)
    return Rates(2 * source.nbytes / copied, 2 * side**3 / multiplied)


def attention_work(
    tokens: int, pairs: int, heads: int, head_dim: int, itemsize: int, backward: bool
) -> Work:
    """Of attention, forward or forward and backward.

    Forward reads q, k, v and writes the output, with two products for each pair of a query and a
    key; backward reads these four and the output's gradient and writes three gradients, with five.

    Args:
        tokens: of q, and of k and v.
        pairs: of a query and a key, a head.
        heads: of q, k and v.
        head_dim: width of a head.
        itemsize: bytes of a number.
        backward: whether the backward pass is added.
    """
    array = tokens * heads * head_dim * itemsize
    product = 2 * pairs * heads * head_dim
    return Work((4 + 8 * backward) * array, (2 + 5 * backward) * product)


def bounds(work: Work, rates: Rates, milliseconds: float | None) -> dict[str, float | str]:
    """Least milliseconds by memory and by arithmetic, which binds, and the share of it reached."""
    least = {
        "memory": 1000 * work.bytes / rates.bytes_per_s,
        "compute": 1000 * work.operations / rates.operations_per_s,
    }
    binding = max(least, key=lambda kind: least[kind])
    row: dict[str, float | str] = {f"{kind}_bound_ms": value for kind, value in least.items()}
    row["binding"] = binding
    if milliseconds:
        row["share"] = least[binding] / milliseconds
    return row
