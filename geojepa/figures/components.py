"""The main directions of an embedding as colours on a map."""

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from sklearn.decomposition import PCA

from geojepa.data.corpus import Corpus
from geojepa.figures.maps import draw_ground, fill, footprints, frame, largest_place, map_size
from geojepa.figures.projection import standardise
from geojepa.figures.style import WIDTH, plain


def component_table(vectors: np.ndarray, tiles: pd.DataFrame) -> pd.DataFrame:
    """Add the first three principal components and the colour they make.

    Args:
        vectors: (T, D).
        tiles: T lines; kept, with pc1, pc2, pc3 and red, green, blue in [0, 1] added. A colour
            runs from the 2nd to the 98th percentile of its component.

    Returns:
        The table; `attrs["explained"]` holds the three shares of variance.
    """
    pca = PCA(3, svd_solver="full").fit(standardise(vectors))
    components = pca.transform(standardise(vectors))
    low, high = np.percentile(components, [2, 98], axis=0)
    colour = np.clip((components - low) / np.maximum(high - low, 1e-12), 0, 1)
    table = tiles.copy()
    table[["pc1", "pc2", "pc3"]] = components
    table[["red", "green", "blue"]] = colour
    table.attrs["explained"] = pca.explained_variance_ratio_.tolist()
    return table


def draw_components(corpus: Corpus, table: pd.DataFrame, imagery: str = "") -> Figure:
    """Draw the ground and, beside it, the largest place in the colours of a component table.

    Args:
        corpus: the tiles.
        table: of `component_table`, with tile_id and place; tiles not in it stay empty.
        imagery: as in `draw_ground`.
    """
    tiles = corpus.tiles
    rows = largest_place(tiles)
    shown = table[table.place == tiles.place.iloc[rows[0]]]
    row_of = pd.Series(rows, index=tiles.tile_id.iloc[rows])
    shapes = footprints(tiles.iloc[rows])
    coloured = footprints(tiles.iloc[row_of[shown.tile_id]])
    width, height = map_size(shapes, WIDTH / 2 + 1, 6)
    figure, (ground, map_) = plt.subplots(1, 2, figsize=(2 * width + 0.5, height + 0.5))
    for axes in (ground, map_):
        frame(axes, shapes)
    draw_ground(ground, corpus, rows, imagery)
    ground.set_title(plain(shown.place.iloc[0]))
    fill(map_, coloured, shown[["red", "green", "blue"]].to_numpy(), alpha=1)
    shares = ", ".join(f"{share:.0%}" for share in table.attrs["explained"])
    map_.set_title(f"first three components\n{shares} of the variance")
    return figure
