"""The tiles of a step: each once an epoch, equally many, and nearly equally many tokens."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geojepa.training.presets import preset
from geojepa.training.sampling import (
    dropped_half,
    passes_per_step,
    rows_of_pass,
    rows_of_step,
    steps_per_epoch,
)

CONFIG = preset("small-gti")


def heavy_tailed(tiles: int, seed: int = 0) -> np.ndarray:
    """Tokens of tiles, a few of them many times the median."""
    return np.random.default_rng(seed).lognormal(4, 1, tiles).astype(int) + 1


def batches_of(rows, lengths, config, epoch: int = 0) -> list[np.ndarray]:
    per_epoch = steps_per_epoch(len(rows), config)
    return [rows_of_step(rows, config, epoch * per_epoch + i, lengths) for i in range(per_epoch)]


@settings(max_examples=100, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 3000), min_size=1, max_size=120),
    batch_tiles=st.integers(1, 40),
    seed=st.integers(0, 2**32 - 1),
    epoch=st.integers(0, 3),
)
def test_every_tile_once_and_batches_of_one_size(lengths, batch_tiles, seed, epoch):
    config = replace(CONFIG, batch_tiles=batch_tiles, seed=seed)
    # the training tiles are not all of the corpus
    rows, lengths = np.arange(3, 3 + len(lengths)), np.array([7, 7, 7, *lengths])
    batches = batches_of(rows, lengths, config, epoch)
    assert sorted(np.concatenate(batches)) == rows.tolist()
    sizes = [len(batch) for batch in batches]
    assert max(sizes) - min(sizes) <= 1


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), tiles=st.integers(200, 700), tiles_seed=st.integers(0, 99))
def test_batches_hold_nearly_equally_many_tokens(seed, tiles, tiles_seed):
    config = replace(CONFIG, batch_tiles=20, seed=seed)
    rows, lengths = np.arange(tiles), heavy_tailed(tiles, tiles_seed)
    batches = batches_of(rows, lengths, config)
    ours = np.std([lengths[batch].sum() for batch in batches])
    order = np.random.default_rng(seed).permutation(tiles)
    plain = [lengths[batch].sum() for batch in np.array_split(order, len(batches))]
    assert ours < 0.4 * np.std(plain)


def test_halves_of_entities_are_dropped_as_often_as_stated():
    steps = 20_000
    config = preset("paper-gt")
    drawn = [dropped_half(config, step) for step in range(steps)]
    deviation = (0.15 * 0.85 * steps) ** 0.5
    for half in ("tags", "geometry"):
        assert abs(drawn.count(half) - 0.15 * steps) < 4 * deviation
    assert drawn == [dropped_half(config, step) for step in range(steps)]
    assert all(dropped_half(preset("paper-t"), step) is None for step in range(100))


def test_each_epoch_and_seed_deals_anew():
    rows, lengths = np.arange(300), heavy_tailed(300)
    dealt = [
        batches_of(rows, lengths, replace(CONFIG, seed=seed), epoch)
        for seed, epoch in ((0, 0), (0, 1), (1, 0))
    ]
    assert len({tuple(np.concatenate(batches)) for batches in dealt}) == 3
    # neither does the same company come together again
    pairs = [{(a, b) for batch in batches for a in batch for b in batch} for batches in dealt]
    again = len(pairs[0] & pairs[1]) - len(rows)
    assert again < 0.2 * len(pairs[0])


def test_long_and_short_tiles_come_at_any_place():
    """Neither the place of a batch in its epoch nor that of a tile in its batch tells a length."""
    rows, lengths = np.arange(330), heavy_tailed(330)
    config = replace(CONFIG, batch_tiles=32)
    longest = int(lengths.argmax())
    found = []
    for epoch in range(40):
        batches = batches_of(rows, lengths, config, epoch)
        step = next(i for i, batch in enumerate(batches) if longest in batch)
        found.append((step, int(np.flatnonzero(batches[step] == longest)[0])))
    steps, places = map(np.array, zip(*found, strict=True))
    assert len(set(steps.tolist())) > 6
    assert 10 < places.mean() < 23


@pytest.mark.parametrize("world", [2, 3, 5])
def test_any_number_of_processes_trains_on_the_same_tiles(world):
    rows, lengths = np.arange(10, 241), heavy_tailed(250)
    config = replace(CONFIG, batch_tiles=64, pass_tiles=20)
    for number in range(passes_per_step(len(rows), config) * steps_per_epoch(len(rows), config)):
        alone = rows_of_pass(rows, config, number, lengths, 0, 1)
        dealt = [rows_of_pass(rows, config, number, lengths, r, world) for r in range(world)]
        assert sorted(np.concatenate(dealt)) == sorted(alone)
