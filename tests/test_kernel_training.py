"""The model trains through the kernels as it does through plain PyTorch."""

import json
import sys
from collections import Counter
from dataclasses import replace

import pytest

from geojepa.data.corpus import Corpus
from geojepa.training import loop
from geojepa.training.config import TrainConfig
from geojepa.training.cost import Cost
from geojepa.training.presets import preset

STEPS = 2


def losses(corpus, folder, config: TrainConfig) -> list[float]:
    """The loss of each step of a run on the CPU."""
    run = loop.pretrain(corpus, folder, config, "cpu")
    return [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_losses_agree_between_kernels_and_reference(tiny_corpus, tmp_path, monkeypatch):
    """In Triton's interpreter; scripts/compare_devices.py does it on a GPU, for 50 steps."""
    config = preset("small-gt")
    model = replace(
        config.model,
        width=32,
        depth=1,
        heads=1,
        registers=2,
        predictor_width=32,
        predictor_heads=1,
        predictor_depth=1,
        dropout=0.1,
    )
    # twelve tiles, since interpreted kernels are slow
    few = Corpus.open(tiny_corpus.paths)
    few.usable = few.usable[:12]
    config = replace(config, model=model, fold=-1, epochs=1, batch_tiles=12 // STEPS)
    plain = losses(few, tmp_path / "plain", config)
    # an interpreted pass more takes a minute
    monkeypatch.setattr(loop, "measure", lambda *_: Cost(1, 1, 1, 1))
    used = Counter()

    def always(name):
        def uses_triton(impl, tensor, is_covered=True):
            used[name] += is_covered
            return is_covered

        return uses_triton

    for name in ("attention", "shared_context", "masking"):
        monkeypatch.setattr(sys.modules[f"geojepa_kernels.{name}"], "uses_triton", always(name))
    kernels = losses(few, tmp_path / "kernels", config)
    assert len(kernels) == len(plain) == STEPS
    # a step: student and teacher attend, the predictor does, masks are drawn and ordered
    assert used["attention"] >= 2 * STEPS
    assert used["shared_context"] >= STEPS
    assert used["masking"] >= 2 * STEPS
    assert kernels == pytest.approx(plain, rel=1e-4)
