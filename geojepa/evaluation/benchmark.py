"""The benchmark: every system under every head, task, view and split, kept as predictions."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pandas as pd
from tqdm import tqdm

from geojepa.data.corpus import Corpus
from geojepa.data.labels import RULES, SAME_VIEW, TASKS, column_of, paper_kept
from geojepa.data.splits import Split, blocks, tile_keys
from geojepa.errors import GeoJEPAError
from geojepa.evaluation.baselines import System
from geojepa.evaluation.metrics import best_constant, hashed, thinned
from geojepa.evaluation.probes import PROBES, fit_probe
from geojepa.evaluation.results import Results

# with fewer positive tiles a place is no test city for a task
MIN_POSITIVES = 40
# heads that depend on their seed
DRAWN = frozenset({"MLP"})

Part = tuple[np.ndarray, np.ndarray, np.ndarray]


def benchmark(
    systems: Sequence[System],
    corpus: Corpus,
    splits: Sequence[Split],
    tasks: Sequence[str] = TASKS,
    masked: Sequence[bool] = (False, True),
    probes: Sequence[str] = ("LIN", "MLP"),
    seeds: Sequence[int] = (0,),
    label_share: float = 1.0,
    transductive: bool = False,
    rule: str = "exact",
) -> Results:
    """Measure systems by small heads on their features.

    Args:
        systems: see `baselines.System`.
        corpus: holds the labels, and the rows that splits speak of.
        splits: folds, whose test predictions are pooled, and places, each a row of its own.
        tasks: names of labels.
        masked: views; the masked one hides the evidence of the task.
        probes: heads of systems that have none of their own: LIN, MLP, kNN, GBM.
        seeds: of the heads that draw.
        label_share: share of the training and validation tiles whose label the heads see.
        transductive: accept systems that have seen test tiles, and say so in the table.
        rule: of the labels. By `paper` a task's tiles are those that its own draw keeps, no
            further thinned ones; masked views hide the evidence of rule `exact`.

    Raises:
        GeoJEPAError: unknown task or probe, two systems of one name, or a system has seen the
            test tiles.
    """
    _check_names("task", tasks, TASKS)
    _check_names("probe", probes, tuple(PROBES))
    _check_names("rule", [rule], RULES)
    for name, count in Counter(one.name for one in systems).items():
        if count > 1:
            raise GeoJEPAError(f"{name}: {count} systems have this name; give each its own")
    tiles = corpus.tiles
    keys = tile_keys(tiles)
    sets = _tile_sets(corpus, keys, tasks, rule)
    shown = hashed(keys, "labels") < label_share * 2.0**64
    pooled = _pooled_names(splits)
    runs = [(one, split, seed) for one in systems for seed in one.seeds for split in splits]
    seen = [_has_seen(*run, keys, transductive) for run in runs]
    views = [(task, task if hides else None) for hides in masked for task in tasks]
    fits: list[dict] = []
    predictions: list[pd.DataFrame] = []
    cache = _Features(corpus)
    progress = tqdm(runs, "benchmark", disable=None)
    for (system, split, seed), is_seen in zip(progress, seen, strict=True):
        about = {
            "system": system.name,
            "kind": system.kind,
            "modalities": system.modalities,
            "settings": system.settings,
            "corpus": corpus.hash,
            "commit": system.commit(split, seed),
            "rule": rule,
            "split": pooled[split.name],
            "fold": split.name,
            "seed": seed,
            "params": system.parameters,
            "pretrain_seconds": system.seconds,
            "device": system.device,
            "transductive": is_seen,
            "label_share": label_share,
        }
        heads = ("-",) if system.kind == "constant" else system.probes or probes
        for task, hide in views:
            features = cache.get(system, SAME_VIEW.get(hide, hide), split, seed)
            for thin, labels in sets[task].items():
                parts = _parts(split, features, labels, shown)
                about |= {"task": task, "masked": hide is not None, "thinned": thin}
                about |= _facts(parts, split)
                for head in heads:
                    for probe_seed in seeds if head in DRAWN else seeds[:1]:
                        fit = {"fit": len(fits), **about, "probe": head, "probe_seed": probe_seed}
                        if not fit["note"]:
                            found, fit["chosen"] = _predict(head, task, parts, probe_seed)
                            predictions.append(found.assign(fit=fit["fit"]))
                        fits.append(fit)
    ground = pd.DataFrame({"tile": keys, "place": tiles["place"], "block": blocks(tiles)})
    return Results.of(fits, predictions, ground)


def _check_names(what: str, names: Sequence[str], known: Sequence[str]) -> None:
    for name in names:
        if name not in known:
            raise GeoJEPAError(f"{what} '{name}': there is none; choose from {', '.join(known)}")


def refuse_seen(
    name: str, seen: np.ndarray, test: np.ndarray, keys: np.ndarray, transductive: bool
) -> bool:
    """Return whether a system has seen any test tile, which only `transductive` allows.

    Grid tiles are the same in every corpus. Of other footprints, those of another corpus may
    cover any ground.

    Args:
        name: of the system.
        seen, test, keys: `tile_keys` of the tiles that it has seen, of the test tiles, and of all
            tiles of the corpus.
        transductive: whether that is accepted.

    Raises:
        GeoJEPAError: it has, or may have, and that is not accepted.
    """
    count = int(np.isin(test, seen).sum())
    others = seen[~np.isin(seen, keys)]
    is_unclear = len(others) > 0 and any("/" in key for key in [*others, *test])
    if count and not transductive:
        raise GeoJEPAError(
            f"{name}: has seen {count} of {len(test)} test tiles; test on the split that it"
            " was trained for, or accept it with --transductive"
        )
    if is_unclear and not transductive:
        raise GeoJEPAError(
            f"{name}: has seen {len(others)} footprints that this corpus does not have, and"
            " which may cover its test tiles; test on the corpus that it was trained on, or accept"
            " it with --transductive"
        )
    return count > 0 or is_unclear


def _has_seen(
    system: System, split: Split, seed: int, keys: np.ndarray, transductive: bool
) -> bool:
    seen = system.seen(split, seed)
    if seen is None:
        return False
    return refuse_seen(system.name, seen, keys[split.test], keys, transductive)


def _tile_sets(
    corpus: Corpus, keys: np.ndarray, tasks: Sequence[str], rule: str
) -> dict[str, dict[str, np.ndarray]]:
    """Labels of all tiles and of the thinned ones, NaN elsewhere; speed has no zeros to thin."""
    place = corpus.tiles["place"].to_numpy(object)
    usable = np.isin(np.arange(len(keys)), corpus.usable)
    sets = {}
    for task in tasks:
        label = np.where(usable, corpus.tiles[column_of(task, rule)].to_numpy(float), np.nan)
        if rule == "paper":
            label = np.where(paper_kept(label, task), label, np.nan)
        sets[task] = {"all": label}
        if task != "max_speed" and rule == "exact":
            sets[task]["thinned"] = np.where(thinned(label, place, keys), label, np.nan)
    return sets


def _pooled_names(splits: Sequence[Split]) -> dict[str, str]:
    """Name under which each split's predictions are pooled: folds together, places alone."""
    folds = [split.name for split in splits if split.name.startswith("fold ")]
    numbers = ", ".join(name.split()[1] for name in folds)
    joint = f"folds {numbers} of {folds[0].split()[-1]}" if len(folds) > 1 else ""
    return {one.name: joint if one.name in folds and joint else one.name for one in splits}


