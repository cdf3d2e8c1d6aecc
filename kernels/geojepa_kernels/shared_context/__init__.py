"""Attention of several target sets to one context that they share."""

from torch import Tensor

from geojepa_kernels.attention import check_shapes, is_covered
from geojepa_kernels.attention.dropout import draw_seed
from geojepa_kernels.choice import uses_triton
from geojepa_kernels.shared_context.reference import shared_context_reference


def shared_context_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_context: Tensor,
    cu_targets: Tensor,
    max_context: int,
    max_targets: int,
    *,
    dropout_p: float = 0.0,
    scale: float | None = None,
    impl: str = "auto",
) -> Tensor:
    """A tile's context attends to itself alone; a target set to that context and to itself.

    With C context tokens and P target tokens in the batch, and M target sets a tile:

    Args:
        q: (C + P, heads, head_dim): the contexts of all tiles, then the M target sets of tile 0,
            then those of tile 1, and so on; any strides.
        k: (C + P, heads, head_dim), in the same order.
        v: (C + P, heads, head_dim).
        cu_context: (tiles + 1,) int32, where each context starts, counted from the first token.
        cu_targets: (tiles * M + 1,) int32, where each target set starts, counted from token C.
        max_context: tokens of the longest context, or more.
        max_targets: tokens of the longest target set, or more.
        dropout_p: the share of attention weights set to zero; 0 outside training.
        scale: factor of the scores; 1 / sqrt(head_dim) if None.
        impl: "auto", "triton" or "reference", as in `attention`.

    Returns:
        (C + P, heads, head_dim), in the order and dtype of q.

    Raises:
        ValueError: an unknown impl, one that cannot run here, shapes that do not belong together,
            or a number of target sets that the tiles do not divide.
    """
    check_shapes(q, k, v)
    if len(q) != len(k):
        raise ValueError(f"{len(q)} queries and {len(k)} keys: each token is both")
    tiles, targets = cu_context.numel() - 1, cu_targets.numel() - 1
    sets = targets // max(tiles, 1)
    if targets != sets * tiles or (tiles and not sets):
        raise ValueError(f"{targets} target sets for {tiles} tiles: give each tile as many sets")
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    seed = draw_seed(q.device, dropout_p)
    if uses_triton(impl, q, is_covered(q)):
        from geojepa_kernels.attention.operator import attend_ragged

        return attend_ragged(q, k, v, cu_context, cu_targets, seed, sets, dropout_p, scale)
    return shared_context_reference(q, k, v, cu_context, cu_targets, seed, dropout_p, scale)


__all__ = ["shared_context_attention"]
