"""The study: what each run was trained without, and what is compared."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from papermill import execute_notebook

from geojepa.data.city import build_city
from geojepa.data.corpus import Corpus
from geojepa.data.labels import HEADLINE_SKILL
from geojepa.data.prepare import prepare
from geojepa.data.splits import split, split_by_place, tile_keys
from geojepa.errors import GeoJEPAError
from geojepa.evaluation.ablation import settings_named
from geojepa.evaluation.benchmark import benchmark
from geojepa.evaluation.study import compare_presets, held_cities
from geojepa.evaluation.systems import Pretrained, benchmark_run
from geojepa.training.loop import pretrain

NOTEBOOK = Path(__file__).parent.parent / "notebooks/10_study.ipynb"


@pytest.fixture(scope="module")
def towns(wide_corpus, tmp_path_factory):
    """The western and the eastern half of a city as two places, one tile apart."""
    folder = tmp_path_factory.mktemp("towns")
    extract = build_city(folder, size=12).extract
    tiles = wide_corpus.tiles[["tile_id", "x", "geometry"]]
    middle = tiles.x.median()
    found = []
    for name, half in (("west", tiles[tiles.x < middle]), ("east", tiles[tiles.x > middle + 1])):
        half[["tile_id", "geometry"]].to_parquet(folder / f"{name}.parquet")
        shutil.copyfile(extract, folder / f"{name}.osm.pbf")
        footprints = folder / f"{name}.parquet"
        found.append(prepare([folder / f"{name}.osm.pbf"], folder / name, footprints=footprints))
    return Corpus.open(found)


def trained_on(run):
    return set(json.loads((run / "seen.json").read_text())["tiles"])


def test_a_run_never_saw_the_city_that_it_is_tested_on(towns, tmp_path):
    held = held_cities(towns)
    assert held == ("east", "west")
    results = compare_presets(towns, tmp_path, ("smoke-t",), held, epochs=1, device="cpu")
    keys = tile_keys(towns.tiles)
    for place in held:
        of_city = set(keys[(towns.tiles.place == place).to_numpy()])
        seen = trained_on(tmp_path / "smoke-t" / f"{place}-seed0")
        assert seen == set(keys[split_by_place(towns.tiles, place).train])
        assert seen
        assert not seen & of_city
        fits = results.fits[results.fits["fold"] == f"place {place}"]["fit"]
        tested = results.predictions[results.predictions["fit"].isin(fits)]
        assert set(tested["tile"].astype(str)) <= of_city


def test_folds_are_pooled_and_seeds_kept_apart(wide_corpus, tmp_path):
    names = "smoke-t", "small-t"
    call = (wide_corpus, tmp_path, names, (0, 1), (0, 1), 1, "cpu")
    results = compare_presets(*call)
    headline = results.headline()
    assert set(names) | {"Untrained", "Dummy", "TagCount"} <= set(headline["system"])
    assert headline["split"].nunique() == 1
    # measured, and no part of the headline
    assert "building_count" in set(results.fits["task"])
    assert not headline["tasks"].str.contains("building_count").any()
    fits = results.fits[results.fits["system"] == "smoke-t"]
    assert set(zip(fits["fold"], fits["seed"], strict=True)) == {
        (f"fold {fold} of 5", seed) for fold in (0, 1) for seed in (0, 1)
    }
    for fold in (0, 1):
        part = split(wide_corpus.tiles, fold)
        keys = tile_keys(wide_corpus.tiles)
        for run in tmp_path.glob(f"*/fold{fold}-seed*"):
            assert trained_on(run) == set(keys[part.train])
            config = json.loads((run / "config.json").read_text())["train"]
            assert (config["epochs"], config["fold"]) == (1, fold)
    weights = {p: p.stat().st_mtime_ns for p in tmp_path.glob("*/*/model.safetensors")}
    assert len(weights) == 8
    assert compare_presets(*call).headline().equals(headline)
    assert all(p.stat().st_mtime_ns == at for p, at in weights.items())
    # what was measured before is neither trained nor measured again
    other = (wide_corpus, tmp_path / "other", *call[2:])
    assert compare_presets(*other, results) is results
    assert not (tmp_path / "other").exists()
    with pytest.raises(GeoJEPAError, match="of another corpus"):
        compare_presets(*other, replace(results, fits=results.fits.assign(corpus="else")))
    with pytest.raises(GeoJEPAError, match="earlier results are of fold 0 of 5, fold 1 of 5; hold"):
        compare_presets(*other[:3], (0,), *other[4:], results)
    assert not (tmp_path / "other").exists()
    runs = [tmp_path / "smoke-t" / f"fold0-seed{seed}" for seed in (0, 1)]
    facts = json.loads((runs[1] / "config.json").read_text())
    # of a version that had one setting less
    del facts["train"]["model"]["fusion"]
    (runs[1] / "config.json").write_text(json.dumps(facts))
    assert Pretrained(wide_corpus, runs).seeds == (0, 1)
    facts["train"]["epochs"] = 2
    (runs[1] / "config.json").write_text(json.dumps(facts))
    with pytest.raises(GeoJEPAError, match="different settings"):
        Pretrained(wide_corpus, runs)


def test_what_cannot_be_held_out_is_refused(wide_corpus, tmp_path):
    with pytest.raises(GeoJEPAError, match="single city"):
        held_cities(wide_corpus)
    with pytest.raises(GeoJEPAError, match="atlantis"):
        compare_presets(wide_corpus, tmp_path, ("smoke-t",), ("atlantis",))
    with pytest.raises(GeoJEPAError, match="holds nothing out"):
        compare_presets(wide_corpus, tmp_path, ("smoke-t",), (-1,))
    assert not list(tmp_path.iterdir())


def test_notebook_draws_the_comparison(wide_corpus, tmp_path):
    parameters = {
        "corpus": str(wide_corpus.paths[0]),
        "run": str(tmp_path / "run"),
        "presets": "smoke-t;small-t",
        "folds": 2,
        "epochs": 1,
        "times": 2,
        "device": "cpu",
    }
    execute_notebook(NOTEBOOK, None, parameters, cwd=NOTEBOOK.parent.parent)
    for name in ("study_t", "study_t_tasks", "study_t_longer"):
        found = tmp_path / "run/results" / name
        files = {"figure.png", "figure.pdf", "table.csv", "provenance.json"}
        kept = {"fits.parquet", "predictions.parquet"} if name == "study_t" else set()
        assert {path.name for path in found.iterdir()} == files | kept
    table = pd.read_csv(tmp_path / "run/results/study_t/table.csv")
    base = table[table["system"] == "smoke-t"].iloc[0]
    assert base["skill_difference"] == 0
    other = table[table["system"] == "small-t"].iloc[0]
    assert np.isclose(other["skill_difference"], other["skill"] - base["skill"])
    # another seed, joined to what was published of the first
    parameters |= {"seed": 1, "times": 0, "earlier": str(tmp_path / "run/results/study_t")}
    parameters["run"] = str(tmp_path / "later")
    execute_notebook(NOTEBOOK, None, parameters, cwd=NOTEBOOK.parent.parent)
    joined = pd.read_csv(tmp_path / "later/results/study_t_tasks/table.csv")
    assert (joined[joined["system"].isin(["smoke-t", "small-t", "Untrained"])]["seeds"] == 2).all()
    longer = pd.read_csv(tmp_path / "run/results/study_t_longer/table.csv")
    names = [
        f"2 times as long{other} ({which})"
        for other in ("", ", small-t")
        for which in ("last", "best")
    ]
    assert set(longer["system"]) == {"smoke-t", *names}
    for preset in ("smoke-t", "small-t"):
        of_run = tmp_path / f"run/{preset}-2-times/fold0-seed0/config.json"
        config = json.loads(of_run.read_text())["train"]
        assert (config["epochs"], config["preset"]) == (2, preset)
    measured = longer.set_index("system")["skill"]
    own = base_of_fold(tmp_path / "run/smoke-t/fold0-seed0", wide_corpus)
    assert measured["smoke-t"] == pytest.approx(own)


def test_best_weights_are_not_tested_where_their_labels_chose_them(wide_corpus, tmp_path):
    """The validation tiles of a run are in no gradient; of its best weights they are no test."""
    config = replace(settings_named("smoke-t"), epochs=1)
    run = pretrain(wide_corpus, tmp_path / "fold0-seed0", config, "cpu")
    held = split(wide_corpus.tiles, 0)
    keys = tile_keys(wide_corpus.tiles)
    for weights, rows in (("last", [held.train]), ("best", [held.train, held.validation])):
        seen = Pretrained(wide_corpus, [run], weights=weights).seen(held, 0)
        assert sorted(seen) == sorted(keys[np.concatenate(rows)])
    with pytest.raises(GeoJEPAError, match="test tiles"):
        benchmark_run(
            run, wide_corpus, ("bridge",), (True,), ("LIN",), split="fold 1 of 5", weights="best"
        )


def base_of_fold(run, corpus):
    """Masked skill of one run on the fold that it held out."""
    system = Pretrained(corpus, [run], "alone")
    results = benchmark(
        [system], corpus, [split(corpus.tiles, 0)], HEADLINE_SKILL, (True,), ("LIN",)
    )
    return results.headline()["skill"].iloc[0]
