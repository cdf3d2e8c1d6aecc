"""How a run went: its losses, its gradients, its schedules and the rank of what it learned."""

import json
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from geojepa.errors import GeoJEPAError
from geojepa.figures.style import BLUE, GREEN, GREY, ORANGE, PINK, RED, WIDTH

STRATEGY_COLOURS = {"random": BLUE, "area": ORANGE, "modality": GREEN, "contiguous": PINK}


def read_metrics(folder: str | Path) -> pd.DataFrame:
    """One row a step, as a run's metrics.jsonl holds them.

    Raises:
        GeoJEPAError: no such file, or an empty one.
    """
    path = Path(folder) / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.is_file() else []
    if not lines:
        raise GeoJEPAError(f"{path}: holds no step; pretrain the run first")
    return pd.DataFrame([json.loads(line) for line in lines])


def loss_by_strategy(metrics: pd.DataFrame) -> pd.DataFrame:
    """Mean of the loss terms over the first and the last tenth of the steps, by strategy."""
    tenth = max(1, len(metrics) // 10)
    parts = {"first tenth": metrics[:tenth], "last tenth": metrics[-tenth:]}
    terms = ["prediction", "regulariser", "gradient_norm"]
    frames = {name: part.groupby("strategy")[terms].mean() for name, part in parts.items()}
    return pd.concat(frames, axis=1).round(3)


def plot_curves(metrics: pd.DataFrame) -> Figure:
    """Ten panels over the steps: losses, gradients, masks, what is watched, schedules."""
    figure, axes = plt.subplots(2, 5, figsize=(WIDTH + 8, 5.2), sharex=True)
    _by_strategy(axes[0, 0], metrics, "prediction", "Prediction loss (smooth L1)")
    _by_strategy(axes[0, 1], metrics, "regulariser", "Regulariser (25 variance + covariance)")
    axes[0, 0].legend(title="masks", title_fontsize=9)
    _of_modalities(axes[0, 2], metrics)
    norm = axes[0, 3]
    norm.plot(metrics["step"], metrics["gradient_norm"], ".", color=GREY, ms=2, alpha=0.5)
    norm.plot(metrics["step"], smooth(metrics["gradient_norm"]), color=RED)
    norm.set(title="Gradient norm, before clipping", yscale="log")
    ranks = {
        "effective_rank": "tiles, RankMe",
        "lidar": "tiles, LiDAR",
        "token_rank": "tokens, RankMe",
        "token_lidar": "tokens, LiDAR",
    }
    _watched(axes[1, 0], metrics, ranks, "Effective ranks, validation tiles")
    axes[1, 0].set_ylim(0, 1.8 * axes[1, 0].get_ylim()[1])
    _watched(axes[1, 1], metrics, {"probe": "R²"}, "Probe, masked, validation tiles")
    _watched(axes[1, 2], metrics, {"agreement": "cosine"}, "Student and teacher, cosine")
    _shares(axes[1, 3], metrics)
    axes[0, 4].plot(metrics["step"], metrics["learning_rate"], color=BLUE)
    axes[0, 4].set(title="Learning rate", ylim=(0, None))
    axes[1, 4].plot(metrics["step"], 1 - metrics["momentum"], color=BLUE)
    axes[1, 4].set(title="Teacher: 1 − momentum", yscale="log")
    for axis in axes[1]:
        axis.set_xlabel("step")
    return figure


def smooth(values: pd.Series, how: str = "median") -> pd.Series:
    """Running median, or mean, over a twentieth of the values."""
    window = max(1, len(values) // 20)
    return values.rolling(window, center=True, min_periods=1).agg(how)


def _watched(axis: Axes, metrics: pd.DataFrame, names: dict[str, str], title: str) -> None:
    """Measures of some steps, by column and what they are called; absent ones leave a gap."""
    for (name, label), colour in zip(names.items(), (BLUE, ORANGE, GREEN, PINK), strict=False):
        if name in metrics:
            measured = metrics.dropna(subset=name)
            axis.plot(measured["step"], measured[name], "o-", color=colour, ms=4, label=label)
    if len(names) > 1 and axis.lines:
        axis.legend(loc="upper right", handlelength=1)
    axis.set(title=title)
    axis.margins(y=0.1)


def _of_modalities(axis: Axes, metrics: pd.DataFrame) -> None:
    """The prediction loss of each modality's tokens, where it has targets."""
    prefix = "prediction_"
    names = [name for name in metrics if name.startswith(prefix)]
    for name, colour in zip(names, (BLUE, ORANGE, GREEN, PINK), strict=False):
        part = metrics.dropna(subset=name)
        axis.plot(part["step"], smooth(part[name]), color=colour, label=name[len(prefix) :])
    axis.legend(loc="upper right")
    axis.set(title="Prediction loss by modality", ylim=(0, None))


def _shares(axis: Axes, metrics: pd.DataFrame) -> None:
    """How many of a step's tokens are context, and how many are in one target set."""
    for name, colour in (("context_share", BLUE), ("target_share", ORANGE)):
        values = 100 * metrics[name]
        axis.plot(metrics["step"], values, ".", color=colour, ms=2, alpha=0.35)
        axis.plot(metrics["step"], smooth(values, "mean"), color=colour, label=name.split("_")[0])
    axis.legend(loc="upper right")
    axis.set(title="Masks: % of the tokens", ylim=(0, 100))


def _by_strategy(axis: Axes, metrics: pd.DataFrame, term: str, title: str) -> None:
    for strategy, colour in STRATEGY_COLOURS.items():
        part = metrics[metrics["strategy"] == strategy]
        if len(part):
            axis.plot(part["step"], part[term], ".", color=colour, ms=2, alpha=0.35)
            axis.plot(part["step"], smooth(part[term]), color=colour, label=strategy)
    axis.set(title=title)
    axis.margins(y=0.1)
    axis.set_ylim(bottom=0)
