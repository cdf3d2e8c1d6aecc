"""Masks against the rules written out with Python integers, and against their stated properties."""

from collections import Counter

import numpy as np
import pytest
import torch
from geojepa_kernels import compact, draw_masks, draw_strategy
from geojepa_kernels.choice import interprets
from geojepa_kernels.masking import STRATEGIES, Sizes
from geojepa_kernels.masking.philox import philox
from geojepa_kernels.masking.reference import box_centres
from hypothesis import given, settings
from hypothesis import strategies as st
from mask_oracle import UNIT, Tile

# Random123 1.14, tests/kat_vectors, philox4x32 with 10 rounds: counter, key, expected words.
KNOWN_ANSWERS = [
    "00000000 00000000 00000000 00000000 00000000 00000000 6627e8d5 e169c58d bc57ac4c 9b00dbd8",
    "ffffffff ffffffff ffffffff ffffffff ffffffff ffffffff 408f276d 41c83b0e a20bc7c6 6d5451fd",
    "243f6a88 85a308d3 13198a2e 03707344 a4093822 299f31d0 d16cfe09 94fdcceb 5001e420 24126ea1",
]


class Batch:
    """Random tiles: `counts` tokens each, boxes partly outside the tile, a share of images."""

    def __init__(self, counts, seed=0, images=0.4):
        rng = np.random.default_rng(seed)
        self.counts, n = list(counts), sum(counts)
        self.cu = torch.tensor([0, *counts]).cumsum(0).int()
        centre = rng.uniform(-0.05, 1.05, (n, 1, 2)) * (rng.random((n, 1, 1)) < 0.9)
        corners = centre + rng.normal(0, 0.05, (n, 4, 2))
        self.box = torch.from_numpy(corners.reshape(n, 8).astype(np.float32))
        self.modality = torch.from_numpy((rng.random(n) < images).astype(np.uint8))
        self.keys = torch.from_numpy(rng.integers(-(2**63), 2**63, len(counts)))

    def draw(self, tiles=None, **options):
        """Masks of all tiles, or of some in that order."""
        tiles = range(len(self.counts)) if tiles is None else tiles
        rows = [t for i in tiles for t in range(int(self.cu[i]), int(self.cu[i + 1]))]
        cu = torch.tensor([0, *(self.counts[i] for i in tiles)]).cumsum(0).int()
        return draw_masks(
            cu,
            self.box[rows],
            self.modality[rows],
            self.keys[list(tiles)],
            max((self.counts[i] for i in tiles), default=0),
            **options,
        )

    def oracle(self, seed, step):
        box, modality = self.box.tolist(), self.modality.tolist()
        for i, key in enumerate(self.keys.tolist()):
            span = slice(int(self.cu[i]), int(self.cu[i + 1]))
            yield Tile(box[span], modality[span], key, seed, step)


def options(strategy="random", seed=0, step=0, size=450, min_context=100, **more):
    return dict(strategy=strategy, seed=seed, step=step, size=size, min_context=min_context, **more)


# Triton's interpreter is slow: it takes one example in eight
# on a GPU, test_masking_kernel.py and test_masking_gpu.py
IMPLS = ["reference"] + ["triton"] * interprets()
impls = st.sampled_from(["reference"] * 7 + IMPLS[1:])
counts = st.lists(st.integers(0, 40), min_size=1, max_size=5)
words = st.integers(0, 2**32 - 1)
strategy_names = st.sampled_from(STRATEGIES)


@pytest.mark.parametrize("line", KNOWN_ANSWERS)
def test_philox_gives_the_published_answers(line):
    numbers = [int(word, 16) for word in line.split()]
    counter, key, expected = tuple(numbers[:4]), tuple(numbers[4:6]), tuple(numbers[6:])
    assert philox(counter, key) == expected
    tensors = tuple(torch.tensor([word]) for word in counter)
    assert tuple(int(word) for word in philox(tensors, key)) == expected


@settings(max_examples=150, deadline=None)
@given(counts, strategy_names, words, words, st.integers(1, 1000), st.integers(0, 1000), impls)
def test_masks_follow_the_rules_bit_for_bit(counts, strategy, seed, step, size, min_context, impl):
    batch = Batch(counts, seed % 1000)
    sets, modalities = 1 + seed % 8, 2 + step % 2
    if sum(counts):
        batch.modality[:: 1 + step % 3] += modalities - 2
    masks = batch.draw(
        **options(strategy, seed, step, size, min_context),
        target_sets=sets,
        modalities=modalities,
        impl=impl,
    )
    found = masks.targets.tolist()
    for tile, start in zip(batch.oracle(seed, step), batch.cu.tolist(), strict=False):
        expected = tile.masks(strategy, size, min_context, sets, modalities)
        assert len(expected) == masks.target_sets
        bits = [sum((t in chosen) << m for m, chosen in enumerate(expected)) for t in range(tile.n)]
        assert found[start : start + tile.n] == bits


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_tiles_of_real_size_follow_the_rules(strategy, impl):
    batch = Batch([0, 1, 5, 50, 63, 129, 1250], seed=3)
    batch.box[60:70] *= 1e6
    chosen = options(strategy, seed=1, step=77, size=350, min_context=150, impl=impl)
    masks = batch.draw(**chosen)
    for tile, start in zip(batch.oracle(1, 77), batch.cu.tolist(), strict=False):
        expected = tile.masks(strategy, 350, 150, masks.target_sets, 2)
        for m, chosen in enumerate(expected):
            bit = masks.targets[start : start + tile.n] >> m & 1
            assert bit.nonzero()[:, 0].tolist() == sorted(chosen)


