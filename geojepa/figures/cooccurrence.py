"""Which keys come together: on one tile, and on one entity."""

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from scipy.cluster.hierarchy import leaves_list, linkage, optimal_leaf_ordering
from scipy.spatial.distance import squareform

from geojepa.data.corpus import Corpus, TileData
from geojepa.figures.contents import chunks
from geojepa.figures.style import BLUE, GREY, ORANGE, WIDTH, plain

# fewer pairs than this, both found and expected by chance, tell nothing
LEAST = 5
# log2 of the lift at the ends of the scale
REACH = 2
APART_TOGETHER = LinearSegmentedColormap.from_list("apart_together", [ORANGE, "white", BLUE])


def cooccurrence_table(corpus: Corpus, most: int = 24) -> pd.DataFrame:
    """How often the keys found on most tiles come together; identifying keys are left out.

    One line for each pair and scope ("tile" or "entity"): scope, key, other, with_key, with_other,
    together (tiles or entities), of (all of them), and lift: together over what chance would give,
    empty where both are less than `LEAST`. A tile has the keys of all its entities.
    """
    names = sorted({key for key, value in corpus.vocabulary if value})
    number = {name: i for i, name in enumerate(names)}
    key_of = np.array([number.get(key, -1) for key, _ in corpus.vocabulary], dtype=int)
    chosen = np.argsort(-_tiles_with(corpus, key_of, len(names)), kind="stable")[:most]
    column = np.full(len(names) + 1, -1)
    column[chosen] = np.arange(len(chosen))
    counts = {"tile": np.zeros((len(chosen),) * 2), "entity": np.zeros((len(chosen),) * 2)}
    for data in chunks(corpus):
        has = _keys_of_entities(data, column[key_of], len(chosen))
        counts["entity"] += has.T @ has
        tile = np.repeat(np.arange(len(data.rows)), np.diff(data.cu_entities))
        on_tile = np.zeros((len(data.rows), len(chosen)), dtype=np.float32)
        np.maximum.at(on_tile, tile, has)
        counts["tile"] += on_tile.T @ on_tile
    total = {"tile": len(corpus), "entity": int(corpus.tiles.entities.sum())}
    keys = [names[i] for i in chosen]
    return pd.concat([_pairs(s, keys, counts[s], total[s]) for s in counts], ignore_index=True)


def _tiles_with(corpus: Corpus, key_of: np.ndarray, keys: int) -> np.ndarray:
    """How many tiles have each key, (keys,); `key_of` (V,) is -1 for tags of no key."""
    counts = np.zeros(keys, dtype=np.int64)
    for data in chunks(corpus):
        tile = np.repeat(np.arange(len(data.rows)), np.diff(data.cu_entities))
        pair = np.repeat(tile, np.diff(data.cu_tags)) * keys + key_of[data.tag_ids]
        counts += np.bincount(np.unique(pair[key_of[data.tag_ids] >= 0]) % keys, minlength=keys)
    return counts


def _keys_of_entities(data: TileData, column: np.ndarray, keys: int) -> np.ndarray:
    """Whether entities have the chosen keys, (N, keys) float32; `column` (V,) is -1 for others."""
    has = np.zeros((len(data.kind), keys), dtype=np.float32)
    owner = np.repeat(np.arange(len(data.kind)), np.diff(data.cu_tags))
    at = column[data.tag_ids]
    has[owner[at >= 0], at[at >= 0]] = 1
    return has


def _pairs(scope: str, keys: list[str], together: np.ndarray, total: int) -> pd.DataFrame:
    first, second = np.triu_indices(len(keys), 1)
    alone, both = np.diag(together), together[first, second]
    expected = alone[first] * alone[second] / total
    lift = np.divide(both, expected, out=np.full(len(both), np.nan), where=expected > 0)
    table = pd.DataFrame({"scope": scope, "key": np.array(keys, object)[first]})
    table["other"] = np.array(keys, object)[second]
    table["with_key"], table["with_other"] = alone[first].astype(int), alone[second].astype(int)
    table["together"], table["of"] = both.astype(int), total
    table["lift"] = np.where(np.maximum(expected, both) >= LEAST, lift, np.nan)
    return table


def draw_cooccurrence(table: pd.DataFrame) -> Figure:
    """Draw the lifts as one matrix: below the diagonal on a tile, above it on an entity.

    Keys stand in the order of a hierarchical clustering (average linkage) of their lifts on a
    tile and on an entity.
    """
    keys = list(dict.fromkeys([*table.key, *table.other]))
    logs = {scope: _matrix(part, keys) for scope, part in table.groupby("scope")}
    order = _clustered(logs)
    tile, entity = (logs[scope][order][:, order] for scope in ("tile", "entity"))
    shown = np.where(np.tri(len(keys), dtype=bool), tile, entity)
    np.fill_diagonal(shown, np.nan)
    never = np.isneginf(shown)
    shown[never] = 0
    figure, axes = plt.subplots(figsize=(WIDTH, WIDTH * 0.86))
    axes.set_facecolor("#DDDDDD")
    image = axes.imshow(shown, cmap=APART_TOGETHER, vmin=-REACH, vmax=REACH)
    y, x = np.nonzero(never)
    axes.plot(x, y, "x", color=ORANGE, markersize=4, markeredgewidth=0.9)
    labels = [plain(keys[i], 24) for i in order]
    axes.set_xticks(range(len(keys)), labels, rotation=90)
    axes.set_yticks(range(len(keys)), labels)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.plot([-0.5, len(keys) - 0.5], [-0.5, len(keys) - 0.5], color=GREY, linewidth=0.8)
    axes.set_title("above the diagonal: on the same entity", loc="right")
    axes.set_xlabel("below the diagonal: on the same tile", loc="left")
    bar = figure.colorbar(image, ax=axes, shrink=0.6, extend="both", pad=0.02)
    ticks = range(-REACH, REACH + 1)
    bar.set_ticks(ticks, labels=[f"{2**t}×" if t >= 0 else f"1/{2**-t}" for t in ticks])
    bar.set_label("together, over chance (×: never; grey: too few to tell)")
    return figure


def _matrix(pairs: pd.DataFrame, keys: list[str]) -> np.ndarray:
    """Symmetric matrix of log2 lifts, -inf where keys never come together."""
    number = {key: i for i, key in enumerate(keys)}
    first, second = pairs.key.map(number), pairs.other.map(number)
    matrix = np.full((len(keys), len(keys)), np.nan)
    with np.errstate(divide="ignore"):
        matrix[first, second] = np.log2(pairs.lift)
    return np.where(np.isnan(matrix), matrix.T, matrix)


def _clustered(logs: dict[str, np.ndarray]) -> np.ndarray:
    near = sum(np.clip(np.nan_to_num(m, neginf=-REACH), -REACH, REACH) for m in logs.values())
    if len(near) < 3:
        return np.arange(len(near))
    distance = squareform(2 * REACH - near, checks=False)
    return leaves_list(optimal_leaf_ordering(linkage(distance, "average"), distance))
