"""The benchmark on a small sample city: rules of the protocol, baselines by hand, refusals."""

import numpy as np
import pandas as pd
import pytest

from geojepa.data.city import build_city
from geojepa.data.corpus import Corpus
from geojepa.data.labels import HEADLINE_PRECISION, HEADLINE_SKILL, TASKS, paper_kept
from geojepa.data.prepare import prepare
from geojepa.data.splits import split, split_by_place, tile_keys
from geojepa.errors import GeoJEPAError
from geojepa.evaluation import benchmark as module
from geojepa.evaluation import metrics
from geojepa.evaluation.ablation import MEAN, factor_table
from geojepa.evaluation.baselines import Baseline, Count, Dummy, TagCount, TagPool, baselines
from geojepa.evaluation.benchmark import benchmark
from geojepa.evaluation.results import MEASURES, Results
from geojepa.model.tags import TagTable


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("city")
    return prepare([build_city(folder, size=14).extract], folder / "corpus")


@pytest.fixture(scope="module")
def corpus(path):
    return Corpus.open(path)


@pytest.fixture(scope="module")
def folds(corpus):
    return [split(corpus.tiles, fold) for fold in (0, 1)]


class Oracle(Baseline):
    """Features that hold every label, and nothing else."""

    name = "Oracle"
    per_split = True
    calls = 0

    def features(self, rows, hide, split, seed):
        self.calls += 1
        labels = self.corpus.tiles[list(TASKS)].to_numpy()[rows]
        return np.nan_to_num(np.concatenate([labels, np.log1p(labels)], 1))


class Trained(Oracle):
    """A system that says which tiles it was trained on."""

    name = "Trained"

    def __init__(self, corpus, seen):
        super().__init__(corpus)
        self.keys = seen

    def seen(self, split, seed):
        return self.keys


@pytest.fixture(scope="module")
def results(corpus, folds):
    systems = [one for one in baselines(corpus) if one.name != "TagCount"]
    return benchmark([*systems, Oracle(corpus)], corpus, folds, probes=("LIN",))


def row(results, system, task, masked=True, thinned="thinned", probe=None):
    table = results.table
    found = table[
        (table.system == system)
        & (table.task == task)
        & (table.masked == masked)
        & (table.thinned == thinned)
        & ((table.probe == probe) if probe else True)
    ]
    assert len(found) == 1
    return found.iloc[0]


def test_the_table_has_a_row_for_everything(results):
    # systems, tasks, views, sets
    assert len(results.table) == 5 * 5 * 2 * 2
    assert (results.table.split == "folds 0, 1 of 5").all()
    assert not results.table[["mae", "skill", "spearman"]].loc[3:].isna().all().any()
    assert (results.table.mae_low <= results.table.mae + 1e-9).all()
    assert (results.table.mae <= results.table.mae_high + 1e-9).all()


def test_the_best_constant_has_no_skill_and_the_oracle_all(results):
    for task in TASKS:
        assert row(results, "Dummy", task).skill == pytest.approx(0)
        assert row(results, "Oracle", task).skill > 0.8
    assert row(results, "Dummy", "traffic_signals", thinned="all").auroc == pytest.approx(
        0.5, abs=0.1
    )


def test_a_row_agrees_with_its_predictions(results, corpus, folds):
    about = row(results, "Count", "traffic_signals", thinned="all")
    fits = results.fits.query("system == 'Count' and task == 'traffic_signals' and masked")
    found = results.predictions[results.predictions.fit.isin(fits[fits.thinned == "all"].fit)]
    tested = np.concatenate([one.test for one in folds])
    assert sorted(found.row) == sorted(set(tested) & set(corpus.usable))
    assert about.n_test == len(found)
    label = corpus.tiles.traffic_signals.to_numpy()[found.row.astype(int)]
    assert (found.label == label).all()
    assert about.positives == (label > 0).sum()
    assert about.mae == pytest.approx(np.abs(found.value - label).mean())
    assert about.skill == pytest.approx(1 - about.mae / np.abs(found.constant - label).mean())
    assert (found.tile == tile_keys(corpus.tiles)[found.row.astype(int)]).all()


