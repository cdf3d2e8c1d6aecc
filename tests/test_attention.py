"""Packed attention against a softmax written out, for the reference and for the kernel."""

import math

import pytest
import torch
from attention_oracle import (
    DEVICE,
    DTYPES,
    assert_as_exact_as_torch,
    by_pairs,
    draw,
    offsets,
    same_sequence,
    values_and_gradients,
)
from geojepa_kernels import attention
from geojepa_kernels.attention.dropout import FINALISER, threshold_of
from mask_oracle import philox

LENGTHS = [[0], [1], [7, 50, 63], [129, 0, 200], [0, 1, 7, 0]]
CROSS = [([7, 50, 1], [63, 1, 129]), ([3, 0, 5], [0, 4, 7]), ([300], [30]), ([4], [0])]
IMPLS = ["reference", "triton"]


def call(queries, keys, **options):
    """attention of q, k, v for lengths of queries and keys."""
    cu_q, cu_k = offsets(queries), offsets(keys)
    return lambda q, k, v: attention(q, k, v, cu_q, cu_k, max(queries), max(keys), **options)


def qkv(queries, keys, head_dim, dtype=torch.float32, heads=2):
    """Random q, k and v."""
    return [
        draw(sum(n), heads, head_dim, seed=seed, dtype=dtype)
        for seed, n in enumerate((queries, keys, keys))
    ]


@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("impl", IMPLS)
def test_self_attention_is_as_exact_as_torch(impl, dtype, lengths):
    for head_dim in (16, 24, 32, 48, 64, 96, 128) if max(lengths) < 100 else (24, 48):
        assert_as_exact_as_torch(
            call(lengths, lengths, impl=impl),
            qkv(lengths, lengths, head_dim, dtype),
            same_sequence(lengths, lengths),
        )


