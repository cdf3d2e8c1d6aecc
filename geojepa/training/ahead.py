"""The next batch and its masks, made while the device works on the present one."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from geojepa_kernels.masking import Masks, Sizes
from torch import Tensor

from geojepa.model.batch import Batch


@dataclass(frozen=True)
class Pass:
    """What a forward and backward pass needs, on the device.

    Attributes:
        number: counted through the run.
        batch: of tiles.
        strategy: of its masks.
        masks: the targets and the context.
        sizes: the masks' totals, on the host.
        shown: masks whose context is seen in place, None where it is that of `masks`.
    """

    number: int
    batch: Batch
    strategy: str
    masks: Masks
    sizes: Sizes
    shown: Masks | None


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


def passes_ahead(
    numbers: Iterable[int],
    make: Callable[[int], Batch],
    draw: Callable[[Batch, int], tuple[str, Masks, Masks | None]],
    device: torch.device,
) -> Iterator[Pass]:
    """Each pass in turn, made after the caller has enqueued the one before.

    On a GPU a batch is copied and its masks are drawn on a stream of their own, beside the work of
    the pass before; the caller's stream waits for them, and the host for their totals alone.

    Args:
        numbers: of the passes.
        make: the batch of a pass, on the CPU.
        draw: the strategy and the masks of a batch on the device, as `masks_of_step` gives them.
        device: of the training.
    """
    aside = torch.cuda.Stream(device) if device.type == "cuda" else None
    for number in numbers:
        batch = make(number)
        with torch.cuda.stream(aside):
            # pinned: the device copies from it while the host goes on
            batch = (batch if aside is None else batch.map(Tensor.pin_memory)).to(device)
            strategy, masks, shown = draw(batch, number)
            totals = Arriving(masks.sizes)
        if totals.event is not None:
            stream = torch.cuda.current_stream(device)
            stream.wait_event(totals.event)
            held = [*batch.tensors(), *vars(masks).values(), *vars(shown or masks).values()]
            for tensor in filter(torch.is_tensor, held):
                tensor.record_stream(stream)
        yield Pass(number, batch, strategy, masks, Sizes.of(totals.tolist()), shown)
