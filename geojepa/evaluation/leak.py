"""How much one image token tells of the rest of its tile.

A token of a local tokeniser knows its patch and nothing else, but patches of one place look alike,
so that it tells something of the rest all the same. A token that has passed through global
attention may know the rest itself. To tell the two apart, patches are also pasted into another
tile: what such a token tells of the tile that it lies in, its tokeniser has put there.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from tqdm import tqdm

from geojepa.data.corpus import Corpus
from geojepa.data.splits import FOLDS, blocks, folds, split, tile_keys
from geojepa.errors import GeoJEPAError
from geojepa.evaluation.image_tokens import Tokens
from geojepa.evaluation.metrics import block_draws, hashed, interval, replicate
from geojepa.evaluation.probes import PENALTIES, Standard, one_thread, ridge

# tokens read of a tile, and images in memory at once
DRAWS, LOT = 4, 32


def leak_table(
    corpus: Corpus, systems: Mapping[str, Tokens], tiles: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """Linear R2, on held-out tiles, from one token to the rest of its tile.

    Each fold is the test once, ridge's penalty is chosen on validation. "pixels" of the rest are
    mean and deviation of each colour and the mean step of brightness to the east and to the
    south; "tokens" are the mean of the system's other tokens. Both leave out the patches that
    are read, and each number counts alike.

    Args:
        corpus: with images.
        systems: tokenisers by name.
        tiles: at most so many are read.
        seed: of the draws of tiles and patches.

    Returns:
        One row a system, patch ("own" or "pasted") and target ("pixels" or "tokens"): r2 with
        its 95 % interval `low` to `high` over blocks; how many `tiles` in how many `blocks`,
        `tokens` read of each tile, and their `width`.

    Raises:
        GeoJEPAError: if no tile has an image, or too few to hold out each fold.
    """
    rows, giver, draw = _drawn(corpus, tiles, seed)
    block = np.unique(blocks(corpus.tiles)[rows], return_inverse=True)[1]
    draws = block_draws(block.max(initial=0) + 1)
    try:
        own = [_parts(corpus, k, rows) for k in range(FOLDS)]
    except GeoJEPAError as error:
        raise _too_few(corpus) from error
    # a pasted patch and the tile around it are of one part
    pasted = [[part[np.isin(giver[part], part)] for part in parts] for parts in own]
    if any(len(part) < 2 for parts in pasted for part in parts):
        raise _too_few(corpus)
    table = []
    for name, tokens in systems.items():
        read = _read(corpus, rows, giver, tokens, draw, name)
        for patch, folded in (("own", own), ("pasted", pasted)):
            for target in ("pixels", "tokens"):
                errors = held_out(read[patch], read[target], folded)
                r2, low, high = interval(replicate(r2_of, draws, block, *errors))
                what = {"system": name, "patch": patch, "target": target}
                size = {"tiles": len(rows), "blocks": draws.shape[1], "tokens": DRAWS}
                size["width"] = read[patch].shape[2]
                table.append(what | {"r2": r2, "low": low, "high": high} | size)
    return pd.DataFrame(table)


def pasted_examples(
    corpus: Corpus, tiles: int = 2000, seed: int = 0, count: int = 4, side: int = 14
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Some of the tiles that `leak_table` reads, before and after patches are pasted into them.

    Args:
        corpus, tiles, seed: as there.
        count: of tiles, those that are drawn first.
        side: patches along a side.

    Returns:
        Images (n, 224, 224, 3) uint8 twice, and which pixels are read, (n, 224, 224) bool.

    Raises:
        GeoJEPAError: if no tile has an image.
    """
    rows, giver, draw = _drawn(corpus, tiles, seed)
    first = np.argsort(draw, kind="stable")[:count]
    images, given = corpus.images(rows[first]), corpus.images(rows[giver[first]])
    is_read = _spread(_marks(_places(draw[first], side * side), side * side), images.shape[1])
    return images, np.where(is_read[..., None], given, images), is_read