def test_thinned_tiles_are_the_same_in_every_part(results, corpus, folds):
    fits = results.fits.query("system == 'Count' and task == 'bridge' and thinned == 'thinned'")
    label = corpus.tiles.bridge.to_numpy()
    # over all parts of all folds zeros equal positives; buffers take some of either
    for fit, one in zip(fits.itertuples(), folds, strict=False):
        positives = (label[one.train] > 0).sum()
        assert positives <= fit.n_train < len(one.train)
    table = row(results, "Count", "bridge")
    assert table.positives == row(results, "Count", "bridge", thinned="all").positives
    assert table.n_test < row(results, "Count", "bridge", thinned="all").n_test


def test_boosting_reads_unmasked_bridges_off_the_tags(corpus, folds):
    results = benchmark([TagCount(corpus)], corpus, folds[:1], ["bridge"])
    assert set(results.table.probe) == {"GBM", "MLP"}
    open_, hidden = (row(results, "TagCount", "bridge", m, "all", "GBM") for m in (False, True))
    assert open_.auroc > 0.99
    assert hidden.auroc < open_.auroc


@pytest.mark.parametrize("hide", [None, "building_count", "max_speed"])
def test_features_of_baselines_by_hand(corpus, folds, hide):
    rows = corpus.usable[::17]
    data, table = corpus.read(rows, hide), TagTable.load()
    tags, one = data.tags(), folds[0]
    entities = np.zeros((len(tags), 384))
    for i, own in enumerate(tags):
        for key, value in own.items():
            at = table.resolve(key, value)[0]
            entities[i] += table.matrix[at] if at >= 0 else 0
    count = Count(corpus).features(rows, hide, one, 0)
    mean = TagPool(corpus, "mean").features(rows, hide, one, 0)
    total = TagPool(corpus, "sum").features(rows, hide, one, 0)
    for i, (a, b) in enumerate(zip(data.cu_entities, data.cu_entities[1:], strict=False)):
        assert count[i, :4].tolist() == [(data.kind[a:b] == k).sum() for k in range(4)]
        np.testing.assert_allclose(mean[i, :384], entities[a:b].mean(0), atol=1e-4)
        np.testing.assert_allclose(total[i, :384], entities[a:b].sum(0), rtol=1e-4, atol=1e-3)
        np.testing.assert_allclose(total[i, 384:], entities[a:b].max(0), atol=1e-4)
    assert Dummy(corpus).features(rows, hide, one, 0).shape == (len(rows), 0)


def test_tags_are_counted_by_value_and_by_key(corpus, folds):
    one = folds[0]
    rows = np.concatenate([one.train, one.test])
    features = TagCount(corpus).features(rows, None, one, 0)
    tags = corpus.read(rows).tags()
    owner = np.repeat(np.arange(len(rows)), np.diff(corpus.read(rows).cu_entities))
    columns = {column.tobytes() for column in features.T}
    for wanted in (("highway", "residential"), ("building", None)):
        count = np.zeros(len(rows), np.float32)
        for tile, own in zip(owner, tags, strict=True):
            value = own.get(wanted[0])
            count[tile] += value is not None and wanted[1] in (None, value)
        assert np.log1p(count).tobytes() in columns
    assert features.shape[1] <= 2 * 500
    assert ((features[: len(one.train)] > 0).sum(0) >= 5).all()


def test_features_do_not_depend_on_chunks(corpus, folds, monkeypatch):
    system = TagPool(corpus, "sum")
    whole = system.features(corpus.usable, "bridge", folds[0], 0)
    monkeypatch.setattr("geojepa.evaluation.baselines.CHUNK", 7)
    assert (system.features(corpus.usable, "bridge", folds[0], 0) == whole).all()


def test_a_tile_without_tokens_is_zero_and_counted(corpus, folds):
    class Blank(Oracle):
        name = "Blank"

        def features(self, rows, hide, split, seed):
            found = super().features(rows, hide, split, seed)
            found[np.isin(rows, split.test[:3])] = 0
            return found + 1e-3 * ~np.isin(rows, split.test[:3])[:, None]

    found = benchmark([Blank(corpus)], corpus, folds[:1], ["building_count"], [True], ["LIN"])
    assert (found.table.query("thinned == 'all'").empty_tiles == 3).all()


