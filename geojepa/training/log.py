"""metrics.jsonl, written without waiting for the device."""

import json
import math
from pathlib import Path
from typing import Any

import torch

from geojepa.errors import GeoJEPAError
from geojepa.files import whole
from geojepa.training.ahead import Arriving
from geojepa.training.board import Board


def diverged(step: int) -> GeoJEPAError:
    """What to say where a loss or a weight is not a finite number."""
    return GeoJEPAError(
        f"training has diverged by step {step}: lower learning_rate or clip, in another folder"
    )


class Log:
    """metrics.jsonl: one line a step; lines beyond the step resumed from are dropped.

    A row may hold tensors of one number. Its line is written with the row after it, when they have
    long left the device.

    Args:
        path: of the file.
        first: the step resumed from.
        board: takes the same rows.

    Attributes:
        last: the last row written, as numbers.

    Raises:
        GeoJEPAError: when a row comes to be written whose loss is not a finite number.
    """

    def __init__(self, path: Path, first: int, board: Board | None = None):
        lines = path.read_text().splitlines()[:first] if path.exists() else []
        with whole(path) as part:
            part.write_text("".join(line + "\n" for line in lines))
        self.file = path.open("a")
        self.board = board
        self.last: dict[str, Any] = {}
        self.next: tuple[dict[str, Any], list[str], Arriving] | None = None

    def write(self, row: dict[str, Any]) -> None:
        """Take a row, and write the one before."""
        names = [name for name, value in row.items() if torch.is_tensor(value)]
        numbers = Arriving(torch.stack([row[name].detach() for name in names]))
        self._settle()
        self.next = row, names, numbers

    def flush(self) -> None:
        """Every row is in the file."""
        self._settle()
        self.file.flush()
        if self.board is not None:
            self.board.flush()

    def close(self) -> None:
        """Write what is left."""
        self._settle()
        self.file.close()
        if self.board is not None:
            self.board.close()

    def _settle(self) -> None:
        if self.next is None:
            return
        row, names, numbers = self.next
        found = dict(zip(names, numbers.tolist(), strict=True))
        if not math.isfinite(found.get("loss", 0.0)):
            raise diverged(row["step"])
        # JSON has neither NaN nor infinity
        self.last = row | {k: v if math.isfinite(v) else None for k, v in found.items()}
        self.file.write(json.dumps(self.last) + "\n")
        if self.board is not None:
            self.board.write(self.last)
        self.next = None
