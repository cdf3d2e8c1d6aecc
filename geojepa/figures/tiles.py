"""One tile drawn: its picture, its entities, its tokens' boxes."""

import json

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from geojepa.data.corpus import Corpus, TileData
from geojepa.data.features import KINDS
from geojepa.errors import GeoJEPAError
from geojepa.figures.shapes import draw_shapes
from geojepa.figures.style import BLUE, GREEN, GREY, ORANGE, PALE, RED

KIND_COLOURS = dict(zip(KINDS, (RED, ORANGE, BLUE, GREEN), strict=True))


def choose_tile(corpus: Corpus, tile_id: str = "") -> int:
    """Row of the tile of this id; without one, of a rich tile: 80 % have fewer entities.

    Tiles with an image are preferred where the corpus has images.

    Raises:
        GeoJEPAError: if there is no such tile.
    """
    tiles = corpus.tiles
    if tile_id:
        found = np.flatnonzero(tiles.tile_id == tile_id)
        if not len(found):
            raise GeoJEPAError(
                f"{corpus.name}: has no tile {tile_id!r}; choose one of its tile_id, such as "
                f"{tiles.tile_id.iloc[0]}"
            )
        return int(found[0])
    rows = corpus.usable
    rows = rows[corpus.has_image[rows]] if corpus.has_image[rows].any() else rows
    order = np.argsort(tiles.entities.to_numpy()[rows], kind="stable")
    return int(rows[order[int(0.8 * (len(rows) - 1))]])


def frame_tile(axes: Axes, title: str = "") -> None:
    """Show one tile, [0, 1] both ways and north up, with a thin border."""
    axes.set(xlim=(0, 1), ylim=(0, 1), xticks=[], yticks=[], aspect="equal")
    axes.set_title(title)
    for spine in axes.spines.values():
        spine.set(visible=True, color=PALE)


def draw_image(axes: Axes, image: np.ndarray, alpha: float = 1.0) -> None:
    """Draw an image (h, w, 3 or 4), its first row north."""
    axes.imshow(image, extent=(0, 1, 0, 1), alpha=alpha, zorder=0)


def draw_entities(
    axes: Axes, geometry: np.ndarray, colours: np.ndarray, alpha: float = 0.7
) -> None:
    """Draw geometries (N,) in tile units in N colours; `alpha` is that of areas."""
    draw_shapes(
        axes,
        geometry,
        colours,
        areas={"edgecolors": "white", "linewidths": 0.3, "alpha": alpha},
        lines={"linewidths": 1.1},
        points={"s": 9, "edgecolors": "white", "linewidths": 0.4},
    )


def draw_boxes(axes: Axes, box: np.ndarray, colour: str, fill: float = 0.15) -> None:
    """Draw boxes (n, 8) in tile units; a point's box has no extent and is drawn as a dot."""
    corners = np.asarray(box, dtype=float).reshape(-1, 4, 2)
    axes.add_collection(
        PolyCollection(list(corners), facecolors=(colour, fill), edgecolors=colour, linewidths=0.7)
    )
    dots = np.ptp(corners, axis=1).max(axis=1) < 1e-6
    axes.plot(*corners[dots, 0].T, ".", color=colour, markersize=4, clip_on=True)


def draw_layers(corpus: Corpus, row: int) -> Figure:
    """Draw a tile's layers side by side: image if there is one, entities by kind, boxes."""
    data = corpus.read([row])
    has_image = bool(data.has_image[0])
    figure, panels = plt.subplots(1, 2 + has_image, figsize=(3.1 * (2 + has_image), 3.6))
    colours = np.array(list(KIND_COLOURS.values()), dtype=object)[data.kind]
    *before, entities, boxes = panels
    for axes in before:
        frame_tile(axes, "image")
        draw_image(axes, corpus.images(np.array([row]))[0])
    frame_tile(entities, f"{len(data.kind):,} clipped entities")
    draw_entities(entities, data.geometry, colours)
    frame_tile(boxes, "their boxes")
    for colour in KIND_COLOURS.values():
        draw_boxes(boxes, data.box[colours == colour], colour, fill=0.08)
    marks = [
        Line2D([], [], marker="s", linestyle="", color=colour, label=f"{kind} ({n:,})")
        for (kind, colour), n in zip(
            KIND_COLOURS.items(), np.bincount(data.kind, minlength=len(KINDS)), strict=True
        )
    ]
    figure.legend(handles=marks, loc="outside lower center", ncols=4)
    side = corpus.tiles.ground_m.iloc[row]
    name = f"tile {corpus.tiles.tile_id.iloc[row]}, {corpus.tiles.place.iloc[row]}"
    figure.suptitle(f"{name}, {side:.0f} m wide", x=0.01, ha="left", fontsize=10, color=GREY)
    return figure


def entity_table(data: TileData) -> pd.DataFrame:
    """One line an entity: feature_id, kind, tags as JSON, box corners in tile units."""
    table = pd.DataFrame(
        {
            "feature_id": data.feature_id,
            "kind": [KINDS[kind] for kind in data.kind],
            "tags": [json.dumps(tags, ensure_ascii=False) for tags in data.tags()],
        }
    )
    table[[f"{axis}{corner}" for corner in range(4) for axis in "xy"]] = data.box
    return table
