"""Rows of packed tensors, gathered forward and backward by one kernel launch each.

Forward takes rows by index. Backward, a row's gradient is the sum of the gradients of its copies,
which `slots` lists: a gather again, in a fixed order, without atomics.
"""

from math import prod

import torch
from torch import Tensor

# numbers that one program moves
MOVED = 2048


def blocks(rows: int, width: int) -> tuple[tuple[int, int], dict[str, int]]:
    """The grid over (rows, width) and the shape of a program's block."""
    across = min(512, 1 << max(width - 1, 0).bit_length())
    down = MOVED // across
    return (-(-rows // down), -(-width // across)), {"BLOCK_R": down, "BLOCK_D": across}


@torch.library.custom_op("geojepa::take_rows", mutates_args=())
def take_rows(x: Tensor, index: Tensor, slots: Tensor) -> Tensor:
    """x[index] by a Triton kernel.

    Args:
        x: (tokens, ...), any dtype.
        index: (rows,) int64.
        slots: (copies, tokens) int32, the rows that each token went to, -1 for none; every row
            occurs exactly once. Read by the backward alone, which sums in float32.

    Returns:
        (rows, ...), in the dtype of x.
    """
    from geojepa_kernels.masking.order_kernel import take_kernel

    rows, width = len(index), prod(x.shape[1:])
    out = x.new_empty(rows, *x.shape[1:])
    grid, shape = blocks(rows, width)
    take_kernel[grid](out, x.contiguous(), index, rows, width, **shape)
    return out


@torch.library.custom_op("geojepa::sum_rows", mutates_args=())
def sum_rows(x: Tensor, slots: Tensor) -> Tensor:
    """The gradient of `take_rows`: (rows, ...) to (tokens, ...), by slots (copies, tokens)."""
    from geojepa_kernels.masking.order_kernel import sum_kernel

    copies, rows = slots.shape
    width = prod(x.shape[1:])
    out = x.new_empty(rows, *x.shape[1:])
    grid, shape = blocks(rows, width)
    stride = slots.stride(0)
    sum_kernel[grid](out, x.contiguous(), slots, rows, stride, width, K=copies, **shape)
    return out


@take_rows.register_fake
def _(x: Tensor, index: Tensor, slots: Tensor) -> Tensor:
    return x.new_empty(index.shape[0], *x.shape[1:])


@sum_rows.register_fake
def _(x: Tensor, slots: Tensor) -> Tensor:
    return x.new_empty(slots.shape[1], *x.shape[1:])


def _keep_slots(ctx, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(inputs[2])


def _sum_copies(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:
    return sum_rows(gradient, ctx.saved_tensors[0]), None, None


take_rows.register_autograd(_sum_copies, setup_context=_keep_slots)
