"""Compiled blocks: few graphs for batches of any length, the losses of plain PyTorch.

The graphs are captured and differentiated ahead of time, and run as they are: to have a C++
compiler translate them takes minutes.
"""

import json
from dataclasses import replace
from functools import partial

import pytest
import torch

from geojepa.model.batch import Batches
from geojepa.model.config import ModelConfig
from geojepa.model.jepa import GeoJEPA
from geojepa.training import loop
from geojepa.training.checkpoint import load_run
from geojepa.training.compiled import compile_blocks, graphs_compiled
from geojepa.training.presets import preset
from geojepa.training.sampling import masks_of_step

MODEL = ModelConfig(
    "t", width=32, depth=3, heads=2, predictor_width=16, predictor_depth=2, dropout=0.0
)
TINY = replace(preset("small-t"), model=MODEL, epochs=3, batch_tiles=12, fold=-1)


def test_other_lengths_and_deeper_networks_need_no_other_graph(tiny_corpus):
    torch.manual_seed(0)
    model = GeoJEPA(MODEL).train()
    names = list(model.state_dict())
    compile_blocks(model, "aot_eager")
    batches = Batches(tiny_corpus, MODEL)
    found, tokens = [], set()
    for step in range(6):
        batch = batches(tiny_corpus.usable[step : 2 * step + 3])
        _, masks, _ = masks_of_step(batch, TINY, step)
        model(batch, masks, loss=TINY.loss).total.backward()
        found.append(graphs_compiled())
        tokens.add(len(batch.box))
    assert len(tokens) == 6
    # before and after attention, of the teacher, the student and the predictor
    assert found == [6] * 6
    assert list(model.state_dict()) == names
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


def test_a_compiled_run_has_the_losses_of_a_plain_one(tiny_corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "compile_blocks", partial(compile_blocks, backend="aot_eager"))
    losses = {}
    for is_compiled in (False, True):
        folder = tmp_path / str(is_compiled)
        run = loop.pretrain(tiny_corpus, folder, replace(TINY, compile=is_compiled), "cpu")
        lines = (run / "metrics.jsonl").read_text().splitlines()
        losses[is_compiled] = [json.loads(line)["loss"] for line in lines]
        graphs = json.loads((run / "config.json").read_text())["graphs_compiled"]
        # what is watched evaluates the student and the teacher
        assert 6 <= graphs <= 12 if is_compiled else graphs == 0
    assert len(losses[True]) >= 6
    assert losses[True] == pytest.approx(losses[False], rel=1e-4)
    one, other = (load_run(tmp_path / str(x))[0].state_dict() for x in (False, True))
    assert one.keys() == other.keys()
