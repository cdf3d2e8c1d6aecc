"""Another modality joins by one class and one name; nothing else knows of it."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from geojepa.errors import GeoJEPAError
from geojepa.model.batch import Batches
from geojepa.model.config import LossConfig, ModelConfig
from geojepa.model.embedding import embed_tiles
from geojepa.model.jepa import GeoJEPA
from geojepa.model.modalities import KNOWN, Modality, Source, patch_boxes, register
from geojepa.training.checkpoint import load_run
from geojepa.training.config import MaskConfig, TrainConfig
from geojepa.training.sampling import masks_of_step

MASKS = MaskConfig(random=(400, 450, 100), area=(0, 350, 150), modality=(600, 450, 150))


@pytest.fixture
def elevation():
    """Four cells a tile of a made terrain; every third tile has none."""

    @register
    class Elevation(Modality):
        name = "elevation"

        def __init__(self, config):
            super().__init__(config)
            self.project = nn.Linear(1, config.width)

        @classmethod
        def source(cls, corpus, config):
            boxes = patch_boxes(32)
            height = np.sin(corpus.tiles.x.to_numpy(float))[:, None] + np.arange(4)
            count = 4 * (np.arange(len(corpus)) % 3 > 0)

            def read(rows):
                rows = rows[count[rows] > 0]
                value = height[rows].reshape(-1, 1).astype(np.float32)
                return np.tile(boxes, (len(rows), 1)), value

            return Source(count.astype(np.int64), read)

        def forward(self, value):
            return self.project(value)

    yield Elevation
    del KNOWN["elevation"]


def config_of(modalities: str) -> TrainConfig:
    model = ModelConfig(
        modalities, more=("elevation",), width=24, depth=1, heads=2, predictor_width=16
    )
    return TrainConfig(model=model, masks=MASKS, epochs=2, batch_tiles=8, fold=-1)


@pytest.mark.parametrize("modalities", ["t", "gti"])
def test_it_trains_resumes_and_embeds(
    modalities, tiny_corpus, tmp_path, elevation, stopped_and_resumed
):
    config = config_of(modalities)
    run = stopped_and_resumed(tiny_corpus, tmp_path / "run", config)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [*range(1, len(rows) + 1)]
    assert len(rows) > 2
    assert any(row["prediction_elevation"] for row in rows)
    assert {row["strategy"] for row in rows} <= {"random", "modality"}
    model, read, _ = load_run(run)
    assert read == config
    fresh = GeoJEPA(config.model).student.tokenizer.others["elevation"].project.weight
    trained = model.student.tokenizer.others["elevation"].project.weight
    assert trained.shape == fresh.shape
    assert not torch.equal(trained, fresh)
    batches = Batches(tiny_corpus, config.model)
    vectors = embed_tiles(model, batches, tiny_corpus.usable)
    assert np.isfinite(vectors).all()


def test_its_tokens_are_where_and_what_they_should_be(tiny_corpus, elevation):
    config = config_of("gti").model
    rows = tiny_corpus.usable[:6]
    batch = Batches(tiny_corpus, config)(rows)
    slot = batch.slots["elevation"]
    assert (batch.modality[slot] == 2).all()
    assert len(slot) == (batch.modality == 2).sum() == 4 * (rows % 3 > 0).sum()
    tile = np.repeat(np.arange(len(rows)), batch.cu_seqlens.diff())
    found = [rows[t] for t in tile[slot.numpy()]]
    assert found == [row for row in rows if row % 3 for _ in range(4)]
    expected = np.sin(tiny_corpus.tiles.x.to_numpy(float)[found]) + np.tile(
        range(4), len(slot) // 4
    )
    np.testing.assert_allclose(batch.values["elevation"][:, 0], expected, rtol=1e-6)


def test_modality_masking_hides_each_of_the_others_in_turn(tiny_corpus, elevation):
    config = config_of("gti")
    batch = Batches(tiny_corpus, config.model)(tiny_corpus.usable[:6])
    step = next(s for s in range(50) if masks_of_step(batch, config, s)[0] == "modality")
    masks = masks_of_step(batch, config, step)[1]
    assert masks.target_sets == 2
    losses = GeoJEPA(config.model)(batch, masks, loss=LossConfig())
    losses.total.backward()
    for bit in range(2):
        hidden = batch.modality[(masks.targets >> bit) & 1 == 1]
        assert len(hidden.unique()) <= 2


def test_unknown_modality_is_one_line():
    with pytest.raises(GeoJEPAError, match=r"'noise' is not known; import the module.*image"):
        GeoJEPA(ModelConfig("t", more=("noise",)))


def test_modality_needs_something_to_read(tiny_corpus):
    bare = replace(ModelConfig("ti"))
    tiny = type(tiny_corpus).open(tiny_corpus.paths)
    tiny.has_image = np.zeros(len(tiny), bool)
    with pytest.raises(GeoJEPAError, match="prepare it with --imagery"):
        Batches(tiny, bare)
