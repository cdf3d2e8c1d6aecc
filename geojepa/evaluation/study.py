"""The study: presets trained without each part of the map that they are then tested on."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from geojepa.data.corpus import Corpus
from geojepa.data.labels import HEADLINE_SKILL, TASKS
from geojepa.data.splits import Split, cities
from geojepa.errors import GeoJEPAError
from geojepa.evaluation.ablation import PROBE, TOGETHER, settings_named, slug
from geojepa.evaluation.baselines import System, baselines
from geojepa.evaluation.benchmark import benchmark
from geojepa.evaluation.joining import has, join, superseded
from geojepa.evaluation.results import Results
from geojepa.evaluation.systems import Pretrained, Untrained, digest
from geojepa.training.loop import pretrain, training_split

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
    earlier: Results | None = None,
) -> Results:
    """Pretrain presets for as many epochs each, and measure them, masked, beside every baseline.

    Finished runs are kept, so that the same call goes on. *Untrained* has the weights that the
    first preset starts from.

    Args:
        corpus: the tiles.
        out: folder of the runs: `<preset>/<held out>-seed<n>/`.
        names: of presets, also with factors changed: see `settings_named`.
        held: what is held out and tested on: numbers of folds, which are pooled, or cities.
        seeds: of pretraining, for each preset and each part held out.
        epochs: of every run; 0 for those of the first preset.
        device: of pretraining and embedding.
        earlier: what was measured before, to be joined; what it has is neither trained nor
            measured again, and a system whose settings have changed since is measured anew.

    Raises:
        GeoJEPAError: something cannot be held out, or `earlier` is of another corpus or of other
            parts of it.
    """
    if earlier is not None and set(earlier.fits.get("corpus", ())) != {corpus.hash}:
        raise GeoJEPAError(
            f"{corpus.name}: the earlier results are of another corpus, or of an older version; "
            "measure without them"
        )
    epochs = epochs or settings_named(names[0]).epochs
    splits = [_split(corpus, part) for part in held]
    if earlier is not None and set(earlier.fits["fold"]) != {split.name for split in splits}:
        raise GeoJEPAError(
            f"the earlier results are of {', '.join(earlier.fits['fold'].unique())}; "
            "hold out the same, or measure without them"
        )

    def is_known(name: str, settings: str, seeds: Sequence[int]) -> bool:
        return earlier is not None and has(earlier, name, settings, splits, seeds)

    untrained = Untrained(corpus, settings_named(names[0]).model, seeds, device)
    systems: list[System] = [
        one
        for one in (*baselines(corpus), untrained)
        if not is_known(one.name, one.settings, one.seeds)
    ]
    for name in names:
        if is_known(name, digest(replace(settings_named(name), epochs=epochs)), seeds):
            continue
        folder = Path(out) / slug(name)
        runs = [
            _train(corpus, folder, name, part, seed, epochs, device)
            for part in held
            for seed in seeds
        ]
        systems.append(Pretrained(corpus, runs, name, device=device))
    if earlier is not None and not systems:
        return earlier
    found = benchmark(systems, corpus, splits, TASKS, (True,), (PROBE,))
    return found if earlier is None else join([superseded(earlier, found), found])


def compare_longer(
    corpus: Corpus,
    out: str | Path,
    names: Sequence[str],
    held: Held,
    seeds: Sequence[int] = (0,),
    epochs: int = 0,
    times: int = 3,
    device: str = "auto",
) -> Results:
    """Runs several times as long, at their end and at their best moment, beside usual ones.

    Args:
        corpus, out, device: as in `compare_presets`, whose runs are taken where they are there.
        names: of presets, each trained once as long; those of usual length are of the first.
        held: a fold, or a city.
        seeds: of the runs of usual length; a longer one has the first.
        epochs: of a usual run; 0 for those of the first preset.
        times: how many times as long the longer ones are.
    """
    usual, out = names[0], Path(out)
    epochs = epochs or settings_named(usual).epochs
    part = _split(corpus, held)
    runs = [_train(corpus, out / slug(usual), usual, held, n, epochs, device) for n in seeds]
    systems: list[System] = [Pretrained(corpus, runs, usual, device=device)]
    for name in names:
        folder = out / f"{slug(name)}-{times}-times"
        run = _train(corpus, folder, name, held, seeds[0], times * epochs, device)
        other = "" if name == usual else f", {name.removeprefix(usual + TOGETHER)}"
        systems += [
            Pretrained(corpus, [run], f"{times} times as long{other} ({weights})", weights, device)
            for weights in ("last", "best")
        ]
    return benchmark(systems, corpus, [part], HEADLINE_SKILL, (True,), (PROBE,))


def _fold_and_place(held: Held) -> tuple[int, str]:
    return (held, "") if isinstance(held, int) else (0, held)


def _split(corpus: Corpus, held: Held) -> Split:
    found = training_split(corpus, *_fold_and_place(held))
    if found is None:
        raise GeoJEPAError("fold -1 holds nothing out; name folds from 0 to 4")
    return found


def _train(
    corpus: Corpus, out: Path, name: str, held: Held, seed: int, epochs: int, device: str
) -> Path:
    fold, place = _fold_and_place(held)
    config = replace(settings_named(name), epochs=epochs, seed=seed, fold=fold, place=place)
    return pretrain(corpus, out / f"{place or f'fold{fold}'}-seed{seed}", config, device)
