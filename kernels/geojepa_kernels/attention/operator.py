"""The kernels of ragged attention as a PyTorch operator: launch, shapes, gradient."""

import math
from typing import NamedTuple

import torch
import triton
from torch import Tensor
from torch.utils._python_dispatch import is_in_torch_dispatch_mode
from torch.utils.flop_counter import register_flop_formula

from geojepa_kernels.attention.backward import backward_kernel
from geojepa_kernels.attention.dropout import threshold_of
from geojepa_kernels.attention.flops import backward_flops, forward_flops
from geojepa_kernels.attention.forward import forward_kernel

# rows of a sequence, on average, from which on a kernel is launched for many blocks a sequence
LONG = 256


class Launch(NamedTuple):
    """Rows a block of queries and of keys, warps and pipeline stages of a kernel."""

    queries: int
    keys: int
    warps: int
    stages: int


def width(head_dim: int) -> int:
    """Columns that hold a head in a kernel."""
    return max(16, triton.next_power_of_2(head_dim))


def launches(
    dtype: torch.dtype, head_dim: int, mean: int, has_dropout: bool
) -> tuple[Launch, Launch]:
    """Of forward and backward, for sequences of `mean` rows; results/kernels/compiled.csv has more.

    Short sequences fit a block, and a second stage would only take registers; with dropout those of
    four warps run out from heads of 48 on.
    """
    if dtype == torch.float32:
        if head_dim > 64:
            return Launch(16, 16, 4, 1), Launch(16, 16, 4, 1)
        return Launch(32, 32, 4, 1), Launch(32, 32, 8 if head_dim > 32 else 4, 1)
    if head_dim > 64:
        return Launch(64, 64, 4, 2), Launch(64, 64, 8, 1)
    if mean > LONG:
        return Launch(128, 64, 8, 2), Launch(64, 64, 8, 2)
    if has_dropout and head_dim > 32:
        return Launch(64, 64, 4, 2), Launch(64, 64, 8, 2)
    return Launch(64, 64, 4, 2), Launch(64, 64, 4, 1)


