"""What a corpus holds, as small tables and their figures: parts, entities, tags, labels."""

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize, PowerNorm, to_rgba
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

from geojepa.data.corpus import Corpus
from geojepa.data.labels import TASKS
from geojepa.data.splits import Split
from geojepa.figures.maps import (
    draw_ground,
    fill,
    footprints,
    frame,
    largest_place,
    legend,
    map_size,
    map_title,
    mapped_rows,
)
from geojepa.figures.style import BLUE, GREEN, GREY, ORANGE, PALE, SCALE, WIDTH, plain

PARTS = {"train": BLUE, "validation": GREEN, "test": ORANGE, "left_out": "#6E6E6E", "unused": PALE}
TITLES = {
    "traffic_signals": "traffic signals (number)",
    "building_count": "buildings (number)",
    "max_speed": "highest speed limit (km/h)",
    "bridge": "any bridge",
    "car_bridge": "bridge for cars",
}


def split_table(corpus: Corpus, split: Split) -> pd.DataFrame:
    """One line a tile: tile_id, place, lon and lat of its centre, part of the split.

    Tiles that no part may hold, too poor or too rich, are "unused".
    """
    part = np.full(len(corpus), "unused", dtype=object)
    for name in ("train", "validation", "test", "left_out"):
        part[getattr(split, name)] = name
    return tile_table(corpus).assign(part=part)


def tile_table(corpus: Corpus) -> pd.DataFrame:
    """One line a tile: tile_id, place, lon and lat of its centre."""
    tiles = corpus.tiles
    bounds = tiles.geometry.bounds
    return pd.DataFrame(
        {
            "tile_id": tiles.tile_id,
            "place": tiles.place,
            "lon": (bounds.minx + bounds.maxx) / 2,
            "lat": (bounds.miny + bounds.maxy) / 2,
        }
    )


def draw_split(corpus: Corpus, table: pd.DataFrame, imagery: str = "") -> Figure:
    """Draw the parts of a split on the map of the largest place."""
    rows = largest_place(corpus.tiles)
    shapes = footprints(corpus.tiles.iloc[rows])
    width, height = map_size(shapes, WIDTH - 2, 6.5)
    figure, axes = plt.subplots(figsize=(width + 2, height + 0.4))
    frame(axes, shapes)
    draw_ground(axes, corpus, rows, imagery)
    part = table["part"].iloc[rows]
    fill(axes, shapes, part.map(PARTS).tolist(), alpha=0.55)
    counts = part.value_counts()
    legend(axes, {name: PARTS[name] for name in PARTS if name in counts}, counts)
    axes.set_title(map_title(corpus.tiles, rows))
    return figure


def entities_table(corpus: Corpus, bins: int = 24) -> pd.DataFrame:
    """Histogram of entities a tile: from, to (excluded), tiles; each bin a constant factor wide."""
    entities = corpus.tiles.entities
    edges = np.unique(np.geomspace(entities.min(), entities.max() + 1, bins + 1).round())
    tiles, edges = np.histogram(entities, edges)
    return pd.DataFrame(
        {"from": edges[:-1].astype(int), "to": edges[1:].astype(int), "tiles": tiles}
    )


def draw_entities_histogram(table: pd.DataFrame, median: float) -> Figure:
    """Draw the histogram of entities a tile on a logarithmic axis."""
    figure, axes = plt.subplots(figsize=(WIDTH, 3.2))
    width = table["to"] - table["from"]
    axes.bar(table["from"], table["tiles"], width, align="edge", color=BLUE, edgecolor="white")
    axes.axvline(median, color=ORANGE, linewidth=1.5)
    axes.annotate(
        f"median {median:.0f}",
        (median, 1),
        xycoords=("data", "axes fraction"),
        xytext=(4, -8),
        textcoords="offset points",
        color=ORANGE,
    )
    axes.set(xscale="log", xlabel="entities in a tile (logarithmic)", ylabel="tiles")
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.set_xticks([n for n in (5, 10, 20, 50, 100, 200, 500, 1000) if n <= table["to"].max()])
    axes.minorticks_off()
    return figure


