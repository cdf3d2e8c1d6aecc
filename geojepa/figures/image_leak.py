"""How much of the rest of a tile one image token tells, by tokeniser."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from geojepa.figures.style import BLUE, GREY, ORANGE, WIDTH

TARGETS = {"pixels": "Colours and texture of the rest", "tokens": "Mean of the other tokens"}
PATCHES = {
    "own": ("patch of the tile: likeness of neighbours, and leak", ORANGE, "o"),
    "pasted": ("patch pasted from another tile: leak alone", BLUE, "D"),
}


def plot_leak(table: pd.DataFrame) -> Figure:
    """Held-out linear R2 from one token to the rest of its tile, with 95 % intervals.

    Args:
        table: of `leak.leak_table`, first system on top.
    """
    names = list(dict.fromkeys(table["system"]))[::-1]
    size = (WIDTH, 1.5 + 0.5 * len(names))
    figure, axes = plt.subplots(1, len(TARGETS), figsize=size, sharey=True)
    for axis, (target, title) in zip(axes, TARGETS.items(), strict=True):
        for shift, (patch, (label, colour, marker)) in zip(
            (0.14, -0.14), PATCHES.items(), strict=True
        ):
            rows = table[(table["target"] == target) & (table["patch"] == patch)]
            place = np.array([names.index(name) for name in rows["system"]]) + shift
            axis.hlines(place, rows["low"], rows["high"], color=colour, lw=1.4)
            axis.plot(rows["r2"], place, marker, color=colour, ms=5, label=label)
        axis.axvline(0, color=GREY, lw=0.8, zorder=0)
        axis.set(title=title, xlabel="R² of one token, held-out tiles")
        axis.set_xlim(min(-0.05, 1.1 * table["low"].min()), 1)
    axes[0].set_yticks(range(len(names)), names)
    axes[0].set_ylim(-0.6, len(names) - 0.4)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=2)
    return figure


def plot_pasting(images: np.ndarray, pasted: np.ndarray, is_read: np.ndarray) -> Figure:
    """Tiles above, below them the same with patches of others, framed.

    Args:
        images, pasted, is_read: of `leak.pasted_examples`.
    """
    n = len(images)
    figure, axes = plt.subplots(2, n, figsize=(WIDTH, 2.2 * WIDTH / n), squeeze=False)
    rows = (images, PATCHES["own"][1], "own"), (pasted, PATCHES["pasted"][1], "pasted")
    for line, (shown, colour, name) in zip(axes, rows, strict=True):
        for axis, image, marks in zip(line, shown, is_read, strict=True):
            axis.imshow(image)
            # along the borders of pixels
            axis.contour(marks.astype(float), levels=[0.5], colors=[colour], linewidths=1.6)
            axis.set(xticks=[], yticks=[])
        line[0].set_ylabel(name)
    return figure
