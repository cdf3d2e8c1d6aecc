"""Shared-context attention against separate passes and against a mask over the whole batch."""

import pytest
import torch
from geojepa_kernels import shared_context_attention

BATCHES = {
    "one tile": ([5], [[3, 2, 4, 1]]),
    "two sets": ([7, 50], [[63, 1], [0, 7]]),
    "empty sets": ([4, 1, 9], [[0, 0, 0, 0], [1, 0, 2, 0], [5, 5, 5, 5]]),
    "no context": ([0, 3], [[2, 1, 0, 4], [1, 1, 1, 1]]),
    "long": ([129, 300], [[129, 63, 1, 7], [300, 50, 0, 63]]),
}


def offsets(lengths):
    return torch.tensor([0, *lengths]).cumsum(0).int()


def inputs(contexts, sets, head_dim, dtype=torch.float32):
    tokens = sum(contexts) + sum(map(sum, sets))
    generator = torch.Generator().manual_seed(0)
    return torch.randn(3, tokens, 2, head_dim, generator=generator, dtype=torch.float64).to(dtype)


def call(qkv, contexts, sets, **options):
    flat = [n for tile in sets for n in tile]
    return shared_context_attention(
        *qkv, offsets(contexts), offsets(flat), max(contexts), max(flat), **options
    )


def masked(qkv, contexts, sets):
    """softmax over the whole batch in float64, with the rule as a mask over pairs of tokens."""
    tile = [t for t, n in enumerate(contexts) for _ in range(n)]
    owner = [-1] * len(tile)
    for t, lengths in enumerate(sets):
        for m, n in enumerate(lengths):
            tile += [t] * n
            owner += [m] * n
    tile, owner = torch.tensor(tile), torch.tensor(owner)
    sees = (tile[:, None] == tile) & ((owner == -1) | (owner[:, None] == owner))
    q, k, v = qkv.double()
    scores = torch.einsum("qhd,khd->hqk", q, k) / q.shape[-1] ** 0.5
    weights = scores.masked_fill(~sees, -torch.inf).softmax(-1)
    return torch.einsum("hqk,khd->qhd", weights, v)


@pytest.mark.parametrize("name", BATCHES)
@pytest.mark.parametrize("head_dim", [16, 24, 32, 48, 64])
def test_it_is_the_masked_softmax(name, head_dim):
    contexts, sets = BATCHES[name]
    qkv = inputs(contexts, sets, head_dim).requires_grad_()
    exact = qkv.detach().double().requires_grad_()
    out, expected = call(qkv, contexts, sets), masked(exact, contexts, sets)
    torch.testing.assert_close(out.double(), expected, rtol=0, atol=3e-6)
    grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    out.backward(grad)
    expected.backward(grad.double())
    torch.testing.assert_close(qkv.grad.double(), exact.grad, rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", BATCHES)
def test_one_call_is_a_pass_for_each_target_set(name):
    """Pass m sees the contexts and only target set m; both agree to the rounding of float64."""
    contexts, sets = BATCHES[name]
    qkv = inputs(contexts, sets, 24, torch.float64)
    together = call(qkv, contexts, sets)
    total = sum(contexts)
    for m in range(len(sets[0])):
        rows, at = list(range(total)), total
        for lengths in sets:
            for other, n in enumerate(lengths):
                rows += range(at, at + n) if other == m else []
                at += n
        alone = call(qkv[:, rows], contexts, [[lengths[m]] for lengths in sets])
        torch.testing.assert_close(together[rows], alone, rtol=0, atol=1e-14)


def test_gradients_are_the_derivatives():
    contexts, sets = [2, 0, 1], [[1, 0], [2, 1], [0, 0]]
    q, k, v = inputs(contexts, sets, 3, torch.float64)
    leaves = tuple(x.clone().requires_grad_() for x in (q, k, v))
    assert torch.autograd.gradcheck(lambda *qkv: call(qkv, contexts, sets), leaves)


def test_strided_views_and_scale():
    contexts, sets = BATCHES["empty sets"]
    qkv = inputs(contexts, sets, 16)
    fused = qkv.permute(1, 2, 0, 3).contiguous().permute(2, 0, 1, 3)
    plain = call((qkv[0] * 2, qkv[1], qkv[2]), contexts, sets)
    torch.testing.assert_close(call(fused, contexts, sets, scale=0.5), plain, rtol=0, atol=1e-6)


def test_dropout_is_applied_and_finite():
    contexts, sets = BATCHES["no context"]
    qkv = inputs(contexts, sets, 16)
    out = call(qkv, contexts, sets, dropout_p=0.5)
    assert out.isfinite().all()
    assert not torch.equal(out, call(qkv, contexts, sets))


def test_wrong_calls_fail_at_once():
    qkv = inputs([2, 2], [[1], [1]], 16)
    with pytest.raises(ValueError, match="3 target sets for 2 tiles"):
        shared_context_attention(*qkv, offsets([2, 2]), offsets([1, 1, 0]), 2, 1)
    with pytest.raises(ValueError, match="fast"):
        call(qkv, [2, 2], [[1], [1]], impl="fast")
    empty = torch.zeros(0, 2, 16)
    assert (
        shared_context_attention(empty, empty, empty, offsets([]), offsets([]), 0, 0).numel() == 0
    )
