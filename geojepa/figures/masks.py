"""Masks drawn on a tile, and the shares of tokens in context and targets by strategy."""

from dataclasses import dataclass
from math import isqrt

import numpy as np
import pandas as pd
import torch
from geojepa_kernels.masking import Masks, draw_masks
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from geojepa.data.corpus import Corpus
from geojepa.figures.style import BLUE, GREY, ORANGE, WIDTH
from geojepa.figures.tiles import draw_boxes, draw_image, frame_tile
from geojepa.model.batch import Batch, Batches
from geojepa.model.config import ModelConfig
from geojepa.training.config import MaskConfig

TILES_PER_BATCH = 64


@dataclass(frozen=True)
class Strategy:
    """A masking strategy as `draw_masks` takes it; numbers are per mille."""

    name: str
    size: int
    min_context: int


def strategies(config: MaskConfig, has_images: bool) -> list[Strategy]:
    """The strategies to compare: those of a preset, drawn by it or not.

    "modality" needs a second modality: without images it would be "random" again, and is left out.
    """
    sizes = {name: (size, least) for name, (_, size, least) in config.strategies().items()}
    names = ["random", "contiguous", "area", *(["modality"] if has_images else [])]
    return [Strategy(name, *sizes[name]) for name in names]


def token_batches(corpus: Corpus) -> Batches:
    """Batches with every token of a tile, entities and patches, and without their features."""
    return Batches(corpus, ModelConfig("ti" if corpus.has_images else "t"))


def draw(batch: Batch, strategy: Strategy, seed: int, step: int, sets: int = 4) -> Masks:
    """The masks of a batch under a strategy."""
    return draw_masks(
        batch.cu_seqlens,
        batch.box,
        batch.modality,
        batch.tile_key,
        batch.max_seqlen,
        strategy=strategy.name,
        seed=seed,
        step=step,
        size=strategy.size,
        min_context=strategy.min_context,
        target_sets=sets,
    )


def token_table(
    batches: Batches, row: int, chosen: list[Strategy], seed: int, step: int
) -> pd.DataFrame:
    """One line a strategy and token of a tile: strategy, token, modality, targets, box corners.

    `targets` is the token's bits: bit m is set in target set m, and 0 is context.
    """
    batch = batches(np.array([row]))
    lines = []
    for strategy in chosen:
        table = pd.DataFrame({"strategy": strategy.name, "token": np.arange(len(batch.box))})
        table["modality"] = np.array(batches.config.token_modalities)[batch.modality.numpy()]
        masks = draw(batch, strategy, seed, step)
        table["sets"] = masks.target_sets
        table["targets"] = masks.targets.numpy()
        table[[f"{axis}{corner}" for corner in range(4) for axis in "xy"]] = batch.box.numpy()
        lines.append(table)
    return pd.concat(lines, ignore_index=True)


def draw_tile_masks(corpus: Corpus, row: int, table: pd.DataFrame) -> Figure:
    """Draw a line a strategy: the tokens of the context, then those of each target set."""
    names = table["strategy"].unique()
    columns = 1 + int(table["sets"].max())
    figure, panels = plt.subplots(
        len(names), columns, figsize=(WIDTH + 1, 1.95 * len(names)), squeeze=False
    )
    image = corpus.images(np.array([row]))[0] if corpus.has_image[row] else None
    for line, name in zip(panels, names, strict=True):
        tokens = table[table["strategy"] == name]
        side = isqrt(int((tokens["modality"] == "image").sum()))
        line[0].set_ylabel(name, fontsize=10)
        for column, axes in enumerate(line):
            if column > tokens["sets"].iloc[0]:
                axes.set_axis_off()
                continue
            bits = tokens["targets"].to_numpy()
            inside = (bits >> (column - 1)) & 1 == 1 if column else bits == 0
            title = f"targets {column}" if column else "context"
            frame_tile(axes, f"{title}, {inside.mean():.0%}")
            _draw_tokens(axes, tokens[inside], ORANGE if column else BLUE, image, side)
    return figure


