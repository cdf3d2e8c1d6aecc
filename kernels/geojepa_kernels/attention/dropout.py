"""Which pairs of query and key drop out: a hash of the pair, the same on every device.

A Philox word for each query row and one for each key row, of a seed and a head, are joined by
exclusive or and stirred by the finaliser of MurmurHash3 (fmix32, in the public domain). A pair is
kept where the result is at least the threshold. That is ten integer operations a pair, where a
Philox word for each pair would cost more than the attention itself.
"""

import math

import torch
from torch import Tensor

from geojepa_kernels.masking.philox import WORD, philox

FINALISER = (16, 0x85EBCA6B), (13, 0xC2B2AE35)
LAST_SHIFT = 16


def threshold_of(dropout_p: float) -> int:
    """The number of 2**32 that drops the share `dropout_p` of pairs."""
    if not 0 <= dropout_p < 1:
        raise ValueError(f"dropout_p={dropout_p}: give a share in [0, 1)")
    return min(round(dropout_p * (WORD + 1)), WORD)


def draw_seed(device: torch.device, dropout_p: float) -> Tensor:
    """A seed (1,) int64 from the generator of a device; nobody reads it if nothing drops."""
    if dropout_p == 0:
        return torch.empty(1, dtype=torch.int64, device=device)
    return torch.randint(1 << 62, (1,), dtype=torch.int64, device=device)


def row_words(seed: Tensor, rows: int, heads: int, side: int) -> Tensor:
    """The word of each head and row, (heads, rows) int32; side 0 for queries, 1 for keys."""
    key = int(seed) & WORD, (int(seed) >> 32) & WORD
    head = torch.arange(heads, device=seed.device)[:, None]
    at, which = torch.broadcast_tensors(torch.arange(rows, device=seed.device), head)
    return philox((at, which, torch.full_like(at, side), torch.zeros_like(at)), key)[0].int()


def keep_pairs(queries: list[Tensor], keys: list[Tensor], threshold: int) -> list[Tensor]:
    """Which pairs of each sequence are kept.

    All sequences are stirred together: on a CPU, a call for each costs more than its arithmetic.

    Args:
        queries: words of each sequence's queries, (heads, queries) int32.
        keys: of its keys, (heads, keys) int32.
        threshold: see `threshold_of`.

    Returns:
        (heads, queries, keys) bool for each sequence.
    """
    shapes = [(*q.shape, k.shape[1]) for q, k in zip(queries, keys, strict=True)]
    sizes = [math.prod(shape) for shape in shapes]
    # int32 products wrap as unsigned ones do; its shifts copy the sign, which the masks remove
    word = queries[0].new_empty(sum(sizes))
    for part, shape, q, k in zip(word.split(sizes), shapes, queries, keys, strict=True):
        torch.bitwise_xor(q[:, :, None], k[:, None, :], out=part.view(shape))
    moved = torch.empty_like(word)
    for shift, factor in (*FINALISER, (LAST_SHIFT, 1)):
        torch.bitwise_right_shift(word, shift, out=moved)
        word ^= moved.bitwise_and_(WORD >> shift)
        if factor != 1:
            word *= _signed(factor)
    # the order of unsigned words is that of signed ones with the first bit turned
    kept = (word ^ _signed(1 << 31)) >= threshold - (1 << 31)
    return [part.view(shape) for part, shape in zip(kept.split(sizes), shapes, strict=True)]


def _signed(word: int) -> int:
    """The int32 with the bits of an unsigned word."""
    return word - (1 << 32) if word >> 31 else word
