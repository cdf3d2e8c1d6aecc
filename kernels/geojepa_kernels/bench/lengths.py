"""How many tokens the tiles of a batch have: as in the extracts, or all alike."""

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import torch


def read_lengths(path: str | Path) -> dict[int, int]:
    """Tiles by tokens a tile, of all places together.

    Args:
        path: CSV with the columns place, tokens, tiles; lines that start with # are notes.

    Raises:
        ValueError: a table without tiles, or with tiles of no token.
    """
    counts: Counter[int] = Counter()
    with open(path, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(line for line in file if not line.startswith("#")):
            counts[int(row["tokens"])] += int(row["tiles"])
    if not counts or min(counts) < 1 or min(counts.values()) < 1:
        raise ValueError(f"{path}: holds no tiles, or empty ones; make it anew")
    return dict(sorted(counts.items()))


def typical_batch(counts: dict[int, int], tiles: int, seed: int = 0) -> list[int]:
    """Lengths of a batch that is distributed as all tiles are: quantiles at even steps, shuffled.

    Args:
        counts: tiles by tokens a tile.
        tiles: of the batch; tile i is the quantile (i + 1/2) / tiles before shuffling.
        seed: of the order.
    """
    tokens = np.array(sorted(counts))
    up_to = np.cumsum([counts[length] for length in tokens])
    ranks = (2 * np.arange(tiles) + 1) * up_to[-1] // (2 * tiles)
    lengths = tokens[np.searchsorted(up_to, ranks, side="right")]
    order = torch.randperm(tiles, generator=torch.Generator().manual_seed(seed)).numpy()
    return lengths[order].tolist()


def uniform_batch(length: int, tokens: int) -> list[int]:
    """Tiles of one length, of about as many tokens together, and at least one."""
    return [length] * max(1, round(tokens / length))