def _parts(
    split: Split, features: np.ndarray, labels: np.ndarray, shown: np.ndarray
) -> dict[str, Part]:
    """Rows, features and labels of the labelled tiles of each part."""
    parts = {}
    for name in ("train", "validation", "test"):
        rows = getattr(split, name)
        rows = rows[np.isfinite(labels[rows]) & (shown[rows] | (name == "test"))]
        parts[name] = (rows, features[rows], labels[rows])
    return parts


def _facts(parts: dict[str, Part], split: Split) -> dict[str, int | str]:
    test, features, labels = parts["test"]
    positives = int((labels > 0).sum())
    note = ""
    if split.name.startswith("place ") and positives < MIN_POSITIVES:
        note = f"no test city: fewer than {MIN_POSITIVES} positives"
    for part, (rows, *_) in parts.items():
        if len(rows) < 2:
            note = f"fewer than two labelled {part} tiles"
    return {
        "n_train": len(parts["train"][0]),
        "n_test": len(test),
        "positives": positives,
        "empty_tiles": int((features == 0).all(1).sum()) if features.shape[1] else 0,
        "note": note,
        "chosen": "",
    }


def _predict(head: str, task: str, parts: dict[str, Part], seed: int) -> tuple[pd.DataFrame, str]:
    rows, features, labels = parts["test"]
    constant = best_constant(task, parts["train"][2])
    value = score = np.full(len(rows), constant)
    chosen = f"constant {constant:g}"
    if head != "-":
        predictor = fit_probe(head, task, parts["train"][1:], parts["validation"][1:], seed)
        value, score = predictor.predict(features)
        chosen = predictor.setting
    columns = {"label": labels, "value": value, "score": score, "constant": constant}
    # single precision, as they are kept
    return pd.DataFrame({"row": rows} | columns).astype(dict.fromkeys(columns, "f4")), chosen


class _Features:
    """Features of a corpus's tiles by view, kept while one system asks for them again."""

    def __init__(self, corpus: Corpus) -> None:
        self.corpus = corpus
        self.owner: tuple = ()
        self.views: dict[str | None, np.ndarray] = {}

    def get(self, system: System, hide: str | None, split: Split, seed: int) -> np.ndarray:
        """Features (all tiles, F), zeros where a tile is not usable, or in no part of its split."""
        owner = (system.name, seed, split.name if system.per_split else "")
        if owner != self.owner:
            self.owner, self.views = owner, {}
        if hide not in self.views:
            rows = self.corpus.usable
            if system.per_split:
                rows = np.intersect1d(rows, [*split.train, *split.validation, *split.test])
            found = system.features(rows, hide, split, seed)
            whole = np.zeros((len(self.corpus.tiles), found.shape[1]), np.float32)
            whole[rows] = found
            self.views[hide] = whole
        return self.views[hide]
