"""The tags of a corpus as a treemap: keys as rectangles, their commonest values inside."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from geojepa.data.corpus import Corpus
from geojepa.data.features import KINDS
from geojepa.figures.contents import tag_uses
from geojepa.figures.style import GREY, PALE, WIDTH, plain
from geojepa.figures.tiles import KIND_COLOURS

HEIGHT = 6.0
# what is too small for a rectangle of its own, and an identifying key's only "value"
REST, KEY_ONLY = "other", ""
OTHER_KEYS = "other keys"
# share of a colour in its tint, on which black text can be read; of an identifying key less
TINT, FAINT = 0.45, 0.15
# inches: a line of text and one of its characters
LINE, LETTER = 0.13, 0.056

Box = tuple[float, float, float, float]


def treemap_table(corpus: Corpus, keys: int = 40, values: int = 12) -> pd.DataFrame:
    """Uses of the commonest keys and, in each, of its commonest values.

    Columns: key, value, uses (entities that carry the tag), kind (of most of these entities).
    The rest of a key's values is one line, "other (number)", and so is that of all keys. An
    identifying key has no values in a corpus: its value is empty.
    """
    uses = tag_uses(corpus)
    table = pd.DataFrame(corpus.vocabulary, columns=["key", "value"])
    table[list(KINDS)] = uses
    table["uses"] = uses.sum(axis=1)
    order = table.groupby("key")["uses"].sum().sort_values(ascending=False, kind="stable").index
    lines = []
    for key in order[:keys]:
        of_key = table[table.key == key].sort_values("uses", ascending=False, kind="stable")
        lines += of_key.head(values).to_dict("records")
        if len(of_key) > values:
            lines.append(_rest(of_key.iloc[values:], key, f"{REST} ({len(of_key) - values:,})"))
    if len(order) > keys:
        others = table[table.key.isin(order[keys:])]
        lines.append(_rest(others, f"{OTHER_KEYS} ({len(order) - keys:,})", KEY_ONLY))
    found = pd.DataFrame(lines)
    found["kind"] = [KINDS[i] for i in found[list(KINDS)].to_numpy().argmax(axis=1)]
    return found.loc[found.uses > 0, ["key", "value", "uses", "kind"]].reset_index(drop=True)


def draw_treemap(table: pd.DataFrame) -> Figure:
    """Draw the table of `treemap_table`; areas are uses, colours the kind of most entities."""
    figure, axes = plt.subplots(figsize=(WIDTH, HEIGHT))
    axes.set(xlim=(0, WIDTH), ylim=(HEIGHT, 0))
    axes.set_axis_off()
    totals = table.groupby("key", sort=False)["uses"].sum()
    rest = totals.index.str.startswith(f"{OTHER_KEYS} (")
    totals = pd.concat([totals[~rest].sort_values(ascending=False, kind="stable"), totals[rest]])
    boxes = squarify(totals.to_list(), (0, 0, WIDTH, HEIGHT))
    for key, total, box in zip(totals.index, totals, boxes, strict=True):
        share = total / totals.sum()
        told = f"{share:.0%}" if share >= 0.01 else f"{share:.1%}"
        _draw_key(axes, table[table.key == key], key, told, box)
    kinds = {kind: colour for kind, colour in KIND_COLOURS.items() if kind in set(table.kind)}
    marks = [Patch(color=tint(colour), label=kind) for kind, colour in kinds.items()]
    pale = tint(KIND_COLOURS["polygon"], FAINT)
    marks.append(Patch(facecolor=pale, edgecolor=GREY, label="pale: identifies, no values"))
    title = "carried mostly by entities that are"
    figure.legend(handles=marks, loc="outside lower center", ncols=5, title=title, title_fontsize=9)
    return figure


def squarify(sizes: Sequence[float], box: Box) -> list[Box]:
    """Fill a box (x, y, width, height) with rectangles of these areas, as square as rows allow.

    Bruls, Huizing and van Wijk (2000): rows along the shorter side, each of as many rectangles as
    make the worst of them squarer. Sizes are positive and best come in falling order.
    """
    x, y, width, height = box
    areas = np.asarray(sizes, dtype=float) / sum(sizes) * width * height
    boxes: list[Box] = []
    while len(boxes) < len(areas):
        left = areas[len(boxes) :]
        short = min(width, height)
        sums = np.cumsum(left)
        # of the first n in a row: the longest side ratio of its largest and of its smallest
        largest, smallest = np.maximum.accumulate(left), np.minimum.accumulate(left)
        worst = np.maximum(short**2 * largest / sums**2, sums**2 / (short**2 * smallest))
        worse = np.flatnonzero(np.diff(worst) > 0)
        n = int(worse[0]) + 1 if len(worse) else len(left)
        deep = sums[n - 1] / short
        along = np.concatenate([[0.0], sums[:n] / deep])
        for start, stop in pairwise(along):
            if width >= height:
                boxes.append((x, y + start, deep, stop - start))
            else:
                boxes.append((x + start, y, stop - start, deep))
        if width >= height:
            x, width = x + deep, width - deep
        else:
            y, height = y + deep, height - deep
    return boxes


def tint(colour: str, share: float = TINT) -> tuple[float, float, float]:
    """A colour mixed with white."""
    red, green, blue = (1 - share * (1 - part) for part in to_rgb(colour))
    return red, green, blue


def _draw_key(axes: Axes, lines: pd.DataFrame, key: str, share: str, box: Box) -> None:
    x, y, width, height = box
    is_titled = len(lines) > 1 and height > 3 * LINE and width > LETTER * min(len(key), 8)
    head = 1.3 * LINE
    inside = (x, y + head, width, height - head)
    shown = lines if is_titled else lines.head(1)
    parts = squarify(shown.uses.to_list(), inside) if is_titled else [box]
    for line, part in zip(shown.itertuples(), parts, strict=True):
        colour = tint(KIND_COLOURS[line.kind], TINT if line.value else FAINT)
        face = PALE if key.startswith(f"{OTHER_KEYS} (") else colour
        axes.add_patch(Rectangle(part[:2], *part[2:], facecolor=face, edgecolor="white", lw=0.6))
        if is_titled:
            _write(axes, line.value, part)
    outline = Rectangle((x, y), width, height, fill=False, edgecolor="black", linewidth=0.9)
    axes.add_patch(outline)
    if is_titled:
        text = plain(key, 60)
        if LETTER * 1.2 * len(f"{text} {share}") < width:
            text += f" {share}"
        style: dict[str, Any] = {"va": "center", "fontsize": 7, "weight": "bold", "clip_on": True}
        axes.text(x + 0.04, y + 0.5 * head, text, **style).set_clip_path(outline)
    else:
        value = lines.value.iloc[0]
        _write(axes, f"{key}={value}" if value and len(lines) == 1 else key, box, share)


def _write(axes: Axes, text: str, box: Box, share: str = "") -> None:
    """Write a text into a box if most of it fits, upright where the box is tall."""
    x, y, width, height = box
    turned = height > 1.5 * width and LETTER * len(text) > width
    long, high = (height, width) if turned else (width, height)
    letters = int((long - 0.04) / LETTER)
    if high < 1.1 * LINE or letters < min(7, len(text)):
        return
    shown = plain(text, letters)
    style: dict[str, Any] = {
        "ha": "center",
        "va": "center",
        "rotation": 90 if turned else 0,
        "fontsize": 6.5,
    }
    if share and high > 2.2 * LINE:
        shown += f"\n{share}"
    axes.text(x + width / 2, y + height / 2, shown, **style)


def _rest(lines: pd.DataFrame, key: str, value: str) -> dict:
    return {"key": key, "value": value, **lines[[*KINDS, "uses"]].sum().to_dict()}
