"""Labels by tile, on maps; and the two rules of counting them, side by side."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, PowerNorm, to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from geojepa.data.corpus import Corpus
from geojepa.data.labels import TASKS
from geojepa.figures.contents import tile_table
from geojepa.figures.maps import fill, map_title
from geojepa.figures.sheet import Sheet, frame_sheet, lay_out
from geojepa.figures.style import GREY, ORANGE, SCALE, WIDTH

TITLES = {
    "traffic_signals": ("traffic signals", "number"),
    "building_count": ("buildings", "number"),
    "max_speed": ("speed limit", "highest, km/h"),
    "bridge": ("any bridge", ""),
    "car_bridge": ("bridge for cars", ""),
}
NONE, UNKNOWN = "#D0D0D0", "#F0F0F0"
# inches: of a scale below a map, and of title and labels around both
BAR, MARGIN = 0.09, 1.0


def label_table(corpus: Corpus) -> pd.DataFrame:
    """One line a tile: where it is and its five labels, empty where there is none."""
    return tile_table(corpus).join(corpus.tiles[list(TASKS)])


def draw_labels(corpus: Corpus, table: pd.DataFrame) -> Figure:
    """Draw the five labels on maps of all places; the sixth panel tells the colours."""
    first = lay_out(corpus.tiles, WIDTH / 3, 4)
    shape = first.size[0] / first.size[1] if first.is_map else 1
    # wide places stand in two columns, tall ones in one line
    columns = 2 if shape > 1.6 else 6 if shape < 0.6 else 3
    lines = 6 // columns
    sheet = lay_out(corpus.tiles, WIDTH / columns - 0.15, 7 / lines)
    figure, panels = plt.subplots(
        2 * lines,
        columns,
        figsize=(WIDTH, lines * (sheet.size[1] + BAR + MARGIN) + 0.3),
        height_ratios=[sheet.size[1], BAR] * lines,
    )
    maps, bars = panels[::2].ravel(), panels[1::2].ravel()
    for axes, bar, task in zip(maps, bars, TASKS, strict=False):
        frame_sheet(axes, sheet, named=False)
        _draw_label(axes, bar, task, sheet, table[task].to_numpy(dtype=float))
    bars[-1].set_axis_off()
    title = map_title(corpus.tiles, sheet.rows) if sheet.is_map else "where"
    maps[-1].set_title(title, fontsize=9, color=GREY)
    _draw_key(maps[-1], sheet)
    return figure


def _draw_label(axes: Axes, bar: Axes, task: str, sheet: Sheet, values: np.ndarray) -> None:
    """`values` are those of all tiles, so that strays which no map shows still count."""
    name, unit = TITLES[task]
    axes.set_title(f"{name}\n{(values > 0).sum():,} of {len(values):,} tiles", fontsize=9)
    bar.set_axis_off()
    values = values[sheet.rows]
    known = ~np.isnan(values)
    fill(axes, sheet.shapes[~known], [UNKNOWN] * int((~known).sum()), alpha=1)
    if not known.any():
        axes.set_title(f"{name}\nno label here", fontsize=9)
        return
    shapes, values = sheet.shapes[known], values[known]
    if not unit:
        fill(axes, shapes, np.where(values > 0, ORANGE, NONE).tolist(), alpha=1)
        return
    above = values[values > 0]
    if not len(above):
        fill(axes, shapes, [NONE] * len(shapes), alpha=1)
        return
    low, top = float(above.min()), max(float(above.max()), float(above.min()) + 1)
    # counts are skewed: a square root keeps small ones apart
    norm = Normalize(low, top) if task == "max_speed" else PowerNorm(0.5, low, top)
    scale = plt.get_cmap(SCALE)
    colours = np.where((values > 0)[:, None], scale(norm(np.maximum(values, low))), to_rgba(NONE))
    fill(axes, shapes, colours, alpha=1)
    bar.set_axis_on()
    drawn = axes.figure.colorbar(ScalarMappable(norm, scale), cax=bar, orientation="horizontal")
    drawn.set_label(unit, fontsize=8)
    bar.tick_params(labelsize=8)
    bar.xaxis.set_major_locator(MaxNLocator(3, integer=True))


def _draw_key(axes: Axes, sheet: Sheet) -> None:
    marks = [
        Patch(color=ORANGE, label="yes"),
        Patch(color=NONE, label="none, no"),
        Patch(color=UNKNOWN, label="no label"),
    ]
    frame_sheet(axes, sheet)
    if sheet.is_map:
        axes.legend(handles=marks, loc="center left", handlelength=1, fontsize=8)
        return
    fill(axes, sheet.shapes, ["#B8B8B8"] * len(sheet.shapes), alpha=1)
    at: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (0, -0.02), "handlelength": 1}
    axes.legend(handles=marks, ncols=3, fontsize=8, columnspacing=1, **at)


def rule_table(corpus: Corpus) -> pd.DataFrame:
    """One line a task: our rule of counting labels beside the paper's.

    Columns: task; tiles that have a label by each rule, and by both; of the latter the mean label
    and the number of tiles above zero by each rule, and of tiles where the two differ. No lines
    for tasks that a corpus does not carry, and none without the paper's labels.
    """
    lines = []
    for task in TASKS:
        if f"paper_{task}" not in corpus.tiles:
            continue
        labels = corpus.tiles[[task, f"paper_{task}"]].astype(float)
        both = labels.dropna()
        if not len(both):
            continue
        ours, paper = both[task], both[f"paper_{task}"]
        lines.append(
            {
                "task": task,
                "tiles_ours": int(labels[task].count()),
                "tiles_paper": int(labels[f"paper_{task}"].count()),
                "tiles_both": len(both),
                "mean_ours": ours.mean(),
                "mean_paper": paper.mean(),
                "above_zero_ours": int((ours > 0).sum()),
                "above_zero_paper": int((paper > 0).sum()),
                # a speed limit in mph is no round number of km/h
                "differ": int((~np.isclose(ours, paper, atol=0.5)).sum()),
            }
        )
    return pd.DataFrame(lines)