@settings(max_examples=60, deadline=None)
@given(counts, strategy_names, words, st.integers(1, 1000), st.integers(0, 1000), impls)
def test_the_context_is_disjoint_and_large_enough(counts, strategy, step, size, min_context, impl):
    masks = Batch(counts).draw(**options(strategy, 0, step, size, min_context, impl=impl))
    assert torch.equal(masks.context, masks.targets == 0)
    for part, n in zip(masks.context.split(counts), counts, strict=True):
        assert n == 0 or part.sum() >= max(1, -(-min_context * n // 1000))


@settings(max_examples=60, deadline=None)
@given(counts, strategy_names, words, st.randoms(use_true_random=False), impls)
def test_a_tile_does_not_depend_on_its_batch(counts, strategy, step, random, impl):
    batch, chosen = Batch(counts), options(strategy, step=step, impl=impl)
    together = batch.draw(**chosen).targets.split(counts)
    order = random.sample(range(len(counts)), len(counts))
    shuffled = batch.draw(order, **chosen).targets
    for i, part in zip(order, shuffled.split([counts[i] for i in order]), strict=True):
        assert torch.equal(part, together[i])
    alone = batch.draw(order[:1], **chosen).targets
    assert torch.equal(alone, together[order[0]])


@pytest.mark.parametrize("strategy", ["random", "contiguous"])
def test_sets_have_the_size_of_the_integer_rule(strategy):
    counts = [1, 7, 20, 180, 1000]
    masks = Batch(counts).draw(**options(strategy, size=350, min_context=0, target_sets=2))
    for m in range(2):
        sizes = [int((part >> m & 1).sum()) for part in masks.targets.split(counts)]
        # a tile of one token keeps it as context
        assert sizes == [0, 2, 7, 63, 350]


def test_an_area_is_a_rectangle_of_the_stated_size():
    grid = (torch.arange(100) + 0.5) / 100
    centres = torch.cartesian_prod(grid, grid)
    tiles = 30
    masks = draw_masks(
        torch.arange(tiles + 1, dtype=torch.int32) * len(centres),
        centres.repeat(tiles, 1),
        torch.zeros(tiles * len(centres), dtype=torch.uint8),
        torch.arange(tiles),
        len(centres),
        **options("area", size=350, min_context=0),
    )
    inside = torch.stack([masks.targets.view(tiles, 100, 100) >> m & 1 for m in range(4)]).bool()
    columns, rows = inside.any(3), inside.any(2)
    # a rectangle is the product of its two sides
    assert torch.equal(inside, columns[..., None] & rows[..., None, :])
    # clipped at the tile's edge it loses area, never gains any
    share = inside.float().mean((2, 3))
    assert share.max() < 0.38
    assert 0.2 < share.mean() < 0.35
    ratio = columns.sum(2) / rows.sum(2)
    assert ratio.min() < 0.7
    assert ratio.max() > 1.5


def test_rectangles_keep_to_their_bounds():
    for step in range(300):
        tile = Tile([], [], tile_key=5, seed=1, step=step)
        x, y, width, height = tile.rectangle(350, 0)
        assert abs(width * height / UNIT**2 - 0.35) < 1e-4 or max(width, height) == UNIT
        for low, length in ((x, width), (y, height)):
            assert low >= -6554
            assert low + length <= 72090


def test_an_area_tile_without_targets_takes_random_ones():
    batch = Batch([12])
    batch.box[:] = 40.0
    masks = batch.draw(**options("area", size=350))
    expected = batch.draw(**options("random", size=350))
    assert masks.targets.any()
    assert torch.equal(masks.targets, expected.targets)


def test_modality_hides_all_but_one():
    batch = Batch([60] * 200)
    masks = batch.draw(**options("modality", min_context=0))
    assert masks.target_sets == 1
    shown = [
        set(m[c].tolist())
        for m, c in zip(batch.modality.split(60), masks.context.split(60), strict=True)
    ]
    assert all(len(kinds) == 1 for kinds in shown)
    assert 70 < sum(kinds == {0} for kinds in shown) < 130


def test_another_seed_step_or_tile_gives_another_mask():
    batch = Batch([200])
    masks = [
        batch.draw(**options(seed=seed, step=step)).targets
        for seed, step in ((0, 0), (1, 0), (0, 1), (2**32 - 1, 2**32 - 1))
    ]
    batch.keys += 1 << 32
    masks.append(batch.draw(**options()).targets)
    assert len({tuple(mask.tolist()) for mask in masks}) == 5


def test_centres_round_each_corner_to_the_unit():
    box = torch.tensor([[0.0, 0.0, 1.0, 0.0, 1.0, 1.0, 0.0, 1.0]])
    assert box_centres(box).tolist() == [[UNIT // 2, UNIT // 2]]
    assert box_centres(torch.tensor([[0.25, -0.5]])).tolist() == [[UNIT // 4, -UNIT // 2]]


def test_every_token_is_chosen_equally_often():
    batch = Batch([20] * 500)
    masks = batch.draw(**options(size=500, min_context=0, target_sets=1))
    share = masks.targets.view(500, 20).float().mean(0)
    # five standard deviations of a share of 500 tiles
    assert (share - 0.5).abs().max() < 5 * (0.25 / 500) ** 0.5


def test_the_sets_of_a_tile_are_independent():
    masks = Batch([1000]).draw(**options(size=500, min_context=0, target_sets=8))
    bits = (masks.targets[:, None] >> torch.arange(8) & 1).double()
    correlation = torch.corrcoef(bits.T) - torch.eye(8)
    assert correlation.abs().max() < 5 / 1000**0.5


def test_strategies_are_drawn_as_often_as_stated():
    probabilities = {"random": 200, "area": 600, "modality": 200}
    steps = 20_000
    drawn = Counter(draw_strategy(7, step, probabilities) for step in range(steps))
    for strategy, share in probabilities.items():
        p = share / 1000
        assert abs(drawn[strategy] - steps * p) < 5 * (steps * p * (1 - p)) ** 0.5
    repeats = [draw_strategy(7, step, probabilities) for step in range(50)]
    assert repeats == [draw_strategy(7, step, probabilities) for step in range(50)]
    assert draw_strategy(0, 0, {"area": 0, "random": 1000}) == "random"


@settings(max_examples=60, deadline=None)
@given(counts, strategy_names, words, impls)
def test_compact_orders_by_tile_then_set_then_token(counts, strategy, step, impl):
    batch = Batch(counts)
    masks = batch.draw(**options(strategy, step=step, impl=impl))
    packed = compact(masks, batch.cu, impl=impl)
    edges, bits, sets = batch.cu.tolist(), masks.targets.tolist(), masks.target_sets
    cu_context, cu_targets = packed.cu_context, packed.cu_targets
    assert cu_targets.numel() == len(counts) * sets + 1
    assert cu_context.dtype == cu_targets.dtype == torch.int32
    by_set = [[] for _ in range(sets)]
    for i in range(len(counts)):
        tokens = range(edges[i], edges[i + 1])
        expected = [t for t in tokens if bits[t] == 0]
        assert packed.context_index[cu_context[i] : cu_context[i + 1]].tolist() == expected
        for m in range(sets):
            j = i * sets + m
            expected = [t for t in tokens if bits[t] >> m & 1]
            assert packed.target_index[cu_targets[j] : cu_targets[j + 1]].tolist() == expected
            by_set[m] += range(int(cu_targets[j]), int(cu_targets[j + 1]))
    assert packed.set_index.tolist() == [row for rows in by_set for row in rows]
    sizes = [len(packed.context_index), len(packed.target_index)]
    longest = [int(cu.diff().max()) for cu in (cu_context, cu_targets)]
    assert packed.sizes == Sizes(*sizes, *longest, tuple(map(len, by_set)))
    assert [cu_context[-1], cu_targets[-1]] == sizes


@pytest.mark.parametrize(
    "wrong",
    [
        {"strategy": "checkerboard"},
        {"size": 0},
        {"size": 0.35},
        {"min_context": 1001},
        {"target_sets": 9},
        {"seed": -1},
        {"step": 2**32},
        {"impl": "fast"},
    ],
    ids=str,
)
def test_wrong_calls_fail_at_once(wrong):
    with pytest.raises(ValueError, match="|".join(map(str, wrong.values()))):
        Batch([3]).draw(**{**options(), **wrong})


def test_probabilities_must_be_whole():
    with pytest.raises(ValueError, match="1000 together"):
        draw_strategy(0, 0, {"random": 250, "area": 700})


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("counts", [[], [0], [0, 0]], ids=str)
def test_a_batch_without_tokens_has_empty_masks(counts, impl):
    batch = Batch(counts)
    for strategy in STRATEGIES:
        masks = batch.draw(**options(strategy, impl=impl))
        packed = compact(masks, batch.cu, impl=impl)
        assert packed.cu_targets.tolist() == [0] * (len(counts) * masks.target_sets + 1)
        assert packed.sizes == Sizes(0, 0, 0, 0, (0,) * masks.target_sets)
        assert packed.targets(torch.ones(0, 3)).shape == (0, 3)
