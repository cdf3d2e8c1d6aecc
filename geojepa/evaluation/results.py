"""The benchmark's predictions as tables: metrics with intervals, headline, paired differences."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from geojepa.data.labels import HEADLINE_PRECISION, HEADLINE_SKILL
from geojepa.errors import GeoJEPAError
from geojepa.evaluation import metrics
from geojepa.files import whole

MEASURES: dict[str, tuple[metrics.Metric, tuple[str, ...]]] = {
    "mae": (metrics.mae, ("label", "value")),
    "skill": (metrics.skill, ("label", "value", "constant")),
    "auroc": (metrics.auroc, ("label", "score")),
    "average_precision": (metrics.average_precision, ("label", "score")),
}
# what one row of the table is about
ROW = [
    *("system", "probe", "kind", "modalities", "task", "rule", "masked", "split", "thinned"),
    *("label_share", "transductive"),
]


@dataclass(frozen=True, eq=False)
class Results:
    """What `benchmark` found; every table is made from these two frames.

    Attributes:
        fits: one row for each head that was fitted or left out: column `fit`, what it is about,
            sizes, `chosen` on validation, and a `note` where it was left out. `settings` is a
            digest of those of the system, `corpus` the hash of the corpus, `commit` that of the
            code that trained it.
        predictions: one row for each test tile of each fit: fit, row, tile, place, block, label,
            value, score, constant.
    """

    fits: pd.DataFrame
    predictions: pd.DataFrame

    @classmethod
    def of(cls, fits: list[dict], frames: list[pd.DataFrame], ground: pd.DataFrame) -> "Results":
        """Join fits and predictions with the names of their tiles, `ground` by row number."""
        columns = ["row", "label", "value", "score", "constant", "fit"]
        found = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=columns)
        names = ground.astype("category").iloc[found["row"].astype(int)].reset_index(drop=True)
        return cls(pd.DataFrame(fits), pd.concat([found, names], axis=1))

    def save(self, folder: str | Path) -> None:
        """Write fits.parquet and predictions.parquet."""
        for name in ("fits", "predictions"):
            with whole(Path(folder) / f"{name}.parquet") as part:
                getattr(self, name).to_parquet(part, compression="zstd")

    @classmethod
    def load(cls, folder: str | Path) -> "Results":
        """Read what `save` wrote."""
        names = ("fits", "predictions")
        return cls(*(pd.read_parquet(Path(folder) / f"{name}.parquet") for name in names))

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row for each system, probe, task, view, split and set of tiles.

        Intervals are 95 % over test blocks; a spread is the deviation over seeds. n_train is the
        mean over folds, n_test, positives and empty_tiles their sum.
        """
        rows = []
        for about, fits in self.fits.groupby(ROW, sort=False, dropna=False):
            row = dict(zip(ROW, about, strict=True)) | _sizes(fits) | self._measures(fits)
            rows.append(row)
            if row["task"] == "max_speed" and row["rule"] == "exact":
                rows.append(row | {"thinned": "thinned"})
        table = pd.DataFrame(rows)
        # also where nothing could be measured
        return table.reindex(columns=list(dict.fromkeys([*table.columns, *MEASURES, "spearman"])))

    def headline(self) -> pd.DataFrame:
        """Masked skill on thinned tiles and average precision on all, averaged over tasks.

        Tasks without labels or without enough positives in a split stay out; `tasks` names the
        rest. Masked building_count is never part, nor are labels by rule `paper`.
        """
        rows = []
        masked = self.fits[self.fits["masked"] & (self.fits["rule"] == "exact")]
        for about, fits in masked.groupby(["system", "probe", "split"], sort=False):
            name, probe, split = about
            row = {"system": name, "probe": probe, "split": split}
            row["kind"] = fits["kind"].iloc[0]
            tasks = self._headline_tasks("skill", *about)
            row["tasks"] = ", ".join(tasks)
            for measure in ("skill", "average_precision"):
                if not self._headline_tasks(measure, *about):
                    continue
                seeds = self.headline_replicates(measure, *about)
                value, low, high = metrics.interval(_mean(seeds))
                row |= {measure: value, f"{measure}_low": low, f"{measure}_high": high}
                row[f"{measure}_spread"] = _spread(seeds)
            rows.append(row)
        return pd.DataFrame(rows)

    def difference(
        self,
        one: tuple[str, str],
        other: tuple[str, str],
        split: str | Sequence[str],
        measure: str = "skill",
        task: str | None = None,
        masked: bool = True,
        thinned: str = "thinned",
    ) -> tuple[float, float, float]:
        """Return `one` minus `other`, with low and high of their paired interval.

        Args:
            one, other: (system, probe).
            split: as in the table; of several, the mean, blocks being drawn in each on its own.
            measure: mae, skill, auroc or average_precision.
            task: its row of the table; None takes the headline, masked skill or precision.
            masked, thinned: which row of the task.
        """

        def values(system: str, probe: str, part: str) -> np.ndarray:
            if task is None:
                return _mean(self.headline_replicates(measure, system, probe, part))
            fits = self._fits(system, probe, part, task, masked, thinned)
            return _mean(self._replicates(fits, measure))

        parts = [split] if isinstance(split, str) else split
        found = [values(*one, part) - values(*other, part) for part in parts]
        return metrics.interval(metrics.mean_of_parts(found))

    @cached_property
    def _draws(self) -> dict[str, tuple[np.ndarray, pd.Index]]:
        """For each split, the bootstrap's draws and the blocks of its test tiles."""
        split = self.fits.set_index("fit")["split"]
        blocks = self.predictions["block"].astype(str)
        found = blocks.groupby(self.predictions["fit"].map(split)).unique()
        return {
            name: (metrics.block_draws(len(some)), pd.Index(sorted(some)))
            for name, some in found.items()
        }

    @cached_property
    def _by_fit(self) -> dict[int, pd.DataFrame]:
        return dict(list(self.predictions.groupby("fit")))

    def _fits(self, system, probe, split, task, masked, thinned) -> pd.DataFrame:
        about = {
            "system": system,
            "probe": probe,
            "split": split,
            "task": task,
            "masked": masked,
            # speed has no zeros: its thinned tiles are all
            "thinned": "all" if task == "max_speed" else thinned,
        }
        chosen = np.logical_and.reduce([self.fits[k] == v for k, v in about.items()])
        return self.fits[chosen]

    def _seeds(self, fits: pd.DataFrame) -> Iterable[pd.DataFrame]:
        """Predictions of all folds together, for each pair of pretraining and probe seed."""
        for _, some in fits.groupby(["seed", "probe_seed"]):
            frames = [self._by_fit[fit] for fit in some["fit"] if fit in self._by_fit]
            if frames:
                yield pd.concat(frames)

    def _replicates(self, fits: pd.DataFrame, measure: str) -> np.ndarray:
        """Values of a measure for each seed, on the sample and each replicate: (S, R)."""
        key = measure, *fits["fit"]
        if key not in self._replicated:
            self._replicated[key] = self._replicate(fits, measure)
        return self._replicated[key]

    @cached_property
    def _replicated(self) -> dict[tuple, np.ndarray]:
        return {}

    def _replicate(self, fits: pd.DataFrame, measure: str) -> np.ndarray:
        metric, columns = MEASURES[measure]
        found = []
        for frame in self._seeds(fits):
            draws, blocks = self._draws[fits["split"].iloc[0]]
            block = blocks.get_indexer(frame["block"].astype(str))
            columns_of = (frame[name].to_numpy(float) for name in columns)
            found.append(metrics.replicate(metric, draws, block, *columns_of))
        if not found:
            raise GeoJEPAError(f"{measure}: there are no such predictions; see the table's rows")
        return np.stack(found)

    def _headline_tasks(self, measure: str, system: str, probe: str, split: str) -> list[str]:
        tasks, thin = _headline_part(measure)
        fits = {task: self._fits(system, probe, split, task, True, thin) for task in tasks}
        return [task for task, some in fits.items() if any(some["note"] == "")]

    def headline_replicates(self, measure: str, system: str, probe: str, split: str) -> np.ndarray:
        """A headline measure for each seed, on the sample and each of its replicates: (S, R)."""
        thin = _headline_part(measure)[1]
        parts = [
            self._replicates(self._fits(system, probe, split, task, True, thin), measure)
            for task in self._headline_tasks(measure, system, probe, split)
        ]
        if not parts:
            raise GeoJEPAError(f"{system} ({probe}), {split}: no masked task was measured")
        return np.mean(parts, axis=0)

    def _measures(self, fits: pd.DataFrame) -> dict[str, float]:
        frames = list(self._seeds(fits))
        if not frames:
            return {}
        row: dict[str, float] = {}
        for measure in ("mae", "skill"):
            seeds = self._replicates(fits, measure)
            value, low, high = metrics.interval(_mean(seeds))
            row |= {measure: value, f"{measure}_low": low, f"{measure}_high": high}
            row[f"{measure}_spread"] = _spread(seeds)
        one = np.ones((1, len(frames[0])))
        arrays = [{c: f[c].to_numpy(float) for c in ("label", "value", "score")} for f in frames]
        has_zeros = (arrays[0]["label"] == 0).any()
        for measure in ("auroc", "average_precision"):
            metric = MEASURES[measure][0]
            found = [metric(one, a["label"], a["score"])[0] for a in arrays]
            row[measure] = float(np.mean(found)) if has_zeros else float("nan")
        row["spearman"] = float(np.mean([metrics.spearman(a["label"], a["score"]) for a in arrays]))
        row["mae_positive"] = float(
            np.mean([metrics.mae_positive(a["label"], a["value"]) for a in arrays])
        )
        return row


