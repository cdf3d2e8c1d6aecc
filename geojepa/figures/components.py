"""The main directions of an embedding as colours on a map."""

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from sklearn.decomposition import PCA

from geojepa.data.corpus import Corpus
from geojepa.figures.maps import (
    draw_ground,
    fill,
    footprints,
    frame,
    map_size,
    map_title,
    mapped_rows,
)
from geojepa.figures.projection import standardise
from geojepa.figures.style import WIDTH


def component_table(vectors: np.ndarray, tiles: pd.DataFrame) -> pd.DataFrame:
    """Add the first three principal components and the colour they make.

    Args:
        vectors: (T, D).
        tiles: T lines; kept, with pc1, pc2, pc3 and red, green, blue in [0, 1] added. A colour
            runs from the 2nd to the 98th percentile of its component.

    Returns:
        The table; `attrs["explained"]` holds the three shares of variance.
    """
    pca = PCA(3, svd_solver="full")
    components = pca.fit_transform(standardise(vectors))
    low, high = np.percentile(components, [2, 98], axis=0)
    colour = np.clip((components - low) / np.maximum(high - low, 1e-12), 0, 1)
    table = tiles.copy()
    table[["pc1", "pc2", "pc3"]] = components
    table[["red", "green", "blue"]] = colour
    table.attrs["explained"] = pca.explained_variance_ratio_.tolist()
    return table


def draw_components(
    corpus: Corpus, rows: np.ndarray, table: pd.DataFrame, imagery: str = ""
) -> Figure:
    """Draw the ground and, beside it, the tiles of one map in the colours of a component table.

    Args:
        corpus: the tiles.
        rows: T rows, those of the table's T lines.
        table: of `component_table`.
        imagery: as in `draw_ground`.
    """
    tiles = corpus.tiles.iloc[rows]
    chosen = mapped_rows(tiles)
    shapes = footprints(tiles.iloc[chosen])
    width, height = map_size(shapes, WIDTH / 2 + 1, 6)
    figure, (ground, map_) = plt.subplots(1, 2, figsize=(2 * width + 0.5, height + 0.5))
    for axes in (ground, map_):
        frame(axes, shapes, note=axes is map_)
    draw_ground(ground, corpus, rows[chosen], imagery)
    ground.set_title(map_title(tiles, chosen))
    fill(map_, shapes, table[["red", "green", "blue"]].to_numpy()[chosen], alpha=1)
    shares = ", ".join(f"{share:.0%}" for share in table.attrs["explained"])
    map_.set_title(f"first three components\n{shares} of the variance")
    return figure
