"""Metrics against hand-made numbers, scikit-learn and simulation."""

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import average_precision_score, roc_auc_score

from geojepa.evaluation import metrics

ONES = np.ones((1, 4))


def test_errors_by_hand():
    label, value = np.array([0, 0, 2, 6.0]), np.array([0, 1, 2, 3.0])
    assert metrics.mae(ONES, label, value) == pytest.approx([1])
    assert metrics.mae_positive(label, value) == pytest.approx(1.5)
    # the constant 1 errs by 1, 1, 1 and 5
    assert metrics.skill(ONES, label, value, np.ones(4)) == pytest.approx([0.5])
    assert np.isnan(metrics.skill(ONES, np.ones(4), value, np.ones(4))).all()
    # weighting a tile twice is having it twice
    assert metrics.mae(np.array([[1, 1, 1, 2.0]]), label, value) == pytest.approx([7 / 5])
    assert np.isnan(metrics.mae_positive(np.zeros(4), value))


def test_best_constants():
    assert metrics.best_constant("max_speed", np.array([30, 50, 50, 120])) == 50
    assert metrics.best_constant("traffic_signals", np.array([0, 0, 0, 3])) == 0
    assert metrics.best_constant("bridge", np.array([0, 1, 1])) == 1
    assert metrics.best_constant("bridge", np.array([0, 0, 1, 1])) == 0


@pytest.mark.parametrize("n", [7, 50, 129])
@pytest.mark.parametrize("levels", [3, 10_000])
def test_ranks_equal_scikit_learn(n, levels):
    draw = np.random.default_rng(n)
    label = draw.poisson(0.7, n) * 1.0
    score = (draw.integers(0, levels, n) + 2 * label) / 7
    weight = np.stack([np.ones(n), draw.integers(0, 4, n)])
    for row, ours in zip(weight, metrics.auroc(weight, label, score), strict=True):
        assert ours == pytest.approx(roc_auc_score(label > 0, score, sample_weight=row))
    for row, ours in zip(weight, metrics.average_precision(weight, label, score), strict=True):
        assert ours == pytest.approx(average_precision_score(label > 0, score, sample_weight=row))
    assert metrics.spearman(label, score) == pytest.approx(spearmanr(label, score)[0])


def test_ranks_without_two_classes_are_undefined():
    score = np.arange(4.0)
    assert np.isnan(metrics.auroc(ONES, np.zeros(4), score)).all()
    assert np.isnan(metrics.auroc(ONES, np.ones(4), score)).all()
    assert np.isnan(metrics.average_precision(ONES, np.zeros(4), score)).all()
    assert np.isnan(metrics.spearman(np.ones(4), score))


def test_a_constant_score_is_chance():
    label = np.array([0, 0, 0, 1.0])
    assert metrics.auroc(ONES, label, np.zeros(4)) == pytest.approx([0.5])
    assert metrics.average_precision(ONES, label, np.zeros(4)) == pytest.approx([0.25])


def thinning(n=2000):
    draw = np.random.default_rng(0)
    place = draw.choice(["a", "b"], n).astype(object)
    label = np.where(place == "a", draw.poisson(0.1, n), draw.poisson(2.0, n)) * 1.0
    label[draw.random(n) < 0.1] = np.nan
    return label, place, np.array([f"16_{i}_{i}" for i in range(n)], object)


def test_thinning_draws_zeros_down_never_up():
    label, place, keys = thinning()
    keep = metrics.thinned(label, place, keys)
    assert keep[label > 0].all()
    assert not keep[np.isnan(label)].any()
    for name in "ab":
        here = place == name
        positives, zeros = (here & (label > 0)).sum(), (here & (label == 0)).sum()
        assert (keep & here & (label == 0)).sum() == min(positives, zeros)
    assert (label[place == "b"] == 0).sum() < (label[place == "b"] > 0).sum()


def test_thinning_depends_on_seed_and_tile_alone():
    label, place, keys = thinning()
    keep = metrics.thinned(label, place, keys)
    order = np.random.default_rng(1).permutation(len(label))
    assert (metrics.thinned(label[order], place[order], keys[order]) == keep[order]).all()
    assert (metrics.thinned(label, place, keys, seed=1) != keep).any()
    # tiles of another place change nothing here
    here = place == "a"
    assert (metrics.thinned(label[here], place[here], keys[here]) == keep[here]).all()


def test_replicates_do_not_depend_on_chunks(monkeypatch):
    draw = np.random.default_rng(0)
    block, label = draw.integers(0, 9, 100), draw.poisson(1, 100) * 1.0
    score, draws = draw.random(100), metrics.block_draws(9, 50)
    whole = metrics.replicate(metrics.auroc, draws, block, label, score)
    monkeypatch.setattr(metrics, "CHUNK", 700)
    assert (metrics.replicate(metrics.auroc, draws, block, label, score) == whole).all()
    assert whole[0] == pytest.approx(roc_auc_score(label > 0, score))
    # replicate 7 by hand: each block's tiles as often as the block was drawn
    rows = np.concatenate([np.tile(np.flatnonzero(block == b), draws[7, b]) for b in range(9)])
    assert whole[7] == pytest.approx(roc_auc_score(label[rows] > 0, score[rows]))


def test_block_intervals_cover_where_tiles_of_a_block_err_alike():
    draw, covered, narrow = np.random.default_rng(0), 0, 0
    block = np.repeat(np.arange(40), 8)
    draws, single = metrics.block_draws(40, 300), metrics.block_draws(320, 300)
    for _ in range(200):
        value = 3 + np.repeat(draw.normal(size=40), 8) + draw.normal(size=320)
        zero = np.zeros(320)
        mean = lambda weight, label, value: (weight @ value) / weight.sum(1)  # noqa: E731
        _, low, high = metrics.interval(metrics.replicate(mean, draws, block, zero, value))
        covered += low <= 3 <= high
        _, low, high = metrics.interval(
            metrics.replicate(mean, single, np.arange(320), zero, value)
        )
        narrow += low <= 3 <= high
    assert 0.89 <= covered / 200 <= 0.99
    # tiles taken for independent would promise too much
    assert narrow / 200 < 0.75


def test_paired_differences_are_sharper_than_two_intervals():
    draw = np.random.default_rng(0)
    block, zero = np.repeat(np.arange(30), 10), np.zeros(300)
    hard = np.repeat(draw.gamma(2, size=30), 10)
    one, two = hard + 0.1 * draw.random(300), hard + 0.1 + 0.1 * draw.random(300)
    draws = metrics.block_draws(30)
    first, second = (metrics.replicate(metrics.mae, draws, block, zero, v) for v in (one, two))
    assert metrics.interval(first)[2] > metrics.interval(second)[1]
    value, low, high = metrics.interval(second - first)
    assert 0 < low < value < high
    assert value == pytest.approx((two - one).mean())


def test_an_interval_of_nothing_is_empty():
    assert np.isnan(metrics.interval(np.full(5, np.nan))).all()
