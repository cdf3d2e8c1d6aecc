"""The processes that train together, as torchrun starts them; one without it."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from geojepa.errors import GeoJEPAError


@dataclass(frozen=True)
class Processes:
    """This process among those that train together.

    Attributes:
        rank: from 0; the first one alone writes files and speaks.
        world: how many there are.
        device: where this one computes.
    """

    rank: int
    world: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this process writes and speaks."""
        return self.rank == 0


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
    try:
        yield Processes(torch.distributed.get_rank(), world, place)
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
