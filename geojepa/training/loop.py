"""Pretraining: one process, resumable to the same weights."""

import json
import math
import platform
import time
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from geojepa_kernels.masking import Masks, draw_masks, draw_strategy
from tqdm import tqdm

from geojepa.data.corpus import Corpus
from geojepa.data.splits import Split, split, tile_keys
from geojepa.errors import GeoJEPAError
from geojepa.files import sha256
from geojepa.model.batch import Batch, Batches
from geojepa.model.embedding import embed_tiles
from geojepa.model.jepa import GeoJEPA
from geojepa.origin import code_state, version_of
from geojepa.training.ahead import steps_ahead
from geojepa.training.checkpoint import (
    load_checkpoint,
    read_config,
    save_checkpoint,
    save_json,
    save_tensors,
)
from geojepa.training.config import TrainConfig, config_to_dict
from geojepa.training.log import Log
from geojepa.training.rank import effective_rank

SAVE_SECONDS = 20.0


def pretrain(
    corpus: Corpus,
    out: str | Path,
    config: TrainConfig,
    device: str = "auto",
) -> Path:
    """Train GeoJEPA on the training tiles of one split, or go on with a run that was stopped.

    Args:
        corpus: the tiles.
        out: folder of the run. A finished run of the same settings returns at once.
        config: every setting; `config.fold` is held out.
        device: "cpu", "cuda", or "auto" for a GPU where there is one.

    Returns:
        The folder, with config.json, model.safetensors and metrics.jsonl.

    Raises:
        GeoJEPAError: if the folder holds a run of other settings or of another corpus, or if no
            tile is left to train on.
    """
    out = Path(out)
    parts = training_split(corpus, config.fold)
    facts = {
        "train": config_to_dict(config),
        "corpus": {"name": corpus.name, "hash": corpus.hash},
        "split": parts.describe() if parts else {"name": "none held out"},
    }
    is_new = _check_folder(out, facts)
    if not is_new and (out / "model.safetensors").is_file():
        return out
    rows = parts.train if parts else corpus.usable
    if len(rows) == 0:
        raise GeoJEPAError(
            f"{corpus.name}: fold {config.fold} leaves no tile to train on; "
            "use a larger extract, or fold -1 to hold nothing out"
        )
    place = torch.device(_device(device))
    batches = Batches(corpus, config.model)
    torch.manual_seed(config.seed)
    model = GeoJEPA(config.model).to(place)
    if is_new:
        seen = sorted(tile_keys(corpus.tiles.iloc[rows]).tolist())
        save_json(out / "seen.json", {"tiles": seen})
        save_json(out / "config.json", facts)
    _train(model, batches, rows, parts, out, config, place)
    return out


def training_split(corpus: Corpus, fold: int) -> Split | None:
    """The split that a fold number names; None for -1, which holds nothing out."""
    return None if fold < 0 else split(corpus.tiles, fold)


def _device(device: str) -> str:
    if device not in ("auto", "cpu", "cuda"):
        raise GeoJEPAError(f"device {device}: choose auto, cpu or cuda")
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise GeoJEPAError("device cuda: no GPU is visible to torch; use --device cpu")
    return device


def _check_folder(out: Path, facts: dict) -> bool:
    """Whether the run is new; an older run must be of the same settings."""
    if not (out / "config.json").exists():
        return True
    # Through JSON, so that tuples and lists compare equal.
    wanted = json.loads(json.dumps(facts))
    found = read_config(out)
    for part in facts:
        if found.get(part) != wanted[part]:
            raise GeoJEPAError(
                f"{out}: holds a run with another {part} setting; choose another --out, "
                "or remove the folder"
            )
    return False


