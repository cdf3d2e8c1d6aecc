"""The processes that train together, as torchrun starts them; one without it."""

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch

from geojepa.errors import GeoJEPAError


@dataclass(frozen=True)
class Processes:
    """This process among those that train together.

    Attributes:
        rank: from 0; the first one alone writes files and speaks.
        world: how many there are.
        device: where this one computes.
        group: all of them, to talk by way of their CPUs; None for one alone.
    """

    rank: int
    world: int
    device: torch.device
    group: torch.distributed.ProcessGroup | None = None

    @property
    def is_first(self) -> bool:
        """Whether this process writes and speaks."""
        return self.rank == 0

    def highest(self, value: int) -> int:
        """The highest value that any process has; all ask together, and no GPU is waited for."""
        return int(self._of_all([value], torch.distributed.ReduceOp.MAX)[0])

    def total(self, values: Sequence[float]) -> list[float]:
        """The sum of each value over all processes; all ask together, and no GPU is waited for."""
        return self._of_all(values, torch.distributed.ReduceOp.SUM)

    def _of_all(self, values: Sequence[float], operation: Any) -> list[float]:
        if self.group is None:
            return list(values)
        found = torch.tensor(values, dtype=torch.float64)
        torch.distributed.all_reduce(found, operation, group=self.group)
        return found.tolist()


@contextmanager
def processes(device: str) -> Iterator[Processes]:
    """Join the processes that torchrun started; leave them at the end.

    Args:
        device: "cpu", "cuda", or "auto" for a GPU where there is one. Each process on a machine
            takes a GPU of its own.

    Raises:
        GeoJEPAError: if there is no such device, or are fewer GPUs than processes.
    """
    kind = device_of(device).type
    world, local = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("LOCAL_RANK", 0))
    if kind == "cuda" and local >= torch.cuda.device_count():
        raise GeoJEPAError(
            f"{torch.cuda.device_count()} GPUs for {local + 1} processes or more; "
            "lower torchrun's --nproc-per-node"
        )
    place = torch.device("cuda", local) if kind == "cuda" else torch.device("cpu")
    if kind == "cuda":
        torch.cuda.set_device(place)
    if world == 1:
        yield Processes(0, 1, place)
        return
    torch.distributed.init_process_group("nccl" if kind == "cuda" else "gloo")
    # the first process may train a stage alone while the others wait
    group = torch.distributed.new_group(backend="gloo", timeout=timedelta(days=1))
    try:
        yield Processes(torch.distributed.get_rank(), world, place, group)
    finally:
        torch.distributed.destroy_process_group()


def device_of(device: str) -> torch.device:
    """The device that "auto", "cpu" or "cuda" names.

    Raises:
        GeoJEPAError: if there is no such device.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise GeoJEPAError(f"device {device}: choose auto, cpu or cuda")
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        raise GeoJEPAError("device cuda: no GPU is visible to torch; use --device cpu")
    return torch.device(device)


class Termination:
    """SIGTERM, as schedulers and torchrun send it, noted so that the step ends and is saved.

    Attributes:
        came: whether it was sent.
    """

    def __init__(self) -> None:
        self.came = False

    def __enter__(self) -> "Termination":
        try:
            self.before = signal.signal(signal.SIGTERM, self._note)
        except ValueError:  # not the main thread, which alone may handle signals
            self.before = None
        return self

    def __exit__(self, *_: object) -> None:
        if self.before is not None:
            signal.signal(signal.SIGTERM, self.before)

    def _note(self, *_: object) -> None:
        self.came = True
