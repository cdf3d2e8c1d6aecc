"""The half fraction of four changes: its design by counting, its effects from known ones."""

from dataclasses import replace
from itertools import combinations, product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from papermill import execute_notebook

from geojepa.errors import GeoJEPAError
from geojepa.evaluation.ablation import FACTORS, TOGETHER, changed, screen_factors
from geojepa.evaluation.factorial import effects, half_fraction
from geojepa.evaluation.results import Results
from geojepa.training.checkpoint import read_config
from geojepa.training.config import config_from_dict
from geojepa.training.presets import preset

ROOT = Path(__file__).parent.parent
FOUR = (
    "rate: no cooldown",
    "training: batches of 32",
    "masks: area alone",
    "encoder: no registers",
)
MAIN = dict(zip("ABCD", (0.04, -0.02, 0.0, 0.01), strict=True))


def test_each_pair_of_changes_meets_in_all_four_ways_twice():
    runs = [set(name.split(TOGETHER)) for name in half_fraction(FOUR)]
    assert runs[0] == {"recipe"}
    for one, other in combinations(FOUR, 2):
        ways = [(one in run, other in run) for run in runs]
        assert {way: ways.count(way) for way in ways} == dict.fromkeys(
            product((False, True), repeat=2), 2
        )


@pytest.mark.parametrize("names", [FOUR[:3], (*FOUR, "encoder: dropout"), ("recipe", *FOUR[1:])])
def test_a_half_fraction_is_of_four(names):
    with pytest.raises(GeoJEPAError, match="of four changes"):
        half_fraction(names)


def made(pair: float, drift: float) -> Results:
    """Two seeds of the design, whose errors are the sum of known effects and of a tile's own.

    Args:
        pair: what A does more where B is done too.
        drift: of A's effect in the second seed.
    """
    rng = np.random.default_rng(0)
    label, noise = np.tile([0.0, 1.0], 60), rng.uniform(0, 0.2, 120)
    fits, frames = [], []
    for seed, name in product((0, 1), half_fraction(FOUR)):
        done = {letter for letter, factor in zip(MAIN, FOUR, strict=True) if factor in name}
        better = sum(MAIN[letter] for letter in done) + pair * ({"A", "B"} <= done)
        better += drift * seed * ("A" in done)
        for thin in ("all", "thinned"):
            about = {"system": name, "probe": "LIN", "split": "screen 0 of 5", "task": "bridge"}
            about |= {"thinned": thin, "masked": True, "rule": "exact", "kind": "frozen"}
            about |= {"fold": "screen 0 of 5", "seed": seed, "probe_seed": 0, "note": ""}
            fits.append(about | {"fit": len(fits)})
            columns = {"label": label, "constant": label + 1, "score": noise}
            columns["value"] = label + 0.5 - better + noise
            columns["block"] = np.repeat(np.arange(12), 10).astype(str)
            frames.append(pd.DataFrame(columns).assign(fit=fits[-1]["fit"]))
    return Results(pd.DataFrame(fits), pd.concat(frames, ignore_index=True))


def test_known_effects_are_found_again():
    """Errors are 1 of the constant, so that skill gains what an error loses, in every block."""
    found = effects(made(pair=0.0, drift=0.02), FOUR).set_index("effect")
    true = MAIN | {"A": MAIN["A"] + 0.01, "AB or CD": 0, "AC or BD": 0, "AD or BC": 0}
    for end in ("difference", "low", "high"):
        assert found[f"skill_{end}"].to_dict() == pytest.approx(true)
    spread = {"A": 0.02 / np.sqrt(2)} | dict.fromkeys(found.index[1:], 0.0)
    assert found["skill_spread"].to_dict() == pytest.approx(spread)
    assert not found["average_precision_difference"].any()
    assert list(found["system"][:4]) == list(FOUR)


def test_what_a_pair_does_together_is_in_its_own_row():
    """Half of it is in the effects of both, as in any two-level design, and half in their row."""
    found = effects(made(pair=0.06, drift=0.0), FOUR).set_index("effect")["skill_difference"]
    assert found["AB or CD"] == pytest.approx(0.03)
    assert found[["AC or BD", "AD or BC"]].to_numpy() == pytest.approx([0, 0])
    assert found["A"] == pytest.approx(MAIN["A"] + 0.03)
    assert found["B"] == pytest.approx(MAIN["B"] + 0.03)


def test_changes_together_are_trained_together(wide_corpus, tmp_path):
    base = replace(preset("smoke-t"), epochs=1)
    name = TOGETHER.join(FOUR[:2])
    screen_factors(wide_corpus, tmp_path, base, (name,), "cpu")
    (run,) = tmp_path.glob("*/seed0")
    trained = config_from_dict(read_config(run)["train"])
    alone = changed(changed(base, FACTORS[FOUR[0]]), FACTORS[FOUR[1]])
    assert trained == replace(alone, preset=name)
    with pytest.raises(GeoJEPAError, match="'study-t'"):
        screen_factors(wide_corpus, tmp_path, base, (TOGETHER.join(["study-t", name]),), "cpu")


def test_notebook_draws_effects(wide_corpus, tmp_path):
    parameters = {
        "corpus": str(wide_corpus.paths[0]),
        "run": str(tmp_path / "run"),
        "preset": "smoke-t",
        "factors": ";".join(FOUR),
        "design": "half fraction",
        "epochs": 1,
        "device": "cpu",
    }
    execute_notebook(ROOT / "notebooks/07_ablations.ipynb", None, parameters, cwd=ROOT)
    found = tmp_path / "run/results/ablations_t_half"
    assert list(pd.read_csv(found / "table.csv")["system"])[:4] == list(FOUR)
    assert (found / "figure.png").is_file()
