"""Attention for packed sequences of unequal length."""

from torch import Tensor

from geojepa_kernels.attention.reference import attention_reference
from geojepa_kernels.choice import uses_triton


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    *,
    dropout_p: float = 0.0,
    scale: float | None = None,
    impl: str = "auto",
) -> Tensor:
    """The queries of each sequence attend to the keys of the same sequence, and to nothing else.

    Args:
        q: (queries, heads, head_dim), the sequences one after another; any strides.
        k: (keys, heads, head_dim).
        v: (keys, heads, head_dim).
        cu_seqlens_q: (sequences + 1,) int32, where each sequence starts in q, and the end.
        cu_seqlens_k: (sequences + 1,) int32, the same for k and v.
        max_seqlen_q: the longest sequence of q, or more.
        max_seqlen_k: the longest sequence of k, or more.
        dropout_p: the share of attention weights set to zero; 0 outside training.
        scale: factor of the scores; 1 / sqrt(head_dim) if None.
        impl: "auto" or "reference".

    Returns:
        (queries, heads, head_dim), in the dtype of q; zeros for queries without keys.

    Raises:
        ValueError: an unknown impl.
    """
    uses_triton(impl, q, is_covered=False)
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    return attention_reference(q, k, v, cu_seqlens_q, cu_seqlens_k, dropout_p, scale)


__all__ = ["attention"]
