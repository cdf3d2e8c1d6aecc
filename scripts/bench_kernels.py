"""How fast the kernels are beside every alternative: `make bench-kernels`. Needs a CUDA GPU.

Prints each case as it is measured; the rows go to `attention.csv`, `shared_context.csv` and
`masking.csv` of the folder, each replaced whole with every case, and `provenance.json` beside them.
Imports torch, numpy and geojepa_kernels alone, so that with PYTHONPATH=kernels it runs where
nothing else is installed.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from geojepa_kernels.bench.batches import Batch
from geojepa_kernels.bench.bounds import Rates, measure_rates
from geojepa_kernels.bench.contest import UNQUEUED, Judge
from geojepa_kernels.bench.lengths import read_lengths, typical_batch, uniform_batch
from geojepa_kernels.bench.masking import WIDTH, masking_rows, shared_batch
from geojepa_kernels.bench.operations import attention_rows, count_buffers
from geojepa_kernels.bench.rows import Row, Table, commit_of, machine
from geojepa_kernels.bench.timing import make_clock

ROOT = Path(__file__).resolve().parent.parent
# the short ones first: what the budget cuts off is the end of the long one
OPERATIONS = ("masking", "shared_context", "attention")
HEADS = 8
# the encoder's first
HEAD_DIMS = (48, 24, 32, 64)
TILES = (96, 384)
UNIFORM = (50, 100, 200, 500, 1000)
# of bfloat16 results of some units: more is no rounding
LARGEST_ERROR = 0.25
REFUSAL = (
    "bench_kernels: no CUDA GPU is seen by torch; run this on a machine that has one, "
    "with torch built for it (nothing can be timed here)"
)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--out", type=Path, default=ROOT / "results/kernels", help="folder of the tables")
    add("--lengths", type=Path, default=ROOT / "results/kernels/lengths.csv")
    add("--operations", nargs="+", choices=OPERATIONS, default=list(OPERATIONS))
    add("--head-dims", nargs="+", type=int, default=list(HEAD_DIMS))
    add("--tiles", nargs="*", type=int, default=list(TILES), help="of batches like the extracts'")
    add("--uniform", nargs="*", type=int, default=list(UNIFORM), help="lengths of uniform batches")
    add("--dtypes", nargs="+", choices=("bfloat16", "float16", "float32"), default=["bfloat16"])
    add("--rounds", type=int, default=20, help="of each way")
    add("--seconds", type=float, default=3.0, help="of a contest of all ways, about")
    add("--budget", type=float, default=500.0, help="seconds after which no case is begun")
    add("--commit", default="", help="of the code, where git cannot tell it")
    return parser.parse_args(arguments)


def batches(
    counts: dict[int, int], options: argparse.Namespace, device: torch.device
) -> dict[str, Batch]:
    """By name: distributed as in the extracts, and uniform of as many tokens as the first."""
    found = {f"extracts, {n} tiles": Batch(typical_batch(counts, n), device) for n in options.tiles}
    tokens = next(iter(found.values())).tokens if found else 10_000
    for length in options.uniform:
        found[f"uniform, {length} tokens"] = Batch(uniform_batch(length, tokens), device)
    return found


def cases(
    operation: str, judge: Judge, options: argparse.Namespace, dtype: torch.dtype
) -> Iterator[list[Row]]:
    """Rows of an operation, a case at a time, the most telling first."""
    every: dict[str, Any] = batches(read_lengths(options.lengths), options, judge.device)
    if operation == "masking":
        name, batch = next(iter(every.items()))
        buffers = count_buffers(batch.tokens * WIDTH * dtype.itemsize, judge.device)
        yield from masking_rows(judge, name, batch, buffers, dtype)
        return
    if operation == "shared_context":
        # those like the extracts', as a rule
        every = {name: shared_batch(batch) for name, batch in list(every.items())[: len(TILES)]}
    for name, batch in every.items():
        for head_dim in options.head_dims:
            yield attention_rows(judge, operation, name, batch, HEADS, head_dim, dtype)


def show(rows: Sequence[Row]) -> None:
    """A line for each row."""
    for row in rows:
        shape = f"{row['case']}, {row.get('head_dim', '')} {row['pass']}"
        if "ms_median" in row:
            found = f"{row['ms_median']:.4f} ms, {row.get('ratio_median', float('nan')):.2f} x ours"
        else:
            found = row["status"]
        print(f"{shape}: {row['way']} ({row.get('clock', '')}): {found}", flush=True)


def write_provenance(path: Path, operation: str, facts: dict[str, object]) -> None:
    """Adds an operation's facts to the file, which is replaced whole."""
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    text = json.dumps(known | {operation: facts}, indent=1, ensure_ascii=False)
    part = path.with_name(path.name + ".part")
    part.write_text(text + "\n", encoding="utf-8")
    os.replace(part, path)


def is_sound(row: Row) -> bool:
    """Whether a way ran, near float64 (not a number never is)."""
    return float(row.get("error", 0)) <= LARGEST_ERROR and row["status"] in ("ok", UNQUEUED)


def measure(options: argparse.Namespace, device: torch.device) -> bool:
    """Measures on a device, and writes after each case; whether every row of ours is right."""
    is_right = True
    began = time.monotonic()
    options.out.mkdir(parents=True, exist_ok=True)
    where = machine(device, options.commit or commit_of(ROOT))
    tables = {name: Table(options.out / f"{name}.csv") for name in options.operations}
    rates: dict[str, Rates] = {}
    for name, table in tables.items():
        cut_short = False
        for dtype in options.dtypes:
            kind = getattr(torch, dtype)
            if dtype not in rates:
                rates[dtype] = measure_rates(device, kind, make_clock(device))
            judge = Judge(device, rates[dtype], options.rounds, options.seconds)
            for rows in cases(name, judge, options, kind):
                table.add([{**row, **where} for row in rows])
                show(rows)
                ours = [row for row in rows if row["way"] == "ours"]
                is_right &= all(is_sound(row) for row in ours)
                cut_short = time.monotonic() - began > options.budget
                if cut_short:
                    break
            if cut_short:
                break
        settings = {key: value for key, value in vars(options).items() if key not in PRIVATE}
        facts = {
            **where,
            "attribution": "© OpenStreetMap contributors, ODbL 1.0 (lengths of the extracts)",
            "settings": settings,
            "cut short by the budget": cut_short,
            "rates": {dtype: rate._asdict() for dtype, rate in rates.items()},
            "python": sys.version.split()[0],
            "numpy": np.__version__,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(time.monotonic() - began, 1),
        }
        write_provenance(options.out / "provenance.json", name, facts)
    print(f"{options.out}: {', '.join(f'{name}.csv' for name in tables)} and provenance.json")
    return is_right


# paths of the machine, and what each row says
PRIVATE = ("out", "lengths", "commit")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure on the GPU, or say that there is none."""
    options = parse(arguments)
    if not torch.cuda.is_available():
        print(REFUSAL, file=sys.stderr)
        sys.exit(2)
    # float32 is IEEE float32 in every way
    torch.backends.cuda.matmul.allow_tf32 = False
    if not measure(options, torch.device("cuda")):
        print("bench_kernels: a row of ours failed or is wrong", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
