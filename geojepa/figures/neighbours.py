"""Tiles and what an embedding holds to be most like them."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.metrics.pairwise import cosine_similarity

from geojepa.data.corpus import Corpus
from geojepa.data.features import KINDS
from geojepa.figures.character import entity_colours
from geojepa.figures.projection import standardise
from geojepa.figures.style import plain
from geojepa.figures.tiles import draw_entities, draw_image, frame_tile

COLUMNS = ["query", "rank", "tile_id", "character", "cosine", "position"]


def choose_queries(names: np.ndarray, seed: int, most: int = 5) -> np.ndarray:
    """Draw a tile by chance from each of the most common names: positions into `names`."""
    draw = np.random.default_rng(seed)
    common = (
        pd.Series(names)
        .value_counts(sort=False)
        .sort_index()
        .sort_values(ascending=False, kind="stable")
    )
    return np.array([draw.choice(np.flatnonzero(names == name)) for name in common.index[:most]])


def neighbour_table(
    vectors: np.ndarray,
    queries: np.ndarray,
    tile_id: np.ndarray,
    names: np.ndarray,
    blocks: np.ndarray,
    k: int = 5,
) -> pd.DataFrame:
    """One line a query and rank: query, rank (0 is itself), tile_id, character, cosine, position.

    Neighbours are the nearest by cosine of standardised vectors among the tiles of other blocks:
    a tile resembles the one next door whatever the embedding.

    Args:
        vectors: (T, D).
        queries: positions of the query tiles.
        tile_id, names, blocks: (T,) of each tile: its id, what it is, its spatial block.
        k: neighbours a query.
    """
    scaled = standardise(vectors)
    likeness = cosine_similarity(scaled[queries], scaled)
    likeness[blocks[queries][:, None] == blocks[None]] = -np.inf
    nearest = np.argsort(-likeness, axis=1, kind="stable")[:, :k]
    lines = []
    for query, row, found in zip(queries, likeness, nearest, strict=True):
        found = found[np.isfinite(row[found])]
        for rank, (tile, cosine) in enumerate([(query, 1.0), *zip(found, row[found], strict=True)]):
            lines.append((tile_id[query], rank, tile_id[tile], names[tile], cosine, tile))
    return pd.DataFrame(lines, columns=COLUMNS)


def draw_neighbours(
    corpus: Corpus, rows: np.ndarray, table: pd.DataFrame, colours: Mapping[str, str]
) -> Figure:
    """Draw a line of pictures a query: the tile, then its neighbours, nearest first.

    Args:
        corpus: the tiles.
        rows: (T,) of the corpus, which the positions of the table speak of.
        table: of `neighbour_table`.
        colours: of characters; each title bears its tile's.
    """
    queries = table["query"].unique()
    columns = int(table["rank"].max()) + 1
    size = (1.6 * columns, 1.85 * len(queries))
    figure, panels = plt.subplots(len(queries), columns, figsize=size, squeeze=False)
    for axes in panels.flat:
        axes.set_axis_off()
    for line, query in zip(panels, queries, strict=True):
        for tile in table[table["query"] == query].itertuples():
            axes = line[tile.rank]
            axes.set_axis_on()
            draw_tile(axes, corpus, int(rows[tile.position]))
            head = "query" if tile.rank == 0 else f"{tile.cosine:.2f}"
            axes.set_title(
                f"{head}  {plain(tile.character, 14)}",
                fontsize=8.5,
                fontweight="bold" if tile.rank == 0 else None,
            )
            for spine in axes.spines.values():
                spine.set(color=colours[tile.character], linewidth=3)
    return figure


def draw_tile(axes: Axes, corpus: Corpus, row: int) -> None:
    """Draw a tile's image, or its entities in the colours of a map where it has none."""
    frame_tile(axes)
    if corpus.has_image[row]:
        draw_image(axes, corpus.images(np.array([row]))[0])
        return
    data = corpus.read([row])
    # groups, such as bus routes, run over what is drawn already
    shown = data.kind != KINDS.index("group")
    draw_entities(axes, data.geometry[shown], entity_colours(data)[shown], alpha=0.8)