def _headline_part(measure: str) -> tuple[tuple[str, ...], str]:
    parts = {
        "skill": (HEADLINE_SKILL, "thinned"),
        "average_precision": (HEADLINE_PRECISION, "all"),
    }
    if measure not in parts:
        raise GeoJEPAError(f"{measure}: the headline has {' and '.join(parts)}; name a task")
    return parts[measure]


def _sizes(fits: pd.DataFrame) -> dict[str, float | int | str]:
    """What the table says of the fits of one row: sizes of one seed, all folds together."""
    one = fits.drop_duplicates("fold")
    notes = [note for note in one["note"].unique() if note]
    measured = one[one["note"] == ""] if (one["note"] == "").any() else one
    return {
        "n_train": round(one["n_train"].mean()),
        **{name: int(measured[name].sum()) for name in ("n_test", "positives", "empty_tiles")},
        "seeds": fits["seed"].nunique(),
        "probe_seeds": fits["probe_seed"].nunique(),
        "params": int(one["params"].iloc[0]),
        "pretrain_seconds": float(one["pretrain_seconds"].mean()),
        "device": one["device"].iloc[0],
        "note": "; ".join(notes),
    }


def _mean(seeds: np.ndarray) -> np.ndarray:
    """Mean over seeds of each replicate: (S, R) -> (R,)."""
    return seeds.mean(0)


def _spread(seeds: np.ndarray) -> float:
    """Deviation over seeds, NaN of one seed."""
    return float(seeds[:, 0].std(ddof=1)) if len(seeds) > 1 else float("nan")
