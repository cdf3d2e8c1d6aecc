"""Words of a codebook and counts of them, against counting one by one; where a run's come from."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from geojepa.data.splits import split
from geojepa.errors import GeoJEPAError
from geojepa.evaluation.systems import Untrained
from geojepa.model.batch import Batches
from geojepa.model.codebook import MAX_TOKENS, WORDS, count_words, fit_words
from geojepa.model.config import ModelConfig
from geojepa.model.embedding import embed_tiles, fit_codebook
from geojepa.model.jepa import GeoJEPA
from geojepa.training import record, watch
from geojepa.training.checkpoint import load_run
from geojepa.training.loop import pretrain
from geojepa.training.presets import preset

TINY = ModelConfig("t", width=24, depth=2, heads=2, pooling="counts")


def test_counts_are_those_of_counting_one_by_one():
    source = np.random.default_rng(0)
    x, words = source.normal(size=(40, 3)), source.normal(size=(7, 3))
    lengths = [5, 0, 20, 15]
    wanted = np.zeros((4, 7))
    for token, tile in zip(x, np.repeat(range(4), lengths), strict=True):
        wanted[tile, min(range(7), key=lambda word: float(((token - words[word]) ** 2).sum()))] += 1
    cu = torch.tensor([0, *np.cumsum(lengths)], dtype=torch.int32)
    found = count_words(torch.from_numpy(x), torch.from_numpy(words), cu)
    np.testing.assert_array_equal(found.numpy(), wanted)


def test_words_are_the_middles_of_groups_that_stand_apart():
    source = np.random.default_rng(1)
    middles = 100 * np.eye(WORDS, dtype=np.float32)
    tokens = np.repeat(middles, 5, axis=0) + source.normal(size=(5 * WORDS, WORDS)) / 100
    words = fit_words(tokens.astype(np.float32))
    # k-means may split one group and join two; nearly all are found
    near = np.linalg.norm(words[:, None] - middles, axis=2).min(axis=0) < 1
    assert near.mean() > 0.7
    np.testing.assert_array_equal(words, fit_words(tokens.astype(np.float32)))


def test_few_tokens_have_a_word_each_and_words_left_over_count_nothing():
    tokens = np.array([[0, 1], [2, 3], [0, 1], [5, 5]], np.float32)
    words = fit_words(tokens)
    assert words.shape == (WORDS, 2)
    counts = count_words(torch.tensor(tokens), torch.tensor(words), torch.tensor([0, 4]))
    assert sorted(counts[0].tolist())[-3:] == [1, 1, 2]
    assert counts.sum() == 4
    assert not fit_words(tokens[:0]).any()


def test_no_more_tokens_are_read_than_are_needed(monkeypatch):
    seen = []

    class Middle:
        def __init__(self, count, **_):
            self.count = count

        def fit(self, x):
            seen.append(len(x))
            self.cluster_centers_ = x[: self.count]
            return self

    monkeypatch.setattr("geojepa.model.codebook.KMeans", Middle)
    fit_words(np.arange(2 * MAX_TOKENS + 2, dtype=np.float32)[:, None])
    assert MAX_TOKENS / 2 < seen[0] <= MAX_TOKENS


def test_an_embedding_counts_words_at_two_depths(tiny_corpus):
    torch.manual_seed(0)
    model = GeoJEPA(TINY).eval()
    batches, rows = Batches(tiny_corpus, TINY), tiny_corpus.usable[:9]
    fit_codebook(model, batches, rows)
    vectors = embed_tiles(model, batches, rows)
    assert vectors.shape == (9, 2 * 3 * 24 + 2 * WORDS)
    counts = np.expm1(vectors[:, -2 * WORDS :]).reshape(9, 2, WORDS)
    entities = tiny_corpus.tiles.entities.to_numpy()[rows]
    np.testing.assert_allclose(counts.sum(axis=2), np.stack([entities] * 2, axis=1), rtol=1e-4)
    assert (np.count_nonzero(counts > 0.5, axis=2).max(axis=0) > 3).all()
    assert embed_tiles(model, batches, rows[:0]).shape == (0, vectors.shape[1])


def test_each_modality_is_pooled_apart(tiny_corpus):
    torch.manual_seed(0)
    config = replace(TINY, modalities="ti")
    model = GeoJEPA(config).eval()
    batches, rows = Batches(tiny_corpus, config), tiny_corpus.usable[:9]
    fit_codebook(model, batches, rows)
    vectors = embed_tiles(model, batches, rows).reshape(9, 2, -1)
    width = 2 * 3 * 24 + 2 * WORDS
    assert vectors.shape == (9, 2, width)
    counts = np.expm1(vectors[..., -2 * WORDS :]).reshape(9, 2, 2, WORDS).sum(axis=3)
    entities = tiny_corpus.tiles.entities.to_numpy()[rows]
    wanted = np.stack([entities, np.full(9, config.patches)], axis=1)
    np.testing.assert_allclose(counts, np.stack([wanted] * 2, axis=2), rtol=1e-4)
    batch = batches(rows[:1])
    with torch.no_grad():
        content = model.teacher.tokenizer(batch)
    for kind in (0, 1):
        tokens = content[batch.modality == kind]
        sums = torch.cat([tokens.relu(), (-tokens).relu()], dim=1).sum(dim=0).log1p()
        by_hand = torch.cat([sums, tokens.amax(dim=0)]).numpy()
        np.testing.assert_allclose(vectors[0, kind, : len(by_hand)], by_hand, rtol=1e-4, atol=1e-5)


def test_untrained_words_are_of_training_tiles_alone(wide_corpus):
    parts = split(wide_corpus.tiles, 0)
    system = Untrained(wide_corpus, TINY, (0,))
    model = GeoJEPA(TINY).eval()
    model.load_state_dict(system.model(parts, 0).state_dict())
    kept = model.codebook.clone()
    fit_codebook(model, Batches(wide_corpus, TINY), parts.train)
    assert torch.equal(kept, model.codebook)
    other = system.model(split(wide_corpus.tiles, 1), 0)
    assert not torch.equal(kept, other.codebook)


def test_latents_are_those_of_the_blocks_without_registers(tiny_corpus):
    model = GeoJEPA(replace(TINY, depth=4, registers=1)).eval()
    batch = Batches(tiny_corpus, model.config)(tiny_corpus.usable[:6])
    seen = []
    model.teacher.encoder.blocks[1].register_forward_hook(lambda _m, _i, out: seen.append(out))
    with torch.no_grad():
        halfway, output = model.teacher.latents(batch, 2)[1]
        torch.testing.assert_close(output, model.teacher(batch))
    # one register stands before each tile's tokens
    tile = torch.arange(len(batch.cu_seqlens) - 1).repeat_interleave(batch.cu_seqlens.diff())
    torch.testing.assert_close(halfway, seen[0][torch.arange(len(tile)) + tile + 1])


def test_a_run_stopped_while_words_are_fitted_goes_on(tiny_corpus, tmp_path, monkeypatch):
    config = preset("smoke-t")
    config = replace(config, model=replace(config.model, pooling="counts"))
    whole = pretrain(tiny_corpus, tmp_path / "whole", config, "cpu")

    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(record, "fit_codebook", stopped)
    monkeypatch.setattr(record, "SAVE_SECONDS", -1.0)
    with pytest.raises(KeyboardInterrupt):
        pretrain(tiny_corpus, tmp_path / "run", config, "cpu")
    with pytest.raises(GeoJEPAError, match="has not finished"):
        load_run(tmp_path / "run")
    monkeypatch.undo()
    run = pretrain(tiny_corpus, tmp_path / "run", config, "cpu")
    one, other = (load_run(folder)[0].state_dict() for folder in (whole, run))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert "weights_sha256" in load_run(run)[2]


def test_last_and_best_weights_have_words_of_as_many_tiles(tiny_corpus, tmp_path, monkeypatch):
    # of these the words are fitted while a run is watched, of all that it trains on at its end
    monkeypatch.setattr(watch, "MAX_TILES", 8)
    config = preset("smoke-t")
    config = replace(config, model=replace(config.model, pooling="counts"), epochs=3)
    run = pretrain(tiny_corpus, tmp_path / "run", config, "cpu")
    rows = load_run(run)[0], load_run(run, "best")[0]
    parts = split(tiny_corpus.tiles, 0)
    for model in rows:
        kept = model.codebook.clone()
        assert kept.std() > 0
        fit_codebook(model, Batches(tiny_corpus, config.model), parts.train)
        torch.testing.assert_close(kept, model.codebook, rtol=1e-4, atol=1e-5)