def layout(*tensors: Tensor) -> tuple[list[int], int]:
    """Row and head strides of each tensor, divided by what divides all of them: 8, 4, 2 or 1."""
    strides = [stride for tensor in tensors for stride in tensor.stride()[:2]]
    align = math.gcd(8, *strides)
    return [stride // align for stride in strides], align


def rows_contiguous(x: Tensor) -> Tensor:
    """The tensor itself if the numbers of a head lie side by side, else a copy."""
    return x if x.stride(-1) == 1 else x.contiguous()


def launch_forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_q: Tensor,
    cu_k: Tensor,
    seed: Tensor,
    sets: int,
    dropout_p: float,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """Output (queries, heads, head_dim) in the dtype of q, and lse (heads, queries) float32.

    Offsets are those of sequences if sets is 0, else cu_context and cu_targets; see `find_block`.
    """
    q, k, v = (rows_contiguous(x) for x in (q, k, v))
    queries, heads, head_dim = q.shape
    out = torch.empty((queries, heads, head_dim), dtype=q.dtype, device=q.device)
    lse = torch.empty((heads, queries), dtype=torch.float32, device=q.device)
    segments = cu_q.numel() - 1
    if queries == 0 or segments == 0:
        return out, lse
    launch, _ = launches(q.dtype, head_dim, queries // segments, dropout_p > 0)
    strides, align = layout(q, k, v)
    slots = queries // launch.queries + segments * (1 + sets)
    forward_kernel[(slots * heads,)](
        q, k, v, out, lse, seed, cu_q, cu_k,
        *strides, heads, queries, segments, threshold_of(dropout_p), 1 / (1 - dropout_p), scale,
        SETS=sets, D=head_dim, WIDTH=width(head_dim), ALIGN=align,
        BLOCK_Q=launch.queries, BLOCK_K=launch.keys, DROPOUT=dropout_p > 0,
        num_warps=launch.warps, num_stages=launch.stages,
    )  # fmt: skip
    return out, lse


def launch_backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    cu_q: Tensor,
    cu_k: Tensor,
    seed: Tensor,
    sets: int,
    dropout_p: float,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v, contiguous, in their dtypes."""
    q, k, v = (rows_contiguous(x) for x in (q, k, v))
    queries, heads, head_dim = q.shape
    grads = [torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (q, k, v)]
    segments = cu_q.numel() - 1
    if segments == 0:
        return grads[0], grads[1], grads[2]
    mean = max(queries, len(k)) // segments
    _, launch = launches(q.dtype, head_dim, mean, dropout_p > 0)
    strides, align = layout(q, k, v)
    query_slots, key_slots = (
        len(x) // launch.queries + segments * (1 + sets) if len(x) else 0 for x in (q, k)
    )
    backward_kernel[((query_slots + key_slots) * heads,)](
        q, k, v, out, lse, grad.contiguous(), *grads, seed, cu_q, cu_k,
        *strides, heads, queries, segments, threshold_of(dropout_p), 1 / (1 - dropout_p), scale,
        key_slots,
        SETS=sets, D=head_dim, WIDTH=width(head_dim), ALIGN=align,
        BLOCK=launch.queries, DROPOUT=dropout_p > 0,
        num_warps=launch.warps, num_stages=launch.stages,
    )  # fmt: skip
    return grads[0], grads[1], grads[2]


ragged_attention = torch.library.custom_op(
    "geojepa::ragged_attention", launch_forward, mutates_args=()
)
ragged_attention_backward = torch.library.custom_op(
    "geojepa::ragged_attention_backward", launch_backward, mutates_args=()
)


register_flop_formula(torch.ops.geojepa.ragged_attention, get_raw=True)(forward_flops)
register_flop_formula(torch.ops.geojepa.ragged_attention_backward, get_raw=True)(backward_flops)


@ragged_attention.register_fake
def _(q, k, v, cu_q, cu_k, seed, sets, dropout_p, scale):
    return q.new_empty(q.shape), q.new_empty((q.shape[1], q.shape[0]), dtype=torch.float32)


@ragged_attention_backward.register_fake
def _(grad, q, k, v, out, lse, cu_q, cu_k, seed, sets, dropout_p, scale):
    return tuple(x.new_empty(x.shape) for x in (q, k, v))


def _save(ctx, inputs, output):
    *tensors, ctx.sets, ctx.dropout_p, ctx.scale = inputs
    ctx.save_for_backward(*tensors, *output)
    ctx.mark_non_differentiable(output[1])
    # else each backward would fill a gradient of lse with zeros
    ctx.set_materialize_grads(False)


def _backward(ctx, grad, _, launch=ragged_attention_backward):
    q, k, v, cu_q, cu_k, seed, out, lse = ctx.saved_tensors
    grads = launch(grad, q, k, v, out, lse, cu_q, cu_k, seed, ctx.sets, ctx.dropout_p, ctx.scale)
    return *grads, None, None, None, None, None, None


ragged_attention.register_autograd(_backward, setup_context=_save)


class _Eager(torch.autograd.Function):
    """The operator without the dispatcher's work, which takes longer than a small batch."""

    @staticmethod
    def forward(ctx, *inputs):
        output = launch_forward(*inputs)
        _save(ctx, inputs, output)
        return output

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad, _):
        return _backward(ctx, grad, None, launch_backward)


def attend_ragged(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_q: Tensor,
    cu_k: Tensor,
    seed: Tensor,
    sets: int,
    dropout_p: float,
    scale: float,
) -> Tensor:
    """The output of `ragged_attention`: the operator where a graph or a dispatch mode is to see it.

    Elsewhere the kernels are launched at once.
    """
    is_seen = torch.compiler.is_compiling() or is_in_torch_dispatch_mode()
    run = ragged_attention if is_seen else _Eager.apply
    return run(q, k, v, cu_q, cu_k, seed, sets, dropout_p, scale)[0]
