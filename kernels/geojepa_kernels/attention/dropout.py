"""Which pairs of query and key drop out: a hash of the pair, the same on every device.

A Philox word for each query row and one for each key row, of a seed and a head, are joined by
exclusive or and stirred by the finaliser of MurmurHash3 (fmix32, in the public domain). A pair is
kept where the result is at least the threshold. That is ten integer operations a pair, where a
Philox word for each pair would cost more than the attention itself.
"""

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


def keep_pairs(seed: Tensor, queries: Tensor, keys: Tensor, heads: int, threshold: int) -> Tensor:
    """Which pairs are kept, (heads, queries, keys) bool; rows (queries,) and (keys,) int64."""
    key = int(seed) & WORD, (int(seed) >> 32) & WORD
    head = torch.arange(heads, device=queries.device)[:, None]

    def words(rows: Tensor, side: int) -> Tensor:
        at, which = torch.broadcast_tensors(rows, head)
        return philox((at, which, torch.full_like(at, side), torch.zeros_like(at)), key)[0]

    word = words(queries, 0)[:, :, None] ^ words(keys, 1)[:, None, :]
    for shift, factor in FINALISER:
        word = ((word ^ (word >> shift)) * factor) & WORD
    return (word ^ (word >> LAST_SHIFT)) >= threshold
