"""The numbers of metrics.jsonl for TensorBoard, where it is installed."""

from pathlib import Path
from typing import Any

from geojepa.errors import GeoJEPAError


def writer_class() -> Any:
    """PyTorch's writer of TensorBoard's files.

    Raises:
        GeoJEPAError: if TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise GeoJEPAError(
            "TensorBoard is not installed; pip install tensorboard, or go without --tensorboard"
        ) from error
    return SummaryWriter


class Board:
    """Scalars by step, in a folder of a run; those beyond the step resumed from are hidden."""

    def __init__(self, folder: Path, first: int):
        self.writer = writer_class()(str(folder), purge_step=first + 1)

    def write(self, row: dict[str, Any]) -> None:
        """Take the numbers of a row of metrics.jsonl; what is no number is left out."""
        for name, value in row.items():
            if name != "step" and isinstance(value, int | float):
                self.writer.add_scalar(name, value, row["step"])

    def flush(self) -> None:
        """Every row is in the file."""
        self.writer.flush()

    def close(self) -> None:
        """Write what is left."""
        self.writer.close()
