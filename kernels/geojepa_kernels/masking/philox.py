"""Philox4x32-10, the counter-based generator of every mask.

Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011. The same
lines serve Python integers and int64 tensors: a product of two 32-bit words wraps in an int64
tensor, but its low word and, after the mask, its high word are right.
"""

from typing import TypeVar

from torch import Tensor

Words = TypeVar("Words", int, Tensor)

WORD = 0xFFFFFFFF
MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
KEY_STEPS = 0x9E3779B9, 0xBB67AE85
ROUNDS = 10


def philox(
    counter: tuple[Words, Words, Words, Words], key: tuple[int, int]
) -> tuple[Words, Words, Words, Words]:
    """Four random 32-bit words for a counter of four 32-bit words and a key of two.

    The words are Python integers, or int64 tensors of one shape that hold values in [0, 2**32).
    """
    c0, c1, c2, c3 = counter
    for turn in range(ROUNDS):
        k0, k1 = ((word + turn * step) & WORD for word, step in zip(key, KEY_STEPS, strict=True))
        even, odd = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]
        c0, c2 = ((odd >> 32) & WORD) ^ c1 ^ k0, ((even >> 32) & WORD) ^ c3 ^ k1
        c1, c3 = odd & WORD, even & WORD
    return c0, c1, c2, c3
