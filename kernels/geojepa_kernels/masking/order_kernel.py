"""Triton kernels that turn drawn masks into packed tokens: scan the counts, order, move rows.

Numbers that change with the batch are not specialised: no batch compiles a kernel anew.
"""

import triton
import triton.language as tl


@triton.jit
def scan(cu, counts, n, BLOCK: tl.constexpr):
    """cu = 0 and the running sums of counts (n,); returns their sum and their largest, int32."""
    tl.store(cu, 0)
    total, largest = 0, 0
    for first in range(0, n, BLOCK):
        index = first + tl.arange(0, BLOCK)
        count = tl.load(counts + index, mask=index < n, other=0)
        tl.store(cu + 1 + index, total + tl.cumsum(count), mask=index < n)
        total += tl.sum(count)
        largest = tl.maximum(largest, tl.max(count))
    return total, largest


@triton.jit(do_not_specialize=["tiles"])
def scan_kernel(
    cu_context, cu_targets, sizes, counts, tiles, SETS: tl.constexpr, BLOCK: tl.constexpr
):
    """Where each context and target set starts, and `Masks.sizes`; a single program."""
    context, longest_context = scan(cu_context, counts, tiles, BLOCK)
    counts += tiles
    targets, longest_targets = scan(cu_targets, counts, tiles * SETS, BLOCK)
    tl.store(sizes, context)
    tl.store(sizes + 1, targets)
    tl.store(sizes + 2, longest_context)
    tl.store(sizes + 3, longest_targets)
    for m in range(SETS):
        total = 0
        for first in range(0, tiles, BLOCK):
            tile = first + tl.arange(0, BLOCK)
            total += tl.sum(tl.load(counts + tile * SETS + m, mask=tile < tiles, other=0))
        tl.store(sizes + 4 + m, total)


@triton.jit(do_not_specialize=["tokens"])
def order_kernel(
    context_index,
    target_index,
    set_index,
    slots,
    set_slots,
    targets,
    cu_seqlens,
    cu_context,
    cu_targets,
    tokens,
    sets,
    BLOCK: tl.constexpr,
):
    """Lists the tokens of one part of one tile: part 0 is its context, part m its target set m - 1.

    A program counts the part's tokens before each of its own. It also lists the packed targets by
    set, then tile, and writes where each token or packed target went: `Compact` names the outputs.
    """
    tile, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    start = tl.load(cu_seqlens + tile).to(tl.int64)
    stop = tl.load(cu_seqlens + tile + 1).to(tl.int64)
    if part == 0:
        packed = tl.load(cu_context + tile).to(tl.int64)
        by_set = packed
    else:
        own = tile * sets + part - 1
        packed = tl.load(cu_targets + own).to(tl.int64)
        by_set = packed * 0
        # packed targets of smaller sets, and of this set in earlier tiles
        for first in range(0, tl.num_programs(0) * sets, BLOCK):
            other = first + tl.arange(0, BLOCK)
            other_set = other % sets
            earlier = (other_set < part - 1) | ((other_set == part - 1) & (other < own))
            earlier &= other < tl.num_programs(0) * sets
            length = tl.load(cu_targets + other + 1, mask=earlier, other=0)
            by_set += tl.sum(length - tl.load(cu_targets + other, mask=earlier, other=0))
    for first in range(start, stop, BLOCK):
        token = first + tl.arange(0, BLOCK)  # [BLOCK] int64
        live = token < stop
        bits = tl.load(targets + token, mask=live, other=0).to(tl.int32)
        inside = live & tl.where(part == 0, bits == 0, ((bits << 1) >> part) & 1 == 1)
        count = inside.to(tl.int32)
        before = tl.cumsum(count) - count
        slot = packed + before
        tl.store(slots + part * tokens + token, tl.where(inside, slot, -1).to(tl.int32), mask=live)
        if part == 0:
            tl.store(context_index + slot, token, mask=inside)
        else:
            tl.store(target_index + slot, token, mask=inside)
            tl.store(set_index + by_set + before, slot, mask=inside)
            tl.store(set_slots + slot, (by_set + before).to(tl.int32), mask=inside)
        packed += tl.sum(count)
        by_set += tl.sum(count)


@triton.jit(do_not_specialize=["rows"])
def take_kernel(out, x, index, rows, width, BLOCK_R: tl.constexpr, BLOCK_D: tl.constexpr):
    """out[r] = x[index[r]], rows of `width` numbers."""
    row = tl.program_id(0).to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)
    column = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    source = tl.load(index + row, mask=row < rows, other=0)
    live = (row < rows)[:, None] & (column < width)[None, :]
    values = tl.load(x + source[:, None] * width + column[None, :], mask=live)  # [BLOCK_R, BLOCK_D]
    tl.store(out + row[:, None] * width + column[None, :], values, mask=live)


# slots may start anywhere: its alignment depends on the token count
@triton.jit(do_not_specialize=["rows", "stride"], do_not_specialize_on_alignment=["slots"])
def sum_kernel(
    out,
    x,
    slots,
    rows,
    stride,
    width,
    K: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """out[r] = sum over k of x[slots[k, r]] where that is not negative, in float32, in order."""
    row = tl.program_id(0).to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)
    column = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    total = tl.zeros([BLOCK_R, BLOCK_D], tl.float32)
    for k in tl.static_range(K):
        slot = tl.load(slots + k * stride + row, mask=row < rows, other=-1).to(tl.int64)
        live = (slot >= 0)[:, None] & (column < width)[None, :]
        at = x + slot[:, None] * width + column[None, :]
        total += tl.load(at, mask=live, other=0.0).to(tl.float32)
    live = (row < rows)[:, None] & (column < width)[None, :]
    tl.store(
        out + row[:, None] * width + column[None, :], total.to(out.dtype.element_ty), mask=live
    )
