"""What a corpus holds, as small tables and their figures: parts, entities, tokens, tags."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import ScalarFormatter

from geojepa.data.corpus import Corpus, TileData
from geojepa.data.features import KINDS
from geojepa.data.splits import Split
from geojepa.figures.maps import draw_ground, fill, map_title
from geojepa.figures.sheet import frame_sheet, lay_out
from geojepa.figures.style import BLUE, GREEN, ORANGE, WIDTH, plain
from geojepa.model.config import ModelConfig

PARTS = {
    "train": BLUE,
    "validation": GREEN,
    "test": ORANGE,
    "left_out": "#6E6E6E",
    "unused": "#C9C9C9",
}
# image tokens of a tile at full resolution, as the paper has them
PATCHES = ModelConfig(image_size=224).patches
# tiles that are read at once, which bounds the memory of a figure
CHUNK = 2000
# on a map of more tiles the ground would be finer than a pixel
MOST_GROUND = 20_000


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
    """Draw the parts of a split on a map; places that lie apart are moved together."""
    sheet = lay_out(corpus.tiles, WIDTH, 6.5)
    figure, axes = plt.subplots(figsize=(WIDTH, sheet.size[1] + 0.8))
    frame_sheet(axes, sheet)
    if sheet.is_map:
        axes.set_title(map_title(corpus.tiles, sheet.rows))
        if len(sheet.rows) <= MOST_GROUND:
            draw_ground(axes, corpus, sheet.rows, imagery)
    part = table["part"].iloc[sheet.rows]
    fill(axes, sheet.shapes, part.map(PARTS).tolist(), alpha=0.55 if sheet.is_map else 1)
    counts = part.value_counts()
    marks = [
        Patch(color=PARTS[name], label=f"{name.replace('_', ' ')} ({counts[name]:,})")
        for name in PARTS
        if name in counts
    ]
    figure.legend(handles=marks, loc="outside lower center", ncols=len(marks), handlelength=1)
    return figure


def histogram_table(corpus: Corpus, bins: int = 24) -> pd.DataFrame:
    """Histograms over tiles of their entities and, with images, of their tokens.

    Columns: what ("entities" or "tokens"), from, to (excluded), tiles. Bins are a constant factor
    wide, in whole numbers. An image adds `PATCHES` tokens to a tile's entities.
    """
    counted = {"entities": corpus.tiles.entities.to_numpy()}
    if corpus.has_images:
        counted["tokens"] = counted["entities"] + PATCHES * corpus.has_image
    tables = []
    for what, counts in counted.items():
        edges = np.unique(np.geomspace(counts.min(), counts.max() + 1, bins + 1).round())
        tiles, edges = np.histogram(counts, edges)
        tables.append(
            pd.DataFrame(
                {
                    "what": what,
                    "from": edges[:-1].astype(int),
                    "to": edges[1:].astype(int),
                    "tiles": tiles,
                }
            )
        )
    return pd.concat(tables, ignore_index=True)


def draw_histograms(corpus: Corpus, table: pd.DataFrame) -> Figure:
    """Draw the histograms of `histogram_table` one above the other, on one logarithmic axis."""
    kinds = list(dict.fromkeys(table.what))
    figure, panels = plt.subplots(
        len(kinds), 1, figsize=(WIDTH, 0.8 + 2.2 * len(kinds)), sharex=True, squeeze=False
    )
    entities = corpus.tiles.entities.to_numpy()
    for axes, what in zip(panels.flat, kinds, strict=True):
        patches = PATCHES * corpus.has_image if what == "tokens" else 0
        _draw_histogram(axes, table[table.what == what], float(np.median(entities + patches)))
    axes.set(xscale="log", xlabel="number on a tile (logarithmic)")
    axes.xaxis.set_major_formatter(ScalarFormatter())
    least, most = table["from"].min(), table["to"].max()
    axes.set_xticks([n for n in (5, 10, 20, 50, 100, 200, 500, 1000) if least <= n <= most])
    axes.minorticks_off()
    return figure


def _draw_histogram(axes: Axes, bars: pd.DataFrame, median: float) -> None:
    what = bars.what.iloc[0]
    colour = {"entities": BLUE, "tokens": GREEN}[what]
    width = bars["to"] - bars["from"]
    axes.bar(bars["from"], bars["tiles"], width, align="edge", color=colour, edgecolor="white")
    axes.axvline(median, color="black", linewidth=1.2)
    # above the frame, where no bar reaches
    axes.annotate(
        f"median {median:,.0f}",
        (median, 1),
        xycoords=("data", "axes fraction"),
        xytext=(0, 2),
        textcoords="offset points",
        ha="center",
        fontsize=9,
    )
    title = {"entities": "entities", "tokens": f"tokens: entities and {PATCHES} image patches"}
    axes.set_title(title[what], pad=16)
    axes.set_ylabel("tiles")


def chunks(corpus: Corpus) -> Iterator[TileData]:
    """Every tile of a corpus, `CHUNK` rows at a time."""
    for start in range(0, len(corpus), CHUNK):
        yield corpus.read(np.arange(start, min(start + CHUNK, len(corpus))))


def tag_uses(corpus: Corpus) -> np.ndarray:
    """How many entities of each kind carry each tag of the vocabulary: (V, 4) int64."""
    uses = np.zeros(len(corpus.vocabulary) * len(KINDS), dtype=np.int64)
    for data in chunks(corpus):
        kind = np.repeat(data.kind, np.diff(data.cu_tags))
        uses += np.bincount(data.tag_ids * len(KINDS) + kind, minlength=len(uses))
    return uses.reshape(-1, len(KINDS))


def tag_table(corpus: Corpus, most: int = 15) -> pd.DataFrame:
    """The keys and the key=value tags that most entities carry: what, tag, entities, share.

    The values of identifying keys, such as names, are not part of a corpus: those count as keys.
    """
    uses = tag_uses(corpus).sum(axis=1)
    counts = pd.DataFrame(corpus.vocabulary, columns=["key", "value"]).assign(entities=uses)
    keys = counts.groupby("key", as_index=False)["entities"].sum().rename(columns={"key": "tag"})
    valued = counts[counts.value != ""]
    tags = pd.DataFrame({"tag": valued.key + "=" + valued.value, "entities": valued.entities})
    lists = []
    for what, frame_ in (("key", keys), ("tag", tags)):
        frame_ = frame_.sort_values(["entities", "tag"], ascending=[False, True]).head(most)
        share = frame_.entities / corpus.tiles.entities.sum()
        lists.append(frame_.assign(what=what, share=share))
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
