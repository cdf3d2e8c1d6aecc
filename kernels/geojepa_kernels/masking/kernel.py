"""The Triton kernel that draws masks by the integer rules of README.md.

One program draws one tile, all target sets at once: words, keys and claims are [M, BLOCK], where M
is a power of two of at least SETS rows, and the tile's tokens lie in BLOCK columns.
"""

import triton
import triton.language as tl

# the numbers of streams.py and reference.py
RANDOM = tl.constexpr(1)
RUN = tl.constexpr(2)
AREA = tl.constexpr(3)
MODALITY = tl.constexpr(4)
FREE = tl.constexpr(5)
UNIT = tl.constexpr(65536)
SHAPE_LOW = tl.constexpr(32768)
SHAPES = tl.constexpr(98305)
CORNER_LOW = tl.constexpr(-6554)
CORNER_HIGH = tl.constexpr(72090)
FAR = tl.constexpr(1 << 20)


@triton.jit
def words_of(key, index, second, low, high):
    """Four uint32 words for indices of any shape, by their counter's other words."""
    at = index.to(tl.uint32)
    none = at * 0
    return tl.philox(key, at, none + second, none + low, none + high)


@triton.jit
def below(word, bound):
    """Maps uint32 words to [0, bound): the high half of their product."""
    return tl.umulhi(word, bound.to(tl.uint32)).to(tl.int32)


@triton.jit
def smallest(keys, live, k):
    """The k live entries of smallest key in each row, ties by column.

    The k-th smallest key is the largest number below which fewer than k keys lie: it is built bit
    by bit from the top, by 32 counts.

    Args:
        keys: [1 or M, BLOCK] uint32.
        live: [1 or M, BLOCK] int1.
        k: [M, 1] int32; none are taken where it is zero or negative, all where it exceeds them.

    Returns:
        [M, BLOCK] int1.
    """
    largest = (k * 0).to(tl.uint32)
    bit = tl.full([1, 1], 1 << 31, tl.uint32)
    for _ in range(32):
        candidate = largest | bit
        count = tl.sum((live & (keys < candidate)).to(tl.int32), axis=1, keep_dims=True)
        largest = tl.where(count < k, candidate, largest)
        bit = bit >> 1
    under = live & (keys < largest)
    equal = (live & (keys == largest)).to(tl.int32)
    left = k - tl.sum(under.to(tl.int32), axis=1, keep_dims=True)
    return under | ((equal > 0) & (tl.cumsum(equal, axis=1) <= left))


