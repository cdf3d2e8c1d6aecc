"""Results measured apart, as one: seeds run one after another, presets beside published ones."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from geojepa.data.splits import Split
from geojepa.errors import GeoJEPAError
from geojepa.evaluation.results import ROW, Results


def join(parts: Sequence[Results]) -> Results:
    """Results of several calls as one; what several of them measured is taken from the first.

    Raises:
        GeoJEPAError: they are of different tiles, labels or splits, or systems of one name of
            other settings, or one of them adds nothing.
    """
    if any("settings" not in part.fits for part in parts):
        raise GeoJEPAError("results of an older version say too little to be joined; measure anew")
    counts = np.cumsum([0, *(part.fits["fit"].max() + 1 for part in parts)])
    pairs = list(zip(parts, counts[:-1].tolist(), strict=True))
    fits = pd.concat([p.fits.assign(fit=p.fits["fit"] + at) for p, at in pairs])
    found = pd.concat([p.predictions.assign(fit=p.predictions["fit"] + at) for p, at in pairs])
    if fits["corpus"].nunique() > 1:
        raise GeoJEPAError("results of different corpora cannot be joined; measure them on one")
    if len(fits[["rule", "label_share"]].drop_duplicates()) > 1:
        raise GeoJEPAError(
            "results by different rules or shares of the labels cannot be joined; measure alike"
        )
    settings = fits.groupby("system")["settings"].nunique()
    if (settings > 1).any():
        raise GeoJEPAError(
            f"{settings.idxmax()}: was trained with other settings in one of the results to "
            "join; join runs of one preset and as many epochs"
        )
    splits = {frozenset(zip(p.fits["split"], p.fits["fold"], strict=True)) for p in parts}
    if len(splits) > 1:
        raise GeoJEPAError(
            "results of different folds or cities cannot be joined as one; hold out the same"
        )
    kept = fits.drop_duplicates([*ROW, "fold", "seed", "probe_seed"])
    for part, at in pairs:
        if not kept["fit"].isin(part.fits["fit"] + at).any():
            raise GeoJEPAError("one of the results adds nothing: give it another seed")
    found = found[found["fit"].isin(kept["fit"])]
    names = {name: found[name].astype("category") for name in ("tile", "place", "block")}
    return Results(kept.reset_index(drop=True), found.assign(**names).reset_index(drop=True))


def has(
    results: Results, system: str, settings: str, splits: Sequence[Split], seeds: Sequence[int]
) -> bool:
    """Whether a system of these settings was measured on all splits with all seeds."""
    fits = results.fits[(results.fits["system"] == system) & (results.fits["settings"] == settings)]
    measured = set(zip(fits["fold"], fits["seed"], strict=True))
    return measured >= {(split.name, seed) for split in splits for seed in seeds}


def superseded(older: Results, newer: Results) -> Results:
    """The older results without systems that the newer ones measured with other settings.

    What is left joins them: a recipe that has changed is measured alone, beside others that have
    not.
    """
    names = ["system", "settings"]
    told = pd.concat([older.fits[names], newer.fits[names]]).drop_duplicates()
    changed = told["system"][told["system"].duplicated()]
    fits = older.fits[~older.fits["system"].isin(changed)]
    found = older.predictions[older.predictions["fit"].isin(fits["fit"])]
    return Results(fits, found)
