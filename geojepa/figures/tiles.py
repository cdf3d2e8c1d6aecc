"""One tile drawn: its picture, its entities, its tokens' boxes, its entities' graphs."""

import json

import numpy as np
import pandas as pd
import shapely
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from geojepa.data.corpus import Corpus, TileData
from geojepa.data.features import GROUP, KINDS
from geojepa.data.graphs import geometry_graphs
from geojepa.errors import GeoJEPAError
from geojepa.figures.shapes import draw_shapes
from geojepa.figures.style import BLUE, GREEN, GREY, ORANGE, PALE, PINK, RED, WIDTH, plain

KIND_COLOURS = dict(zip(KINDS, (RED, ORANGE, BLUE, GREEN), strict=True))
# tiles looked at for a relation whose members see each other, and from how far, in tile units
TRIES, SIGHT = 200, 0.05


def choose_tile(corpus: Corpus, tile_id: str = "") -> int:
    """Row of the tile of this id; without one, of a rich tile that shows every layer.

    Rich: about 80 % of tiles have fewer entities. Tiles with an image are preferred where the
    corpus has images, and of the `TRIES` tiles nearest to that richness the first in which two
    members of a relation see each other across some ground.

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
    rank = int(0.8 * (len(rows) - 1))
    near = np.argsort(np.abs(np.arange(len(rows)) - rank), kind="stable")
    nearest = rows[order[near[:TRIES]]]
    return int(next((row for row in nearest if _has_sight(corpus, row)), nearest[0]))


def _has_sight(corpus: Corpus, row: int) -> bool:
    """Whether members of a group on the tile see each other over `SIGHT` or more."""
    data = corpus.read([row])
    groups = data.geometry[data.kind == GROUP]
    graphs = geometry_graphs(groups[shapely.get_num_geometries(groups) > 1])
    ends = graphs.node[graphs.edge[graphs.is_visibility]]
    return bool((np.linalg.norm(ends[:, 0] - ends[:, 1], axis=1) >= SIGHT).any())


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


def draw_graph(axes: Axes, geometry: np.ndarray) -> tuple[int, int, int]:
    """Draw the graphs of geometries (N,); returns nodes, edges along shapes, visibility edges."""
    graphs = geometry_graphs(geometry, k=1)
    along = graphs.node[graphs.edge[~graphs.is_visibility]]
    seen = graphs.node[graphs.edge[graphs.is_visibility]]
    axes.add_collection(LineCollection(list(along), colors=GREY, linewidths=0.6))
    axes.add_collection(LineCollection(list(seen), colors=PINK, linewidths=1.3, zorder=3))
    axes.plot(*graphs.node.T, ".", color="black", markersize=2, zorder=4)
    return len(graphs.node), len(along), len(seen)


def draw_layers(corpus: Corpus, row: int) -> Figure:
    """Draw a tile's layers: image if there is one, entities by kind, boxes, graphs."""
    data = corpus.read([row])
    has_image = bool(data.has_image[0])
    size = (WIDTH, 9.4) if has_image else (WIDTH, 3.7)
    figure, panels = plt.subplots(1 + has_image, 2 if has_image else 3, figsize=size)
    colours = np.array(list(KIND_COLOURS.values()), dtype=object)[data.kind]
    *before, entities, boxes, graph = panels.flat
    for axes in before:
        frame_tile(axes, "image")
        draw_image(axes, corpus.images(np.array([row]))[0])
    frame_tile(entities, f"{len(data.kind):,} clipped entities")
    draw_entities(entities, data.geometry, colours)
    frame_tile(boxes, "their boxes")
    for colour in KIND_COLOURS.values():
        draw_boxes(boxes, data.box[colours == colour], colour, fill=0.08)
    frame_tile(graph)
    nodes, along, seen = draw_graph(graph, data.geometry)
    graph.set_title(f"their graphs: {nodes:,} nodes")
    marks = [
        Line2D([], [], marker="s", linestyle="", color=colour, label=f"{kind} ({n:,})")
        for (kind, colour), n in zip(
            KIND_COLOURS.items(), np.bincount(data.kind, minlength=len(KINDS)), strict=True
        )
    ]
    marks.append(Line2D([], [], color=GREY, label=f"edge along a shape ({along:,})"))
    marks.append(Line2D([], [], color=PINK, label=f"sight between parts ({seen:,})"))
    figure.legend(handles=marks, loc="outside lower center", ncols=3)
    side = corpus.tiles.ground_m.iloc[row]
    name = plain(f"tile {corpus.tiles.tile_id.iloc[row]}, {corpus.tiles.place.iloc[row]}", 80)
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
