"""Packed attention against a softmax written out in float64, one sequence and head at a time."""

import math

import pytest
import torch
from geojepa_kernels import attention
from geojepa_kernels.attention.ways import WAYS, compare_ways

LENGTHS = [[0], [1], [7, 50, 63], [129, 0, 300], [0, 1, 7, 0]]


def offsets(lengths):
    return torch.tensor([0, *lengths]).cumsum(0).int()


def by_hand(q, k, v, queries, keys, scale=None):
    """softmax(q k' scale) v in float64, written out."""
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    q, k, v = (x.double() for x in (q, k, v))
    out, at, first = torch.zeros_like(q), 0, 0
    for n, m in zip(queries, keys, strict=True):
        for head in range(q.shape[1] if n * m else 0):
            scores = q[at : at + n, head] @ k[first : first + m, head].T * scale
            weights = (scores - scores.max(1, keepdim=True).values).exp()
            weights = weights / weights.sum(1, keepdim=True)
            out[at : at + n, head] = weights @ v[first : first + m, head]
        at, first = at + n, first + m
    return out


def draw(tokens, heads=2, head_dim=16, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(tokens, heads, head_dim, generator=generator, dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
@pytest.mark.parametrize("head_dim", [16, 24, 32, 48, 64])
def test_self_attention_is_softmax(lengths, head_dim):
    q, k, v = (draw(sum(lengths), 2, head_dim, seed) for seed in range(3))
    cu = offsets(lengths)
    out = attention(q, k, v, cu, cu, max(lengths), max(lengths))
    torch.testing.assert_close(out.double(), by_hand(q, k, v, lengths, lengths), rtol=0, atol=3e-6)


@pytest.mark.parametrize(
    ("queries", "keys"),
    [([7, 50, 1], [63, 1, 129]), ([3, 0, 5], [0, 4, 7]), ([300], [300]), ([4], [0])],
    ids=str,
)
def test_cross_attention_is_softmax(queries, keys):
    q, k, v = draw(sum(queries), seed=0), draw(sum(keys), seed=1), draw(sum(keys), seed=2)
    out = attention(q, k, v, offsets(queries), offsets(keys), max(queries), max(keys), scale=0.3)
    exact = by_hand(q, k, v, queries, keys, 0.3)
    assert not out.isnan().any()
    torch.testing.assert_close(out.double(), exact, rtol=0, atol=3e-6)


@pytest.mark.parametrize("dropout_p", [0.0, 0.1])
def test_a_query_without_keys_returns_zeros_and_no_nan_gradient(dropout_p):
    q, k, v = draw(5).requires_grad_(), draw(4, seed=1).requires_grad_(), draw(4, seed=2)
    queries, keys = offsets([3, 2, 0]), offsets([0, 3, 1])
    out = attention(q, k, v, queries, keys, 3, 3, dropout_p=dropout_p)
    out.sum().backward()
    assert (out[:3] == 0).all()
    assert (q.grad[:3] == 0).all()
    assert (k.grad[3] == 0).all()
    assert q.grad.isfinite().all()
    assert k.grad.isfinite().all()


@pytest.mark.parametrize(("queries", "keys"), [([2, 0, 3], [4, 1, 0]), ([1, 5], [1, 2])], ids=str)
def test_gradients_are_the_derivatives(queries, keys):
    q, k, v = (
        draw(sum(n), 2, 3, seed, torch.float64).requires_grad_()
        for seed, n in enumerate([queries, keys, keys])
    )
    cu_q, cu_k = offsets(queries), offsets(keys)
    assert torch.autograd.gradcheck(lambda *qkv: attention(*qkv, cu_q, cu_k, 5, 4), (q, k, v))


def test_the_blocked_path_agrees_with_the_stored_one():
    lengths = [300, 20]
    leaf = draw(sum(lengths), 6, 24).requires_grad_()
    exact = leaf.detach().double().requires_grad_()
    grad = draw(sum(lengths), seed=9, head_dim=24)
    cu = offsets(lengths)
    q, k, v = leaf.split(2, dim=1)
    attention(q, k, v, cu, cu, 300, 300).backward(grad)
    by_hand(*exact.split(2, dim=1), lengths, lengths).backward(grad.double())
    torch.testing.assert_close(leaf.grad.double(), exact.grad, rtol=0, atol=5e-6)


def test_strided_views_give_what_copies_give():
    fused = draw(60, 6, 24)
    q, k, v = fused.unflatten(1, (3, 2)).unbind(1)
    backward = torch.empty(24, 2, 60).permute(2, 1, 0).copy_(q)
    cu = offsets([10, 50])
    copies = attention(*(x.contiguous() for x in (q, k, v)), cu, cu, 50, 50)
    torch.testing.assert_close(attention(q, k, v, cu, cu, 50, 50), copies, rtol=0, atol=1e-6)
    torch.testing.assert_close(attention(backward, k, v, cu, cu, 50, 50), copies, rtol=0, atol=1e-6)


def test_a_sequence_does_not_depend_on_its_batch():
    q, k, v = (draw(200, seed=seed) for seed in range(3))
    together, alone = offsets([70, 130]), offsets([130])
    batch = attention(q, k, v, together, together, 130, 130)[70:]
    single = attention(q[70:], k[70:], v[70:], alone, alone, 130, 130)
    torch.testing.assert_close(batch, single, rtol=0, atol=1e-6)


def test_dropout_keeps_the_mean():
    torch.manual_seed(0)
    q, k = draw(4, 1, 16), draw(6, 1, 16, seed=1)
    v = torch.ones(6, 1, 16)
    cu_q, cu_k = offsets([4] * 2000), offsets([6] * 2000)
    q, k, v = (x.repeat(2000, 1, 1) for x in (q, k, v))
    out = attention(q, k, v, cu_q, cu_k, 4, 6, dropout_p=0.1)[..., 0]
    assert out.std() > 0.05
    assert abs(out.mean() - 1) < 5 * out.std() / math.sqrt(out.numel())


def test_an_empty_batch_and_an_unknown_impl():
    empty, cu = torch.zeros(0, 2, 16), offsets([])
    assert attention(empty, empty, empty, cu, cu, 0, 0).shape == (0, 2, 16)
    with pytest.raises(ValueError, match="fast"):
        attention(empty, empty, empty, cu, cu, 0, 0, impl="fast")


def test_every_way_computes_the_same():
    rows = compare_ways([3, 17, 17, 40], heads=2, head_dim=16, repeats=1)
    assert [row.way for row in rows] == list(WAYS)
    assert all(row.max_error < 5e-6 and row.median_ms > 0 for row in rows)
