"""Rows of a head in Triton: D numbers in WIDTH columns, the next power of two from 16 on.

The columns beyond D are never read from memory nor written to it.
"""

import triton
import triton.language as tl


@triton.jit
def load_rows(base, stride, rows, live, D: tl.constexpr, WIDTH: tl.constexpr):
    """Rows [BLOCK, WIDTH] of a head; zeros where not live and beyond D."""
    cols = tl.arange(0, WIDTH)[None, :]
    return tl.load(base + (rows * stride)[:, None] + cols, live[:, None] & (cols < D), 0.0)


@triton.jit
def store_rows(base, stride, rows, live, x, D: tl.constexpr, WIDTH: tl.constexpr):
    """Stores what `load_rows` loads, in the dtype of the memory."""
    cols = tl.arange(0, WIDTH)[None, :]
    at = base + (rows * stride)[:, None] + cols
    tl.store(at, x.to(base.dtype.element_ty), live[:, None] & (cols < D))


@triton.jit
def multiply_rows(a, b):
    """a b', float32 [rows of a, rows of b]; float32 rows in IEEE arithmetic, not TF32."""
    return tl.dot(a, tl.trans(b), input_precision="ieee")


@triton.jit
def add_product(out, weights, x):
    """out + weights x in float32, the weights in the dtype of x."""
    return tl.dot(weights.to(x.dtype), x, out, input_precision="ieee")