@pytest.mark.parametrize(("queries", "keys"), CROSS, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("impl", IMPLS)
def test_cross_attention_is_as_exact_as_torch(impl, dtype, queries, keys):
    assert_as_exact_as_torch(
        call(queries, keys, impl=impl, scale=0.3),
        qkv(queries, keys, 48, dtype),
        same_sequence(queries, keys),
        scale=0.3,
    )


@pytest.mark.parametrize("impl", IMPLS)
def test_the_longest_tile_is_as_exact_as_torch(impl):
    assert_as_exact_as_torch(
        call([1250], [1250], impl=impl),
        qkv([1250], [1250], 24, torch.float16, heads=1),
        same_sequence([1250], [1250]),
    )


@pytest.mark.parametrize("impl", IMPLS)
def test_every_row_is_written(impl):
    """PyTorch fills new memory with NaN in its deterministic mode."""
    torch.use_deterministic_algorithms(True)
    try:
        for queries, keys in [*CROSS, ([0, 70], [70, 0])]:
            inputs = qkv(queries, keys, 24)
            results = values_and_gradients(call(queries, keys, impl=impl), inputs, inputs[0])
            assert all(x.isfinite().all() for x in results)
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("impl", IMPLS)
def test_strided_views_give_what_copies_give(impl):
    lengths = [10, 50]
    fused = draw(60, 3 * 2 * 24)
    views = fused.unflatten(1, (3, 2, 24)).unbind(1)
    turned = torch.empty(24, 2, 60, device=DEVICE).permute(2, 1, 0).copy_(views[0])
    heads_first = draw(2, 60, 24).transpose(0, 1)
    for inputs in (views, (turned, views[1], heads_first), [x[:, :, :23] for x in views]):
        copies = [x.contiguous() for x in inputs]
        function = call(lengths, lengths, impl=impl)
        for x, y in zip(
            values_and_gradients(function, inputs, copies[0]),
            values_and_gradients(function, copies, copies[0]),
            strict=True,
        ):
            torch.testing.assert_close(x, y, rtol=0, atol=1e-6)


@pytest.mark.parametrize("impl", IMPLS)
def test_a_sequence_does_not_depend_on_its_batch(impl):
    q, k, v = qkv([200], [200], 16)
    batch = call([70, 130], [70, 130], impl=impl)(q, k, v)[70:]
    single = call([130], [130], impl=impl)(q[70:], k[70:], v[70:])
    torch.testing.assert_close(batch, single, rtol=0, atol=1e-6)


def test_two_runs_of_the_kernel_are_the_same_bits():
    inputs = qkv([7, 130, 64], [7, 130, 64], 24)
    runs = [
        values_and_gradients(call([7, 130, 64], [7, 130, 64], impl="triton"), inputs, inputs[0])
        for _ in range(2)
    ]
    assert all(torch.equal(x, y) for x, y in zip(*runs, strict=True))


@pytest.mark.parametrize(("queries", "keys"), [([2, 0, 3], [4, 1, 0]), ([1, 5], [1, 2])], ids=str)
@pytest.mark.parametrize("dropout_p", [0.0, 0.3])
def test_gradients_of_the_reference_are_the_derivatives(queries, keys, dropout_p):
    inputs = [x.requires_grad_() for x in qkv(queries, keys, 3, torch.float64)]

    def function(q, k, v):
        torch.manual_seed(5)
        return call(queries, keys, dropout_p=dropout_p)(q, k, v)

    assert torch.autograd.gradcheck(function, inputs)


def kept_by_hand(seed, queries, keys, heads, dropout_p):
    """Which pairs are kept, with Python integers."""
    key = seed & 0xFFFFFFFF, seed >> 32

    def word(row, head, side):
        return philox((row, head, side, 0), key)[0]

    def stir(x):
        for shift, factor in FINALISER:
            x = (x ^ (x >> shift)) * factor & 0xFFFFFFFF
        return x ^ (x >> 16)

    return torch.tensor(
        [
            [
                [stir(word(i, h, 0) ^ word(j, h, 1)) >= threshold_of(dropout_p) for j in keys]
                for i in queries
            ]
            for h in range(heads)
        ],
        device=DEVICE,
    )


@pytest.mark.parametrize("impl", IMPLS)
def test_dropout_drops_the_pairs_of_the_rule(impl):
    lengths = [3, 70]
    inputs = qkv(lengths, lengths, 16)
    torch.manual_seed(3)
    seed = int(torch.randint(1 << 62, (1,), device=DEVICE))
    kept = kept_by_hand(seed, range(73), range(73), 2, 0.25)
    sees = same_sequence(lengths, lengths)
    function = call(lengths, lengths, dropout_p=0.25, impl=impl)

    def seeded(*inputs):
        torch.manual_seed(3)
        return function(*inputs)

    found = values_and_gradients(seeded, inputs, inputs[0])
    exact = values_and_gradients(
        lambda *x: by_pairs(*x, sees, factors=kept / 0.75), [x.double() for x in inputs], inputs[0]
    )
    for x, y in zip(found, exact, strict=True):
        torch.testing.assert_close(x.double(), y, rtol=0, atol=1e-5)


def test_dropout_is_fair():
    """Each row and column of pairs drops its share, and neighbours are independent."""
    from geojepa_kernels.attention.dropout import keep_pairs, row_words

    words = [[row_words(torch.tensor([9 << 40 | 7]), 1000, 2, side)] for side in (0, 1)]
    kept = keep_pairs(*words, threshold_of(0.1))[0].double()
    sigma = math.sqrt(0.09 / 1000)
    assert abs(kept.mean() - 0.9) < 5 * sigma / math.sqrt(2000)
    for axis in (1, 2):
        z = (kept.mean(axis) - 0.9) / sigma
        assert z.abs().max() < 5
        assert 0.9 < z.std() < 1.1
    dropped = kept - kept.mean()
    for other in (dropped.roll(1, 1), dropped.roll(1, 2), dropped.flip(0)):
        assert abs((dropped * other).mean() / dropped.square().mean()) < 5 / math.sqrt(2e6)


def test_dropout_differs_from_call_to_call_and_spares_the_generator_when_off():
    inputs = qkv([40], [40], 16)
    function = call([40], [40], dropout_p=0.5)
    assert not torch.equal(function(*inputs), function(*inputs))
    torch.manual_seed(1)
    call([40], [40])(*inputs)
    after = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(after, torch.rand(1))


@pytest.mark.parametrize("dropout_p", [0.0, 0.1])
@pytest.mark.parametrize("impl", IMPLS)
def test_a_query_without_keys_returns_zeros_and_no_nan_gradient(impl, dropout_p):
    inputs = qkv([3, 2, 0], [0, 3, 1], 16)
    function = call([3, 2, 0], [0, 3, 1], impl=impl, dropout_p=dropout_p)
    out, dq, dk, dv = values_and_gradients(function, inputs, torch.ones_like(inputs[0]))
    assert (out[:3] == 0).all()
    assert (dq[:3] == 0).all()
    assert (dk[3] == 0).all()
    assert (dv[3] == 0).all()
    assert all(x.isfinite().all() for x in (dq, dk, dv))


@pytest.mark.parametrize("impl", IMPLS)
def test_an_empty_batch_and_wrong_calls(impl):
    empty, cu = torch.zeros(0, 2, 16, device=DEVICE), offsets([])
    assert attention(empty, empty, empty, cu, cu, 0, 0, impl=impl).shape == (0, 2, 16)
    q, k, _ = qkv([3], [4], 16)
    for wrong, message in (
        ((q, k, q), "k and v alike"),
        ((q, k[:, :1], k[:, :1]), "heads of q"),
        ((q, k.half(), k.half()), "one dtype"),
    ):
        with pytest.raises(ValueError, match=message):
            call([3], [4], impl=impl)(*wrong)
    with pytest.raises(ValueError, match="different numbers"):
        call([3], [4, 0], impl=impl)(q, k, k)
    with pytest.raises(ValueError, match=r"in \[0, 1\)"):
        call([3], [4], impl=impl, dropout_p=1.0)(q, k, k)
    with pytest.raises(ValueError, match="fast"):
        call([3], [4], impl="fast")(q, k, k)


def test_the_kernel_says_what_it_is_not_made_for(monkeypatch):
    q, k, v = qkv([3], [3], 160)
    with pytest.raises(ValueError, match="not made for"):
        call([3], [3], impl="triton")(q, k, v)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    if DEVICE == "cpu":
        with pytest.raises(ValueError, match="needs tensors on a GPU"):
            call([3], [3], impl="triton")(*(x[..., :32] for x in (q, k, v)))


@pytest.mark.parametrize("sets", [0, 2])
def test_the_operator_keeps_pytorchs_rules(sets):
    from geojepa_kernels.attention.operator import ragged_attention

    lengths = ([5, 3], [4, 4]) if not sets else ([5, 3], [2, 3, 1, 2])
    rows = (8, 8) if not sets else (16, 16)
    q = draw(rows[0], 2, 16).requires_grad_()
    k, v = (draw(rows[1], 2, 16, seed=seed).requires_grad_() for seed in (1, 2))
    seed = torch.zeros(1, dtype=torch.int64, device=DEVICE)
    cu = offsets(lengths[0]), offsets(lengths[1])
    torch.library.opcheck(ragged_attention, (q, k, v, *cu, seed, sets, 0.0, 0.25))


@pytest.mark.parametrize("impl", IMPLS)
def test_torch_compile_accepts_it(impl):
    inputs = qkv([5, 9], [5, 9], 16)
    cu = offsets([5, 9])

    def function(q, k, v):
        return attention(q * 2, k, v, cu, cu, 9, 9, impl=impl).sum(1)

    # without a compiler: the graph is captured, and run as it is
    compiled = torch.compile(function, backend="aot_eager", fullgraph=impl == "triton")
    torch.testing.assert_close(compiled(*inputs), function(*inputs), rtol=0, atol=1e-6)
