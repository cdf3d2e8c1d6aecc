"""Pretraining: one process or several, resumable to the same weights."""

import signal
import sys
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from geojepa.data.corpus import Corpus
from geojepa.data.splits import Split, split, split_by_place, tile_keys
from geojepa.errors import GeoJEPAError
from geojepa.model.batch import Batches
from geojepa.model.graph_network import GraphNetwork
from geojepa.model.jepa import GeoJEPA
from geojepa.model.modalities import backbone_of, modality_classes
from geojepa.training.board import writer_class
from geojepa.training.checkpoint import (
    is_new_run,
    load_checkpoint,
    load_tensors,
    load_weights,
    save_json,
    save_tensors,
)
from geojepa.training.compiled import compile_blocks
from geojepa.training.config import TrainConfig, config_to_dict
from geojepa.training.cost import measure
from geojepa.training.geometry import pretrain_geometry
from geojepa.training.gradients import add_gradients, together
from geojepa.training.processes import Processes, Termination, processes
from geojepa.training.record import Record
from geojepa.training.run import Run
from geojepa.training.sampling import passes_per_step, steps_per_epoch
from geojepa.training.schedule import optimizer_of, set_schedules


def pretrain(
    corpus: Corpus,
    out: str | Path,
    config: TrainConfig,
    device: str = "auto",
    tensorboard: bool = False,
) -> Path:
    """Train GeoJEPA on the training tiles of one split, or go on with a run that was stopped.

    Args:
        corpus: the tiles.
        out: folder of the run. A finished run of the same settings returns at once.
        config: every setting; `config.place` is held out or, without one, `config.fold`.
        device: "cpu", "cuda", or "auto" for a GPU where there is one.
        tensorboard: also write the numbers of metrics.jsonl to a folder tensorboard.

    Returns:
        The folder, with config.json, model.safetensors, best.safetensors and metrics.jsonl.

    Raises:
        GeoJEPAError: if the folder holds a run of other settings or of another corpus, if no tile
            is left to train on, or if TensorBoard is asked for and not installed.
    """
    out = Path(out)
    if tensorboard:
        writer_class()
    parts = training_split(corpus, config.fold, config.place)
    with processes(device) as here:
        facts = {
            "train": config_to_dict(config),
            "corpus": {"name": corpus.name, "hash": corpus.hash},
            "split": parts.describe() if parts else {"name": "none held out"},
        }
        if backbone := backbone_of(config.model):
            facts["image"] = backbone.facts()
        is_new = is_new_run(out, facts)
        if not is_new and (out / "model.safetensors").is_file():
            return out
        rows = parts.train if parts else corpus.usable
        _check_size(corpus, rows, parts, config, here)
        # what a corpus lacks is said before anything is written; the first process keeps what
        # the others read
        if here.is_first:
            for modality in modality_classes(config.model):
                modality.source(corpus, config.model)
        here.highest(0)
        torch.manual_seed(config.seed)
        model = GeoJEPA(config.model).to(here.device)
        if is_new and here.is_first:
            keys = tile_keys(corpus.tiles)
            told = {"tiles": rows, "validation": parts.validation if parts else rows[:0]}
            save_json(out / "seen.json", {k: sorted(keys[v].tolist()) for k, v in told.items()})
            save_json(out / "config.json", facts)
        if model.shapes is not None:
            _first_stage(corpus, rows, model.shapes, config, out, here)
        batches = Batches(corpus, config.model, model.shapes)
        watched = parts.validation if parts and len(parts.validation) else rows
        _train(Run(out, config, model, batches, rows, watched, here, tensorboard))
    return out


def _check_size(
    corpus: Corpus, rows: np.ndarray, parts: Split | None, config: TrainConfig, here: Processes
) -> None:
    if len(rows) == 0:
        raise GeoJEPAError(
            f"{corpus.name}: {parts.name if parts else 'it'} leaves no tile to train on; "
            "use a larger extract, or fold -1 to hold nothing out"
        )
    least = len(rows) // steps_per_epoch(len(rows), config)
    if least // passes_per_step(len(rows), config) < here.world:
        raise GeoJEPAError(
            f"a pass has fewer tiles than there are processes ({here.world}); start fewer"
        )


def _first_stage(
    corpus: Corpus,
    rows: np.ndarray,
    network: GraphNetwork,
    config: TrainConfig,
    out: Path,
    here: Processes,
) -> None:
    """Pretrain the geometry network, or read what an earlier start of the run has pretrained."""
    path = out / "geometry.safetensors"
    if here.is_first and not path.is_file():
        steps, seed, half = config.geometry_steps, config.seed, out / "geometry-half.safetensors"
        _, measured = pretrain_geometry(corpus, rows, network, steps, seed, here.device, half)
        told = {name: repr(value) for name, value in measured.items()}
        save_tensors(path, dict(network.state_dict()), told)
        half.unlink(missing_ok=True)
    here.highest(0)  # the others wait for the file
    load_weights(network, load_tensors(path)[0], path)


def training_split(corpus: Corpus, fold: int, place: str = "") -> Split | None:
    """The split by a place or, without one, a fold; None for -1, which holds nothing out."""
    if place:
        return split_by_place(corpus.tiles, place)
    return None if fold < 0 else split(corpus.tiles, fold)


def _train(run: Run) -> None:
    config, model, here = run.config, run.model, run.processes
    optimizer = optimizer_of(model, config)
    first, seconds = 0, 0.0
    if (run.out / "checkpoint.safetensors").exists():
        told = load_checkpoint(run.out / "checkpoint.safetensors", model, optimizer)
        first, seconds = int(told["step"]), float(told["seconds"])
    if here.highest(first) != -here.highest(-first):
        raise GeoJEPAError(
            f"{run.out}: not every process finds the same checkpoint; give a folder that all share"
        )
    model.train()
    cost = measure(model, config, here, next(run.passes(0)))
    if config.compile:
        compile_blocks(model)
    forward = together(model, here)
    record = Record(run, optimizer, cost, first, seconds) if here.is_first else None
    bar = tqdm(
        range(first, run.steps),
        desc=f"{config.preset} {config.place or f'fold {config.fold}'} seed {config.seed}",
        initial=first,
        total=run.steps,
        disable=None if here.is_first else True,
    )
    passes = run.passes(first)
    with Termination() as termination:
        for step in bar:
            momentum = set_schedules(optimizer, config, (step + 1) / run.steps)
            terms, strategy = add_gradients(forward, config, here, passes, run.passes_per_step)
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            model.update_teacher(momentum, config.averaged)
            is_stopped = here.highest(termination.came) == 1
            if record is not None:
                row = {"step": step + 1, "strategy": strategy, **terms, "gradient_norm": norm}
                row["learning_rate"] = optimizer.param_groups[0]["lr"]
                row |= {"momentum": momentum, "tokens": run.tokens(step)}
                record.take(row, bar, is_stopped)
            if is_stopped and step + 1 < run.steps:
                here.highest(0)  # the others wait until all is saved
                if here.is_first:
                    said = f"stopped after step {step + 1}; the same command goes on"
                    print(said, file=sys.stderr)
                raise SystemExit(128 + signal.SIGTERM)
    if record is not None:
        record.finish()
