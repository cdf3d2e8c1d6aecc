"""What is watched while training, against first principles, and that watching changes nothing."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from geojepa.data.corpus import Corpus
from geojepa.data.labels import HEADLINE_SKILL
from geojepa.data.splits import split
from geojepa.model.batch import Batches
from geojepa.training import loop, record
from geojepa.training import watch as watching
from geojepa.training.checkpoint import Best, load_run, load_tensors
from geojepa.training.presets import preset
from geojepa.training.rank import DELTA, lidar
from geojepa.training.run import Run
from geojepa.training.sampling import masks_of_step
from geojepa.training.watch import probe, seen_twice, student_views, watch

TINY = replace(preset("smoke-t"), epochs=6)


@pytest.fixture(scope="module")
def run(wide_corpus, tmp_path_factory):
    return loop.pretrain(wide_corpus, tmp_path_factory.mktemp("run") / "a", TINY, "cpu")


@pytest.fixture(scope="module", params=["mean", "counts"])
def pooled(request, wide_corpus, tmp_path_factory):
    """A run and its settings, pooled in either way."""
    config = replace(TINY, model=replace(TINY.model, pooling=request.param))
    return loop.pretrain(
        wide_corpus, tmp_path_factory.mktemp("pooled") / "a", config, "cpu"
    ), config


def test_lidar_counts_the_directions_that_tell_tiles_apart():
    """Six tiles' worth of signal in three directions, noise in all: only three count."""
    generator = np.random.default_rng(0)
    tiles = np.zeros((200, 8))
    tiles[:, :3] = generator.normal(size=(200, 3))
    clean = tiles + 0.01 * generator.normal(size=(10, 200, 8))
    assert 2.5 < lidar(clean) < 3.5
    noise = generator.normal(size=(10, 200, 8))
    assert lidar(noise) > 5  # no direction stands out
    assert lidar(np.ones((4, 10, 3))) == 1.0


def test_lidar_equals_its_definition():
    views = np.random.default_rng(1).normal(size=(3, 20, 4)) + np.arange(20)[:, None] * [1, 0, 0, 2]
    mean = views.mean(0)
    between = sum(np.outer(m, m) for m in mean - mean.mean(0)) / 20
    within = sum(np.outer(d, d) for d in (views - mean).reshape(-1, 4)) / 60 + DELTA * np.eye(4)
    values, vectors = np.linalg.eigh(within)
    half = vectors @ np.diag(values**-0.5) @ vectors.T
    found = np.linalg.eigvalsh(half @ between @ half)
    share = found / found.sum()
    assert lidar(views) == pytest.approx(np.exp(-(share * np.log(share)).sum()), rel=1e-6)


def test_tokens_are_compared_in_the_first_two_draws_that_show_them():
    tokens = np.arange(24.0).reshape(4, 6, 1)
    is_context = np.array(
        [[1, 0, 1, 0, 0, 1], [1, 0, 0, 1, 0, 1], [1, 0, 0, 0, 0, 1], [0, 1, 1, 1, 0, 1]]
    )
    found = seen_twice(tokens, is_context.astype(bool))
    # tokens 0, 2, 3 and 5 are context twice
    assert found[..., 0].tolist() == [[0, 2, 9, 5], [6, 20, 21, 11]]
    assert lidar(seen_twice(tokens, np.zeros((4, 6), bool))) == 1.0


def test_views_are_what_the_student_says_of_the_contexts(run, wide_corpus):
    model = load_run(run)[0]
    batches = Batches(wide_corpus, model.config)
    rows = split(wide_corpus.tiles, 0).validation[:5]
    tiles, tokens = student_views(model, batches, TINY, rows)
    batch = batches(rows)
    views, shown = [], []
    for view in range(len(tiles)):
        context = masks_of_step(batch, TINY, view)[1].context
        with torch.no_grad():
            content = model.student.tokenizer(batch)
            content = content + model.student.position(batch.box, batch.modality)
            tile = torch.repeat_interleave(torch.arange(5), batch.cu_seqlens.diff().long())
            alone = torch.zeros_like(content)
            for one in range(5):
                mine = context & (tile == one)
                cu = torch.tensor([0, mine.sum()], dtype=torch.int32)
                alone[mine] = model.student.encoder(content[mine], cu, int(mine.sum()))
                mean = alone[mine].mean(dim=0).numpy()
                np.testing.assert_allclose(tiles[view, one], mean, atol=1e-5)
        views.append(alone.numpy())
        shown.append(context.numpy())
    np.testing.assert_allclose(tokens, seen_twice(np.stack(views), np.stack(shown)), atol=1e-5)
    assert tokens.shape[1] > 10


def test_a_run_is_watched(run):
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    watched = [row for row in rows if "effective_rank" in row]
    assert len(watched) == 6
    for row in watched:
        assert row["tokens_per_second"] > 0
        assert row["effective_rank"] >= 1
        assert row["token_rank"] > 1
        assert row["lidar"] >= 1
        assert row["token_lidar"] > 1
        assert -1 <= row["agreement"] <= 1
        assert row["probe"] <= 1


