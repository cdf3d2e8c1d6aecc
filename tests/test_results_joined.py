"""Results of several calls, kept on disk and joined: the tables of one call."""

from dataclasses import replace

import pandas as pd
import pytest

from geojepa.data.splits import split
from geojepa.errors import GeoJEPAError
from geojepa.evaluation.baselines import baselines
from geojepa.evaluation.benchmark import benchmark
from geojepa.evaluation.joining import join, superseded
from geojepa.evaluation.results import Results
from geojepa.evaluation.systems import Untrained, digest
from geojepa.model.config import ModelConfig
from geojepa.training.presets import preset


def test_joined_results_are_those_of_one_call(wide_corpus, tmp_path):
    """Two seeds apart, written and read, then joined: the tables of both seeds together."""
    config = ModelConfig("t", width=24, depth=2, heads=2)

    def measured(seeds, config=config, held=(0,)):
        parts = [split(wide_corpus.tiles, fold) for fold in held]
        systems = [baselines(wide_corpus)[0], Untrained(wide_corpus, config, seeds)]
        return benchmark(systems, wide_corpus, parts, ("bridge",), (True,), ("LIN",))

    for seed in (0, 1):
        measured((seed,)).save(tmp_path / str(seed))
    apart = [Results.load(tmp_path / str(seed)) for seed in (0, 1)]
    whole, joined = measured((0, 1)), join(apart)
    pd.testing.assert_frame_equal(joined.table, whole.table)
    pd.testing.assert_frame_equal(joined.headline(), whole.headline())
    assert joined.headline()["skill_spread"].notna().sum() == 1
    # the baseline, which both measured, is there once, and as the first measured it
    assert len(joined.fits) == len(whole.fits)
    assert len(joined.predictions) == len(whole.predictions)
    assert joined.fits["fit"].is_unique
    assert set(joined.predictions["fit"]) <= set(joined.fits["fit"])
    spoilt = apart[1].predictions.assign(value=7.0)
    other = join([apart[0], replace(apart[1], predictions=spoilt)])
    is_baseline = other.fits["system"] == "Dummy"
    of_baseline = other.predictions["fit"].isin(other.fits["fit"][is_baseline])
    assert is_baseline.any()
    assert not (other.predictions["value"][of_baseline] == 7).any()
    joined.save(tmp_path / "joined")
    later = join([Results.load(tmp_path / "joined"), measured((2,))])
    pd.testing.assert_frame_equal(later.table, measured((0, 1, 2)).table)
    with pytest.raises(GeoJEPAError, match="another seed"):
        join([joined, apart[1]])
    with pytest.raises(GeoJEPAError, match="different folds"):
        join([apart[0], measured((1,), held=(0, 1))])
    for other in ({"rule": "paper"}, {"label_share": 0.01}):
        with pytest.raises(GeoJEPAError, match="different rules or shares of the labels"):
            join([apart[0], replace(apart[1], fits=apart[1].fits.assign(**other))])
    with pytest.raises(GeoJEPAError, match="older version"):
        join([apart[0], replace(apart[1], fits=apart[1].fits.drop(columns="settings"))])
    changed = measured((1,), replace(config, width=32))
    with pytest.raises(GeoJEPAError, match="Untrained: was trained with other settings"):
        join([apart[0], changed])
    # what is measured anew takes the place of all its seeds, and the rest stays
    anew = join([superseded(joined, changed), changed])
    pd.testing.assert_frame_equal(anew.table, changed.table)
    assert set(superseded(joined, changed).fits["system"]) == {"Dummy"}
    assert superseded(joined, apart[1]).fits.equals(joined.fits)
    fits = apart[1].fits.assign(corpus="another")
    with pytest.raises(GeoJEPAError, match="different corpora"):
        join([apart[0], replace(apart[1], fits=fits)])


def test_a_digest_tells_settings_from_one_another_but_not_seeds():
    config = preset("ours-t")
    assert digest(config) == digest(replace(config, seed=3, fold=2, place="malta"))
    others = [preset("study-t"), replace(config, epochs=7)]
    others += [replace(config, model=replace(config.model, registers=1))]
    assert len({digest(one) for one in (config, *others)}) == 4
