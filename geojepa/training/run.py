"""A run at work: what it trains on, step by step, and how many steps it has."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from geojepa.model.batch import Batches
from geojepa.model.jepa import GeoJEPA
from geojepa.training.ahead import Pass, passes_ahead
from geojepa.training.config import TrainConfig
from geojepa.training.processes import Processes
from geojepa.training.sampling import (
    masks_of_step,
    passes_per_step,
    rows_of_pass,
    rows_of_step,
    steps_per_epoch,
)


@dataclass
class Run:
    """A run at work.

    Attributes:
        out: its folder.
        config: its settings.
        model: what is trained.
        batches: makes its batches.
        rows: of the training tiles.
        watched: rows of the tiles that its quality is measured on.
        processes: that train together.
        tensorboard: whether TensorBoard is to show its numbers.
    """

    out: Path
    config: TrainConfig
    model: GeoJEPA
    batches: Batches
    rows: np.ndarray
    watched: np.ndarray
    processes: Processes
    tensorboard: bool = False

    @property
    def per_epoch(self) -> int:
        """Steps an epoch."""
        return steps_per_epoch(len(self.rows), self.config)

    @property
    def passes_per_step(self) -> int:
        """Forward and backward passes a step."""
        return passes_per_step(len(self.rows), self.config)

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return self.config.epochs * self.per_epoch

    def is_watched(self, step: int) -> bool:
        """Whether quality is measured after a step: after ten epochs of a run, the last among them.

        Shorter runs are measured after each epoch.
        """
        epoch, rest = divmod(step, self.per_epoch)
        tenth, before = (10 * number // self.config.epochs for number in (epoch, epoch - 1))
        return rest == 0 and tenth > before

    def passes(self, first: int) -> Iterator[Pass]:
        """The forward and backward passes of this process, from step `first` on."""
        config, here = self.config, self.processes
        parts = self.passes_per_step
        lengths = self.batches.lengths
        return passes_ahead(
            range(first * parts, self.steps * parts),
            lambda n: self.batches(
                rows_of_pass(self.rows, config, n, lengths, here.rank, here.world)
            ),
            lambda batch, n: masks_of_step(batch, config, n // parts),
            here.device,
        )

    def tokens(self, step: int) -> int:
        """Tokens of a step, over all processes."""
        lengths = self.batches.lengths
        return int(lengths[rows_of_step(self.rows, self.config, step, lengths)].sum())
