"""Attention and masking for ragged tiles."""

from geojepa_kernels.attention import attention
from geojepa_kernels.masking import compact, draw_masks, draw_strategy
from geojepa_kernels.shared_context import shared_context_attention

__all__ = ["attention", "compact", "draw_masks", "draw_strategy", "shared_context_attention"]
