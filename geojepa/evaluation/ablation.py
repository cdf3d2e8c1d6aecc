"""The ablation study: one part of a recipe changed at a time, compared on validation alone."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import Any

import pandas as pd

from geojepa.data.corpus import Corpus
from geojepa.data.labels import HEADLINE_SKILL
from geojepa.data.splits import screen
from geojepa.errors import GeoJEPAError
from geojepa.evaluation.baselines import System, baselines
from geojepa.evaluation.benchmark import benchmark
from geojepa.evaluation.results import Results
from geojepa.evaluation.systems import Pretrained, Untrained
from geojepa.training.config import TrainConfig
from geojepa.training.loop import pretrain
from geojepa.training.presets import PRESETS, preset

Changes = Mapping[str, Any]

PROBE = "LIN"
# the split of rows that are means over cities
MEAN = "mean of cities"
# between the names of factors that one run has together
TOGETHER = " + "


def _alone(strategy: str) -> Changes:
    """One masking strategy in every step, at its own size."""
    names = ("random", "contiguous", "area", "modality")
    sizes = {"area": (350, 150), "modality": (450, 150)}
    return {
        f"masks.{name}": (1000 * (name == strategy), *sizes.get(name, (450, 100))) for name in names
    }


def _of_size(size: int, least: int) -> Callable[[tuple], tuple]:
    """A strategy with another size and least context, drawn as often as it was."""
    return lambda before: (before[0], size, least)


FACTORS: dict[str, Changes] = {
    "recipe": {},
    "loss: mean over tokens": {"loss.mean": "token"},
    "loss: no variance-covariance": {"loss.vicreg_weight": 0.0},
    "loss: more variance-covariance": {"loss.vicreg_weight": 0.02},
    "teacher: encoder alone averaged": {"averaged": "encoder"},
    "teacher: slower": {"momentum": (0.998, 0.998)},
    "training: batches of 32": {"batch_tiles": 32},
    "teacher: momentum and rate ramped": {
        "momentum": (0.99, 0.99999),
        "cooldown": 0.9,
        "weight_decay": (0.04, 0.4),
    },
    "rate: no cooldown": {"cooldown": 0.0},
    "rate: a third": {"learning_rate": 3e-4},
    "predictor: full context": {"model.predictor_context": "full"},
    "masks: random alone": _alone("random"),
    "masks: contiguous alone": _alone("contiguous"),
    "masks: area alone": _alone("area"),
    "masks: modality alone": _alone("modality"),
    "masks: smaller": {"masks.random": _of_size(250, 100), "masks.area": _of_size(200, 150)},
    "masks: larger": {"masks.random": _of_size(600, 100), "masks.area": _of_size(550, 100)},
    "encoder: no registers": {"model.registers": 0},
    "encoder: dropout": {"model.dropout": 0.1},
    "embedding: mean and max": {"model.pooling": "mean"},
    "input: no position": {"model.encodings": ("modality",)},
    "input: no modality": {"model.encodings": ("position",)},
    "input: geometry network": {"model.geometry": "network"},
    "input: fusion by an MLP": {"model.fusion": "mlp"},
}
_OF_GEOMETRY = ("input: geometry network", "input: fusion by an MLP")


def factors_of(base: TrainConfig) -> tuple[str, ...]:
    """The factors that a recipe can be changed by: some need a second modality."""
    alone = len(base.model.token_modalities) == 1
    of_two = ("loss: mean over tokens", "masks: modality alone", "input: no modality")
    left = of_two * alone + _OF_GEOMETRY * (not base.model.has_geometry)
    return tuple(name for name in FACTORS if name not in left)


def changed(config: TrainConfig, changes: Changes) -> TrainConfig:
    """A config with some settings changed, named as in `config.json`: `model.registers`.

    A value may be a function of the one before.
    """
    # all of a part at once: half of a change may be no valid setting
    parts: dict[str, dict[str, Any]] = {}
    for name, value in changes.items():
        part, _, setting = name.rpartition(".")
        before = reduce(getattr, name.split("."), config)
        parts.setdefault(part, {})[setting] = value(before) if callable(value) else value
    own = parts.pop("", {})
    whole = {part: replace(getattr(config, part), **new) for part, new in parts.items()}
    return replace(config, **own, **whole)


def settings_named(name: str) -> TrainConfig:
    """Settings of a preset, or of one that is changed by factors: "ours-t + input: no position".

    Raises:
        GeoJEPAError: there is no such preset or factor.
    """
    first, *factors = name.split(TOGETHER)
    return replace(_changed_by(factors, preset(first)), preset=name)


def _changed_by(factors: Sequence[str], config: TrainConfig) -> TrainConfig:
    for factor in factors:
        if factor not in FACTORS:
            raise GeoJEPAError(
                f"factor {factor!r}: choose from {', '.join(FACTORS)}, or a preset from "
                f"{', '.join(PRESETS)}"
            )
        config = changed(config, FACTORS[factor])
    return config


def screen_factors(
    corpus: Corpus,
    out: str | Path,
    base: TrainConfig,
    factors: Sequence[str] = (),
    device: str = "auto",
    seeds: int = 1,
) -> Results:
    """Train the base with one factor changed at a time, and measure all on validation tiles.

    Finished runs are kept, so that the same call goes on.

    Args:
        corpus: the tiles.
        out: folder of the runs, one folder a factor.
        base: the recipe; its fold is held out and not looked at, see `splits.screen`.
        factors: of `FACTORS`, the recipe among them, several together with " + " between; or names
            of presets, which are trained for as many epochs; all that the recipe can be changed by
            without.
        device: of pretraining and embedding.
        seeds: runs of each, from the base's seed on.

    Raises:
        GeoJEPAError: an unknown factor.
    """
    factors = tuple(factors) or factors_of(base)
    configs = {
        name: replace(preset(name), epochs=base.epochs, fold=base.fold)
        if name in PRESETS
        else replace(_changed_by(name.split(TOGETHER), base), preset=name)
        for name in factors
    }
    part = screen(corpus.tiles, base.fold)
    numbers = range(base.seed, base.seed + seeds)
    systems: list[System] = [Untrained(corpus, base.model, numbers, device)]
    for name, config in configs.items():
        runs = []
        for seed in numbers:
            folder = Path(out) / slug(name) / f"seed{seed}"
            runs.append(pretrain(corpus, folder, replace(config, seed=seed), device))
        systems.append(Pretrained(corpus, runs, name, device=device))
    return benchmark(
        [*baselines(corpus), *systems], corpus, [part], HEADLINE_SKILL, (True,), (PROBE,)
    )


def slug(name: str) -> str:
    """A factor's name as a folder's: lower-case words joined by dashes."""
    return "-".join("".join(c if c.isalnum() else " " for c in name.lower()).split())


def factor_table(results: Results, base: str = "recipe") -> pd.DataFrame:
    """A row for each system and split: headline measures, and the paired difference from the base.

    Columns: system, probe, split, skill, average_precision, and for both the difference with the
    low and high of its 95 % interval over test blocks. Where there are several splits, such as
    cities held out in turn, rows of MEAN follow, over those in which a measure was taken.
    """
    headline = results.headline()
    parts = list(headline.groupby(["system", "probe", "split"], sort=False))
    if headline["split"].nunique() > 1:
        means = headline.groupby(["system", "probe"], sort=False)
        parts += [((*about, MEAN), part) for about, part in means]
    return pd.DataFrame([_compared(results, about, part, base) for about, part in parts])


def _compared(results: Results, about: tuple, part: pd.DataFrame, base: str) -> dict[str, Any]:
    """A row of `factor_table`, of the headline's rows of one system."""
    taken = {m: part[part[m].notna()] for m in ("skill", "average_precision") if m in part}
    taken = {measure: rows for measure, rows in taken.items() if len(rows)}
    row = dict(zip(("system", "probe", "split"), about, strict=True))
    row |= {measure: rows[measure].mean() for measure, rows in taken.items()}
    for measure, rows in taken.items():
        found = results.difference(about[:2], (base, PROBE), rows["split"].tolist(), measure)
        names = ("difference", "low", "high")
        row |= {f"{measure}_{n}": value for n, value in zip(names, found, strict=True)}
    return row