def test_seen_test_tiles_are_refused(corpus, folds):
    one = folds[0]
    keys = tile_keys(corpus.tiles)
    honest = Trained(corpus, keys[one.train])
    arguments = (corpus, [one], ["bridge"], [True], ["LIN"])
    assert not benchmark([honest], *arguments).table.transductive.any()
    cheat = Trained(corpus, keys[np.append(one.train, one.test[:2])])
    with pytest.raises(GeoJEPAError, match=f"2 of {len(one.test)} test tiles.*--transductive"):
        benchmark([cheat], *arguments)
    assert cheat.calls == 0
    assert benchmark([cheat], *arguments, transductive=True).table.transductive.all()
    # trained for fold 0, tested on fold 2
    with pytest.raises(GeoJEPAError, match="test tiles"):
        benchmark([honest], corpus, [one, split(corpus.tiles, 2)], ["bridge"], [True], ["LIN"])


def test_footprints_of_another_corpus_may_be_the_test_tiles(corpus, folds):
    """Grid tiles are told from one another by name, in any corpus; other footprints are not."""
    arguments = (corpus, folds[:1], ["bridge"], [True], ["LIN"])
    of_the_grid = Trained(corpus, np.array(["16_1_1"], object))
    assert not benchmark([of_the_grid], *arguments).table.transductive.any()
    unclear = Trained(corpus, np.array(["lilliput/7", "16_1_1"], object))
    with pytest.raises(GeoJEPAError, match=r"2 footprints that this corpus .*--transductive"):
        benchmark([unclear], *arguments)
    assert benchmark([unclear], *arguments, transductive=True).table.transductive.all()


def test_systems_of_one_name_are_refused(corpus, folds):
    with pytest.raises(GeoJEPAError, match="Count: 2 systems have this name"):
        benchmark([Count(corpus), Count(corpus)], corpus, folds)


def test_features_are_asked_for_once_per_view(corpus, folds):
    system = Oracle(corpus)
    benchmark([system], corpus, folds, ["bridge", "max_speed"], probes=["LIN", "kNN"])
    # two folds, the open view and two masked ones
    assert system.calls == 6


def test_a_place_with_few_positives_is_no_test_city(path, monkeypatch):
    corpus = Corpus.open(path)
    corpus.tiles["place"] = np.where(corpus.tiles.x < corpus.tiles.x.median(), "west", "east")
    splits = [split_by_place(corpus.tiles, name) for name in ("west", "east")]
    monkeypatch.setattr(module, "MIN_POSITIVES", 30)
    systems = [Dummy(corpus), Count(corpus)]
    found = benchmark(
        systems, corpus, splits, ["building_count", "traffic_signals"], [True], ["LIN"]
    )
    assert set(found.table.split) == {"place west", "place east"}
    few = found.table.positives < 30
    assert few.any()
    assert not few.all()
    assert (few == found.table.note.str.startswith("no test city")).all()
    assert (few == found.table.skill.isna()).all()


def test_the_headline_is_the_mean_of_its_rows(results):
    line = results.headline().query("system == 'Count'").iloc[0]
    skills = [row(results, "Count", task).skill for task in HEADLINE_SKILL]
    ranks = [row(results, "Count", t, thinned="all").average_precision for t in HEADLINE_PRECISION]
    assert line["skill"] == pytest.approx(np.mean(skills))
    assert line["average_precision"] == pytest.approx(np.mean(ranks))
    assert line["skill_low"] < line["skill"] < line["skill_high"]


def test_differences_are_paired(results):
    folds = "folds 0, 1 of 5"
    oracle, count = ("Oracle", "LIN"), ("Count", "LIN")
    value, low, high = results.difference(oracle, count, folds)
    head = results.headline().set_index(["system", "probe"]).skill
    assert value == pytest.approx(head[oracle] - head[count])
    assert 0 < low < value < high
    assert results.difference(count, count, folds, "average_precision") == (0, 0, 0)
    for measure in MEASURES:
        found = results.difference(oracle, count, folds, measure, "bridge", False, "all")
        pair = [row(results, s, "bridge", False, "all")[measure] for s in ("Oracle", "Count")]
        assert found[0] == pytest.approx(pair[0] - pair[1])
    with pytest.raises(GeoJEPAError, match="name a task"):
        results.difference(oracle, count, folds, "mae")