def _drawn(corpus: Corpus, tiles: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of the tiles that are read, as positions in them their givers, and their draws."""
    if not corpus.has_image.any():
        raise GeoJEPAError(f"{corpus.name}: no tile has an image; prepare it with --imagery")
    fold = folds(corpus.tiles)
    draw = hashed(tile_keys(corpus.tiles), f"leak {seed}")
    rows = np.flatnonzero((fold >= 0) & corpus.has_image)
    rows = np.sort(rows[np.argsort(draw[rows], kind="stable")[:tiles]])
    return rows, _givers(rows, fold[rows], draw[rows]), draw[rows]


def _too_few(corpus: Corpus) -> GeoJEPAError:
    return GeoJEPAError(
        f"{corpus.name}: too few tiles with an image to hold out each of {FOLDS} folds of whole "
        "blocks; give a larger corpus, or read more of its tiles"
    )


def _givers(rows: np.ndarray, fold: np.ndarray, draw: np.ndarray) -> np.ndarray:
    """(T,) which tile, as a position in `rows`, gives its patches to each: another of its fold."""
    giver = np.arange(len(rows))
    for k in range(FOLDS):
        mine = np.flatnonzero(fold == k)
        ring = mine[np.argsort(draw[mine], kind="stable")]
        giver[ring] = np.roll(ring, 1)
    return giver


def _parts(corpus: Corpus, k: int, rows: np.ndarray) -> list[np.ndarray]:
    """Train, validation and test of a fold, as positions in `rows`."""
    parts = split(corpus.tiles, k)
    several = (parts.train, parts.validation, parts.test)
    return [np.flatnonzero(np.isin(rows, part)) for part in several]


def _read(
    corpus: Corpus, rows: np.ndarray, giver: np.ndarray, tokens: Tokens, draw: np.ndarray, name: str
) -> dict[str, np.ndarray]:
    """Tokens "own" and "pasted" (T, DRAWS, D), targets "pixels" (T, 8) and "tokens" (T, D)."""
    found: dict[str, list[np.ndarray]] = {"own": [], "pasted": [], "pixels": [], "tokens": []}
    for start in tqdm(range(0, len(rows), LOT), desc=name, disable=None):
        here = np.arange(start, min(start + LOT, len(rows)))
        images, given = corpus.images(rows[here]), corpus.images(rows[giver[here]])
        whole = tokens(images)
        patches = whole.shape[1]
        places = _places(draw[here], patches)
        is_read = _marks(places, patches)
        is_rest = ~_spread(is_read, images.shape[1])
        pasted = tokens(np.where(is_rest[..., None], images, given))
        found["own"].append(np.take_along_axis(whole, places[..., None], axis=1))
        found["pasted"].append(np.take_along_axis(pasted, places[..., None], axis=1))
        found["tokens"].append(
            np.stack([x[~r].mean(0) for x, r in zip(whole, is_read, strict=True)])
        )
        found["pixels"].append(pixel_statistics(images, is_rest))
    return {what: np.concatenate(parts) for what, parts in found.items()}


def _places(draw: np.ndarray, patches: int) -> np.ndarray:
    """(n, DRAWS) which patches are read of tiles with these draws."""
    return np.stack([np.random.default_rng(int(d)).permutation(patches)[:DRAWS] for d in draw])


def _marks(places: np.ndarray, patches: int) -> np.ndarray:
    """(n, patches) bool, True at `places`."""
    marks = np.zeros((len(places), patches), bool)
    np.put_along_axis(marks, places, True, axis=1)
    return marks


def _spread(of_patches: np.ndarray, size: int) -> np.ndarray:
    """What is said of patches (n, side^2), said of each pixel: (n, size, size)."""
    side = round(of_patches.shape[1] ** 0.5)
    of = np.arange(size) * side // size
    return of_patches.reshape(-1, side, side)[:, of][:, :, of]


def pixel_statistics(images: np.ndarray, is_counted: np.ndarray) -> np.ndarray:
    """Colour and texture of the pixels that count.

    Args:
        images: (n, H, W, 3) uint8.
        is_counted: (n, H, W) bool.

    Returns:
        (n, 8): mean and deviation of each colour, and the mean absolute step of brightness to
        the next pixel east and south, where both count.
    """
    rows = []
    for image, live in zip(images.astype(np.float64), is_counted, strict=True):
        colours, brightness = image[live], image.mean(axis=2)
        east = np.abs(np.diff(brightness, axis=1))[live[:, 1:] & live[:, :-1]]
        south = np.abs(np.diff(brightness, axis=0))[live[1:] & live[:-1]]
        rows.append([*colours.mean(0), *colours.std(0), east.mean(), south.mean()])
    return np.array(rows)


@one_thread()
def held_out(
    x: np.ndarray, y: np.ndarray, folded: list[list[np.ndarray]]
) -> tuple[np.ndarray, np.ndarray]:
    """Squared error of ridge and of the train mean on each tile when it is tested: (T,) twice.

    Args:
        x: (T, DRAWS, D).
        y: (T, S).
        folded: train, validation and test of each fold; each tile is in one test.
    """
    error, spread = np.empty((2, len(x)))
    for parts in folded:
        train, test = parts[0], parts[2]
        scale, aim = Standard.of(x[train].reshape(-1, x.shape[2])), Standard.of(y[train])
        inputs = [scale(x[rows].reshape(-1, x.shape[2])) for rows in parts]
        targets = [aim(y[rows]).repeat(x.shape[1], axis=0) for rows in parts]
        fitted = ridge(inputs[0], targets[0], PENALTIES[::2] * len(inputs[0]))
        best = min(fitted, key=lambda weights: np.square(inputs[1] @ weights - targets[1]).mean())
        missed = np.square(inputs[2] @ best - targets[2]).sum(1)
        error[test] = missed.reshape(len(test), -1).mean(1)
        spread[test] = np.square(aim(y[test])).sum(1)
    return error, spread


def r2_of(weight: np.ndarray, error: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """R2 of errors beside those of the train mean, both (T,), for each row of weights (R, T)."""
    return 1 - (weight @ error) / (weight @ spread)
