"""Every configuration of the attention kernels, for compilation without a GPU."""

from collections.abc import Iterator
from typing import Any

import torch

from geojepa_kernels.attention.backward import backward_kernel
from geojepa_kernels.attention.forward import forward_kernel
from geojepa_kernels.attention.operator import Launch, launches, width

HEAD_DIMS = 16, 24, 32, 48, 64, 96, 128
DTYPES = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}
# rows of short and of long sequences: each picks a launch
MEANS = 100, 500
# shared-context attention has four target sets a tile
SETS = 0, 4

Specialisation = tuple[str, Any, dict[str, str], dict[str, Any], int, int]


def specialisations() -> Iterator[Specialisation]:
    """Name, kernel, signature, constexprs, warps and stages of each configuration.

    A name is kernel/dtype/head_dim/configuration. Dropout is compiled in the half precisions, for
    heads of up to 64.
    """
    for dtype, letters in DTYPES.items():
        for head_dim in HEAD_DIMS:
            drops = (False, True) if dtype.itemsize == 2 and head_dim <= 64 else (False,)
            for sets in SETS:
                for has_dropout in drops:
                    pairs = [launches(dtype, head_dim, mean, has_dropout) for mean in MEANS]
                    for side, kernel in enumerate((forward_kernel, backward_kernel)):
                        for launch in dict.fromkeys(pair[side] for pair in pairs):
                            yield _specialise(kernel, letters, head_dim, sets, has_dropout, launch)


def _specialise(
    kernel: Any, dtype: str, head_dim: int, sets: int, has_dropout: bool, launch: Launch
) -> Specialisation:
    rows = ("q", "k", "v", "out", "grad", "grad_q", "grad_k", "grad_v")
    types = dict.fromkeys(rows, f"*{dtype}") | {"lse": "*fp32", "seed": "*i64"}
    types |= {"cu_q": "*i32", "cu_k": "*i32", "upscale": "fp32", "scale": "fp32"}
    types |= {"threshold": "i32"}
    shape = {"SETS": sets, "D": head_dim, "WIDTH": width(head_dim), "ALIGN": 8}
    shape |= {"DROPOUT": has_dropout}
    if kernel is forward_kernel:
        shape |= {"BLOCK_Q": launch.queries, "BLOCK_K": launch.keys}
    else:
        shape |= {"BLOCK": launch.queries}
    signature = {
        name: "constexpr" if name in shape else types.get(name, "i32") for name in kernel.arg_names
    }
    words = ["shared" if sets else "plain", f"{launch.queries}x{launch.keys}"]
    words += [f"{launch.warps}w", f"{launch.stages}s"] + ["dropout"] * has_dropout
    name = f"{kernel.__name__.removesuffix('_kernel')}/{dtype}/{head_dim}/{' '.join(words)}"
    return name, kernel, signature, shape, launch.warps, launch.stages