def test_the_interval_of_a_mean_is_that_of_parts_resampled_apart():
    """Twice the same replicates, as one seed gives: independent, they vary half as much."""
    values = np.concatenate([[3.0], np.random.default_rng(0).normal(3, 1, 4000)])
    mean = metrics.mean_of_parts([values, values])
    assert mean[0] == 3
    assert mean[1:].var() == pytest.approx(0.5, rel=0.1)
    assert metrics.interval(metrics.mean_of_parts([values])) == metrics.interval(values)


def test_cities_have_a_mean_of_their_own(results):
    """Two cities of the same tiles: the mean is that of each, its interval narrower."""
    count = results.fits["fit"].max() + 1
    fits = [results.fits.assign(split=name) for name in ("place a", "place b")]
    fits[1]["fit"] += count
    found = results.predictions
    found = pd.concat([found, found.assign(fit=found["fit"] + count)])
    table = factor_table(Results(pd.concat(fits), found), "Oracle")
    a, mean = (table.query("system == 'Count' and split == @s").iloc[0] for s in ("place a", MEAN))
    for measure in ("skill", "average_precision"):
        assert mean[measure] == pytest.approx(a[measure])
        assert mean[f"{measure}_difference"] == pytest.approx(a[f"{measure}_difference"])
        of_mean, of_one = (row[f"{measure}_high"] - row[f"{measure}_low"] for row in (mean, a))
        assert 0.6 < of_mean / of_one < 0.85
    assert MEAN not in set(factor_table(results, "Oracle")["split"])


def test_the_same_again_and_from_disk(results, corpus, folds, tmp_path):
    arguments = (corpus, folds[:1], ["bridge"], [True], ["MLP"], (0, 1))
    first, again = (benchmark([Count(corpus)], *arguments) for _ in range(2))
    pd.testing.assert_frame_equal(first.table, again.table)
    assert (first.table.probe_seeds == 2).all()
    assert first.table.mae_spread.notna().all()
    results.save(tmp_path)
    pd.testing.assert_frame_equal(Results.load(tmp_path).table, results.table)


def test_fewer_labels_are_fewer_training_tiles(corpus, folds):
    arguments = (corpus, folds[:1], ["building_count"], [True], ["LIN"])
    sizes = []
    for share in (1.0, 0.3, 0.001):
        table = benchmark([Count(corpus)], *arguments, label_share=share).table
        sizes.append(table.n_train.iloc[0])
        assert table.n_test.iloc[0] == len(folds[0].test)
    assert 0.15 * sizes[0] < sizes[1] < 0.45 * sizes[0]
    assert sizes[2] < 3
    assert "fewer than two" in table.note.iloc[0]


def test_unknown_names_are_refused(corpus, folds):
    with pytest.raises(GeoJEPAError, match="traffic_signals"):
        benchmark([Dummy(corpus)], corpus, folds, ["bridges"])
    with pytest.raises(GeoJEPAError, match="MLP"):
        benchmark([Dummy(corpus)], corpus, folds, probes=["linear"])


def test_rule_paper_takes_its_labels_on_the_tiles_that_it_keeps(corpus, folds):
    results = benchmark(
        [Dummy(corpus), Oracle(corpus)], corpus, folds, probes=("LIN",), rule="paper"
    )
    assert set(results.table.rule) == {"paper"}
    assert set(results.table.thinned) == {"all"}
    assert len(results.headline()) == 0
    for task in TASKS:
        label = corpus.tiles[f"paper_{task}"].to_numpy(float)
        kept = np.flatnonzero(paper_kept(label, task))
        fits = results.fits.query("system == 'Dummy' and task == @task and not masked")
        found = results.predictions[results.predictions.fit.isin(fits.fit)]
        tested = np.concatenate([one.test for one in folds])
        assert sorted(found.row) == sorted(set(tested) & set(corpus.usable) & set(kept))
        assert (found.label == label[found.row.astype(int)]).all()


def test_an_unknown_rule_is_refused(corpus, folds):
    with pytest.raises(GeoJEPAError, match=r"rule 'papers'.*exact, paper"):
        benchmark([Dummy(corpus)], corpus, folds, rule="papers")
