"""What TensorBoard shows is what metrics.jsonl holds."""

import json
import sys
from dataclasses import replace

import pytest

from geojepa.errors import GeoJEPAError
from geojepa.model.config import ModelConfig
from geojepa.training.board import Board
from geojepa.training.loop import pretrain
from geojepa.training.presets import preset

MODEL = ModelConfig("t", width=32, depth=1, heads=2, predictor_width=16, predictor_depth=1)
TINY = replace(preset("small-t"), model=MODEL, epochs=2, batch_tiles=16, fold=-1)


def shown(folder) -> dict[str, dict[int, float]]:
    """Name -> step -> number, as TensorBoard reads a folder."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder)).Reload()
    return {tag: {e.step: e.value for e in events.Scalars(tag)} for tag in events.Tags()["scalars"]}


def test_a_run_shows_its_metrics(tiny_corpus, tmp_path):
    pytest.importorskip("tensorboard", reason="TensorBoard is not installed")
    run = pretrain(tiny_corpus, tmp_path / "a", TINY, "cpu", tensorboard=True)
    found = shown(run / "tensorboard")
    for line in (run / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        numbers = {k: v for k, v in row.items() if isinstance(v, int | float) and k != "step"}
        assert {"loss", "tokens", "learning_rate"} <= numbers.keys()
        for name, value in numbers.items():
            assert found[name][row["step"]] == pytest.approx(value, rel=1e-6)


def test_steps_that_are_made_again_are_shown_once(tmp_path):
    pytest.importorskip("tensorboard", reason="TensorBoard is not installed")
    for first, loss in ((0, 1.0), (2, 5.0)):
        board = Board(tmp_path, first)
        for step in range(first + 1, 5):
            board.write({"step": step, "loss": loss, "strategy": "area", "prediction_image": None})
        board.close()
    assert shown(tmp_path) == {"loss": {1: 1.0, 2: 1.0, 3: 5.0, 4: 5.0}}


def test_without_tensorboard_nothing_is_begun(tiny_corpus, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(GeoJEPAError, match="pip install tensorboard"):
        pretrain(tiny_corpus, tmp_path / "a", TINY, "cpu", tensorboard=True)
    assert not (tmp_path / "a").exists()
