"""What a training step costs beside the published way of doing it: `make bench-train`.

The same tiles, masks and weights, turn by turn: ours (ragged, one shared context), the same
mathematics as published without padding (ragged, a full pass for each target set), and the
published way (`padded_jepa.py`). A step is draw, forward, backward, clipping, AdamW and teacher, in
float32 with dropout, on a CPU. Into results/train_speed.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
import tyro
from matplotlib.figure import Figure
from padded_jepa import PaddedJEPA

from geojepa.data.corpus import Corpus
from geojepa.figures.publication import save_figure
from geojepa.figures.style import BLUE, GREY, WIDTH, use_style
from geojepa.model.batch import Batch, Batches
from geojepa.model.jepa import GeoJEPA
from geojepa.training.presets import preset
from geojepa.training.sampling import masks_of_step
from geojepa.training.schedule import optimizer_of, set_schedules

OURS, FULL, PADDED = "ragged, shared context", "ragged, four full passes", "padded, as published"
CAPTION = (
    "Tiles per second of a training step of {preset} on batches of {tiles} tiles of {place}, "
    "float32, {threads} threads of a CPU; dots are single steps, bars medians."
)


@dataclass(frozen=True)
class BenchConfig:
    """Sizes of the benchmark.

    Attributes:
        corpus: folder made by prepare; the published row is on Baltimore (`baltimore_md` of the
            catalogue).
        preset: whose sizes are taken.
        tiles: of a batch.
        rounds: steps of each way, turn by turn, after one that is not counted.
        threads: of torch.
        run: folder whose results/train_speed is written.
    """

    corpus: Path
    preset: str = "paper-t"
    tiles: int = 32
    rounds: int = 10
    threads: int = 2
    run: Path = Path("runs/train_speed")


def ways(config: BenchConfig) -> dict[str, Callable[[Batch, int], None]]:
    """A training step of each way, all from the same weights."""
    settings = preset(config.preset)
    torch.manual_seed(0)
    full = GeoJEPA(settings.model)
    shared = GeoJEPA(replace(settings.model, predictor_context="shared"))
    shared.load_state_dict(full.state_dict())
    models = {OURS: shared, FULL: full, PADDED: PaddedJEPA(full)}
    trained = {
        name: sum(p.numel() for p in model.parameters() if p.requires_grad)
        for name, model in models.items()
    }
    if len(set(trained.values())) > 1:
        raise AssertionError(f"the ways train different numbers of weights: {trained}")

    def step_of(model: torch.nn.Module) -> Callable[[Batch, int], None]:
        optimizer = optimizer_of(model, settings)
        model.train()

        def step(batch: Batch, number: int) -> None:
            momentum = set_schedules(optimizer, settings, 0.5)
            _, masks, _ = masks_of_step(batch, settings, number)
            if isinstance(model, PaddedJEPA):
                loss = model(batch, masks, settings.loss)
            else:
                loss = model(batch, masks, loss=settings.loss).total
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if isinstance(model, PaddedJEPA):
                model.update_teacher(momentum)
            else:
                model.update_teacher(momentum, settings.averaged)

        return step

    return {name: step_of(model) for name, model in models.items()}


def measure(config: BenchConfig, corpus: Corpus) -> pd.DataFrame:
    """One row a step: way, round, seconds, tiles, tokens and the share of padding in the batch."""
    batches = Batches(corpus, preset(config.preset).model)
    steps = ways(config)
    order = np.random.default_rng(0).permutation(corpus.usable)
    rows = []
    for number in range(-1, config.rounds):
        chosen = np.take(order, np.arange(config.tiles) + config.tiles * (number + 1), mode="wrap")
        batch = batches(chosen)
        # each way is first in turn: what a way leaves in the caches serves the next
        names = np.roll(list(steps), number)
        for name in names.tolist():
            start = time.perf_counter()
            steps[name](batch, number + 1)
            seconds = time.perf_counter() - start
            if number < 0:
                continue
            tokens = len(batch.box)
            padding = 1 - tokens / (len(chosen) * batch.max_seqlen)
            row = {"way": name, "round": number, "seconds": seconds}
            rows.append(row | {"tiles": len(chosen), "tokens": tokens, "padding": padding})
            print(f"{name:26} {seconds:6.2f} s, {len(chosen) / seconds:6.1f} tiles/s", flush=True)
    return pd.DataFrame(rows)


def summary(steps: pd.DataFrame) -> pd.DataFrame:
    """A row a way: median tiles/s, and how many times those of the published way, by round.

    `times` is the median over rounds of the ratio within a round, low and high its least and most.
    """
    seconds = steps.pivot(index="round", columns="way", values="seconds")
    rows = []
    for name in (OURS, FULL, PADDED):
        mine = steps[steps["way"] == name]
        ratio = seconds[PADDED] / seconds[name]
        rates = mine["tiles"] / mine["seconds"]
        row = {"way": name, "tiles_per_second": rates.median(), "low": rates.min()}
        row |= {
            "high": rates.max(),
            "tokens_per_second": (mine["tokens"] / mine["seconds"]).median(),
        }
        row |= {"times": ratio.median(), "times_low": ratio.min(), "times_high": ratio.max()}
        rows.append(row | {"padding": mine["padding"].median(), "rounds": len(mine)})
    return pd.DataFrame(rows)


def draw(steps: pd.DataFrame, table: pd.DataFrame) -> Figure:
    """Bars of the medians and a dot a step."""
    figure, axes = plt.subplots(figsize=(WIDTH, 2.4))
    for place, row in enumerate(table.itertuples()):
        colour = GREY if row.way == PADDED else BLUE
        axes.barh(place, row.tiles_per_second, color=colour, height=0.6, alpha=0.5)
        mine = steps[steps["way"] == row.way]
        axes.plot(mine["tiles"] / mine["seconds"], [place] * len(mine), "o", color=colour, ms=3)
        said = f"{row.times:.2f} times ({row.times_low:.2f} to {row.times_high:.2f})"
        if row.way != PADDED:
            axes.annotate(
                said,
                (row.high, place),
                (8, 0),
                textcoords="offset points",
                va="center",
                fontsize=9,
            )
    axes.set_yticks(range(len(table)), table["way"])
    axes.invert_yaxis()
    axes.set(xlabel="tiles per second", xlim=(0, 1.45 * table["high"].max()))
    return figure


def main(config: BenchConfig) -> None:
    """Measure, print, and write the figure, its table and its provenance."""
    torch.set_num_threads(config.threads)
    use_style()
    corpus = Corpus.open(config.corpus)
    steps = measure(config, corpus)
    table = summary(steps)
    print(table.round(3).to_string(index=False))
    facts = {"preset": config.preset, "tiles": config.tiles, "threads": config.threads}
    caption = CAPTION.format(**facts, place=corpus.name)
    folder = save_figure(
        config.run,
        "train_speed",
        draw(steps, table),
        table,
        caption=caption,
        corpus=corpus,
        parameters=facts | {"rounds": config.rounds},
    )
    print(folder)


if __name__ == "__main__":
    main(tyro.cli(BenchConfig))