def _draw_tokens(
    axes: Axes, tokens: pd.DataFrame, colour: str, image: np.ndarray | None, side: int
) -> None:
    is_patch = (tokens["modality"] == "image").to_numpy()
    box = tokens[[f"{axis}{corner}" for corner in range(4) for axis in "xy"]].to_numpy()
    if image is not None:
        axes.set_facecolor("#F1F1F1")
        shown = _patches(image, box[is_patch], side)
        draw_image(axes, shown, alpha=0.8)
    draw_boxes(axes, box[~is_patch], colour, fill=0.15)


def _patches(image: np.ndarray, box: np.ndarray, side: int) -> np.ndarray:
    """The image (h, w, 4) with every patch transparent whose box is not among (n, 8) boxes."""
    seen = np.zeros((side, side), dtype=np.uint8)
    column, row = np.rint(box[:, 0] * side), np.rint((1 - box[:, 1]) * side) - 1
    seen[row.astype(int), column.astype(int)] = 255
    alpha = np.kron(seen, np.ones((len(image) // side, len(image) // side), dtype=np.uint8))
    return np.dstack([image, alpha])


def share_table(
    batches: Batches, rows: np.ndarray, chosen: list[Strategy], seed: int, step: int
) -> pd.DataFrame:
    """Shares of a tile's tokens over many tiles: strategy, part, mean, p5, p95, tiles.

    Parts are "context", "one target set" (all sets of all tiles), "any target set" and
    "predictions": tokens of all sets together, over 1 where sets overlap.
    """
    found: dict[tuple[str, str], list[np.ndarray]] = {}
    for part in np.array_split(rows, -(-len(rows) // TILES_PER_BATCH)):
        batch = batches(part)
        for strategy in chosen:
            shares = tile_shares(draw(batch, strategy, seed, step), batch.cu_seqlens)
            for name, values in shares.items():
                found.setdefault((strategy.name, name), []).append(values)
    lines = []
    for (strategy_name, part_name), lists in found.items():
        values = np.concatenate(lists)
        low, high = np.percentile(values, [5, 95])
        lines.append((strategy_name, part_name, values.mean(), low, high, len(rows)))
    return pd.DataFrame(lines, columns=["strategy", "part", "mean", "p5", "p95", "tiles"])


def tile_shares(masks: Masks, cu_seqlens: torch.Tensor) -> dict[str, np.ndarray]:
    """Shares of each tile's tokens by part; "one target set" holds tiles x sets values."""
    count = cu_seqlens.diff().long()
    bits = torch.arange(masks.target_sets, dtype=torch.uint8)
    member = ((masks.targets[:, None] >> bits) & 1).double()  # [tokens, sets]
    sets = torch.segment_reduce(member, "mean", lengths=count).numpy()
    context = torch.segment_reduce(masks.context.double(), "mean", lengths=count).numpy()
    return {
        "context": context,
        "one target set": sets.ravel(),
        "any target set": 1 - context,
        "predictions": sets.sum(axis=1),
    }


def draw_shares(table: pd.DataFrame) -> Figure:
    """Draw the mean and the 5th to 95th percentile of each share, a panel a part."""
    parts, names = table["part"].unique(), table["strategy"].unique()
    figure, panels = plt.subplots(1, len(parts), figsize=(WIDTH + 1, 2.6), sharey=True)
    for axes, part in zip(panels, parts, strict=True):
        lines = table[table["part"] == part].set_index("strategy").loc[names]
        place = np.arange(len(lines))
        axes.hlines(place, lines.p5, lines.p95, color=GREY, linewidth=2)
        axes.plot(lines["mean"], place, "o", color=BLUE if part == "context" else ORANGE)
        axes.set(title=part, xlim=(0, max(1, 1.05 * lines.p95.max())), xlabel="share of tokens")
        axes.set_yticks(place, names)
        axes.set_xticks(np.arange(0, axes.get_xlim()[1] + 0.01, 0.5))
        if axes.get_xlim()[1] > 1:
            axes.axvline(1, color=GREY, linewidth=0.8, linestyle=":")
    panels[0].invert_yaxis()
    return figure
