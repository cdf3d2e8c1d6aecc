"""Embeddings seen in two dimensions, and how well their neighbours tell what a tile is."""

import warnings
from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from sklearn.metrics import accuracy_score, balanced_accuracy_score
from sklearn.model_selection import LeaveOneGroupOut, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from geojepa.errors import GeoJEPAError
from geojepa.figures.style import GREY, WIDTH, plain

NEIGHBOURS = 10


def standardise(vectors: np.ndarray) -> np.ndarray:
    """Vectors (T, D) with every dimension of mean 0 and variance 1; constant ones become 0."""
    return StandardScaler().fit_transform(np.asarray(vectors, dtype=np.float64))


def umap_2d(vectors: np.ndarray, seed: int) -> np.ndarray:
    """UMAP of vectors (T, D) in two dimensions, (T, 2); the same for the same seed.

    Raises:
        GeoJEPAError: with fewer than four tiles.
    """
    # slow to import: it compiles
    import umap

    if len(vectors) < 4:
        raise GeoJEPAError(f"UMAP of {len(vectors)} tiles: give a corpus of four or more")
    neighbours = min(15, len(vectors) - 1)
    mapping = umap.UMAP(n_neighbors=neighbours, random_state=seed, n_jobs=1, init="pca")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="umap")
        return mapping.fit_transform(standardise(vectors))


def neighbour_votes(vectors: np.ndarray, names: np.ndarray, blocks: np.ndarray) -> np.ndarray:
    """What the ten nearest tiles of other blocks say a tile is, (T,) names.

    Tiles of one block are near one another on the ground, so they never vote for each other.
    """
    voters = KNeighborsClassifier(min(NEIGHBOURS, _fewest_outside(blocks)))
    return cross_val_predict(
        voters, standardise(vectors), names.astype(str), groups=blocks, cv=LeaveOneGroupOut()
    )


def _fewest_outside(blocks: np.ndarray) -> int:
    sizes = np.unique(blocks, return_counts=True)[1]
    if len(sizes) < 2:
        raise GeoJEPAError("one block of tiles only: neighbours need two; give a larger extract")
    return int(sizes.sum() - sizes.max())


def umap_table(
    systems: Mapping[str, np.ndarray],
    tile_id: np.ndarray,
    names: np.ndarray,
    blocks: np.ndarray,
    seed: int,
) -> pd.DataFrame:
    """One line a system and tile: system, tile_id, x, y, character, vote.

    Args:
        systems: vectors (T, D) by name.
        tile_id, names, blocks: (T,) of each tile: its id, what it is, its spatial block.
        seed: of UMAP.
    """
    lines = []
    for system, vectors in systems.items():
        place = umap_2d(vectors, seed)
        lines.append(
            pd.DataFrame(
                {
                    "system": system,
                    "tile_id": tile_id,
                    "x": place[:, 0],
                    "y": place[:, 1],
                    "character": names,
                    "vote": neighbour_votes(vectors, names, blocks),
                }
            )
        )
    return pd.concat(lines, ignore_index=True)


def accuracy_table(table: pd.DataFrame) -> pd.DataFrame:
    """One line a system: accuracy and balanced accuracy of the votes, and of the commonest name.

    Balanced accuracy gives each name the same weight, however many tiles bear it.
    """
    lines = []
    for system, votes in table.groupby("system", sort=False):
        truth, vote = votes["character"], votes["vote"]
        lines.append(
            {
                "system": system,
                "accuracy": accuracy_score(truth, vote),
                "balanced_accuracy": balanced_accuracy_score(truth, vote),
                "commonest": truth.value_counts(normalize=True).iloc[0],
                "classes": truth.nunique(),
                "tiles": len(votes),
            }
        )
    return pd.DataFrame(lines)


def draw_umap(table: pd.DataFrame, colours: Mapping[str, str]) -> Figure:
    """Draw a panel a system, points coloured by what the tile is, accuracies in the titles."""
    scores = accuracy_table(table)
    figure, panels = plt.subplots(1, len(scores), figsize=(WIDTH + 2, 4.3), squeeze=False)
    size = np.clip(6000 / scores.tiles.max(), 1.5, 14)
    for axes, score in zip(panels[0], scores.itertuples(), strict=True):
        # a shuffled order: no class always lies on top
        points = table[table.system == score.system].sample(frac=1, random_state=0)
        axes.scatter(
            points.x, points.y, size, points.character.map(colours), linewidths=0, rasterized=True
        )
        axes.set_title(
            f"{plain(score.system)}\nkNN {score.accuracy:.0%}, "
            f"classes weighted alike {score.balanced_accuracy:.0%}"
        )
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    counts = table[table.system == scores.system.iloc[0]].character.value_counts()
    marks = [
        Line2D([], [], marker="o", linestyle="", color=colour, label=f"{plain(name)} ({n:,})")
        for (name, colour), n in zip(colours.items(), counts[list(colours)], strict=True)
    ]
    figure.legend(handles=marks, loc="outside lower center", ncols=5)
    common = f"always naming the commonest class: {scores.commonest.iloc[0]:.0%}"
    figure.suptitle(common, x=0.01, ha="left", fontsize=9, color=GREY)
    return figure
