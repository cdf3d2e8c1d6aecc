"""Differences from a recipe as figures: of its changes, of other systems, city by city."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from geojepa.evaluation.ablation import MEAN
from geojepa.figures.benchmark import HEADLINE_NAMES, label
from geojepa.figures.style import BLUE, GREY, WIDTH

FAR = ("Dummy", "Count")
BASELINES = (*FAR, "TagCount", "TagPool (mean, max)", "TagPool (sum, max)", "Untrained")


def plot_factors(table: pd.DataFrame, base: str = "recipe") -> Figure:
    """Difference from the recipe with its paired 95 % interval: runs in blue, baselines in grey.

    Dummy and Count are so far below all others that they are told at the edge where they lie
    beyond the others' reach.

    Args:
        table: of `factor_table`.
        base: the system that all are compared with.
    """
    rows = table[table["system"] != base].sort_values("skill_difference")
    is_run = ~rows["system"].isin(BASELINES).to_numpy()
    names = rows["system"].where(is_run, label(rows))
    figure, axes = plt.subplots(
        1, 2, figsize=(WIDTH + 1, 1.2 + 0.26 * len(rows)), sharey=True, squeeze=False
    )
    place = np.arange(len(rows))
    name = "that of the recipe" if base == "recipe" else f"that of {base}"
    is_far = rows["system"].isin(FAR).to_numpy()
    for axis, (measure, title) in zip(axes[0], HEADLINE_NAMES.items(), strict=True):
        ends = rows[[f"{measure}_low", f"{measure}_high"]]
        reach = 1.15 * np.nanmax(np.abs(ends[~is_far].to_numpy()), initial=0.05)
        beyond = is_far & (ends[f"{measure}_low"] < -reach).to_numpy()
        for at, value in zip(place[beyond], rows[beyond][f"{measure}_difference"], strict=True):
            axis.text(
                -reach,
                at,
                f" \N{LEFTWARDS ARROW} {value:.2f}",
                color=GREY,
                va="center_baseline",
                size=8,
            )
        axis.set(xlim=(-reach, reach), ylim=(-0.7, len(rows) - 0.3))
        axis.locator_params(axis="x", nbins=5)
        for chosen, colour in ((~is_run, GREY), (is_run, BLUE)):
            chosen = chosen & ~beyond
            _draw(axis, rows[chosen], measure, place[chosen], colour)
        axis.set(title=title, xlabel=f"minus {name}")
    axes[0][0].set_yticks(place, names)
    return figure


def plot_effects(table: pd.DataFrame) -> Figure:
    """Effects of four factors with their 95 % intervals in blue, those of their pairs in grey.

    Args:
        table: of `factorial.effects`.
    """
    rows = table[::-1]
    is_pair = (rows["effect"].str.len() > 1).to_numpy()
    names = rows["effect"].where(is_pair, rows["effect"] + "   " + rows["system"])
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH + 1, 1.2 + 0.26 * len(rows)), sharey=True)
    place = np.arange(len(rows))
    for axis, (measure, title) in zip(axes, HEADLINE_NAMES.items(), strict=True):
        for chosen, colour in ((is_pair, GREY), (~is_pair, BLUE)):
            _draw(axis, rows[chosen], measure, place[chosen], colour)
        axis.locator_params(axis="x", nbins=5)
        axis.set(title=title, xlabel="runs with it minus runs without")
    axes[0].set_yticks(place, names)
    return figure


def _draw(
    axis: Axes, rows: pd.DataFrame, measure: str, place: Sequence[int] | np.ndarray, colour: str
) -> None:
    """Differences and their intervals, each on its line, around a black zero."""
    low, high = rows[f"{measure}_low"], rows[f"{measure}_high"]
    axis.hlines(place, low, high, color=colour, lw=1.2)
    axis.plot(rows[f"{measure}_difference"], place, "o", color=colour, ms=4)
    axis.axvline(0, color="black", lw=0.8)
    axis.grid(axis="x", lw=0.4)


def plot_cities(table: pd.DataFrame, base: str) -> Figure:
    """What a preset gains over others in each city that it was trained without: both measures.

    The mean of the cities is black. Dummy and Count are left to the table.

    Args:
        table: of `factor_table`, a split for each city.
        base: the preset.
    """
    rows = table[~table["system"].isin((base, *FAR)) & table["skill_difference"].notna()]
    rows = rows.assign(label=label(rows), city=rows["split"].str.removeprefix("place "))
    # the table has the others minus the preset
    numbers = rows.columns[rows.columns.str.endswith(("_difference", "_low", "_high"))]
    rows[numbers] *= -1
    others = list(dict.fromkeys(rows["label"]))
    cities = list(dict.fromkeys(rows["city"]))[::-1]
    figure, axes = plt.subplots(
        len(HEADLINE_NAMES),
        len(others),
        figsize=(1.6 * len(others) + 1.5, 2.6 + 0.5 * len(cities)),
        sharex="row",
        sharey=True,
        squeeze=False,
    )
    for line, (measure, title) in zip(axes, HEADLINE_NAMES.items(), strict=True):
        for axis, other in zip(line, others, strict=True):
            for is_mean, colour in ((False, BLUE), (True, "black")):
                part = rows[(rows["label"] == other) & ((rows["city"] == MEAN) == is_mean)]
                place = [cities.index(city) for city in part["city"]]
                _draw(axis, part, measure, place, colour)
            axis.set(title=other.replace(" \N{MIDDLE DOT} ", "\n"))
        line[0].set_xlabel(f"gained in {title[0].lower() + title[1:]}", loc="left")
    axes[0][0].set_yticks(range(len(cities)), cities)
    return figure
