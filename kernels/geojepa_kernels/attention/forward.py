"""The forward kernel of ragged attention; README.md has the mathematics."""

import triton
import triton.language as tl

from geojepa_kernels.attention.rows import add_product, load_rows, multiply_rows, store_rows
from geojepa_kernels.attention.segments import find_block, rows_of

LOG2E = tl.constexpr(1.4426950408889634)
# numbers of a batch or of a layout: another value is never another kernel
NUMBERS = [
    *("q_row", "q_head", "k_row", "k_head", "v_row", "v_head"),
    *("heads", "queries", "segments", "threshold", "key_slots"),
]


@triton.jit
def keep_pairs(seed, rows, others, head, threshold, KEYS: tl.constexpr):
    """Which pairs of query and key do not drop out (dropout.py), bool [rows, others].

    `rows` are queries and `others` keys, or the other way round with KEYS.
    """
    zero = tl.zeros_like(rows).to(tl.int32)
    ours = tl.philox(seed, rows.to(tl.int32), zero + head.to(tl.int32), zero + KEYS, zero)[0]
    zero = tl.zeros_like(others).to(tl.int32)
    theirs = tl.philox(
        seed, others.to(tl.int32), zero + head.to(tl.int32), zero + (1 - KEYS), zero
    )[0]
    word = ours[:, None] ^ theirs[None, :]
    word = (word ^ (word >> 16)) * 0x85EBCA6B
    word = (word ^ (word >> 13)) * 0xC2B2AE35
    return (word ^ (word >> 16)) >= threshold.to(tl.uint32)


@triton.jit(do_not_specialize=NUMBERS)
def forward_kernel(
    q, k, v, out, lse, seed, cu_q, cu_k,
    q_row, q_head, k_row, k_head, v_row, v_head,
    heads, queries, segments, threshold, upscale, scale,
    SETS: tl.constexpr, D: tl.constexpr, WIDTH: tl.constexpr, ALIGN: tl.constexpr,
    BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, DROPOUT: tl.constexpr,
):  # fmt: skip
    """A block of queries of a head: out, and lse, log2 of the sum of their exponentials."""
    head = (tl.program_id(0) % heads).to(tl.int64)
    slot = tl.program_id(0) // heads
    first, left, _, run0, length0, run1, length1 = find_block(
        slot, cu_q, cu_k, segments, SETS, False, BLOCK_Q
    )
    if left <= 0:
        return
    # strides come divided by ALIGN, so that the compiler knows what divides them
    q += head * (q_head * ALIGN)
    k += head * (k_head * ALIGN)
    v += head * (v_head * ALIGN)
    own = tl.arange(0, BLOCK_Q)
    rows, live = first.to(tl.int64) + own, own < left
    query = load_rows(q, q_row * ALIGN, rows, live, D, WIDTH)
    output = tl.zeros([BLOCK_Q, WIDTH], tl.float32)
    highest = tl.full([BLOCK_Q], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_Q], tl.float32)
    count = length0 + length1
    for start in range(0, count, BLOCK_K):
        index = start + tl.arange(0, BLOCK_K)
        seen = index < count
        others = rows_of(index, run0, length0, run1, SETS)
        key = load_rows(k, k_row * ALIGN, others, seen, D, WIDTH)
        value = load_rows(v, v_row * ALIGN, others, seen, D, WIDTH)
        scores = multiply_rows(query, key) * (scale * LOG2E)  # [BLOCK_Q, BLOCK_K]
        scores = tl.where(seen[None, :], scores, float("-inf"))
        higher = tl.maximum(highest, tl.max(scores, 1))
        shrink = tl.exp2(highest - higher)
        weights = tl.exp2(scores - higher[:, None])
        total = total * shrink + tl.sum(weights, 1)
        if DROPOUT:
            kept = keep_pairs(tl.load(seed), rows, others, head, threshold, 0)
            weights = tl.where(kept, weights * upscale, 0.0)
        output = output * shrink[:, None]
        output = add_product(output, weights, value)
        highest = higher
    # a query without keys has output 0 and lse 0
    total = tl.where(total == 0, 1.0, total)
    highest = tl.where(count > 0, highest, 0.0)
    output = output * (1.0 / total)[:, None]
    store_rows(out + head * D, heads * D, rows, live, output, D, WIDTH)
    tl.store(lse + head * queries + rows, highest + tl.log2(total), mask=live)
