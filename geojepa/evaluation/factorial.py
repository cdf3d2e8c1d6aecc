"""Four changes together in half of their sixteen mixtures, and what each does in their presence."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd

from geojepa.errors import GeoJEPAError
from geojepa.evaluation import metrics
from geojepa.evaluation.ablation import PROBE, TOGETHER
from geojepa.evaluation.results import Results

LETTERS = "ABCD"


def half_fraction(factors: Sequence[str]) -> tuple[str, ...]:
    """Names of the runs: the recipe, every pair of the factors, and all four.

    This is the half of a 2^4 design in which an even number of factors is changed (Box, Hunter and
    Hunter, Statistics for Experimenters): each factor is changed in four of the eight runs, and
    each pair of factors meets in all its four ways twice.

    Raises:
        GeoJEPAError: these are not four, or the recipe is one of them.
    """
    if len(set(factors)) != len(LETTERS) or "recipe" in factors:
        raise GeoJEPAError(
            "a half fraction is of four changes: name four different factors, without recipe, "
            f"not {'; '.join(factors)}"
        )
    return ("recipe", *map(TOGETHER.join, (*combinations(factors, 2), tuple(factors))))


def effects(results: Results, factors: Sequence[str]) -> pd.DataFrame:
    """Effects of four factors from the runs of `half_fraction`, and of their pairs.

    The effect of a factor is the mean of the four runs that have it minus that of the four that
    do not. It is mixed up with that of the other three together, which is taken to be nil; the
    effects of two pairs that share no factor cannot be told apart, and have a row in common.

    Returns:
        a row for each effect. Columns: effect (A, AB or CD), system (in words), runs (on either
        side), and for both headline measures the `_difference`, the `_low` and `_high` of its 95 %
        interval over test blocks, paired, and the `_spread`, its deviation over seeds.
    """
    names = half_fraction(factors)
    split = results.fits["split"].iloc[0]
    # (8, 4): 1 where a run has a factor, -1 where it does not
    signs = np.array(
        [[1 if factor in name.split(TOGETHER) else -1 for factor in factors] for name in names]
    )
    asked = {letter: signs[:, at] for at, letter in enumerate(LETTERS)}
    words = dict(zip(LETTERS, factors, strict=True))
    for one in "BCD":
        rest = "".join(letter for letter in LETTERS[1:] if letter != one)
        asked[f"A{one} or {rest}"] = asked["A"] * asked[one]
        words[f"A{one} or {rest}"] = "both or neither"
    rows = [{"effect": name, "system": words[name], "runs": len(names) // 2} for name in asked]
    for measure in ("skill", "average_precision"):
        # (8, seeds, replicates)
        runs = np.stack(
            [results.headline_replicates(measure, name, PROBE, split) for name in names]
        )
        for row, sign in zip(rows, asked.values(), strict=True):
            seeds = np.tensordot(sign / row["runs"], runs, 1)
            found = metrics.interval(seeds.mean(0))
            row |= dict(
                zip((f"{measure}_{n}" for n in ("difference", "low", "high")), found, strict=True)
            )
            row[f"{measure}_spread"] = seeds[:, 0].std(ddof=1) if len(seeds) > 1 else np.nan
    return pd.DataFrame(rows)