@triton.jit
def random_sets(key, place, live, low, high, k, SETS: tl.constexpr, M: tl.constexpr):
    """The k tokens of smallest random word in each set, [M, BLOCK] int1."""
    rows = tl.arange(0, M)[:, None]
    keys = tl.zeros([M, place.shape[1]], tl.uint32)
    for block in tl.static_range((SETS + 3) // 4):
        w0, w1, w2, w3 = words_of(key, place, RANDOM + 256 * block, low, high)
        keys = tl.where(rows == 4 * block, w0, keys)
        keys = tl.where(rows == 4 * block + 1, w1, keys)
        keys = tl.where(rows == 4 * block + 2, w2, keys)
        keys = tl.where(rows == 4 * block + 3, w3, keys)
    return smallest(keys, live & (rows < SETS), k)


@triton.jit
def round_even(x):
    """The integer nearest to float32 x, ties to even, int64."""
    floor = tl.floor(x)
    whole = floor.to(tl.int64)
    rest = x - floor
    return whole + ((rest > 0.5) | ((rest == 0.5) & ((whole & 1) == 1))).to(tl.int64)


@triton.jit
def centre(box, tokens, live, axis: tl.constexpr, CORNERS: tl.constexpr):
    """Box centres along an axis in 1/65536 tile, [1, BLOCK] int32, clamped far outside the tile."""
    total = tl.zeros_like(tokens)
    for corner in tl.static_range(CORNERS):
        at = box + tokens * (2 * CORNERS) + (2 * corner + axis)
        total += round_even(tl.load(at, mask=live, other=0.0) * 65536.0)
    if CORNERS == 4:
        total = (total + 2) >> 2
    return tl.minimum(tl.maximum(total, -FAR), FAR).to(tl.int32)


@triton.jit
def spread(x):
    """The 16 low bits of uint32 x, each followed by a zero bit."""
    x = (x | (x << 8)) & 0x00FF00FF
    x = (x | (x << 4)) & 0x0F0F0F0F
    x = (x | (x << 2)) & 0x33333333
    return (x | (x << 1)) & 0x55555555


@triton.jit
def run_sets(key, x, y, live, low, high, n, k, SETS: tl.constexpr, M: tl.constexpr):
    """A run of k tokens in Morton order for each set, [M, BLOCK] int1."""
    rows = tl.arange(0, M)[:, None]
    x = spread(tl.minimum(tl.maximum(x, 0), UNIT - 1).to(tl.uint32))
    y = spread(tl.minimum(tl.maximum(y, 0), UNIT - 1).to(tl.uint32))
    keys = x | (y << 1)
    w0, _, _, _ = words_of(key, rows, RUN, low, high)
    start = below(w0, rows * 0 + n - k + 1)
    return smallest(keys, live, start + k) & ~smallest(keys, live, start) & (rows < SETS)


@triton.jit
def within(x, word, side):
    """Whether centres lie on an axis of each set's rectangle, edges included, [M, BLOCK] int1."""
    low = below(word, -side + (CORNER_HIGH - CORNER_LOW + 1)) + CORNER_LOW
    return (x >= low) & (x <= low + side)


@triton.jit
def area_sets(key, x, y, live, low, high, side, SETS: tl.constexpr, M: tl.constexpr):
    """The tokens whose centre lies in each set's rectangle, [M, BLOCK] int1."""
    rows = tl.arange(0, M)[:, None]
    w0, w1, w2, _ = words_of(key, rows, AREA, low, high)
    shape = (below(w0, rows * 0 + SHAPES) + SHAPE_LOW).to(tl.int64)
    width = tl.minimum((side * shape + UNIT // 2) >> 16, UNIT).to(tl.int32)
    height = tl.minimum((side.to(tl.int64) * UNIT + shape // 2) // shape, UNIT).to(tl.int32)
    return within(x, w1, width) & within(y, w2, height) & live & (rows < SETS)


@triton.jit
def modality_sets(key, kind, live, low, high, SETS: tl.constexpr, M: tl.constexpr):
    """One modality a set, without the one that is the context, [M, BLOCK] int1."""
    kinds = tl.arange(0, 2 * M)[:, None]
    present = tl.max((live & (kind == kinds)).to(tl.int32), axis=1, keep_dims=True)
    w0, _, _, _ = words_of(key, kinds, MODALITY, low, high)
    # the word of index 0 in every row
    w0 = tl.sum(tl.where(kinds == 0, w0, 0), axis=0, keep_dims=True)
    chosen = below(w0, tl.sum(present, axis=0, keep_dims=True))
    is_context = (present == 1) & (tl.cumsum(present, axis=0) == chosen + 1)
    context = tl.sum(tl.where(is_context, kinds, 0), axis=0, keep_dims=True)
    rows = tl.arange(0, M)[:, None]
    return live & (kind == rows + (rows >= context).to(tl.int32)) & (rows < SETS)


@triton.jit(do_not_specialize=["key", "size", "side", "min_context"])
def draw_kernel(
    targets,
    counts,
    cu_seqlens,
    box,
    modality,
    tile_keys,
    key: tl.uint64,
    size: tl.int32,
    side: tl.int32,
    min_context: tl.int32,
    STRATEGY: tl.constexpr,
    SETS: tl.constexpr,
    CORNERS: tl.constexpr,
    M: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The target sets of one tile's tokens as bits, and how many tokens each part has.

    counts is (tiles,) of contexts, then (tiles, SETS) of target sets. The key is that of Philox,
    seed + 2**32 step; side is that of a square of the stated area, in 1/65536 tile.
    """
    tile = tl.program_id(0).to(tl.int64)
    start = tl.load(cu_seqlens + tile).to(tl.int64)
    n = (tl.load(cu_seqlens + tile + 1).to(tl.int64) - start).to(tl.int32)
    tile_key = tl.load(tile_keys + tile).to(tl.uint64)
    low, high = (tile_key & 0xFFFFFFFF).to(tl.uint32), (tile_key >> 32).to(tl.uint32)
    place = tl.arange(0, BLOCK)[None, :]
    tokens = start + place
    live = place < n
    rows = tl.arange(0, M)[:, None]
    k = rows * 0 + tl.maximum(size * n // 1000, 1)

    if STRATEGY == "modality":
        kind = tl.load(modality + tokens, mask=live, other=0).to(tl.int32)
        sets = modality_sets(key, kind, live, low, high, SETS, M)
    elif STRATEGY == "random":
        sets = random_sets(key, place, live, low, high, k, SETS, M)
    else:
        x = centre(box, tokens, live, 0, CORNERS)
        y = centre(box, tokens, live, 1, CORNERS)
        if STRATEGY == "area":
            sets = area_sets(key, x, y, live, low, high, side, SETS, M)
        else:
            sets = run_sets(key, x, y, live, low, high, n, k, SETS, M)
    if STRATEGY == "area" or STRATEGY == "modality":  # noqa: SIM102, the outer is decided on the host
        if tl.sum(tl.sum(sets.to(tl.int32), axis=1), axis=0) == 0:
            sets = random_sets(key, place, live, low, high, k, SETS, M)

    hidden = tl.max(sets.to(tl.int32), axis=0, keep_dims=True)  # [1, BLOCK]
    needed = tl.maximum((min_context * n + 999) // 1000, 1)
    missing = needed - (n - tl.sum(tl.sum(hidden, axis=1), axis=0))
    if missing > 0:
        words, _, _, _ = words_of(key, place, FREE, low, high)
        one = tl.zeros([1, 1], tl.int32) + missing
        sets = sets & ~smallest(words, hidden > 0, one)

    bits = tl.sum(sets.to(tl.int32) << rows, axis=0, keep_dims=True)
    tl.store(targets + tokens, bits.to(tl.uint8), mask=live)
    context = tl.sum(tl.sum((live & (bits == 0)).to(tl.int32), axis=1), axis=0)
    tl.store(counts + tile, context)
    found = tl.sum(sets.to(tl.int32), axis=1, keep_dims=True)
    at = tl.num_programs(0).to(tl.int64) + tile * SETS + rows
    tl.store(counts + at, found, mask=rows < SETS)
