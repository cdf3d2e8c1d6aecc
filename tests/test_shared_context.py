"""Shared-context attention against separate passes and against a mask over the whole batch."""

import pytest
import torch
from attention_oracle import (
    DEVICE,
    DTYPES,
    assert_as_exact_as_torch,
    draw,
    offsets,
    same_tile,
    values_and_gradients,
)
from geojepa_kernels import attention, shared_context_attention

BATCHES = {
    "one tile": ([5], [[3, 2, 4, 1]]),
    "two sets": ([7, 50], [[63, 1], [0, 7]]),
    "empty sets": ([4, 1, 9], [[0, 0, 0, 0], [1, 0, 2, 0], [5, 5, 5, 5]]),
    "no context": ([0, 3], [[2, 1, 0, 4], [1, 1, 1, 1]]),
    "block": ([64, 32], [[64, 32], [33, 0]]),
    "long": ([129, 70], [[129, 63, 1, 7], [33, 5, 0, 65]]),
}
IMPLS = ["reference", "triton"]


def inputs(contexts, sets, head_dim, dtype=torch.float32, heads=2):
    """Random q, k and v of all tokens."""
    tokens = sum(contexts) + sum(map(sum, sets))
    return [draw(tokens, heads, head_dim, seed=seed, dtype=dtype) for seed in range(3)]


def call(contexts, sets, **options):
    """shared_context_attention of q, k, v for these lengths."""
    flat = [n for tile in sets for n in tile]
    cu = offsets(contexts), offsets(flat)
    longest = max(contexts), max(flat)
    return lambda q, k, v: shared_context_attention(q, k, v, *cu, *longest, **options)


@pytest.mark.parametrize("name", BATCHES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("impl", IMPLS)
def test_it_is_as_exact_as_the_masked_softmax(impl, dtype, name):
    contexts, sets = BATCHES[name]
    # of its many blocks, those of one head take the interpreter long enough
    heads = 1 if (name, impl, DEVICE) == ("long", "triton", "cpu") else 2
    for head_dim in {"two sets": (16, 24, 64), "long": (24,)}.get(name, (32, 48)):
        assert_as_exact_as_torch(
            call(contexts, sets, impl=impl),
            inputs(contexts, sets, head_dim, dtype, heads),
            same_tile(contexts, sets),
        )


@pytest.mark.parametrize("name", BATCHES)
def test_one_call_is_a_pass_for_each_target_set(name):
    """Pass m sees the contexts and only target set m; both agree to the rounding of float64."""
    contexts, sets = BATCHES[name]
    qkv = inputs(contexts, sets, 24, torch.float64)
    together = call(contexts, sets)(*qkv)
    total = sum(contexts)
    for m in range(len(sets[0])):
        rows, at = list(range(total)), total
        for lengths in sets:
            for other, n in enumerate(lengths):
                rows += range(at, at + n) if other == m else []
                at += n
        alone = call(contexts, [[n[m]] for n in sets])(*(x[rows] for x in qkv))
        torch.testing.assert_close(together[rows], alone, rtol=0, atol=1e-14)


def test_it_is_not_full_attention():
    """In full attention the context sees the target set too, and comes out different."""
    contexts, sets = [6, 9], [[3], [4]]
    qkv = inputs(contexts, sets, 24, torch.float64)
    shared = call(contexts, sets)(*qkv)
    order = torch.tensor([*range(6), 15, 16, 17, *range(6, 15), 18, 19, 20, 21])
    cu = offsets([9, 13])
    full = attention(*(x[order.to(x.device)] for x in qkv), cu, cu, 13, 13)
    difference = (shared[order.to(shared.device)] - full).abs().amax((1, 2))
    is_target = order >= 15
    assert (difference[is_target] < 1e-14).all()
    assert (difference[~is_target] > 1e-3).all()


@pytest.mark.parametrize("impl", IMPLS)
def test_every_row_is_written(impl):
    """PyTorch fills new memory with NaN in its deterministic mode."""
    torch.use_deterministic_algorithms(True)
    try:
        for name in ("empty sets", "no context", "two sets"):
            qkv = inputs(*BATCHES[name], 24)
            results = values_and_gradients(call(*BATCHES[name], impl=impl), qkv, qkv[0])
            assert all(x.isfinite().all() for x in results)
    finally:
        torch.use_deterministic_algorithms(False)


def test_two_runs_of_the_kernel_are_the_same_bits():
    qkv = inputs(*BATCHES["two sets"], 24)
    function = call(*BATCHES["two sets"], impl="triton")
    runs = [values_and_gradients(function, qkv, qkv[0]) for _ in range(2)]
    assert all(torch.equal(x, y) for x, y in zip(*runs, strict=True))


def test_gradients_of_the_reference_are_the_derivatives():
    contexts, sets = [2, 0, 1], [[1, 0], [2, 1], [0, 0]]
    leaves = [x.requires_grad_() for x in inputs(contexts, sets, 3, torch.float64)]
    assert torch.autograd.gradcheck(call(contexts, sets), leaves)


@pytest.mark.parametrize("impl", IMPLS)
def test_strided_views_and_scale(impl):
    contexts, sets = BATCHES["empty sets"]
    qkv = inputs(contexts, sets, 16)
    fused = torch.stack(qkv, 1).unbind(1)
    plain = call(contexts, sets, impl=impl)(qkv[0] * 2, qkv[1], qkv[2])
    found = call(contexts, sets, impl=impl, scale=0.5)(*fused)
    torch.testing.assert_close(found, plain, rtol=0, atol=1e-6)


def test_dropout_drops_the_same_pairs_in_both():
    contexts, sets = BATCHES["no context"]
    qkv = inputs(contexts, sets, 16)
    results = []
    for impl in IMPLS:
        torch.manual_seed(4)
        function = call(contexts, sets, dropout_p=0.5, impl=impl)
        results.append(values_and_gradients(function, qkv, qkv[0]))
    for x, y in zip(*results, strict=True):
        assert x.isfinite().all()
        torch.testing.assert_close(x, y, rtol=0, atol=2e-6)
    assert not torch.equal(results[0][0], call(contexts, sets)(*qkv))


@pytest.mark.parametrize("impl", IMPLS)
def test_wrong_calls_fail_at_once(impl):
    qkv = inputs([2, 2], [[1], [1]], 16)
    with pytest.raises(ValueError, match="3 target sets for 2 tiles"):
        shared_context_attention(*qkv, offsets([2, 2]), offsets([1, 1, 0]), 2, 1, impl=impl)
    with pytest.raises(ValueError, match="each token is both"):
        call([2, 2], [[1], [1]], impl=impl)(qkv[0][:5], qkv[1], qkv[2])
    with pytest.raises(ValueError, match="fast"):
        call([2, 2], [[1], [1]], impl="fast")(*qkv)
    empty, cu = qkv[0][:0], offsets([])
    assert shared_context_attention(empty, empty, empty, cu, cu, 0, 0, impl=impl).numel() == 0
