"""The next step's batch and masks, made while the device works on the present step."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from geojepa_kernels.masking import Masks, Sizes
from torch import Tensor

from geojepa.model.batch import Batch


@dataclass(frozen=True)
class Step:
    """What a training step needs, on the device; `sizes` are its masks' totals, on the host."""

    number: int
    batch: Batch
    strategy: str
    masks: Masks
    sizes: Sizes


class Arriving:
    """Numbers on their way from a device to the host, which waits for them alone, and when read."""

    def __init__(self, numbers: Tensor):
        self.numbers = numbers.detach()
        self.event = None
        if numbers.is_cuda:
            self.numbers = torch.empty_like(numbers, device="cpu", pin_memory=True)
            self.numbers.copy_(numbers.detach(), non_blocking=True)
            self.event = torch.cuda.Event()
            self.event.record()

    def tolist(self) -> list:
        """The numbers, once they are here."""
        if self.event is not None:
            self.event.synchronize()
        return self.numbers.tolist()


def steps_ahead(
    numbers: Iterable[int],
    make: Callable[[int], Batch],
    draw: Callable[[Batch, int], tuple[str, Masks]],
    device: torch.device,
) -> Iterator[Step]:
    """Each step in turn, made after the caller has enqueued the one before.

    On a GPU a step is copied and its masks are drawn on a stream of their own, beside the work of
    the step before; the caller's stream waits for them, and the host for their totals alone.

    Args:
        numbers: of the steps.
        make: the batch of a step, on the CPU.
        draw: the strategy and the masks of a batch on the device.
        device: of the training.
    """
    aside = torch.cuda.Stream(device) if device.type == "cuda" else None
    for number in numbers:
        batch = make(number)
        with torch.cuda.stream(aside):
            batch = batch.to(device) if aside is None else _pinned(batch).to(device)
            strategy, masks = draw(batch, number)
            totals = Arriving(masks.sizes)
        if totals.event is not None:
            stream = torch.cuda.current_stream(device)
            stream.wait_event(totals.event)
            for tensor in (*_tensors(batch).values(), *_tensors(masks).values()):
                tensor.record_stream(stream)
        yield Step(number, batch, strategy, masks, Sizes.of(totals.tolist()))


def _tensors(holder: Batch | Masks) -> dict[str, Any]:
    return {name: value for name, value in vars(holder).items() if torch.is_tensor(value)}


def _pinned(batch: Batch) -> Batch:
    """The batch in memory that a device copies from while the host goes on."""
    return replace(batch, **{name: x.pin_memory() for name, x in _tensors(batch).items()})
