"""Compiles every kernel for GPUs that need not be here, and holds it to the committed table.

`make check-kernels`, or `python -m geojepa_kernels.check TABLE [--write] [--only WORDS ...]`.
"""

import argparse
import csv
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from pathlib import Path

import triton
from tqdm import tqdm
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from geojepa_kernels.attention import compiled as attention
from geojepa_kernels.bench.rows import commit_of
from geojepa_kernels.masking import compiled as masking

# compute capability, and bytes of shared memory that a program may have there
TARGETS = {"sm_80": (80, 163 * 1024), "sm_90": (90, 227 * 1024), "sm_100": (100, 227 * 1024)}
COLUMNS = (
    *("kernel", "dtype", "head_dim", "config", "target", "registers", "spill_bytes"),
    *("shared_bytes", "tensor_core_instructions"),
)
KEY, GROWING = COLUMNS[:5], COLUMNS[5:8]
TENSOR_CORE = re.compile(r"\b(?:HMMA|HGMMA|UTC\w*MMA)\b")

Row = dict[str, str]


def names() -> Iterator[str]:
    """All configurations, as kernel/dtype/head_dim/configuration."""
    for part in (attention, masking):
        for name, *_ in part.specialisations():
            yield name


def compile_row(name: str, target: str) -> Row:
    """What the compiler made of a configuration for a target."""
    found = (x for part in (attention, masking) for x in part.specialisations() if x[0] == name)
    _, kernel, signature, shape, warps, stages = next(found)
    aligned = {
        (place,): [["tt.divisibility", 16]]
        for place, argument in enumerate(kernel.arg_names)
        if signature[argument].startswith("*")
    }
    ordered = {argument: signature[argument] for argument in kernel.arg_names}
    compiled = triton.compile(
        ASTSource(kernel, ordered, shape, aligned),
        target=GPUTarget("cuda", TARGETS[target][0], 32),
        options={"num_warps": warps, "num_stages": stages},
    )
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernel.cubin"
        cubin.write_bytes(compiled.asm["cubin"])
        usage, code = (_disassemble(option, cubin) for option in ("-res-usage", "-sass"))
    facts = (re.search(rf"\b{word}:(\d+)", usage)[1] for word in ("REG", "STACK"))  # type: ignore[index]
    values = (
        *_fields(name),
        target,
        *facts,
        compiled.metadata.shared,
        len(TENSOR_CORE.findall(code)),
    )
    return dict(zip(COLUMNS, map(str, values), strict=True))


def _fields(name: str) -> list[str]:
    fields = name.split("/")
    return fields if len(fields) == 4 else [name, "", "", ""]


def _disassemble(option: str, cubin: Path) -> str:
    """cuobjdump comes with Triton."""
    program = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    command = [str(program), option, str(cubin)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def faults(rows: Iterable[Row], table: dict[tuple[str, ...], Row]) -> Iterator[str]:
    """What is wrong with rows: spills, too much shared memory, or more than the table has."""
    for row in rows:
        what = " ".join(row[column] for column in KEY)
        limit = TARGETS[row["target"]][1]
        if int(row["shared_bytes"]) > limit:
            yield f"{what}: {row['shared_bytes']} bytes of shared memory, the limit is {limit}"
        is_half = row["dtype"] in ("fp16", "bf16") and int(row["head_dim"] or 0) <= 64
        if int(row["spill_bytes"]) and row["target"] == "sm_90" and (is_half or not row["dtype"]):
            yield f"{what}: spills {row['spill_bytes']} bytes"
        known = table.get(tuple(row[column] for column in KEY))
        if known is None:
            yield f"{what}: not in the table; look at it, then add it with --write"
            continue
        for column in GROWING:
            if int(row[column]) > int(known[column]):
                yield f"{what}: {column} grew from {known[column]} to {row[column]}"


def read_table(path: Path) -> dict[tuple[str, ...], Row]:
    """Rows of a table by what they are rows of; empty if there is none."""
    if not path.is_file():
        return {}
    with path.open(newline="") as file:
        return {tuple(row[column] for column in KEY): row for row in csv.DictReader(file)}


def write_table(path: Path, rows: Iterable[Row]) -> None:
    """A table that appears whole."""
    part = path.with_name(path.name + ".part")
    with part.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    os.replace(part, path)


def write_provenance(path: Path) -> None:
    """Beside a table: the code and the compiler that made it."""
    facts = {"commit": commit_of(Path(__file__).parent), "triton": version("triton")}
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(facts, indent=1) + "\n")
    os.replace(part, path)


def main() -> int:
    """Compiles, prints the table and what is wrong; 1 if anything is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", type=Path, help="the committed table, CSV")
    parser.add_argument("--write", action="store_true", help="make what was compiled the table")
    parser.add_argument("--only", nargs="*", default=[], help="words that a row must have")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    options = parser.parse_args()
    if os.environ.get("TRITON_INTERPRET") == "1":
        parser.error("TRITON_INTERPRET=1 keeps kernels from being compiled: unset it")
    jobs = [(name, target) for name in names() for target in TARGETS]
    jobs = [job for job in jobs if all(word in "/".join(job) for word in options.only)]
    with ProcessPoolExecutor(options.workers) as pool:
        made = pool.map(compile_row, *zip(*jobs, strict=True)) if jobs else iter(())
        rows = list(tqdm(made, total=len(jobs), desc="compiling", disable=None))
    print(*COLUMNS, sep="\t")
    for row in rows:
        print(*row.values(), sep="\t")
    table = read_table(options.table)
    if options.write:
        table |= {tuple(row[column] for column in KEY): row for row in rows}
        kept = table.values() if options.only else rows
        write_table(options.table, kept)
        write_provenance(options.table.with_suffix(".json"))
        table = read_table(options.table)
    wrong = list(faults(rows, table))
    print(f"{len(rows)} compiled with triton {version('triton')}, {len(wrong)} faults")
    print(*wrong, sep="\n", file=sys.stderr)
    return 1 if wrong or not rows else 0


if __name__ == "__main__":
    sys.exit(main())
