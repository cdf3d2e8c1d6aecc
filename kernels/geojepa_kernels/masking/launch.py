"""Launches of the masking kernels: host code that never waits for the device."""

from math import isqrt

import torch
from torch import Tensor

from geojepa_kernels.masking.compaction import Compact, Sizes
from geojepa_kernels.masking.kernel import draw_kernel
from geojepa_kernels.masking.order_kernel import order_kernel, scan_kernel
from geojepa_kernels.masking.reference import UNIT

SHORTEST_BLOCK = 128
SCANNED = 1024
ORDERED = 256


def power_above(number: int) -> int:
    """The smallest power of two that is at least `number`."""
    return 1 << max(number - 1, 0).bit_length()


def warps_of(block: int, sets: int) -> int:
    """Warps of a program of the drawing kernel; with these, tiles up to 2,048 tokens spill none."""
    return 2 if block * power_above(sets) <= 1024 else 8


def draw_masks_triton(
    cu_seqlens: Tensor,
    box: Tensor,
    modality: Tensor,
    tile_key: Tensor,
    max_seqlen: int,
    key: tuple[int, int],
    strategy: str,
    size: int,
    min_context: int,
    sets: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Targets, cu_context, cu_targets and sizes as in `Masks`; arguments as in `draw_masks`."""
    tiles = len(tile_key)
    targets = torch.empty(len(box), dtype=torch.uint8, device=box.device)
    counts = torch.empty(tiles * (1 + sets), dtype=torch.int32, device=box.device)
    block = max(power_above(max_seqlen), SHORTEST_BLOCK)
    draw_kernel[(tiles,)](
        targets,
        counts,
        cu_seqlens,
        box.contiguous(),
        modality,
        tile_key,
        key[0] | key[1] << 32,
        size,
        (isqrt(4 * size * UNIT * UNIT // 1000) + 1) // 2,
        min_context,
        STRATEGY=strategy,
        SETS=sets,
        CORNERS=box.shape[1] // 2,
        M=power_above(sets),
        BLOCK=block,
        num_warps=warps_of(block, sets),
    )
    cu_context = torch.empty(tiles + 1, dtype=torch.int32, device=box.device)
    cu_targets = torch.empty(tiles * sets + 1, dtype=torch.int32, device=box.device)
    sizes = torch.empty(4 + sets, dtype=torch.int64, device=box.device)
    scan_kernel[(1,)](cu_context, cu_targets, sizes, counts, tiles, SETS=sets, BLOCK=SCANNED)
    return targets, cu_context, cu_targets, sizes


def order_triton(
    targets: Tensor, cu_seqlens: Tensor, cu_context: Tensor, cu_targets: Tensor, sizes: Sizes
) -> Compact:
    """The packed order of the tokens, from what `draw_masks_triton` gives and its totals."""
    device, tiles, sets = targets.device, len(cu_seqlens) - 1, len(sizes.sets)
    found = Compact(
        torch.empty(sizes.context, dtype=torch.int64, device=device),
        cu_context,
        torch.empty(sizes.targets, dtype=torch.int64, device=device),
        cu_targets,
        torch.empty(1 + sets, len(targets), dtype=torch.int32, device=device),
        torch.empty(sizes.targets, dtype=torch.int64, device=device),
        torch.empty(1, sizes.targets, dtype=torch.int32, device=device),
        sizes,
        by_kernel=True,
    )
    order_kernel[(tiles, 1 + sets)](
        found.context_index,
        found.target_index,
        found.set_index,
        found.slots,
        found.set_slots,
        targets,
        cu_seqlens,
        cu_context,
        cu_targets,
        len(targets),
        sets,
        BLOCK=ORDERED,
    )
    return found
