"""Masks for ragged batches of tiles, by integer rules and a counter-based generator."""

from dataclasses import dataclass

from torch import Tensor

from geojepa_kernels.choice import uses_triton
from geojepa_kernels.masking.compaction import Compact, Sizes, count_reference, order_reference
from geojepa_kernels.masking.reference import draw_masks_reference
from geojepa_kernels.masking.streams import draw_strategy, generator_key

STRATEGIES = ("random", "contiguous", "area", "modality")
# tokens of the longest tile that the kernel holds
LONGEST = 2048


@dataclass(frozen=True)
class Masks:
    """The target sets of each token of a batch, and how many tokens they have.

    Attributes:
        targets: (tokens,) uint8, bit m set where the token is in target set m.
        target_sets: M, the number of target sets of each tile.
        cu_context: (tiles + 1,) int32, where each tile's context starts among all contexts.
        cu_targets: (tiles * M + 1,) int32, where each target set starts among all target tokens.
        sizes: (4 + M,) int64 on the device, what `Sizes.of` reads: context tokens, target tokens,
            the longest context, the longest target set, and the tokens of each target set.
    """

    targets: Tensor
    target_sets: int
    cu_context: Tensor
    cu_targets: Tensor
    sizes: Tensor

    @property
    def context(self) -> Tensor:
        """(tokens,) bool, the tokens of no target set: what the context encoder sees."""
        return self.targets == 0


def draw_masks(
    cu_seqlens: Tensor,
    box: Tensor,
    modality: Tensor,
    tile_key: Tensor,
    max_seqlen: int,
    *,
    strategy: str,
    seed: int,
    step: int,
    size: int,
    min_context: int,
    target_sets: int = 4,
    modalities: int = 2,
    impl: str = "auto",
) -> Masks:
    """Draws the target sets of a step; a tile's are the same in any batch and on any device.

    Args:
        cu_seqlens: (tiles + 1,) int32, where each tile's tokens start.
        box: (tokens, 8) float32 corners or (tokens, 2) centres, in tile units; finite, and less
            than 2**40 from zero.
        modality: (tokens,) uint8, below `modalities`; read by "modality" alone.
        tile_key: (tiles,) int64, the identity of each tile in the generator.
        max_seqlen: tokens of the longest tile, or more. Above 2,048 the plain version draws.
        strategy: "random", "contiguous", "area" or "modality".
        seed: of the run, in [0, 2**32).
        step: in [0, 2**32).
        size: of a target set, per mille of the tile's tokens or, for "area", of its area; for
            "modality", of the random sets of a tile with a single modality.
        min_context: of a tile's tokens that stay in the context, per mille.
        target_sets: M, at most 8; "modality" has `modalities - 1` instead.
        modalities: how many there are.
        impl: "auto", "triton" or "reference".

    Returns:
        The masks, on the device of `box`.

    Raises:
        ValueError: an unknown strategy or impl, or a number out of its range.
    """
    by_kernel = uses_triton(impl, cu_seqlens, is_covered=max_seqlen <= LONGEST)
    if strategy not in STRATEGIES:
        raise ValueError(f"strategy={strategy!r}: choose one of {', '.join(STRATEGIES)}")
    sets = modalities - 1 if strategy == "modality" else target_sets
    ranges = {"size": (size, 1, 1000), "min_context": (min_context, 0, 1000), "sets": (sets, 1, 8)}
    for name, (value, low, high) in ranges.items():
        if not (isinstance(value, int) and low <= value <= high):
            raise ValueError(f"{name}={value!r}: give an integer in [{low}, {high}]")
    key = generator_key(seed, step)
    if by_kernel:
        from geojepa_kernels.masking.launch import draw_masks_triton

        targets, *counts = draw_masks_triton(
            cu_seqlens, box, modality, tile_key, max_seqlen, key, strategy, size, min_context, sets
        )
    else:
        targets = draw_masks_reference(
            cu_seqlens, box, modality, tile_key, key, strategy, size, min_context, sets, modalities
        )
        counts = count_reference(targets, sets, cu_seqlens)
    return Masks(targets, sets, *counts)


def compact(
    masks: Masks, cu_seqlens: Tensor, sizes: Sizes | None = None, *, impl: str = "auto"
) -> Compact:
    """Orders the tokens of masks into a packed context and packed target sets, without padding.

    Args:
        masks: of (tokens,) tokens.
        cu_seqlens: (tiles + 1,) int32, where each tile's tokens start.
        sizes: the totals, copied from `masks.sizes` ahead of time. None reads them here, which
            on a GPU waits until everything before has run.
        impl: "auto", "triton" or "reference".

    Returns:
        The order, and methods that pack any (tokens, ...) tensor: see `Compact`.

    Raises:
        ValueError: an unknown impl.
    """
    by_kernel = uses_triton(impl, cu_seqlens)
    sizes = Sizes.of(masks.sizes.tolist()) if sizes is None else sizes
    arguments = masks.targets, cu_seqlens, masks.cu_context, masks.cu_targets, sizes
    if by_kernel:
        from geojepa_kernels.masking.launch import order_triton

        return order_triton(*arguments)
    return order_reference(*arguments)


__all__ = ["STRATEGIES", "Compact", "Masks", "Sizes", "compact", "draw_masks", "draw_strategy"]
