"""Pretraining: one process or several, resumable to the same weights."""

import platform
import signal
import sys
import time
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from geojepa.data.corpus import Corpus
from geojepa.data.splits import Split, split, split_by_place, tile_keys
from geojepa.errors import GeoJEPAError
from geojepa.files import sha256, whole
from geojepa.model.batch import Batches
from geojepa.model.embedding import fit_codebook
from geojepa.model.graph_network import GraphNetwork
from geojepa.model.jepa import GeoJEPA
from geojepa.model.modalities import backbone_of, modality_classes
from geojepa.origin import code_state, version_of
from geojepa.training.board import Board, writer_class
from geojepa.training.checkpoint import (
    Best,
    is_new_run,
    load_checkpoint,
    load_tensors,
    load_weights,
    read_config,
    save_checkpoint,
    save_json,
    save_tensors,
)
from geojepa.training.compiled import compile_blocks, graphs_compiled
from geojepa.training.config import TrainConfig, config_to_dict
from geojepa.training.cost import Cost, measure, peak_of
from geojepa.training.geometry import pretrain_geometry
from geojepa.training.gradients import add_gradients, together
from geojepa.training.log import Log
from geojepa.training.processes import Processes, Termination, processes
from geojepa.training.run import Run
from geojepa.training.sampling import passes_per_step, steps_per_epoch
from geojepa.training.schedule import optimizer_of, set_schedules
from geojepa.training.watch import watch

SAVE_SECONDS = 20.0


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
    if len(rows) == 0:
        raise GeoJEPAError(
            f"{corpus.name}: {parts.name if parts else 'it'} leaves no tile to train on; "
            "use a larger extract, or fold -1 to hold nothing out"
        )
    with processes(device) as here:
        least = len(rows) // steps_per_epoch(len(rows), config)
        if least // passes_per_step(len(rows), config) < here.world:
            raise GeoJEPAError(
                f"a pass has fewer tiles than there are processes ({here.world}); start fewer"
            )
        # what a corpus lacks is said before anything is written
        for modality in modality_classes(config.model):
            modality.source(corpus, config.model)
        torch.manual_seed(config.seed)
        model = GeoJEPA(config.model).to(here.device)
        if is_new and here.is_first:
            seen = sorted(tile_keys(corpus.tiles.iloc[rows]).tolist())
            save_json(out / "seen.json", {"tiles": seen})
            save_json(out / "config.json", facts)
        if model.shapes is not None:
            _first_stage(corpus, rows, model.shapes, config, out, here)
        batches = Batches(corpus, config.model, model.shapes)
        watched = parts.validation if parts and len(parts.validation) else rows
        _train(Run(out, config, model, batches, rows, watched, here, tensorboard))
    return out


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
        steps, seed = config.geometry_steps, config.seed
        _, measured = pretrain_geometry(corpus, rows, network, steps, seed, here.device)
        told = {name: repr(value) for name, value in measured.items()}
        save_tensors(path, dict(network.state_dict()), told)
    if here.world > 1:
        torch.distributed.barrier()
    load_weights(network, load_tensors(path)[0], path)


def training_split(corpus: Corpus, fold: int, place: str = "") -> Split | None:
    """The split by a place or, without one, a fold; None for -1, which holds nothing out."""
    if place:
        return split_by_place(corpus.tiles, place)
    return None if fold < 0 else split(corpus.tiles, fold)


