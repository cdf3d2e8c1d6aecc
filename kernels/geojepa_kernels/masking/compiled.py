"""The configurations of the masking kernels that stand for all, for compilation without a GPU."""

from collections.abc import Iterator
from typing import Any

from geojepa_kernels.masking.kernel import draw_kernel
from geojepa_kernels.masking.launch import ORDERED, SCANNED, power_above, warps_of
from geojepa_kernels.masking.order_kernel import order_kernel, scan_kernel, sum_kernel, take_kernel
from geojepa_kernels.masking.rows import blocks

WARPS, STAGES = 4, 3  # Triton's defaults
ORDER_OUTPUTS = {
    "context_index": "*i64",
    "target_index": "*i64",
    "set_index": "*i64",
    "slots": "*i32",
    "set_slots": "*i32",
}
SEGMENTS = {"cu_seqlens": "*i32", "cu_context": "*i32", "cu_targets": "*i32"}

Specialisation = tuple[str, Any, dict[str, str], dict[str, Any], int, int]


def specialisations() -> Iterator[Specialisation]:
    """Name, kernel, signature, constexprs, warps and stages of each configuration.

    The drawing kernel is compiled for the longest tiles of 256 and 2,048 tokens.
    """
    for block in (256, 2048):
        for strategy, sets in (
            ("random", 4),
            ("random", 8),
            ("contiguous", 4),
            ("area", 4),
            ("area", 8),
            ("modality", 1),
        ):
            signature = {
                "targets": "*u8",
                "counts": "*i32",
                "cu_seqlens": "*i32",
                "box": "*fp32",
                "modality": "*u8",
                "tile_keys": "*i64",
                "key": "u64",
                **dict.fromkeys(("size", "side", "min_context"), "i32"),
            }
            shape = {"STRATEGY": strategy, "SETS": sets, "CORNERS": 4}
            shape |= {"M": power_above(sets), "BLOCK": block}
            name = f"draw_{strategy}_{sets}_sets_{block}"
            yield _specialise(name, draw_kernel, signature, shape, warps_of(block, sets))
    for sets in (1, 4, 8):
        signature = dict.fromkeys(("cu_context", "cu_targets"), "*i32") | {"sizes": "*i64"}
        signature |= {"counts": "*i32", "tiles": "i32"}
        shape = {"SETS": sets, "BLOCK": SCANNED}
        yield _specialise(f"scan_{sets}_sets", scan_kernel, signature, shape)
    signature = ORDER_OUTPUTS | {"targets": "*u8"} | SEGMENTS | {"tokens": "i32", "sets": "i32"}
    yield _specialise("order", order_kernel, signature, {"BLOCK": ORDERED})
    for dtype in ("fp32", "bf16"):
        rows = {"out": f"*{dtype}", "x": f"*{dtype}"}
        for width in (64, 384):
            shape = blocks(1, width)[1]
            signature = rows | {"index": "*i64", "rows": "i32", "width": "i32"}
            yield _specialise(f"take_{dtype}_{width}", take_kernel, signature, shape)
            signature = rows | {"slots": "*i32", "rows": "i32", "stride": "i32", "width": "i32"}
            for copies in (1, 4):
                name = f"sum_{dtype}_{width}_{copies}_copies"
                yield _specialise(name, sum_kernel, signature, {"K": copies, **shape})


def _specialise(
    name: str, kernel: Any, signature: dict[str, str], shape: dict[str, Any], warps: int = WARPS
) -> Specialisation:
    return name, kernel, signature | dict.fromkeys(shape, "constexpr"), shape, warps, STAGES
