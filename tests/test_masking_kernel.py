"""The masking kernels against the plain version, in Triton's interpreter or on a GPU."""

import pytest
import torch
from geojepa_kernels import compact, draw_masks
from geojepa_kernels.masking import STRATEGIES, Sizes
from geojepa_kernels.masking.rows import sum_rows, take_rows
from torch.library import opcheck

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
LENGTHS = [0, 1, 5, 50, 63, 129, 1250, 0]


def tiles_of(lengths, modalities=3, coordinates=8):
    """cu_seqlens, box, modality, tile_key and the longest tile."""
    generator = torch.Generator().manual_seed(1)
    n = sum(lengths)
    box = torch.rand(n, coordinates, generator=generator) * 1.2 - 0.1
    box[::17] *= 1e6
    # halves of a unit, to be rounded to even
    box[::5] = (box[::5] * 65536).floor().add(0.5) / 65536
    modality = torch.randint(modalities, (n,), generator=generator).to(torch.uint8)
    keys = torch.randint(-(2**62), 2**62, (len(lengths),), generator=generator)
    cu = torch.tensor([0, *lengths]).cumsum(0).int()
    return *(x.to(DEVICE) for x in (cu, box, modality, keys)), max(lengths)


def packed_of(lengths, impl):
    arguments = tiles_of(lengths)
    rule = dict(strategy="random", seed=1, step=2, size=450, min_context=100)
    masks = draw_masks(*arguments, impl=impl, **rule)
    return compact(masks, arguments[0], impl=impl), sum(lengths)


@pytest.mark.parametrize("coordinates", [2, 8])
@pytest.mark.parametrize(("sets", "min_context"), [(1, 0), (4, 150), (8, 900)])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_kernel_draws_and_orders_as_the_reference(strategy, sets, min_context, coordinates):
    lengths = LENGTHS if sets == 4 else LENGTHS[:6]
    arguments = tiles_of(lengths, coordinates=coordinates)
    rule = dict(strategy=strategy, seed=2**32 - 2, step=2**32 - 1 - sets, size=350)
    rule |= dict(min_context=min_context, target_sets=sets, modalities=3)
    ours = draw_masks(*arguments, impl="triton", **rule)
    theirs = draw_masks(*arguments, impl="reference", **rule)
    assert_equal(ours, theirs, ("targets", "cu_context", "cu_targets", "sizes"))
    sizes = Sizes.of(theirs.sizes.tolist())
    packed = compact(ours, arguments[0], sizes, impl="triton")
    names = ("context_index", "target_index", "slots", "set_index", "set_slots")
    assert_equal(packed, compact(theirs, arguments[0], impl="reference"), names)


def assert_equal(ours, theirs, names):
    for name in names:
        a, b = getattr(ours, name), getattr(theirs, name)
        assert a.dtype == b.dtype, name
        assert torch.equal(a, b), name


def test_every_set_empty_takes_random_ones():
    cu, box, modality, keys, longest = tiles_of([12, 40])
    arguments = cu, box.fill_(40.0), modality.fill_(1), keys, longest
    for strategy in ("area", "modality"):
        rule = dict(seed=0, step=0, size=350, min_context=100, target_sets=1, impl="triton")
        masks = [draw_masks(*arguments, strategy=name, **rule) for name in (strategy, "random")]
        assert masks[0].targets.any()
        assert torch.equal(masks[0].targets, masks[1].targets)


def test_tiles_too_long_for_a_program_are_refused_by_the_kernel_alone():
    cu, box, modality, keys, longest = tiles_of([4097])
    rule = dict(strategy="random", seed=0, step=0, size=350, min_context=100)
    assert draw_masks(cu, box, modality, keys, longest, **rule).targets.any()
    with pytest.raises(ValueError, match="not made for such inputs"):
        draw_masks(cu, box, modality, keys, longest, impl="triton", **rule)


@pytest.mark.parametrize("shape", [(), (1,), (7,), (3, 50), (600,)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_rows_and_their_gradient_equal_indexing(shape, dtype):
    (ours, n), (theirs, _) = (packed_of([0, 1, 50, 63], impl) for impl in ("triton", "reference"))
    # halves: sums of few are exact
    x = torch.randint(-8, 8, (n, *shape)).div(2).to(DEVICE, dtype).requires_grad_()
    for name in ("context", "targets"):
        taken, expected = (getattr(packed, name)(x) for packed in (ours, theirs))
        assert torch.equal(taken, expected)
        gradient = torch.randint_like(taken, -8, 8) / 2
        pair = [torch.autograd.grad(y, x, gradient)[0] for y in (taken, expected)]
        assert torch.equal(*pair)
    packed = torch.randn(ours.sizes.targets, *shape).to(DEVICE, dtype).requires_grad_()
    sets = [
        torch.cat([part * (m + 1) for m, part in enumerate(p.by_set(packed))])
        for p in (ours, theirs)
    ]
    assert torch.equal(*sets)
    assert torch.equal(*(torch.autograd.grad(y.sum(), packed)[0] for y in sets))


def test_rows_of_a_strided_tensor():
    packed, n = packed_of([5, 50], "triton")
    x = torch.randn(9, n, device=DEVICE).T
    assert torch.equal(packed.context(x), x[packed.context_index])


def test_operators_keep_to_their_registration():
    packed, n = packed_of([1, 50], "triton")
    x = torch.randn(n, 6, device=DEVICE, requires_grad=True)
    opcheck(take_rows, (x, packed.target_index, packed.slots[1:]))
    opcheck(sum_rows, (torch.randn(packed.sizes.targets, 6, device=DEVICE), packed.slots[1:]))
