"""Embeddings of masked views: each equals an embedding of that view alone, at less work."""

import numpy as np
import pytest

from geojepa.data.labels import TASKS
from geojepa.data.splits import split
from geojepa.evaluation import systems
from geojepa.evaluation.systems import Untrained
from geojepa.model.batch import Batches
from geojepa.model.config import ModelConfig
from geojepa.model.embedding import embed_tiles

TINY = ModelConfig("gt", width=24, depth=2, heads=2, pooling="counts")


@pytest.mark.parametrize("task", TASKS)
def test_changed_tiles_are_those_whose_entities_or_tags_differ(wide_corpus, task):
    rows = wide_corpus.usable
    changed = wide_corpus.is_changed(rows, task)
    for row, found in zip(rows.tolist(), changed.tolist(), strict=True):
        views = [wide_corpus.read([row], view) for view in (None, task)]
        one, other = ((v.entity.tolist(), v.cu_tags.tolist(), v.tag_ids.tolist()) for v in views)
        assert found == (one != other)
    # else the test could not tell
    assert changed.any()
    assert (~changed).any() or task == "building_count"


def test_views_are_what_each_alone_would_be(wide_corpus, monkeypatch):
    part = split(wide_corpus.tiles, 0)
    system = Untrained(wide_corpus, TINY, (0, 1))
    rows = wide_corpus.usable
    embedded = []

    def counted(model, batches, rows, hide=None):
        embedded.append(len(rows))
        return embed_tiles(model, batches, rows, hide)

    monkeypatch.setattr(systems, "embed_tiles", counted)
    views = (None, "traffic_signals", "max_speed", "bridge")
    for seed in (1, 0):
        model = system.model(part, seed)
        for view in views:
            alone = embed_tiles(model, Batches(wide_corpus, TINY), rows, view)
            found = system.features(rows, view, part, seed)
            np.testing.assert_allclose(found, alone, atol=2e-5)
    assert sum(embedded) < 0.75 * 2 * len(views) * len(rows)
