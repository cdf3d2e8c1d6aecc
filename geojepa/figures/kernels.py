"""Ragged batches in numbers: ways to attend, the price of padding, the mask generator."""

import logging
import warnings
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from geojepa_kernels.bench.compare import compare_ways
from geojepa_kernels.masking import draw_strategy
from geojepa_kernels.masking.philox import philox
from matplotlib.figure import Figure

from geojepa.figures.style import BLUE, GREY, ORANGE, RED, WIDTH

BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
BITS = 32


def ways_table(
    lengths: Sequence[int], heads: int, head_dim: int, repeats: int, seed: int
) -> pd.DataFrame:
    """Rows of `compare_ways`, with the time relative to ours."""
    # PyTorch notes at length that its nested tensors are a prototype
    logging.getLogger("torch.fx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The PyTorch API of nested tensors")
        table = pd.DataFrame(compare_ways(lengths, heads, head_dim, repeats, seed))
    ours = table.loc[table["way"] == "ours", "median_ms"].iloc[0]
    return table.assign(relative=table["median_ms"] / ours)


def plot_ways(table: pd.DataFrame) -> Figure:
    """Time (median and quartiles) and distance from float64 of each way."""
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 0.9 + 0.38 * len(table)), sharey=True)
    place = np.arange(len(table))[::-1]
    colours = [BLUE if way == "ours" else GREY for way in table["way"]]
    axes[0].hlines(place, table["q25"], table["q75"], color=colours, lw=2)
    axes[0].scatter(table["median_ms"], place, color=colours, zorder=2)
    for y, time, ratio in zip(place, table["q75"], table["relative"], strict=True):
        axes[0].annotate(
            f"{ratio:.1f} ×", (time, y), (4, 0), textcoords="offset points", va="center", size=9
        )
    axes[0].set(title="Forward and backward", xscale="log", xlabel="milliseconds a batch")
    axes[0].set_xlim(table["q25"].min() / 2, table["q75"].max() * 3)
    axes[0].set_yticks(place, table["way"])
    axes[1].plot(1e6 * table["max_error"], place, "o", color=BLUE)
    axes[1].set(title="Largest difference from float64", xlabel="absolute error, millionths")
    axes[1].set_xlim(0, 1.1e6 * table["max_error"].max())
    axes[1].grid(axis="x", lw=0.4)
    return figure


def padding_table(
    lengths: dict[str, np.ndarray],
    sizes: Sequence[int] = BATCH_SIZES,
    draws: int = 200,
    seed: int = 0,
) -> pd.DataFrame:
    """What padding random batches of tiles to their longest would add.

    Args:
        lengths: tokens of each tile, by name of the tokens.
        sizes: tiles a batch; those beyond the number of tiles are left out.
        draws: batches of each size.
        seed: of the draws.

    Returns:
        tokens, tiles, and the means over batches of `padding`, the share of positions that hold
        no token, and `pairs`, how many times more pairs attend than there are.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for name, length in lengths.items():
        length = length[length > 0].astype(float)
        for size in (size for size in sizes if size <= len(length)):
            batch = np.stack([rng.choice(length, size, replace=False) for _ in range(draws)])
            longest = batch.max(axis=1)
            padding = 1 - batch.sum(axis=1) / (size * longest)
            pairs = size * longest**2 / (batch**2).sum(axis=1)
            row = {"tokens": name, "tiles": size, "padding": padding.mean(), "pairs": pairs.mean()}
            rows.append(row)
    return pd.DataFrame(rows)


def plot_padding(lengths: dict[str, np.ndarray], table: pd.DataFrame) -> Figure:
    """How long tiles are, and what a padded batch of them would waste."""
    figure, axes = plt.subplots(1, 3, figsize=(WIDTH + 2, 3.2))
    longest = max(int(length.max()) for length in lengths.values())
    edges = np.linspace(0, longest + 1, 41)
    for colour, (name, length) in zip((ORANGE, BLUE), lengths.items(), strict=False):
        axes[0].hist(length, edges, color=colour, alpha=0.65, label=name)
        part = table[table["tokens"] == name]
        axes[1].plot(part["tiles"], 100 * part["padding"], "o-", color=colour, ms=4, label=name)
        axes[2].plot(part["tiles"], part["pairs"], "o-", color=colour, ms=4)
    axes[0].set(title="Tokens a tile", xlabel="tokens", ylabel="tiles")
    axes[0].legend()
    axes[1].set(title="Positions that are padding", ylabel="%", ylim=(0, 100))
    axes[2].set(title="Attention pairs, padded / real", ylim=(1, None))
    for axis in axes[1:]:
        axis.set_xscale("log", base=2)
        axis.set_xticks(BATCH_SIZES, map(str, BATCH_SIZES))
        axis.set_xlabel("tiles a batch")
    return figure


def bit_table(count: int = 1 << 16, seed: int = 0) -> pd.DataFrame:
    """How often each bit of Philox is one over `count` counters, as a z-score.

    Of 32 fair bits about 30 lie within 2 and nearly all within 3.
    """
    zero = torch.zeros(count, dtype=torch.int64)
    words = torch.stack(philox((torch.arange(count), zero, zero, zero), (seed, 0))).flatten()
    ones = np.array([((words >> bit) & 1).sum().item() for bit in range(BITS)])
    n = len(words)
    return pd.DataFrame(
        {"kind": "bit", "name": range(BITS), "asked": 0.5, "found": ones / n}
    ).assign(z=(ones - n / 2) / np.sqrt(n / 4))


def strategy_table(shares: dict[str, int], steps: int = 10_000, seed: int = 0) -> pd.DataFrame:
    """How often each masking strategy is drawn in `steps` steps; `shares` per mille."""
    drawn = [draw_strategy(seed, step, shares) for step in range(steps)]
    names = [name for name, share in shares.items() if share]
    asked = np.array([shares[name] / 1000 for name in names])
    found = np.array([drawn.count(name) / steps for name in names])
    error = np.sqrt(asked * (1 - asked) / steps).clip(min=1e-12)
    return pd.DataFrame({"kind": "strategy", "name": names, "asked": asked, "found": found}).assign(
        z=(found - asked) / error
    )


def generator_table(bits: pd.DataFrame, strategies: pd.DataFrame) -> pd.DataFrame:
    """Both tables as one."""
    return pd.concat([bits, strategies], ignore_index=True)


def plot_generator(bits: pd.DataFrame, strategies: pd.DataFrame) -> Figure:
    """The generator's bits against a fair coin, and the strategies against what was asked."""
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 2.8), width_ratios=(2, 1))
    axes[0].axhspan(-2, 2, color=GREY, alpha=0.15, lw=0)
    axes[0].plot(bits["name"], bits["z"], "o", color=BLUE, ms=4)
    axes[0].axhline(0, color=GREY, lw=0.8)
    axes[0].set(title="Ones in each bit of Philox", xlabel="bit", ylabel="standard errors")
    axes[0].set_ylim(-4, 4)
    place = np.arange(len(strategies))
    axes[1].bar(place, strategies["found"], color=BLUE, width=0.6, label="drawn")
    axes[1].plot(place, strategies["asked"], "_", color=RED, ms=26, mew=2, label="asked")
    axes[1].set_xticks(place, strategies["name"])
    axes[1].set(title="Share of steps by strategy", ylim=(0, strategies["found"].max() * 1.35))
    axes[1].legend(ncols=2, loc="upper right")
    return figure
