"""The benchmark's tables as figures: skill by task and view, and the headline."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from geojepa.evaluation.results import Results
from geojepa.figures.style import BLUE, GREY, ORANGE, WIDTH

# worse than this is drawn at the edge
WORST = -0.5
TASK_NAMES = {
    "traffic_signals": "traffic signals",
    "building_count": "buildings",
    "max_speed": "top speed",
    "bridge": "bridge",
    "car_bridge": "car bridge",
}
HEADLINE_NAMES = {
    "skill": "Skill, masked, thinned tiles",
    "average_precision": "Average precision, masked, all tiles",
}


def label(rows: pd.DataFrame) -> pd.Series:
    """ "system · head" of each row of a table; the system alone where it has no head."""
    head = rows["probe"].where(rows["probe"] != "-", "")
    return rows["system"] + head.map(lambda name: f" · {name}" if name else "")


def plot_benchmark(table: pd.DataFrame) -> Figure:
    """Skill on thinned tiles with 95 % intervals, a panel a task, unmasked beside masked.

    Args:
        table: of `Results`, one split.
    """
    rows = table[(table["thinned"] == "thinned") & table["skill"].notna()]
    rows = rows.assign(label=label(rows))
    tasks = [task for task in TASK_NAMES if task in set(rows["task"])]
    names = list(dict.fromkeys(rows["label"]))[::-1]
    size = (WIDTH + 3, 1.3 + 0.27 * len(names))
    figure, axes = plt.subplots(1, len(tasks), figsize=size, sharey=True, squeeze=False)
    for axis, task in zip(axes[0], tasks, strict=True):
        for is_masked, colour, shift in ((False, ORANGE, 0.17), (True, BLUE, -0.17)):
            part = rows[(rows["task"] == task) & (rows["masked"] == is_masked)]
            if not len(part):
                continue
            place = np.array([names.index(name) for name in part["label"]]) + shift
            _points(axis, part, "skill", place, colour, "masked" if is_masked else "unmasked")
        axis.axvline(0, color=GREY, lw=0.8)
        axis.set(title=TASK_NAMES[task], xlim=(WORST - 0.05, 1.05), xlabel="skill")
    axes[0][0].set_yticks(range(len(names)), names)
    figure.legend(
        *axes[0][0].get_legend_handles_labels(), loc="outside upper right", ncols=2, frameon=False
    )
    return figure


def headline_table(headline: pd.DataFrame) -> pd.DataFrame:
    """The headline to read: value, interval and, of several seeds, the deviation over seeds."""
    measures = [measure for measure in HEADLINE_NAMES if measure in headline]
    rows = headline.sort_values(measures[:1], ascending=False) if measures else headline
    columns = {"": label(rows), "kind": rows["kind"]}
    for measure in measures:
        ends = (rows[measure + end] for end in ("", "_low", "_high", "_spread"))
        columns[measure] = pd.Series(
            [
                f"{value:.3f} ({low:.3f} to {high:.3f})"
                + (f" ± {spread:.3f}" if spread == spread else "")
                for value, low, high, spread in zip(*ends, strict=True)
            ],
            index=rows.index,
            dtype=object,
        )
    return pd.DataFrame(columns).reset_index(drop=True)


def difference_table(
    results: Results, one: tuple[str, str], headline: pd.DataFrame
) -> pd.DataFrame:
    """Headline of `one` (system, probe) minus that of every other row, with paired intervals."""
    rows = []
    for _, other in headline.iterrows():
        name = (other["system"], other["probe"])
        if name == one:
            continue
        row = {"minus": f"{name[0]} · {name[1]}"}
        for measure in (measure for measure in HEADLINE_NAMES if pd.notna(other.get(measure))):
            value, low, high = results.difference(one, name, other["split"], measure)
            row[measure] = f"{value:+.3f} ({low:+.3f} to {high:+.3f})"
        rows.append(row)
    return pd.DataFrame(rows)


def plot_headline(headline: pd.DataFrame) -> Figure:
    """Masked skill and average precision, averaged over tasks, best system on top.

    Thin lines are 95 % intervals over test blocks, thick ones the deviation over seeds.
    """
    measures = [measure for measure in HEADLINE_NAMES if measure in headline]
    if not measures:
        figure = plt.figure(figsize=(WIDTH, 1))
        figure.text(0, 0.5, "No masked task has enough labels here to be measured.")
        return figure
    rows = headline.assign(label=label(headline)).sort_values(measures[0], kind="stable")
    size = (WIDTH + 1, 1.2 + 0.26 * len(rows))
    figure, axes = plt.subplots(1, len(measures), figsize=size, sharey=True, squeeze=False)
    place = np.arange(len(rows))
    is_ours = rows["system"].str.startswith("GeoJEPA").to_numpy()
    for axis, measure in zip(axes[0], measures, strict=True):
        for ours, colour in ((False, GREY), (True, BLUE)):
            chosen = is_ours == ours
            _points(axis, rows[chosen], measure, place[chosen], colour)
        spread = rows[f"{measure}_spread"].to_numpy(float)
        value = rows[measure].to_numpy(float)
        axis.hlines(place, value - spread, value + spread, color="black", lw=2.5, zorder=1)
        axis.set(title=HEADLINE_NAMES[measure])
        axis.grid(axis="x", lw=0.4)
    axes[0][0].axvline(0, color=GREY, lw=0.8)
    axes[0][0].set_yticks(place, rows["label"])
    return figure


def _points(
    axis: Axes,
    rows: pd.DataFrame,
    measure: str,
    place: np.ndarray,
    colour: str,
    name: str | None = None,
) -> None:
    value = rows[measure].to_numpy(float).clip(min=WORST)
    low, high = (
        rows[f"{measure}_{end}"].to_numpy(float).clip(min=WORST) for end in ("low", "high")
    )
    axis.hlines(place, low, high, color=colour, lw=1.2)
    axis.plot(value, place, "o", color=colour, ms=4, label=name)
