"""The masking kernels on a GPU: equal to the CPU, free of synchronisation, the same every time."""

import pytest
import torch
from geojepa_kernels import compact, draw_masks
from geojepa_kernels.masking import STRATEGIES, Sizes

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
MASKS = ("targets", "cu_context", "cu_targets", "sizes")
ORDER = ("context_index", "target_index", "slots", "set_index", "set_slots")


def tiles_of(tiles=96, seed=0, images=0):
    """Tiles of 5 to 1,250 tokens, most under 200, with `images` patches each."""
    generator = torch.Generator().manual_seed(seed)
    lengths = (torch.randn(tiles, generator=generator) * 0.9 + 4).exp().int().clamp(5, 1250)
    lengths[0], lengths[1] = 1250, 0
    lengths = torch.where(lengths > 0, lengths + images, lengths)
    cu = torch.nn.functional.pad(lengths.cumsum(0), (1, 0)).int()
    n = int(cu[-1])
    box = torch.rand(n, 1, 2, generator=generator) * 1.2 - 0.1
    box = (box + torch.randn(n, 4, 2, generator=generator) * 0.02).flatten(1)
    box[::50] *= 1e6
    # halves of a unit, to be rounded to even
    box[::7] = (box[::7] * 65536).floor().add(0.5) / 65536
    modality = torch.randint(2, (n,), generator=generator).to(torch.uint8)
    keys = torch.randint(-(2**62), 2**62, (tiles,), generator=generator)
    return cu, box, modality, keys, int(lengths.max())


def on_gpu(arguments):
    return [x.cuda() if torch.is_tensor(x) else x for x in arguments]


def rule(strategy, **more):
    return dict(
        strategy=strategy, seed=2**32 - 2, step=2**31 + 5, size=350, min_context=150, **more
    )


@pytest.mark.parametrize("images", [0, 196])
@pytest.mark.parametrize("sets", [1, 4, 8])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_gpu_draws_and_orders_what_the_cpu_does(strategy, sets, images):
    arguments = tiles_of(seed=sets, images=images)
    # many sets of many modalities as well
    options = rule(strategy, target_sets=sets, modalities=max(sets + 1, 2))
    ours = draw_masks(*on_gpu(arguments), **options)
    theirs = draw_masks(*arguments, impl="reference", **options)
    for name in MASKS:
        assert torch.equal(getattr(ours, name).cpu(), getattr(theirs, name)), name
    packed = compact(ours, arguments[0].cuda())
    expected = compact(theirs, arguments[0], impl="reference")
    assert packed.by_kernel
    assert packed.sizes == expected.sizes
    for name in ORDER:
        assert torch.equal(getattr(packed, name).cpu(), getattr(expected, name)), name


@pytest.mark.parametrize("step", [0, 1, 2**31 - 1, 2**31, 2**32 - 1])
@pytest.mark.parametrize("seed", [0, 1, 2**31, 2**32 - 1])
def test_every_word_of_the_key_counts_on_a_gpu(seed, step):
    arguments = tiles_of(tiles=4)
    options = rule("random") | {"seed": seed, "step": step}
    ours, theirs = draw_masks(*on_gpu(arguments), **options), draw_masks(*arguments, **options)
    assert torch.equal(ours.targets.cpu(), theirs.targets)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("width", [1, 24, 192, 384, 1000])
def test_rows_and_gradients_equal_indexing(width, dtype):
    cu, *_ = arguments = on_gpu(tiles_of())
    packed = compact(draw_masks(*arguments, **rule("area")), cu)
    x = torch.randn(len(arguments[1]), width, device="cuda").to(dtype).requires_grad_()
    for name, index in (("context", packed.context_index), ("targets", packed.target_index)):
        taken = getattr(packed, name)(x)
        assert torch.equal(taken, x[index])
        # halves: sums of few are exact
        gradient = torch.randint_like(taken, -8, 8) / 2
        (found,) = torch.autograd.grad(taken, x, gradient)
        assert torch.equal(found, torch.zeros_like(x).index_add(0, index, gradient))


def test_nothing_waits_for_the_gpu_and_repeats_are_identical():
    arguments = on_gpu(tiles_of())
    cu, tokens = arguments[0], len(arguments[1])
    sizes = Sizes.of(draw_masks(*arguments, **rule("area")).sizes.tolist())
    x = torch.randn(tokens, 384, device="cuda", requires_grad=True)
    weight = torch.randn(sizes.targets, 384, device="cuda")

    def step():
        packed = compact(draw_masks(*arguments, **rule("area")), cu, sizes)
        targets = packed.targets(x)
        sets = sum((m + 1) * part.sum() for m, part in enumerate(packed.by_set(targets * weight)))
        (packed.context(x).square().sum() + sets).backward()
        gradient, x.grad = x.grad, None
        return targets.detach(), gradient

    # compiles the kernels
    first = step()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        repeats = [step() for _ in range(3)]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for repeat in repeats:
        for one, other in zip(first, repeat, strict=True):
            assert torch.equal(one, other)


def test_totals_arrive_without_padding():
    arguments = on_gpu(tiles_of())
    masks = draw_masks(*arguments, **rule("contiguous"))
    packed = compact(masks, arguments[0])
    assert len(packed.context_index) == int((masks.targets == 0).sum())
    assert len(packed.target_index) == int(masks.cu_targets[-1]) == sum(packed.sizes.sets)


def test_no_tiles_launch_nothing():
    cu = torch.zeros(1, dtype=torch.int32, device="cuda")
    box, modality = torch.empty(0, 8, device="cuda"), torch.empty(0, device="cuda").byte()
    masks = draw_masks(cu, box, modality, torch.empty(0, device="cuda").long(), 0, **rule("area"))
    packed = compact(masks, cu)
    assert packed.sizes == Sizes(0, 0, 0, 0, (0, 0, 0, 0))
    assert packed.targets(torch.ones(0, 4, device="cuda")).shape == (0, 4)
