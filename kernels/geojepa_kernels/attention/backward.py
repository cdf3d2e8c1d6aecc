"""The backward kernel of ragged attention; README.md has the mathematics."""

import triton
import triton.language as tl

from geojepa_kernels.attention.forward import LOG2E, NUMBERS, keep_pairs
from geojepa_kernels.attention.rows import add_product, load_rows, multiply_rows, store_rows
from geojepa_kernels.attention.segments import find_block, rows_of


@triton.jit
def pair_gradients(scores, products, lse, delta, seen, kept, upscale, DROPOUT: tl.constexpr):
    """Weights after dropout, and gradients of the scores, of a block of pairs.

    All are [queries, keys] or all [keys, queries], lse and delta broadcast; scores are of base 2,
    products are dO v'.
    """
    weights = tl.where(seen, tl.exp2(scores - lse), 0.0)
    dropped = weights
    if DROPOUT:
        dropped = tl.where(kept, weights * upscale, 0.0)
        products = tl.where(kept, products * upscale, 0.0)
    return dropped, weights * (products - delta)


@triton.jit
def key_pairs(
    q, out, lse, grad, q_row, line, others, sees, rows, live, key, value,
    head, seed, threshold, upscale, scale,
    D: tl.constexpr, WIDTH: tl.constexpr, DROPOUT: tl.constexpr,
):  # fmt: skip
    """Weights and gradients [keys, queries] of a block of keys and one of queries, and the latter.

    Keys come first, so that the products for grad_k and grad_v need no transposition.
    """
    query = load_rows(q, q_row, others, sees, D, WIDTH)
    output = load_rows(out, line, others, sees, D, WIDTH)
    slope = load_rows(grad, line, others, sees, D, WIDTH)
    log_sum = tl.load(lse + others, mask=sees, other=0.0)
    delta = tl.sum(output.to(tl.float32) * slope.to(tl.float32), 1)
    scores = multiply_rows(key, query) * (scale * LOG2E)
    products = multiply_rows(value, slope)
    pairs = live[:, None] & sees[None, :]
    kept = pairs
    if DROPOUT:
        kept = keep_pairs(tl.load(seed), rows, others, head, threshold, 1)
    weights, gradients = pair_gradients(
        scores, products, log_sum[None, :], delta[None, :], pairs, kept, upscale, DROPOUT
    )
    return weights, gradients, query, slope


@triton.jit(do_not_specialize=NUMBERS)
def backward_kernel(
    q, k, v, out, lse, grad, grad_q, grad_k, grad_v, seed, cu_q, cu_k,
    q_row, q_head, k_row, k_head, v_row, v_head,
    heads, queries, segments, threshold, upscale, scale, key_slots,
    SETS: tl.constexpr, D: tl.constexpr, WIDTH: tl.constexpr, ALIGN: tl.constexpr,
    BLOCK: tl.constexpr, DROPOUT: tl.constexpr,
):  # fmt: skip
    """A block of keys of a head: grad_k and grad_v; or, behind those, one of queries: grad_q.

    Each gradient has one writer, which adds in the order of the rows: no atomics. Where queries and
    keys are a block each, the program of the keys computes all three gradients.
    """
    head = (tl.program_id(0) % heads).to(tl.int64)
    slot = tl.program_id(0) // heads
    q += head * (q_head * ALIGN)
    k += head * (k_head * ALIGN)
    v += head * (v_head * ALIGN)
    out += head * D
    grad += head * D
    grad_q += head * D
    grad_k += head * D
    grad_v += head * D
    lse += head * queries
    q_row, k_row, v_row, line = q_row * ALIGN, k_row * ALIGN, v_row * ALIGN, heads * D
    own = tl.arange(0, BLOCK)
    if slot < key_slots:
        first, left, is_alone, run0, length0, run1, length1 = find_block(
            slot, cu_q, cu_k, segments, SETS, True, BLOCK
        )
        if left <= 0:
            return
        rows, live = first.to(tl.int64) + own, own < left
        key = load_rows(k, k_row, rows, live, D, WIDTH)
        value = load_rows(v, v_row, rows, live, D, WIDTH)
        d_key = tl.zeros([BLOCK, WIDTH], tl.float32)
        d_value = tl.zeros([BLOCK, WIDTH], tl.float32)
        count = length0 + length1
        if is_alone:
            others, sees = run0.to(tl.int64) + own, own < count
            weights, gradients, query, slope = key_pairs(
                q, out, lse, grad, q_row, line, others, sees, rows, live, key, value,
                head, seed, threshold, upscale, scale, D, WIDTH, DROPOUT,
            )  # fmt: skip
            d_value = add_product(d_value, weights, slope)
            d_key = add_product(d_key, gradients, query)
            d_query = tl.zeros([BLOCK, WIDTH], tl.float32)
            d_query = add_product(d_query, tl.trans(gradients), key)
            d_query = d_query * scale
            store_rows(grad_q, line, others, sees, d_query, D, WIDTH)
        else:
            for start in range(0, count, BLOCK):
                others = rows_of(start + own, run0, length0, run1, SETS)
                weights, gradients, query, slope = key_pairs(
                    q, out, lse, grad, q_row, line, others, start + own < count,
                    rows, live, key, value,
                    head, seed, threshold, upscale, scale, D, WIDTH, DROPOUT,
                )  # fmt: skip
                d_value = add_product(d_value, weights, slope)
                d_key = add_product(d_key, gradients, query)
        d_key = d_key * scale
        store_rows(grad_k, line, rows, live, d_key, D, WIDTH)
        store_rows(grad_v, line, rows, live, d_value, D, WIDTH)
    else:
        first, left, is_alone, run0, length0, run1, length1 = find_block(
            slot - key_slots, cu_q, cu_k, segments, SETS, False, BLOCK
        )
        if (left <= 0) | is_alone:
            return
        rows, live = first.to(tl.int64) + own, own < left
        query = load_rows(q, q_row, rows, live, D, WIDTH)
        output = load_rows(out, line, rows, live, D, WIDTH)
        slope = load_rows(grad, line, rows, live, D, WIDTH)
        log_sum = tl.load(lse + rows, mask=live, other=0.0)
        delta = tl.sum(output.to(tl.float32) * slope.to(tl.float32), 1)
        d_query = tl.zeros([BLOCK, WIDTH], tl.float32)
        count = length0 + length1
        for start in range(0, count, BLOCK):
            seen = start + own < count
            others = rows_of(start + own, run0, length0, run1, SETS)
            key = load_rows(k, k_row, others, seen, D, WIDTH)
            value = load_rows(v, v_row, others, seen, D, WIDTH)
            scores = multiply_rows(query, key) * (scale * LOG2E)
            products = multiply_rows(slope, value)
            pairs = seen[None, :] & live[:, None]
            kept = pairs
            if DROPOUT:
                kept = keep_pairs(tl.load(seed), rows, others, head, threshold, 0)
            _, gradients = pair_gradients(
                scores, products, log_sum[:, None], delta[:, None], pairs, kept, upscale, DROPOUT
            )
            d_query = add_product(d_query, gradients, key)
        d_query = d_query * scale
        store_rows(grad_q, line, rows, live, d_query, D, WIDTH)