def tag_table(corpus: Corpus, most: int = 15) -> pd.DataFrame:
    """The keys and the key=value tags that most entities carry: what, tag, entities, share.

    The values of identifying keys, such as names, are not part of a corpus: those count as keys.
    """
    data = corpus.read(np.arange(len(corpus)))
    uses = np.bincount(data.tag_ids, minlength=len(corpus.vocabulary))
    counts = pd.DataFrame(corpus.vocabulary, columns=["key", "value"]).assign(entities=uses)
    keys = counts.groupby("key", as_index=False)["entities"].sum().rename(columns={"key": "tag"})
    valued = counts[counts.value != ""]
    tags = pd.DataFrame({"tag": valued.key + "=" + valued.value, "entities": valued.entities})
    lists = []
    for what, frame_ in (("key", keys), ("tag", tags)):
        frame_ = frame_.sort_values(["entities", "tag"], ascending=[False, True]).head(most)
        lists.append(frame_.assign(what=what, share=frame_.entities / len(data.kind)))
    return pd.concat(lists)[["what", "tag", "entities", "share"]]


def draw_tags(table: pd.DataFrame) -> Figure:
    """Draw bars of the most used keys and tags, as shares of entities."""
    figure, panels = plt.subplots(1, 2, figsize=(WIDTH, 4.2))
    for axes, (what, colour) in zip(panels, (("key", BLUE), ("tag", ORANGE)), strict=True):
        bars = table[table.what == what][::-1]
        axes.barh(np.arange(len(bars)), 100 * bars.share, color=colour, height=0.7)
        axes.set_yticks(np.arange(len(bars)), [plain(tag, 30) for tag in bars.tag])
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set(xlabel="% of entities", title={"key": "keys", "tag": "tags (key=value)"}[what])
    return figure


def label_table(corpus: Corpus) -> pd.DataFrame:
    """One line a tile: where it is and its five labels, empty where there is none."""
    return tile_table(corpus).join(corpus.tiles[list(TASKS)])


def draw_labels(corpus: Corpus, table: pd.DataFrame) -> Figure:
    """Draw the five labels on maps of `mapped_rows`; tiles without a label stay white."""
    rows = mapped_rows(corpus.tiles)
    shapes = footprints(corpus.tiles.iloc[rows])
    width, height = map_size(shapes, WIDTH / 3, 3.5)
    figure, panels = plt.subplots(2, 3, figsize=(3 * max(width, 2.2) + 2.4, 2 * height + 1))
    for axes, task in zip(panels.flat, TASKS, strict=False):
        frame(axes, shapes, note=False)
        fill(axes, shapes, ["#F4F4F4"] * len(shapes), alpha=1)
        values = table[task].iloc[rows].to_numpy(dtype=float)
        _draw_label(figure, axes, task, shapes, values)
    panels.flat[-1].set_axis_off()
    title = map_title(corpus.tiles, rows)
    figure.suptitle(title, x=0.01, ha="left", fontsize=10, color=GREY)
    return figure


def _draw_label(
    figure: Figure, axes: Axes, task: str, shapes: np.ndarray, values: np.ndarray
) -> None:
    known = ~np.isnan(values)
    axes.set_title(TITLES[task])
    if not known.any():
        axes.text(0.5, 0.5, "no label in this source", transform=axes.transAxes, ha="center")
        return
    if task in ("bridge", "car_bridge"):
        yes = values[known] > 0
        colours = np.where(yes, ORANGE, PALE)
        fill(axes, shapes[known], colours.tolist(), alpha=1)
        axes.set_title(f"{TITLES[task]}, {yes.sum():,} of {len(yes):,} tiles")
        return
    top = max(1.0, float(values[known].max()))
    # counts are skewed: a square root keeps small ones apart
    norm = PowerNorm(0.5, 0, top) if task != "max_speed" else Normalize(values[known].min(), top)
    scale = plt.get_cmap(SCALE).copy()
    if task != "max_speed":
        shades = scale(np.linspace(0, 1, 256))
        shades[0] = to_rgba(PALE)
        scale = ListedColormap(shades)
    fill(axes, shapes[known], scale(norm(values[known])), alpha=1)
    figure.colorbar(ScalarMappable(norm, scale), ax=axes, shrink=0.6, pad=0.02)
