"""Probes against closed forms and planted signals."""

import time

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from geojepa.evaluation.metrics import best_constant
from geojepa.evaluation.probes import PROBES, Standard, fit_probe, ridge


def planted(task, n, seed, features=20):
    """Features and a label that depends on three of them."""
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(n, features))
    signal = x[:, 0] + 0.7 * x[:, 1] - 0.5 * x[:, 2]
    if task in ("bridge", "car_bridge"):
        return x, (signal + 0.3 * draw.normal(size=n) > 1.5) * 1.0
    if task == "max_speed":
        return x, np.round(np.clip(60 + 20 * signal + 5 * draw.normal(size=n), 10, 130), -1)
    rare = -1.5 if task == "traffic_signals" else 1.5
    return x, draw.poisson(np.exp(1.2 * signal + rare)) * 1.0


@pytest.mark.parametrize("shape", [(50, 7), (7, 50), (129, 129)], ids=str)
def test_ridge_equals_the_closed_form(shape):
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=shape), draw.normal(size=(shape[0], 2))
    x, y = x - x.mean(0), y - y.mean(0)
    penalties = np.array([0.1, 3.0, 1000.0])
    for weights, penalty in zip(ridge(x, y, penalties), penalties, strict=True):
        exact = np.linalg.solve(x.T @ x + penalty * np.eye(shape[1]), x.T @ y)
        np.testing.assert_allclose(weights, exact, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("kind", PROBES)
@pytest.mark.parametrize("task", ["traffic_signals", "building_count", "max_speed", "bridge"])
def test_every_probe_finds_a_planted_signal(kind, task):
    train, validation, (x, y) = (planted(task, n, s) for s, n in enumerate((600, 200, 400)))
    value, score = fit_probe(kind, task, train, validation).predict(x)
    constant = np.abs(y - best_constant(task, train[1])).mean()
    skill = 1 - np.abs(y - value).mean() / constant
    assert skill > {"kNN": 0.1, "LIN": 0.15}.get(kind, 0.2)
    assert value.min() >= 0
    assert value.max() <= train[1].max()
    if task == "bridge":
        assert set(np.unique(value)) <= {0.0, 1.0}
    if task != "max_speed":
        assert roc_auc_score(y > 0, score) > 0.8
    else:
        assert np.corrcoef(y, score)[0, 1] > 0.7


@pytest.mark.parametrize("kind", PROBES)
@pytest.mark.parametrize("task", ["traffic_signals", "bridge"])
def test_noise_is_not_mistaken_for_signal(kind, task):
    # zeros are nearly all: the calibrated value must not do much worse than the constant 0
    def noise(n, seed):
        draw = np.random.default_rng(seed)
        return draw.normal(size=(n, 30)), (draw.random(n) < 0.08) * 1.0

    value, _ = fit_probe(kind, task, noise(400, 0), noise(200, 1)).predict(noise(1, 2)[0])
    x, y = noise(400, 3)
    value, _ = fit_probe(kind, task, noise(400, 0), noise(200, 1)).predict(x)
    assert np.abs(y - value).mean() < y.mean() + 0.03


def test_the_threshold_is_chosen_on_validation():
    # the same features mean a rarer label in validation: half is no longer the right threshold
    x, y = planted("bridge", 2000, 0)
    x_val, _ = planted("bridge", 2000, 1)
    rare = (x_val[:, 0] + 0.7 * x_val[:, 1] - 0.5 * x_val[:, 2] > 2.5) * 1.0
    value, _ = fit_probe("LIN", "bridge", (x, y), (x_val, rare)).predict(x_val)
    assert abs(value.mean() - rare.mean()) < 0.04
    assert value.mean() < y.mean() / 2


@pytest.mark.parametrize("kind", ["LIN", "MLP"])
@pytest.mark.parametrize("task", ["traffic_signals", "bridge"])
def test_validation_without_positives_leaves_the_signal(kind, task):
    train, (x_val, y_val), (x, y) = (planted(task, n, s) for s, n in enumerate((600, 300, 300)))
    zeros = y_val == 0
    value, _ = fit_probe(kind, task, train, (x_val[zeros], y_val[zeros])).predict(x)
    assert np.abs(y - value).mean() < 0.95 * y.mean()


@pytest.mark.parametrize("kind", PROBES)
def test_degenerate_features_and_labels_pass(kind):
    draw = np.random.default_rng(0)
    x = draw.normal(size=(40, 5)) * [0, 1, 1e-9, 1e6, 1]
    x[:3] = 0
    for task, y in (("traffic_signals", np.zeros(40)), ("max_speed", np.full(40, 50.0))):
        value, score = fit_probe(kind, task, (x, y), (x[:9], y[:9])).predict(x)
        np.testing.assert_allclose(value, y, atol=1e-6)
        assert np.isfinite(score).all()
    value, _ = fit_probe(kind, "bridge", (x, np.zeros(40)), (x[:9], np.zeros(9))).predict(x)
    assert not value.any()


def test_features_constant_on_train_are_ignored():
    x = np.random.default_rng(0).normal(size=(100, 3))
    x[:, 1] = 0.1
    other = np.array([[0.0, 1e9, 0.0]])
    assert Standard.of(x)(other)[0, 1] == 0
    np.testing.assert_allclose(Standard.of(x)(x)[:, [0, 2]].std(0), 1)


def test_seeds_fix_the_mlp_and_leave_the_global_generator_alone():
    train, validation, (x, _) = (planted("bridge", n, s) for s, n in enumerate((200, 80, 50)))
    state = torch.get_rng_state()
    first, again, other = (
        fit_probe("MLP", "bridge", train, validation, seed).predict(x)[1] for seed in (0, 0, 1)
    )
    assert (first == again).all()
    assert (first != other).any()
    assert (torch.get_rng_state() == state).all()


def test_linear_probe_is_quick():
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(2000, 768)), draw.poisson(1, 2000) * 1.0
    start = time.perf_counter()
    fit_probe("LIN", "building_count", (x[:1500], y[:1500]), (x[1500:], y[1500:]))
    assert time.perf_counter() - start < 5