@pytest.mark.parametrize("epochs", [1, 9, 10, 11, 19, 25, 29, 300])
def test_quality_is_measured_ten_times_and_at_the_end(epochs):
    config = replace(TINY, epochs=epochs, batch_tiles=10)
    rows = np.arange(40)
    run = Run(None, config, None, None, rows, rows, None)
    looks = [step for step in range(1, run.steps + 1) if run.is_watched(step)]
    assert looks[-1] == run.steps == 4 * epochs
    assert len(looks) == min(epochs, 10)


def test_the_best_is_kept_by_probe_and_can_be_loaded(pooled, wide_corpus):
    run, config = pooled
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    best = max((row for row in rows if "probe" in row), key=lambda row: row["probe"])
    facts = json.loads((run / "config.json").read_text())["best"]
    assert facts == {"step": best["step"], "measure": "probe", "score": best["probe"]}
    model = load_run(run, "best")[0]
    last = load_run(run)[0]
    parts = split(wide_corpus.tiles, 0)
    batches = Batches(wide_corpus, model.config)
    again = watch(model, batches, config, parts.train, parts.validation)
    assert again["probe"] == pytest.approx(best["probe"], abs=1e-6)
    ending = watch(last, batches, config, parts.train, parts.validation)
    assert ending["probe"] == pytest.approx(rows[-1]["probe"], abs=1e-6)


def test_watching_changes_no_weight(pooled, wide_corpus, tmp_path, monkeypatch):
    run, config = pooled
    monkeypatch.setattr(record, "watch", lambda *_: {"effective_rank": 1.0})
    blind = loop.pretrain(wide_corpus, tmp_path / "blind", config, "cpu")
    one, other = (load_tensors(folder / "model.safetensors")[0] for folder in (run, blind))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_no_test_tile_is_looked_at(run, wide_corpus):
    """Nonsense in the labels of test tiles changes nothing that is measured."""
    parts = split(wide_corpus.tiles, 0)
    model = load_run(run)[0]
    spoilt = Corpus.open(wide_corpus.paths)
    rows = np.setdiff1d(np.arange(len(spoilt)), np.concatenate([parts.train, parts.validation]))
    for task in HEADLINE_SKILL:
        column = spoilt.tiles[task].astype(float)
        column.iloc[rows] = 1e6
        spoilt.tiles[task] = column
    found = [
        probe(model, Batches(corpus, model.config), parts.train, parts.validation)
        for corpus in (wide_corpus, spoilt)
    ]
    assert found[0] == found[1] is not None


def test_what_is_watched_is_spread_over_all_held_tiles(run, wide_corpus, monkeypatch):
    """Rows of a corpus come place by place: the first ones would speak of one city alone."""
    monkeypatch.setattr(watching, "VIEWED", 4)
    monkeypatch.setattr(watching, "MAX_TILES", 8)
    parts = split(wide_corpus.tiles, 0)
    asked: list[np.ndarray] = []

    class Recorded(Batches):
        def __call__(self, rows, hide=None):
            asked.append(np.searchsorted(parts.validation, rows[np.isin(rows, parts.validation)]))
            return super().__call__(rows, hide)

    model, config, _ = load_run(run)
    watch(model, Recorded(wide_corpus, config.model), config, parts.train, parts.validation)
    asked = [places for places in asked if len(places)]
    assert len(asked) > 4
    assert all(places.max() >= len(parts.validation) / 2 for places in asked)
    assert all(len(places) <= 8 for places in asked)


def test_no_probe_where_no_tile_is_held_out(wide_corpus, tmp_path):
    config = replace(TINY, fold=-1, epochs=1)
    run = loop.pretrain(wide_corpus, tmp_path / "run", config, "cpu")
    (row,) = [
        row
        for line in (run / "metrics.jsonl").read_text().splitlines()
        if "effective_rank" in (row := json.loads(line))
    ]
    assert "probe" not in row
    facts = json.loads((run / "config.json").read_text())["best"]
    assert facts["measure"] == "effective_rank"


def test_best_so_far_outlives_the_process(run, tmp_path):
    model = load_run(run)[0]
    best = Best(tmp_path / "best.safetensors")
    best.offer(model, 3, {"effective_rank": 2.0, "probe": -0.25})
    again = Best(tmp_path / "best.safetensors")
    assert again.facts == {"step": 3, "measure": "probe", "score": -0.25}
    again.offer(model, 4, {"effective_rank": 9.0, "probe": -0.5})
    assert again.facts["step"] == 3
    again.offer(model, 5, {"effective_rank": 1.0, "probe": 0.1})
    assert Best(tmp_path / "best.safetensors").facts["step"] == 5
