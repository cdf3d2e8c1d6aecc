"""The ablation study: what is changed, what it is measured on, and its table."""

import json
from dataclasses import replace
from functools import reduce
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from papermill import execute_notebook

from geojepa.data.splits import screen, split, split_named, tile_keys
from geojepa.errors import GeoJEPAError
from geojepa.evaluation.ablation import (
    FACTORS,
    changed,
    factor_table,
    factors_of,
    screen_factors,
    settings_named,
    slug,
)
from geojepa.training.presets import preset

ROOT = Path(__file__).parent.parent
NOTEBOOK = ROOT / "notebooks/07_ablations.ipynb"


def test_screening_reads_no_test_tile_and_only_held_out_ones_as_test(wide_corpus):
    for fold in range(5):
        held, part = split(wide_corpus.tiles, fold), screen(wide_corpus.tiles, fold)
        assert np.array_equal(part.test, held.validation)
        every = np.concatenate([part.train, part.validation, part.test])
        assert len(np.unique(every)) == len(every)
        assert not np.isin(every, held.test).any()
        assert not np.isin(part.test, held.train).any()
        again = split_named(wide_corpus.tiles, part.name)
        assert again.hash == part.hash


@pytest.mark.parametrize("name", FACTORS)
def test_each_factor_changes_its_settings_and_nothing_else(name):
    """Every one is accepted, differs from the recipe, and leaves what it does not name."""
    base = preset("ours-gti")
    config = changed(base, FACTORS[name])
    assert (config == base) == (name == "recipe")
    old = {setting: reduce(getattr, setting.split("."), base) for setting in FACTORS[name]}
    assert changed(config, old) == base


def test_a_name_may_change_a_preset():
    assert settings_named("ours-t") == preset("ours-t")
    name = "ours-t + rate: no cooldown + encoder: dropout"
    model = replace(preset("ours-t").model, dropout=0.1)
    expected = replace(preset("ours-t"), preset=name, cooldown=0.0, model=model)
    assert settings_named(name) == expected
    for wrong in ("ours-x", "ours-t + nothing", "rate: no cooldown"):
        with pytest.raises(GeoJEPAError, match="choose"):
            settings_named(wrong)


def test_folders_of_factors_differ():
    assert len({slug(name) for name in FACTORS}) == len(FACTORS)
    assert slug("loss: pooled SIGReg") == "loss-pooled-sigreg"


def test_screen_trains_measures_and_goes_on(wide_corpus, tmp_path):
    base = replace(preset("smoke-t"), epochs=1)
    factors = ("recipe", "encoder: no registers", "masks: random alone")
    results = screen_factors(wide_corpus, tmp_path, base, factors, "cpu")
    table = factor_table(results)
    assert set(factors) <= set(table["system"])
    recipe = table[table["system"] == "recipe"].iloc[0]
    assert recipe["skill_difference"] == recipe["skill_low"] == recipe["skill_high"] == 0
    held = set(tile_keys(wide_corpus.tiles.iloc[split(wide_corpus.tiles, 0).test]))
    assert not held & set(results.predictions["tile"])
    for run in tmp_path.glob("*/seed0"):
        assert not held & set(json.loads((run / "seen.json").read_text())["tiles"])
    weights = tmp_path / "recipe" / "seed0" / "model.safetensors"
    before = weights.stat().st_mtime_ns
    again = screen_factors(wide_corpus, tmp_path, base, factors, "cpu")
    assert weights.stat().st_mtime_ns == before
    assert factor_table(again).equals(table)


def test_notebook_draws_what_was_screened(wide_corpus, tmp_path):
    parameters = {
        "corpus": str(wide_corpus.paths[0]),
        "run": str(tmp_path / "run"),
        "preset": "smoke-t",
        "factors": "recipe;encoder: no registers;input: no position",
        "epochs": 1,
        "device": "cpu",
    }
    execute_notebook(NOTEBOOK, None, parameters, cwd=ROOT)
    found = tmp_path / "run/results/ablations_t"
    assert {path.name for path in found.iterdir()} == {
        "figure.png",
        "figure.pdf",
        "table.csv",
        "provenance.json",
    }
    systems = set(pd.read_csv(found / "table.csv")["system"])
    assert {"recipe", "encoder: no registers", "input: no position", "Untrained"} <= systems


def test_one_modality_leaves_out_what_needs_two():
    assert "masks: modality alone" in factors_of(preset("ours-gti"))
    assert len(factors_of(preset("ours-t"))) == len(FACTORS) - 5
    for name in factors_of(preset("ours-t")):
        changed(preset("ours-t"), FACTORS[name])


def test_unknown_factor_is_refused(wide_corpus, tmp_path):
    with pytest.raises(GeoJEPAError, match="choose from recipe"):
        screen_factors(wide_corpus, tmp_path, preset("smoke-t"), ("nothing",))
