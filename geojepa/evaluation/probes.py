"""Small heads on frozen features: linear, MLP, nearest neighbours, boosting; chosen on validation.

A head learns a label on a suitable scale: log1p of a count, a speed as it is, a bridge as 0 or 1.
Its `value` is calibrated for MAE on validation; its `score` ranks tiles.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import ThreadpoolController
from torch import nn

from geojepa.errors import GeoJEPAError
from geojepa.evaluation.metrics import BINARY

COUNTS = frozenset({"traffic_signals", "building_count"})
# penalties of ridge for each training tile, on standardised features
PENALTIES = np.logspace(-4, 4, 17)
NEIGHBOURS = (1, 2, 5, 10, 20, 50, 100)
SCALES = (1.0, 0.5, 0.7, 0.85, 1.2, 1.5, 2.0)
THRESHOLDS = 200
HIDDEN, DROPOUT, RATE, DECAY, EPOCHS, PATIENCE = 512, 0.1, 1e-3, 1e-2, 200, 10

# features -> (value, score) on the label's scale, both (T,)
Raw = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


_controller = cache(ThreadpoolController)


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep BLAS and OpenMP to one thread: heads are small, and threads wait on a busy machine."""
    with _controller().limit(limits=1):
        yield


@dataclass(frozen=True)
class Predictor:
    """A fitted head with the calibration chosen on validation.

    Attributes:
        raw: the head before calibration.
        task: what it predicts.
        source: 0 or 1, which output of `raw` gives the value.
        threshold: outputs up to it become 0.
        scale: factor on counts.
        bounds: lowest and highest label of train.
        setting: what was chosen on validation, for the record.
    """

    raw: Raw
    task: str
    source: int
    threshold: float
    scale: float
    bounds: tuple[float, float]
    setting: str

    def predict(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return value (a label, within those of train) and score (higher: more), both (T,)."""
        with one_thread():
            outputs = self.raw(np.asarray(features))
        value = _value(self.task, outputs[self.source], self.threshold, self.scale)
        return np.clip(value, *self.bounds), outputs[1]


@one_thread()
def fit_probe(
    kind: str,
    task: str,
    train: tuple[np.ndarray, np.ndarray],
    validation: tuple[np.ndarray, np.ndarray],
    seed: int = 0,
) -> Predictor:
    """Fit a head to frozen features.

    Args:
        kind: one of `PROBES`; LIN and kNN draw nothing.
        task: a task's name; fixes the scale and the loss.
        train: features (n, F) and labels (n,), without NaN.
        validation: the same of other tiles, on which everything is chosen.
        seed: of weights, order of tiles and dropout.
    """
    scale = Standard.of(train[0])
    x, x_val = scale(train[0]), scale(validation[0])
    y, y_val = (_to_scale(task, np.asarray(part[1], float)) for part in (train, validation))
    fitted, setting = PROBES[kind](task, x, y, x_val, y_val, seed)
    chosen = _calibrate(task, (fitted(x_val), validation[1]), (fitted(x), train[1]))
    bounds = (0.0, 1.0) if task in BINARY else (float(np.min(train[1])), float(np.max(train[1])))
    if task in COUNTS:
        bounds = (0.0, bounds[1])
    return Predictor(lambda features: fitted(scale(features)), task, *chosen, bounds, setting)


@dataclass(frozen=True)
class Standard:
    """Features to mean 0 and deviation 1 of train; those constant on train to 0."""

    mean: np.ndarray
    factor: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray) -> "Standard":
        """Take mean and deviation from features (n, F)."""
        features = np.asarray(features, np.float64)
        deviation = features.std(0)
        live = deviation > 1e-7 * np.maximum(1, np.abs(features).max(0, initial=0))
        return cls(features.mean(0), np.divide(1, deviation, out=0 * deviation, where=live))

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Return the standardised features, float64."""
        return (np.asarray(features, np.float64) - self.mean) * self.factor


def ridge(x: np.ndarray, y: np.ndarray, penalties: np.ndarray) -> np.ndarray:
    """Solve |x w - y|^2 + penalty |w|^2 exactly for every penalty, by one eigendecomposition.

    Shapes: x (n, F) and y (n, S), both centred; penalties (P,), positive; result (P, F, S).
    """
    if x.shape[0] < x.shape[1]:
        power, basis = np.linalg.eigh(x @ x.T)
        right, left = basis.T @ y, x.T @ basis
    else:
        power, basis = np.linalg.eigh(x.T @ x)
        right, left = basis.T @ (x.T @ y), basis
    shrunk = right / (np.maximum(power, 0)[:, None] + penalties[:, None, None])
    return left @ shrunk


def _linear(task, x, y, x_val, y_val, seed) -> tuple[Raw, str]:
    """Ridge on the label's scale; for counts also on the counts, calibration takes the better."""
    mean, setting = _ridge(x, y, x_val, y_val)
    if task not in COUNTS:
        return lambda f: (mean(f), mean(f)), setting
    counts, other = _ridge(x, np.expm1(y), x_val, np.expm1(y_val))
    return lambda f: (np.log1p(np.maximum(counts(f), 0)), mean(f)), f"{setting}, {other}"


def _ridge(x, y, x_val, y_val) -> tuple[Callable[[np.ndarray], np.ndarray], str]:
    mean = y.mean()
    weights = ridge(x, (y - mean)[:, None], PENALTIES * len(x))[..., 0]
    best = int(np.square(weights @ x_val.T + mean - y_val).mean(1).argmin())
    return lambda f: f @ weights[best] + mean, f"penalty {PENALTIES[best]:g}"


def _neighbours(task, x, y, x_val, y_val, seed) -> tuple[Raw, str]:
    index = NearestNeighbors(algorithm="brute").fit(x)
    counts = [k for k in NEIGHBOURS if k <= len(x)]
    near = y[index.kneighbors(x_val, counts[-1], return_distance=False)]
    best = min(counts, key=lambda k: np.square(near[:, :k].mean(1) - y_val).mean())

    def raw(features):
        found = y[index.kneighbors(features, best, return_distance=False)]
        return np.median(found, 1), found.mean(1)

    return raw, f"k {best}"


def _boosting(task, x, y, x_val, y_val, seed) -> tuple[Raw, str]:
    shape = {
        "max_iter": 300,
        "max_leaf_nodes": 8,
        "min_samples_leaf": 3,
        "early_stopping": True,
        "n_iter_no_change": 10,
        "random_state": seed,
    }
    if task in BINARY and len(np.unique(y)) == 2:
        kind = HistGradientBoostingClassifier(**shape).fit(x, y, X_val=x_val, y_val=y_val)
        return lambda f: (kind.decision_function(f),) * 2, f"rounds {kind.n_iter_}"
    median, mean = (
        HistGradientBoostingRegressor(loss=loss, **shape).fit(x, y, X_val=x_val, y_val=y_val)
        for loss in ("absolute_error", "squared_error")
    )
    rounds = f"rounds {median.n_iter_}, {mean.n_iter_}"
    return lambda f: (median.predict(f), mean.predict(f)), rounds


def _mlp(task, x, y, x_val, y_val, seed) -> tuple[Raw, str]:
    is_binary = task in BINARY
    centre, spread = (0.0, 1.0) if is_binary else (y.mean(), max(y.std(), 1e-6))
    tensors = [torch.as_tensor(part, dtype=torch.float32) for part in (x, x_val)]
    labels = [torch.as_tensor((part - centre) / spread, dtype=torch.float32) for part in (y, y_val)]

    def loss(out: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        if is_binary:
            return nn.functional.binary_cross_entropy_with_logits(out[:, 1], target)
        median, mean = (out - target[:, None]).unbind(1)
        return median.abs().mean() + mean.square().mean()

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net, epochs = _train_mlp(tensors, labels, loss)

    @torch.inference_mode()
    def raw(features):
        out = net(torch.as_tensor(features, dtype=torch.float32)).double().numpy()
        return (out[:, 1],) * 2 if is_binary else tuple((out * spread + centre).T)

    return raw, f"epochs {epochs}"


def _train_mlp(tensors, labels, loss) -> tuple[nn.Module, int]:
    """Train until validation has not improved for PATIENCE epochs; return the best weights."""
    (x, x_val), (y, y_val) = tensors, labels
    net = nn.Sequential(
        nn.Linear(x.shape[1], HIDDEN), nn.GELU(), nn.Dropout(DROPOUT), nn.Linear(HIDDEN, 2)
    )
    optimizer = torch.optim.AdamW(net.parameters(), lr=RATE, weight_decay=DECAY, fused=True)
    size = 64 if len(x) < 1000 else 256
    least, best, at = float("inf"), {}, -1
    for epoch in range(EPOCHS):
        net.train()
        for rows in torch.randperm(len(x)).split(size):
            optimizer.zero_grad()
            loss(net(x[rows]), y[rows]).backward()
            optimizer.step()
        net.eval()
        with torch.no_grad():
            held = loss(net(x_val), y_val).item()
        if held < least:
            least, at = held, epoch
            best = {name: tensor.clone() for name, tensor in net.state_dict().items()}
        if epoch - at >= PATIENCE:
            break
    if not best:
        raise GeoJEPAError("MLP head: its loss is never a finite number; look at the features")
    net.load_state_dict(best)
    return net.eval(), at + 1


def _calibrate(task, validation, train) -> tuple[int, float, float]:
    """Choose output, threshold and scale of least MAE on validation; train decides between equals.

    Train also decides where validation lacks zeros or positives and so cannot tell a threshold.

    Args:
        task: fixes which of them there are to choose.
        validation, train: the head's outputs and the labels of each.
    """
    thresholded = task in COUNTS or task in BINARY
    positive = np.asarray(validation[1]) > 0
    parts = [(1.0, validation), (1e-6, train)]
    if thresholded and positive.all() | ~positive.any():
        parts = [(1.0, train)]
    best = (np.inf, 0, -np.inf, 1.0)
    for source in (0, 1):
        ranked = np.unique(np.concatenate([validation[0][source], train[0][source]]))
        middles = (ranked[1:] + ranked[:-1]) / 2
        cuts = middles[:: max(1, len(middles) // THRESHOLDS)] if thresholded else []
        tried = np.array([-np.inf, *cuts, np.inf] if thresholded else [-np.inf])
        for scale in SCALES if task in COUNTS else SCALES[:1]:
            error = sum(
                weight * np.abs(_value(task, raw[source], tried[:, None], scale) - label).mean(1)
                for weight, (raw, label) in parts
            )
            # the middle of the thresholds that do equally well
            ties = np.flatnonzero(error <= error.min() + 1e-12)
            at = ties[len(ties) // 2]
            if error[at] < best[0] - 1e-12:
                best = (error[at], source, float(tried[at]), scale)
    return best[1:]


def _to_scale(task: str, label: np.ndarray) -> np.ndarray:
    return np.log1p(label) if task in COUNTS else label


def _value(task, out, threshold, scale) -> np.ndarray:
    if task in BINARY:
        return (out > threshold) * 1.0
    if task in COUNTS:
        return np.where(out > threshold, scale * np.expm1(np.clip(out, 0, 20)), 0.0)
    return np.where(out > threshold, out, 0.0)


PROBES = {"LIN": _linear, "MLP": _mlp, "kNN": _neighbours, "GBM": _boosting}
