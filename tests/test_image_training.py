"""A run whose image tokens come from a frozen vision transformer."""

import json
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("transformers", reason="needs the optional transformers")
from test_backbone import make

from geojepa.errors import GeoJEPAError
from geojepa.model.batch import Batches
from geojepa.model.embedding import embed_tiles
from geojepa.training.checkpoint import load_run
from geojepa.training.loop import pretrain
from geojepa.training.presets import preset


def test_a_run_on_frozen_tokens_embeds_and_knows_its_weights(tiny_corpus, tmp_path):
    folder = make("ViT", tmp_path / "vit")
    config = replace(preset("smoke-gti"), epochs=1)
    config = replace(config, model=replace(config.model, image=str(folder)))
    run = pretrain(tiny_corpus, tmp_path / "run", config, "cpu")
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert np.isfinite([row["loss"] for row in rows]).all()
    model, read, facts = load_run(run)
    assert read == config
    assert set(facts["image"]) >= {"source", "sha256", "tokens", "width"}
    batches = Batches(tiny_corpus, model.config, model.shapes)
    row = tiny_corpus.usable[:1]
    batch = batches(row)
    assert len(batch.slots["image"]) == facts["image"]["tokens"]
    assert batch.values["image"].shape[1] == facts["image"]["width"]
    assert batches.lengths[row[0]] == len(batch.box)
    assert np.isfinite(embed_tiles(model, batches, tiny_corpus.usable[:4])).all()

    from geojepa.model import modalities

    modalities._load.cache_clear()
    make("ViT", folder, seed=1)
    with pytest.raises(GeoJEPAError, match="other weights than"):
        load_run(run)
    modalities._load.cache_clear()
