"""How fast presets train on a device: `python scripts/train_rate.py CORPUS --out FOLDER`.

Steps through the code of a run: batches and masks made ahead, forward, backward, clipping, AdamW,
teacher; nothing waits between steps. On a GPU a step that waits for the device is an error
(`torch.cuda.set_sync_debug_mode`). Into FOLDER/train_rate.csv, a row a setting, with the hours of
the paper's budget at that rate: 216,000 tiles, 300 epochs.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from geojepa.data.corpus import Corpus
from geojepa.files import whole
from geojepa.model.batch import Batches
from geojepa.model.jepa import GeoJEPA
from geojepa.training.compiled import compile_blocks, graphs_compiled
from geojepa.training.config import TrainConfig
from geojepa.training.cost import measure, peak_of
from geojepa.training.gradients import add_gradients
from geojepa.training.presets import preset
from geojepa.training.processes import Processes, device_of
from geojepa.training.run import Run
from geojepa.training.schedule import optimizer_of, set_schedules

PAPER_TILES, PAPER_EPOCHS = 216_000, 300
WARM_UP = 5


@contextmanager
def without_waiting(device: torch.device) -> Iterator[None]:
    """Waiting for a GPU is an error."""
    if device.type != "cuda":
        yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


Mark = torch.cuda.Event | float


def mark(device: torch.device) -> Mark:
    """This moment; on a GPU the one when it has done what it was given, which nobody waits for."""
    if device.type != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def between(one: Mark, other: Mark) -> float:
    """Seconds between two marks, once both are reached."""
    if isinstance(one, float) or isinstance(other, float):
        return other - one
    other.synchronize()
    return one.elapsed_time(other) / 1000


def rate(
    corpus: Corpus, config: TrainConfig, steps: int, device: torch.device
) -> dict[str, object]:
    """Speed of a setting: tiles and tokens a second, utilisation, memory, seconds of each step."""
    here = Processes(0, 1, device)
    torch.manual_seed(0)
    model = GeoJEPA(config.model).to(device).train()
    batches = Batches(corpus, config.model, model.shapes)
    # the corpus again and again, as one of any size would be
    rows = np.resize(corpus.usable, config.batch_tiles * (WARM_UP + steps))
    run = Run(Path(), replace(config, epochs=1), model, batches, rows, rows[:0], here)
    cost = measure(model, config, here, next(run.passes(0)))
    if config.compile:
        compile_blocks(model)
    optimizer = optimizer_of(model, config)
    passes = run.passes(0)
    marks = [mark(device)]
    for step in range(WARM_UP + steps):
        if device.type == "cuda" and step == WARM_UP:
            torch.cuda.reset_peak_memory_stats(device)
        momentum = set_schedules(optimizer, config, 0.5)
        # the first steps compile, allocate and fill caches
        with without_waiting(device if step >= WARM_UP else torch.device("cpu")):
            add_gradients(model, config, here, passes, run.passes_per_step)
            torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            model.update_teacher(momentum, config.averaged)
        marks.append(mark(device))
    seconds = np.array([between(*pair) for pair in pairwise(marks)][WARM_UP:])
    tokens = np.array([run.tokens(step) for step in range(WARM_UP, WARM_UP + steps)])
    tiles_per_second = config.batch_tiles / np.median(seconds)
    tokens_per_second = float(np.median(tokens / seconds))
    facts = cost.facts(tokens_per_second, peak_of(device), 1)
    memory = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    return {
        "preset": config.preset,
        "batch_tiles": config.batch_tiles,
        "pass_tiles": min(config.pass_tiles, config.batch_tiles),
        "compiled": config.compile,
        "tiles_per_second": tiles_per_second,
        "low": config.batch_tiles / np.quantile(seconds, 0.9),
        "high": config.batch_tiles / np.quantile(seconds, 0.1),
        "tokens_per_second": tokens_per_second,
        **facts,
        "peak_memory": memory,
        "graphs_compiled": graphs_compiled() if config.compile else 0,
        "steps": steps,
        "paper_hours": PAPER_TILES * PAPER_EPOCHS / tiles_per_second / 3600,
    }


def main() -> int:
    """Measure every setting and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--presets", nargs="*", default=["paper-t", "paper-gti"])
    parser.add_argument("--tiles", nargs="*", type=int, default=[96, 384])
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--compile", nargs="*", type=int, default=[0, 1], help="0, 1 or both")
    options = parser.parse_args()
    corpus, device = Corpus.open(options.corpus), device_of(options.device)
    rows = []
    for name in options.presets:
        for tiles in options.tiles:
            for compiled in options.compile:
                config = replace(
                    preset(name), batch_tiles=tiles, pass_tiles=tiles, compile=bool(compiled)
                )
                rows.append(rate(corpus, config, options.steps, device))
                told = {k: v for k, v in rows[-1].items() if v is not None}
                print(told, flush=True)
    table = pd.DataFrame(rows)
    table["device"] = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    table["torch"] = torch.__version__
    options.out.mkdir(parents=True, exist_ok=True)
    with whole(options.out / "train_rate.csv") as part:
        table.to_csv(part, index=False, float_format="%.6g")
    return 0


if __name__ == "__main__":
    sys.exit(main())
