"""What goes beyond the published method: each part alone against its definition."""

import json
from dataclasses import replace

import numpy as np
import pytest

from geojepa.model.config import ModelConfig
from geojepa.training.config import MaskConfig, TrainConfig
from geojepa.training.loop import pretrain

TINY = ModelConfig(
    "gti", width=24, depth=2, heads=2, predictor_width=16, predictor_depth=1, registers=1
)
MASKS = MaskConfig(random=(0, 450, 100), area=(800, 350, 150), modality=(200, 450, 150))
PARTS = {
    "no position": dict(encodings=("modality",)),
    "no modality": dict(encodings=("position",)),
}


@pytest.mark.parametrize("name", PARTS)
def test_each_part_trains_and_changes_what_is_learnt(name, tiny_corpus, tmp_path):
    plain = TrainConfig(model=TINY, masks=MASKS, epochs=1, batch_tiles=8)
    config = replace(plain, model=replace(TINY, **PARTS[name]))
    runs = [pretrain(tiny_corpus, tmp_path / str(i), c) for i, c in enumerate((plain, config))]
    losses = [
        [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]
        for run in runs
    ]
    assert np.isfinite(losses).all()
    assert losses[0] != losses[1]
