"""Which tiles a step trains on, which of them a process takes, and what they lose and hide.

All of it depends on the seed, the step and the tiles alone: a run goes on, on any number of
processes, as if it had never stopped.
"""

from functools import lru_cache

import numpy as np
from geojepa_kernels.masking import Masks, draw_masks, draw_strategy

from geojepa.model.batch import Batch
from geojepa.training.config import TrainConfig


def steps_per_epoch(tiles: int, config: TrainConfig) -> int:
    """Steps an epoch, of nearly equal size."""
    return max(1, round(tiles / config.batch_tiles))


def rows_of_step(
    rows: np.ndarray, config: TrainConfig, step: int, lengths: np.ndarray
) -> np.ndarray:
    """The tiles of a step; each epoch deals them out anew, by seed, epoch and lengths alone.

    Args:
        rows: of the training tiles.
        config: of the run.
        step: counted through all epochs.
        lengths: tokens of every tile of the corpus.
    """
    per_epoch = steps_per_epoch(len(rows), config)
    epoch, place = divmod(step, per_epoch)
    tokens = lengths[rows].astype(np.int64).tobytes()
    return rows[_batches_of_epoch(tokens, per_epoch, config.seed, epoch)[place]]


@lru_cache(maxsize=1)
def _batches_of_epoch(tokens: bytes, batches: int, seed: int, epoch: int) -> list[np.ndarray]:
    """Positions of the tiles of each batch of an epoch, from the int64 tokens of every tile.

    Random hands of as many tiles as there are batches are dealt out, most uneven hand first, the
    longest tile to the batch with the fewest tokens. Batches get equally many tiles, but for one.
    """
    lengths = np.frombuffer(tokens, np.int64)
    draw = np.random.default_rng((seed, epoch))
    hands = np.full((-(-len(lengths) // batches), batches), -1)
    hands.flat[: len(lengths)] = draw.permutation(len(lengths))
    worth = np.where(hands < 0, 0, lengths[hands])
    load = np.zeros(batches, np.int64)
    for hand in np.argsort(-np.ptp(worth, axis=1), kind="stable"):
        # stable, so that ties fall the same way on any processor
        falling, emptiest = (np.argsort(x, kind="stable") for x in (-worth[hand], load))
        hands[hand, emptiest] = hands[hand, falling]
        load[emptiest] += worth[hand, falling]
    dealt = draw.permuted(hands.T[draw.permutation(batches)], axis=1)
    return [tiles[tiles >= 0] for tiles in dealt]


def passes_per_step(tiles: int, config: TrainConfig) -> int:
    """Forward and backward passes that a step's tiles are split into."""
    return max(1, round(tiles / steps_per_epoch(tiles, config) / config.pass_tiles))


def rows_of_pass(
    rows: np.ndarray, config: TrainConfig, number: int, lengths: np.ndarray, rank: int, world: int
) -> np.ndarray:
    """The tiles that a process takes of a pass.

    Every tile of the step is in one pass and with one process. Processes get equally many
    tiles, but for one, and nearly equally many tokens: tiles are dealt out by length, there and
    back.

    Args:
        rows: of the training tiles.
        config: of the run.
        number: of the pass, counted through all steps.
        lengths: tokens of every tile of the corpus.
        rank: of the process.
        world: number of processes.
    """
    passes = passes_per_step(len(rows), config)
    step, part = divmod(number, passes)
    chosen = np.array_split(rows_of_step(rows, config, step, lengths), passes)[part]
    if world == 1:
        return chosen
    by_length = chosen[np.argsort(-lengths[chosen], kind="stable")]
    turn, place = np.divmod(np.arange(len(chosen)), world)
    return by_length[np.where(turn % 2, world - 1 - place, place) == rank]


def masks_of_step(batch: Batch, config: TrainConfig, step: int) -> tuple[str, Masks, Masks | None]:
    """The strategy of a step, its masks, and the masks whose context is shown where it differs."""
    strategies = config.masks.strategies()
    name = draw_strategy(config.seed, step, config.masks.shares())
    _, size, least = strategies[name]

    def drawn(min_context: int) -> Masks:
        return draw_masks(
            batch.cu_seqlens,
            batch.box,
            batch.modality,
            batch.tile_key,
            batch.max_seqlen,
            strategy=name,
            seed=config.seed,
            step=step,
            size=size,
            min_context=min_context,
            target_sets=config.masks.target_sets,
            modalities=len(config.model.token_modalities),
        )

    masks = drawn(least)
    if not config.masks.shows_targets:
        return name, masks, None
    # the same draw without freed tokens (but for the one that a context must have)
    return name, drawn(0), masks


def dropped_half(config: TrainConfig, step: int) -> str | None:
    """Which half of the entities this step goes without: tags, geometry or none."""
    if not config.model.has_geometry:
        return None
    draw = np.random.default_rng((config.seed, step, 1)).random(2)
    if draw[0] >= config.model.modality_dropout:
        return None
    return "tags" if draw[1] < 0.5 else "geometry"
