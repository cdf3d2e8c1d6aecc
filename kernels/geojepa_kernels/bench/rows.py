"""The rows of a benchmark: what they say of the machine, and a table that is always whole."""

import csv
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from geojepa_kernels.bench.timing import QUANTILES

COLUMNS = (
    *("operation", "case", "tiles", "tokens", "longest", "heads", "head_dim", "dtype", "pass"),
    *("way", "clock", "status", "error", "rounds", "buffers"),
    *(f"{what}_{name}" for what in ("ms", "ratio") for name in QUANTILES),
    *("memory_bound_ms", "compute_bound_ms", "binding", "share"),
    *("gpu", "driver", "torch", "triton", "commit"),
)
Row = Mapping[str, str | int | float]


class Table:
    """A CSV file that is replaced whole each time that rows are added."""

    def __init__(self, path: Path):
        self.path = path
        self.rows: list[Row] = []

    def add(self, rows: Sequence[Row]) -> None:
        """Adds rows with any of `COLUMNS`; what a row lacks stays empty."""
        self.rows += rows
        part = self.path.with_name(self.path.name + ".part")
        with open(part, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS, restval="", lineterminator="\n")
            writer.writeheader()
            for row in self.rows:
                writer.writerow({name: short(value) for name, value in row.items()})
        os.replace(part, self.path)


def short(value: str | int | float) -> str | int:
    """A number to six digits."""
    return f"{value:.6g}" if isinstance(value, float) else value


def installed(package: str) -> str:
    """Version of a package, or nothing."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def machine(device: torch.device, commit: str) -> dict[str, str]:
    """What a row says of where it was measured."""
    is_gpu = device.type == "cuda"
    return {
        "gpu": torch.cuda.get_device_name(device) if is_gpu else platform.machine(),
        "driver": driver() if is_gpu else "",
        "torch": torch.__version__,
        "triton": installed("triton"),
        "commit": commit,
    }


def driver() -> str:
    """Version of the NVIDIA driver, as far as its own tool tells it."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        found = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return found.splitlines()[0].strip() if found.strip() else "unknown"


def commit_of(folder: Path) -> str:
    """Commit of the code as GEOJEPA_COMMIT or git tells it, "+" behind it if code has changed."""
    named = os.environ.get("GEOJEPA_COMMIT")
    if named:
        return named
    code = ["kernels", "scripts"]
    try:
        head = _git(folder, "rev-parse", "HEAD").strip()
        changed = _git(folder, "status", "--porcelain", "--", *(f":(top){name}" for name in code))
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head + ("+" if changed.strip() else "")


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
