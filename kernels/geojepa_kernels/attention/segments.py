"""Which rows a program of the attention kernels works on, found without a count on the host.

A *segment* is a run of packed rows whose queries see the same keys: a sequence or, with SETS > 0,
the context of a tile or one of its SETS target sets. Queries see one or two runs of keys, and keys
are seen by one or two runs of queries: two runs are walked as one list.
"""

import triton
import triton.language as tl

SEARCHED = tl.constexpr(512)
FAR = tl.constexpr(2**31 - 1)


@triton.jit
def find_segment(slot, cu, segments, BLOCK: tl.constexpr):
    """The segment of a slot, its offset in cu, and which of its blocks the slot is.

    Segment s owns the slots from cu[s] // BLOCK + s on: at least one for each of its blocks, so
    that cu // BLOCK + segments slots serve any batch, and no count has to reach the host.
    """
    before = 0
    for first in range(0, segments, SEARCHED):
        s = first + tl.arange(0, SEARCHED)
        start = tl.load(cu + s, mask=s < segments, other=FAR)
        before += tl.sum(((start // BLOCK + s <= slot) & (s < segments)).to(tl.int32))
    segment = before - 1
    start = tl.load(cu + segment)
    return segment, start, slot - (start // BLOCK + segment)


@triton.jit
def find_block(
    slot, cu_q, cu_k, segments, SETS: tl.constexpr, KEYS: tl.constexpr, BLOCK: tl.constexpr
):
    """The block of queries of a slot and the keys that it sees; or, with KEYS, turned about.

    cu_q and cu_k are offsets of queries and keys of `segments` sequences; with SETS > 0 they are
    cu_context and cu_targets of `segments` tiles, for queries and keys alike.

    Returns:
        the block's first row; how many rows are left from there (none or less: nothing to do);
        whether it is its sequence's only block and faces one block (never with SETS); start and
        length of the first run of rows it faces, start and length of the second.
    """
    if SETS == 0:
        own, other = (cu_k, cu_q) if KEYS else (cu_q, cu_k)
        segment, start, block = find_segment(slot, own, segments, BLOCK)
        stop = tl.load(own + segment + 1)
        run0 = tl.load(other + segment)
        length0 = tl.load(other + segment + 1) - run0
        run1, length1 = run0, length0 * 0
        is_alone = (stop - start <= BLOCK) & (length0 <= BLOCK) & (stop > start) & (length0 > 0)
    else:
        contexts = tl.load(cu_q + segments)
        context_slots = contexts // BLOCK + segments
        if slot < context_slots:
            tile, start, block = find_segment(slot, cu_q, segments, BLOCK)
            stop = tl.load(cu_q + tile + 1)
            run0, length0 = start, stop - start
            run1 = contexts + tl.load(cu_k + tile * SETS)
            length1 = contexts + tl.load(cu_k + tile * SETS + SETS) - run1
            # the context sees no target
            length1 = length1 if KEYS else length1 * 0
        else:
            target, start, block = find_segment(slot - context_slots, cu_k, segments * SETS, BLOCK)
            start += contexts
            stop = contexts + tl.load(cu_k + target + 1)
            run0 = tl.load(cu_q + target // SETS)
            length0 = tl.load(cu_q + target // SETS + 1) - run0
            length0 = length0 * 0 if KEYS else length0
            run1, length1 = start, stop - start
        is_alone = False
    first = start + block * BLOCK
    return first, stop - first, is_alone, run0, length0, run1, length1


@triton.jit
def rows_of(index, run0, length0, run1, SETS: tl.constexpr):
    """The packed rows [BLOCK] at places `index` of two runs walked as one list."""
    rows = run0.to(tl.int64) + index
    if SETS > 0:
        rows = tl.where(index < length0, rows, run1.to(tl.int64) + (index - length0))
    return rows