def optimizer_of(model: GeoJEPA, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW; vectors (norms, biases, the mask token) do not decay."""
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "decays": True},
        {"params": [p for p in trained if p.ndim <= 1], "decays": False},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.95))


def set_schedules(optimizer: torch.optim.Optimizer, config: TrainConfig, progress: float) -> float:
    """Set rate and decay for `progress` in [0, 1]; returns the teacher's momentum."""
    if progress < config.warm_up:
        rate = config.learning_rate * progress / config.warm_up
    else:
        cosine = (1 + math.cos(math.pi * (progress - config.warm_up) / (1 - config.warm_up))) / 2
        rate = config.final_learning_rate + cosine * (
            config.learning_rate - config.final_learning_rate
        )
    decay = config.weight_decay[0] + progress * (config.weight_decay[1] - config.weight_decay[0])
    for group in optimizer.param_groups:
        group["lr"] = rate
        group["weight_decay"] = decay if group["decays"] else 0.0
    return config.momentum[0] + progress * (config.momentum[1] - config.momentum[0])


def rows_of_step(rows: np.ndarray, config: TrainConfig, step: int) -> np.ndarray:
    """The tiles of a step; each epoch is a new order that depends on seed and epoch alone."""
    per_epoch = steps_per_epoch(len(rows), config)
    epoch, place = divmod(step, per_epoch)
    return rows[_batches_of_epoch(len(rows), per_epoch, config.seed, epoch)[place]]


@lru_cache(maxsize=1)
def _batches_of_epoch(tiles: int, batches: int, seed: int, epoch: int) -> list[np.ndarray]:
    """Positions of the tiles of each batch of an epoch."""
    return np.array_split(np.random.default_rng((seed, epoch)).permutation(tiles), batches)


def steps_per_epoch(tiles: int, config: TrainConfig) -> int:
    """Batches an epoch, of nearly equal size."""
    return max(1, round(tiles / config.batch_tiles))


def masks_of_step(batch: Batch, config: TrainConfig, step: int) -> tuple[str, Masks]:
    """The strategy of a step and its masks."""
    strategies = config.masks.strategies()
    name = draw_strategy(config.seed, step, {k: share for k, (share, _, _) in strategies.items()})
    _, size, least = strategies[name]
    masks = draw_masks(
        batch.cu_seqlens,
        batch.box,
        batch.modality,
        batch.tile_key,
        batch.max_seqlen,
        strategy=name,
        seed=config.seed,
        step=step,
        size=size,
        min_context=least,
        target_sets=config.masks.target_sets,
    )
    return name, masks


def _dropped_half(config: TrainConfig, step: int) -> str | None:
    """Which half of the entities this step goes without: tags, geometry or none."""
    if not config.model.has_geometry:
        return None
    draw = np.random.default_rng((config.seed, step, 1)).random(2)
    if draw[0] >= config.model.modality_dropout:
        return None
    return "tags" if draw[1] < 0.5 else "geometry"


def _train(
    model: GeoJEPA,
    batches: Batches,
    rows: np.ndarray,
    parts: Split | None,
    out: Path,
    config: TrainConfig,
    device: torch.device,
) -> None:
    optimizer = optimizer_of(model, config)
    first, seconds = 0, 0.0
    if (out / "checkpoint.safetensors").exists():
        first, seconds = load_checkpoint(out, model, optimizer)
    log = Log(out / "metrics.jsonl", first)
    per_epoch = steps_per_epoch(len(rows), config)
    steps = config.epochs * per_epoch
    watched = (parts.validation if parts and len(parts.validation) else rows)[:256]
    started = saved = time.monotonic()
    model.train()
    ready = steps_ahead(
        range(first, steps),
        lambda step: batches(rows_of_step(rows, config, step)),
        lambda batch, step: masks_of_step(batch, config, step),
        device,
    )
    bar = tqdm(
        ready,
        desc=f"{config.preset} fold {config.fold} seed {config.seed}",
        initial=first,
        total=steps,
        disable=None,
    )
    for ahead in bar:
        step = ahead.number
        momentum = set_schedules(optimizer, config, (step + 1) / steps)
        torch.manual_seed((config.seed << 32) + step)
        losses = model(
            ahead.batch,
            ahead.masks,
            ahead.sizes,
            vicreg_weight=config.vicreg_weight,
            beta=config.beta,
            drop=_dropped_half(config, step),
        )
        losses.total.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        model.update_teacher(momentum)
        row = {
            "step": step + 1,
            "strategy": ahead.strategy,
            "loss": losses.total,
            "prediction": losses.prediction,
            "regulariser": losses.regulariser,
            "gradient_norm": norm,
            "learning_rate": optimizer.param_groups[0]["lr"],
            "momentum": momentum,
            "tokens": len(ahead.batch.box),
        }
        epoch, rest = divmod(step + 1, per_epoch)
        is_watched = rest == 0 and epoch % max(1, config.epochs // 10) == 0
        if is_watched:
            row["effective_rank"] = effective_rank(embed_tiles(model, batches, watched))
            model.train()
        log.write(row)
        if is_watched:
            log.flush()
            if bar.disable:
                print(f"step {step + 1} of {steps}, loss {log.last['loss']:.3f}", flush=True)
        if log.last:
            bar.set_postfix(loss=f"{log.last['loss']:.3f}", refresh=False)
        now = time.monotonic()
        if now - saved > SAVE_SECONDS:
            log.flush()
            save_checkpoint(out, model, optimizer, step + 1, seconds + now - started)
            saved = now
    log.close()
    facts = read_config(out) | {
        "seconds": round(seconds + time.monotonic() - started, 1),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else platform.machine(),
        "threads": torch.get_num_threads(),
        "parameters": sum(p.numel() for p in model.teacher.parameters()),
        "versions": {name: version_of(name) for name in ("torch", "geojepa")},
        **code_state(Path(__file__).parent),
    }
    save_tensors(out / "model.safetensors", dict(model.state_dict()), {"preset": config.preset})
    save_json(out / "config.json", facts | {"weights_sha256": sha256(out / "model.safetensors")})
    (out / "checkpoint.safetensors").unlink(missing_ok=True)
