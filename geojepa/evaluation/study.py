"""The study: presets trained without each part of the map that they are then tested on."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from geojepa.data.corpus import Corpus
from geojepa.data.splits import cities
from geojepa.errors import GeoJEPAError
from geojepa.evaluation.ablation import PROBE, TASKS
from geojepa.evaluation.baselines import System, baselines
from geojepa.evaluation.benchmark import benchmark
from geojepa.evaluation.results import Results
from geojepa.evaluation.systems import Pretrained, Untrained
from geojepa.training.loop import pretrain, training_split
from geojepa.training.presets import preset

Held = int | str


def held_cities(corpus: Corpus) -> tuple[str, ...]:
    """Every city of a corpus, to be held out in turn.

    Raises:
        GeoJEPAError: there is one alone.
    """
    found = tuple(np.unique(cities(corpus.tiles)).tolist())
    if len(found) < 2:
        raise GeoJEPAError(f"{corpus.name}: is a single city; hold out folds, or add a place")
    return found


def compare_presets(
    corpus: Corpus,
    out: str | Path,
    names: Sequence[str],
    held: Sequence[Held],
    seeds: Sequence[int] = (0,),
    epochs: int = 0,
    device: str = "auto",
) -> Results:
    """Pretrain presets for as many epochs each, and measure them, masked, beside every baseline.

    Finished runs are kept, so that the same call goes on. *Untrained* has the weights that the
    first preset starts from.

    Args:
        corpus: the tiles.
        out: folder of the runs: `<preset>/<held out>-seed<n>/`.
        names: of presets.
        held: what is held out and tested on: numbers of folds, which are pooled, or cities.
        seeds: of pretraining, for each preset and each part held out.
        epochs: of every run; 0 for those of the first preset.
        device: of pretraining.
    """
    epochs = epochs or preset(names[0]).epochs
    parts = [(part, "") if isinstance(part, int) else (0, part) for part in held]
    found = [training_split(corpus, fold, place) for fold, place in parts]
    splits = [one for one in found if one is not None]
    if len(splits) < len(found):
        raise GeoJEPAError("fold -1 holds nothing out; name folds from 0 to 4")
    systems: list[System] = [Untrained(corpus, preset(names[0]).model, seeds)]
    for name in names:
        runs = []
        for fold, place in parts:
            for seed in seeds:
                config = replace(preset(name), epochs=epochs, seed=seed, fold=fold, place=place)
                folder = Path(out) / name / _folder(fold, place, seed)
                runs.append(pretrain(corpus, folder, config, device))
        systems.append(Pretrained(corpus, runs, name))
    return benchmark([*baselines(corpus), *systems], corpus, splits, TASKS, (True,), (PROBE,))


def compare_longer(
    corpus: Corpus,
    out: str | Path,
    name: str,
    held: Held,
    seeds: Sequence[int] = (0,),
    epochs: int = 0,
    times: int = 3,
    device: str = "auto",
) -> Results:
    """A run several times as long, at its end and at its best moment, beside runs of usual length.

    Args:
        corpus, out, device: as in `compare_presets`, whose runs are taken where they are there.
        name: of a preset.
        held: a fold, or a city.
        seeds: of the runs of usual length; the longer one has the first.
        epochs: of a usual run; 0 for those of the preset.
        times: how many times as long the longer one is.
    """
    epochs = epochs or preset(name).epochs
    fold, place = (held, "") if isinstance(held, int) else (0, held)
    part = training_split(corpus, fold, place)
    if part is None:
        raise GeoJEPAError("fold -1 holds nothing out; name folds from 0 to 4")

    def run(epochs: int, seed: int, folder: str) -> Path:
        config = replace(preset(name), epochs=epochs, seed=seed, fold=fold, place=place)
        return pretrain(corpus, Path(out) / folder / _folder(fold, place, seed), config, device)

    usual = [run(epochs, seed, name) for seed in seeds]
    longer = [run(times * epochs, seeds[0], f"{name}-{times}-times")]
    systems: list[System] = [
        Pretrained(corpus, usual, name),
        Pretrained(corpus, longer, f"{times} times as long: last"),
        Pretrained(corpus, longer, f"{times} times as long: best", "best"),
    ]
    return benchmark(systems, corpus, [part], TASKS, (True,), (PROBE,))


def _folder(fold: int, place: str, seed: int) -> str:
    return f"{place or f'fold{fold}'}-seed{seed}"