def _train(run: Run) -> None:
    config, model, here, out = run.config, run.model, run.processes, run.out
    optimizer = optimizer_of(model, config)
    first, seconds = 0, 0.0
    if (out / "checkpoint.safetensors").exists():
        first, seconds = load_checkpoint(out, model, optimizer)
    model.train()
    cost = measure(model, config, here, next(run.passes(0)))
    if here.is_first:
        print(cost)
    if config.compile:
        compile_blocks(model)
    forward = together(model, here)
    board = Board(out / "tensorboard", first) if run.tensorboard and here.is_first else None
    log = Log(out / "metrics.jsonl", first, board) if here.is_first else None
    best = Best(out / "best.safetensors")
    started = saved = time.monotonic()
    bar = tqdm(
        range(first, run.steps),
        desc=f"{config.preset} {config.place or f'fold {config.fold}'} seed {config.seed}",
        initial=first,
        total=run.steps,
        disable=None if here.is_first else True,
    )
    passes = run.passes(first)
    trained, since = 0, started
    with Termination() as termination:
        for step in bar:
            momentum = set_schedules(optimizer, config, (step + 1) / run.steps)
            terms, strategy = add_gradients(forward, config, here, passes, run.passes_per_step)
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            model.update_teacher(momentum, config.averaged)
            if log is None:
                continue
            row = {
                "step": step + 1,
                "strategy": strategy,
                **terms,
                "gradient_norm": norm,
                "learning_rate": optimizer.param_groups[0]["lr"],
                "momentum": momentum,
                "tokens": run.tokens(step),
            }
            epoch, rest = divmod(step + 1, run.per_epoch)
            is_watched = rest == 0 and epoch % max(1, config.epochs // 10) == 0
            trained += row["tokens"]
            if is_watched:
                row["tokens_per_second"] = round(trained / max(time.monotonic() - since, 1e-9))
                measured = watch(model, run.batches, config, run.rows, run.watched)
                row |= measured
                best.offer(model, step + 1, measured)
            log.write(row)
            if is_watched:
                log.flush()
                if bar.disable:
                    rest = ", ".join(f"{name} {value:.3f}" for name, value in measured.items())
                    said = f"step {step + 1} of {run.steps}, loss {log.last['loss']:.3f}, {rest}"
                    print(said, flush=True)
                # looking is no training
                trained, since = 0, time.monotonic()
            if log.last:
                bar.set_postfix(loss=f"{log.last['loss']:.3f}", refresh=False)
            now = time.monotonic()
            if now - saved > SAVE_SECONDS or termination.came:
                log.flush()
                save_checkpoint(out, model, optimizer, step + 1, seconds + now - started)
                saved = now
            if termination.came and step + 1 < run.steps:
                print(f"stopped after step {step + 1}; the same command goes on", file=sys.stderr)
                raise SystemExit(128 + signal.SIGTERM)
    if log is not None:
        log.close()
        _finish(run, best, cost, seconds + time.monotonic() - started)


def _finish(run: Run, best: Best, cost: Cost, seconds: float) -> None:
    """Write the weights and the facts of a run that has ended."""
    out, device = run.out, run.processes.device
    # of the run's last start: what one device needs at most, activations and all
    memory = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    tokens = run.config.epochs * int(run.batches.lengths[run.rows].sum())
    speed = tokens / max(seconds, 1e-9)
    told = cost.facts(speed, peak_of(device), run.processes.world)
    print(
        f"{run.steps} steps in {seconds:.0f} s: {speed:,.0f} tokens/s, "
        f"{told['flops_per_second'] / 1e9:,.1f} GFLOP/s"
        + (f", {memory / 2**30:.2f} GiB of GPU memory at most" if memory else "")
    )
    facts = read_config(out) | {
        "seconds": round(seconds, 1),
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
    if run.model.shapes is not None:
        measured = load_tensors(out / "geometry.safetensors")[1]
        facts["geometry_network"] = {name: float(value) for name, value in measured.items()}
    fit_codebook(run.model, run.batches, run.rows)
    # the weights appear last: they say that the run is finished
    with whole(out / "model.safetensors") as part:
        save_tensors(part, dict(run.model.state_dict()), {"preset": run.config.preset})
        save_json(out / "config.json", facts | {"weights_sha256": sha256(part)})
    for name in ("checkpoint.safetensors", "geometry.safetensors"):
        (out / name).unlink(missing_ok=True)
