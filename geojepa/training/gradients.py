"""The gradients of a step: over its passes, and over the processes that train together."""

import warnings
from collections.abc import Iterator
from contextlib import nullcontext
from itertools import islice

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from geojepa.model.jepa import GeoJEPA
from geojepa.training.ahead import Pass
from geojepa.training.config import TrainConfig
from geojepa.training.processes import Processes
from geojepa.training.sampling import dropped_half


def together(model: GeoJEPA, here: Processes) -> nn.Module:
    """The model, its gradients averaged over processes where there are several."""
    if here.world == 1:
        return model
    with warnings.catch_warnings():
        # torch 2.13 has another name for it, which 2.11 does not know
        warnings.filterwarnings("ignore", ".*broadcast_buffers", FutureWarning)
        return DistributedDataParallel(model, broadcast_buffers=False)


def add_gradients(
    forward: nn.Module, config: TrainConfig, here: Processes, passes: Iterator[Pass], count: int
) -> tuple[dict[str, Tensor | float], str]:
    """Add the gradients of a step to the parameters.

    Args:
        forward: the model, or what `together` made of it.
        config: of the run.
        here: this process.
        passes: the next of them are those of the step.
        count: of passes a step.

    Returns:
        The loss terms, each a mean over the passes; of the step's tokens, the share that was
        context and that a target set held on average; and the masking strategy.
    """
    narrow = config.bfloat16 and here.device.type == "cuda"
    seen, counts = [], []
    for ahead in islice(passes, count):
        step, part = divmod(ahead.number, count)
        source = np.random.SeedSequence((config.seed, ahead.number, here.rank))
        torch.manual_seed(int(source.generate_state(1, np.uint64)[0]))
        waits = here.world > 1 and part + 1 < count
        with (
            forward.no_sync() if waits else nullcontext(),  # type: ignore[operator]
            torch.autocast(here.device.type, torch.bfloat16, enabled=narrow),
        ):
            losses = forward(
                ahead.batch,
                ahead.masks,
                ahead.sizes,
                loss=config.loss,
                drop=dropped_half(config, step),
                shown=ahead.shown,
            )
            (losses.total / count).backward()
        scalars = torch.stack([losses.total, losses.prediction, losses.regulariser]).detach()
        seen.append(torch.cat([scalars, losses.by_modality]))
        sizes = ahead.sizes
        held = sizes.targets / len(sizes.sets)
        counts.append((sizes.context, held, len(ahead.batch.box)))
    names = ["loss", "prediction", "regulariser"]
    names += [f"prediction_{name}" for name in config.model.token_modalities]
    terms = dict(zip(names, torch.stack(seen).nanmean(dim=0).unbind(), strict=True))
    context, target, tokens = here.total(np.sum(counts, axis=0).tolist())
    shares = {"context_share": context / tokens, "target_share": target / tokens}
    return terms | shares, ahead.strategy
