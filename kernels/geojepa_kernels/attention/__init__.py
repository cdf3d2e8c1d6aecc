"""Attention for packed sequences of unequal length."""

import torch
from torch import Tensor

from geojepa_kernels.attention.dropout import draw_seed
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
        dropout_p: the share of attention weights set to zero; 0 outside training. Which ones
            depends on PyTorch's generator alone, not on the implementation.
        scale: factor of the scores; 1 / sqrt(head_dim) if None.
        impl: "auto" for the Triton kernel on a GPU and the reference elsewhere; "triton";
            "reference". The kernel takes float32 (IEEE, no TF32), float16 and bfloat16, and heads
            of up to 128.

    Returns:
        (queries, heads, head_dim), in the dtype of q; zeros for queries without keys.

    Raises:
        ValueError: an unknown impl, one that cannot run here, shapes that do not belong together,
            or a dropout_p outside [0, 1).
    """
    check_shapes(q, k, v)
    if cu_seqlens_q.shape != cu_seqlens_k.shape:
        raise ValueError("cu_seqlens_q and cu_seqlens_k are of different numbers of sequences")
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    seed = draw_seed(q.device, dropout_p)
    if uses_triton(impl, q, is_covered(q)):
        from geojepa_kernels.attention.operator import attend_ragged

        return attend_ragged(q, k, v, cu_seqlens_q, cu_seqlens_k, seed, 0, dropout_p, scale)
    return attention_reference(q, k, v, cu_seqlens_q, cu_seqlens_k, seed, dropout_p, scale)


def is_covered(q: Tensor) -> bool:
    """Whether the kernels are made for the dtype and head size of q."""
    return q.dtype in (torch.float32, torch.float16, torch.bfloat16) and q.shape[-1] <= 128


def check_shapes(q: Tensor, k: Tensor, v: Tensor) -> None:
    """Fails on q, k and v that do not belong together: a kernel would read beyond them."""
    if q.ndim != 3 or k.shape != v.shape or q.shape[1:] != k.shape[1:]:
        raise ValueError(
            f"q {tuple(q.shape)}, k {tuple(k.shape)}, v {tuple(v.shape)}: "
            "give (tokens, heads, head_dim), k and v alike, with the heads of q"
        )
    if not q.dtype == k.dtype == v.dtype:
        raise ValueError(f"q, k and v are {q.dtype}, {k.dtype} and {v.dtype}: give one dtype")


__all__ = ["attention"]
