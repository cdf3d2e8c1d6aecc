"""Which Philox counter each random decision of a mask reads.

The key is (seed, step). The counter of a decision is (index, purpose + 256 * block, low, high):
low and high are the two words of the tile's key, index and purpose are given in the table of
README.md. A mask therefore depends on the seed, the step and the tile, and on no other tile.
"""

from collections.abc import Mapping
from enum import IntEnum

import torch
from torch import Tensor

from geojepa_kernels.masking.philox import WORD, Words, philox


class Purpose(IntEnum):
    """What a counter is for: the low byte of its second word."""

    STRATEGY = 0
    RANDOM = 1
    RUN = 2
    AREA = 3
    MODALITY = 4
    FREE = 5


def generator_key(seed: int, step: int) -> tuple[int, int]:
    """The Philox key of a step; both numbers must be in [0, 2**32)."""
    for name, value in (("seed", seed), ("step", step)):
        if not 0 <= value <= WORD:
            raise ValueError(f"{name}={value} does not fit the generator: give one in [0, 2**32)")
    return seed, step


def draw_words(
    key: tuple[int, int], purpose: Purpose, index: Tensor, tile_key: Tensor, block: int = 0
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Four words for each pair of index and tile key, two int64 tensors of one shape."""
    second = torch.full_like(index, purpose + 256 * block)
    return philox((index, second, tile_key & WORD, (tile_key >> 32) & WORD), key)


def below(word: Words, bound: Words | int) -> Words:
    """Maps a random word to [0, bound), bound under 2**31: the high half of their product."""
    return (word * bound) >> 32


def draw_strategy(seed: int, step: int, probabilities: Mapping[str, int]) -> str:
    """The masking strategy of a step, drawn with the stated probabilities.

    Args:
        seed: of the run, in [0, 2**32).
        step: in [0, 2**32).
        probabilities: per mille by strategy, 1000 together; their order matters.

    Returns:
        A key of `probabilities`, the same for equal arguments on every machine.

    Raises:
        ValueError: probabilities that are negative or are not 1000 together.
    """
    if sum(probabilities.values()) != 1000 or min(probabilities.values()) < 0:
        raise ValueError(f"{dict(probabilities)} must be per mille, and 1000 together")
    counter = 0, int(Purpose.STRATEGY), 0, 0
    rest = below(philox(counter, generator_key(seed, step))[0], 1000)
    for strategy, share in probabilities.items():
        if rest < share:
            return strategy
        rest -= share
    raise AssertionError("a draw below 1000 always falls on a strategy")
