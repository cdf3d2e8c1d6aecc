"""What a run writes and says while it trains, and at its end; the first process alone does."""

import copy
import platform
import time
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from geojepa.files import sha256, whole
from geojepa.model.embedding import fit_codebook
from geojepa.origin import code_state, version_of
from geojepa.training.board import Board
from geojepa.training.checkpoint import (
    Best,
    load_tensors,
    read_config,
    save_checkpoint,
    save_json,
    save_tensors,
)
from geojepa.training.compiled import graphs_compiled
from geojepa.training.cost import Cost, peak_of
from geojepa.training.log import Log, diverged
from geojepa.training.run import Run
from geojepa.training.watch import watch

SAVE_SECONDS = 20.0


class Record:
    """metrics.jsonl, checkpoints, looks at the representation, and the weights at the end.

    Args:
        run: at work.
        optimizer: of the run.
        cost: of its first pass.
        first: the step that it goes on from.
        seconds: that it had trained by then.
    """

    def __init__(
        self, run: Run, optimizer: torch.optim.Optimizer, cost: Cost, first: int, seconds: float
    ):
        print(cost)
        self.run, self.optimizer, self.cost, self.before = run, optimizer, cost, seconds
        board = Board(run.out / "tensorboard", first) if run.tensorboard else None
        self.log = Log(run.out / "metrics.jsonl", first, board)
        self.best = Best(run.out / "best.safetensors")
        self.started = self.saved = self.looked = time.monotonic()
        self.tokens = 0

    def take(self, row: dict[str, Any], bar: tqdm, is_last: bool) -> None:
        """Take the numbers of a step; look, speak and save where it is time.

        Args:
            row: of the step, tensors of one number among them.
            bar: shows the loss.
            is_last: whether the run is asked to stop after this step.

        Raises:
            GeoJEPAError: the loss or a weight is not a finite number.
        """
        run, step = self.run, row["step"]
        self.tokens += row["tokens"]
        is_watched = run.is_watched(step)
        is_due = is_last or time.monotonic() - self.saved > SAVE_SECONDS
        if is_watched or is_due:
            # a checkpoint that cannot go on must not take the place of one that can
            weights = run.model.parameters()
            if not torch.stack([weight.isfinite().all() for weight in weights]).all():
                raise diverged(step)
        measured = self._look(step) if is_watched else {}
        self.log.write(row | measured)
        if is_watched or is_due:
            self.log.flush()
        if self.log.last:
            loss = f"{self.log.last['loss']:.3f}"
            bar.set_postfix(loss=loss, refresh=False)
            if is_watched and bar.disable:
                told = ", ".join(f"{name} {round(value, 3):,}" for name, value in measured.items())
                print(f"step {step} of {run.steps}, loss {loss}, {told}", flush=True)
        if is_due:
            path, seconds = run.out / "checkpoint.safetensors", self.seconds()
            save_checkpoint(path, run.model, self.optimizer, step=step, seconds=seconds)
            self.saved = time.monotonic()

    def _look(self, step: int) -> dict[str, float]:
        """How good the representation is, and how fast training was since the last look."""
        run = self.run
        speed = self.tokens / max(time.monotonic() - self.looked, 1e-9)
        measured = watch(run.model, run.batches, run.config, run.rows, run.watched)
        self.best.offer(run.model, step, measured)
        if peak := peak_of(run.processes.device):
            facts = self.cost.facts(speed, peak, run.processes.world)
            measured |= {"utilisation": facts["utilisation"]}
        # looking is no training
        self.tokens, self.looked = 0, time.monotonic()
        return {"tokens_per_second": round(speed), **measured}

    def seconds(self) -> float:
        """For which the run has trained, over all its starts."""
        return self.before + time.monotonic() - self.started

    def finish(self) -> None:
        """Write the weights and the facts of a run that has ended."""
        seconds = self.seconds()
        self.log.close()
        run, best = self.run, self.best
        out, device = run.out, run.processes.device
        # of the run's last start: what one device needs at most, activations and all
        memory = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
        tokens = run.config.epochs * int(run.batches.lengths[run.rows].sum())
        speed = tokens / max(seconds, 1e-9)
        told = self.cost.facts(speed, peak_of(device), run.processes.world)
        print(
            f"{run.steps} steps in {seconds:.0f} s: {speed:,.0f} tokens/s, "
            f"{told['flops_per_second'] / 1e9:,.1f} GFLOP/s"
            + (f", {memory / 2**30:.2f} GiB of GPU memory at most" if memory else "")
        )
        stage: dict[str, float] = {}
        if run.model.shapes is not None:
            measured = load_tensors(out / "geometry.safetensors")[1]
            stage = {name: float(value) for name, value in measured.items()}
        facts = read_config(out) | {
            "seconds": round(seconds + stage.get("seconds", 0.0), 1),
            "tokens_per_second": round(speed),
            "peak_memory": memory,
            **told,
            "graphs_compiled": graphs_compiled() if run.config.compile else 0,
            "device": torch.cuda.get_device_name() if device.type == "cuda" else platform.machine(),
            "processes": run.processes.world,
            "best": best.facts,
            "threads": torch.get_num_threads(),
            "parameters": sum(p.numel() for p in run.model.teacher.parameters()),
            "versions": {name: version_of(name) for name in ("torch", "geojepa")},
            **code_state(Path(__file__).parent),
        }
        if stage:
            facts["geometry_network"] = stage
        if run.config.model.pooling == "counts" and best.facts:
            last = copy.deepcopy(run.model.state_dict())
            best.give_words(run.model, run.batches, run.rows)
            run.model.load_state_dict(last)
        fit_codebook(run.model, run.batches, run.rows)
        # the weights appear last: they say that the run is finished
        with whole(out / "model.safetensors") as part:
            save_tensors(part, dict(run.model.state_dict()), {"preset": run.config.preset})
            save_json(out / "config.json", facts | {"weights_sha256": sha256(part)})
        for name in ("checkpoint.safetensors", "geometry.safetensors"):
            (out / name).unlink(missing_ok=True)
