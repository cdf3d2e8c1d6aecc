"""The loop: schedules, order, masks, resumption, refusals."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from geojepa_kernels.masking import Sizes

from geojepa.data.corpus import Corpus
from geojepa.data.splits import split, tile_keys
from geojepa.errors import GeoJEPAError
from geojepa.files import sha256
from geojepa.model.batch import Batches
from geojepa.model.config import ModelConfig
from geojepa.model.jepa import GeoJEPA
from geojepa.training import record
from geojepa.training.ahead import Pass, passes_ahead
from geojepa.training.checkpoint import load_run, load_tensors
from geojepa.training.config import config_to_dict
from geojepa.training.gradients import add_gradients
from geojepa.training.log import Log
from geojepa.training.loop import pretrain
from geojepa.training.presets import preset
from geojepa.training.processes import Processes
from geojepa.training.rank import effective_rank
from geojepa.training.sampling import masks_of_step
from geojepa.training.schedule import learning_rate, optimizer_of, set_schedules

MODEL = ModelConfig(
    "gti", width=32, depth=1, heads=2, predictor_width=16, predictor_depth=1, predictor_heads=1
)
TINY = replace(preset("small-gti"), model=MODEL, epochs=3, batch_tiles=4)

# The same run as a process of its own, so that it can be killed; saves after every step.
SCRIPT = """
import json, sys
from geojepa.data.corpus import Corpus
from geojepa.training import loop, record
from geojepa.training.config import config_from_dict
record.SAVE_SECONDS = 0.0
loop.pretrain(Corpus.open(sys.argv[1]), sys.argv[2], config_from_dict(json.loads(sys.argv[3])))
"""


def weights(folder) -> dict[str, torch.Tensor]:
    return load_tensors(folder / "model.safetensors")[0]


def equal(one, other) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


@pytest.fixture(scope="module")
def finished(tiny_corpus, tmp_path_factory):
    return pretrain(tiny_corpus, tmp_path_factory.mktemp("runs") / "a", TINY)


def test_run_folder_is_complete(finished, tiny_corpus):
    assert {p.name for p in finished.iterdir()} == {
        "config.json",
        "model.safetensors",
        "best.safetensors",
        "metrics.jsonl",
        "seen.json",
    }
    lines = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, len(lines) + 1))
    assert all(np.isfinite(line["loss"]) for line in lines)
    assert "effective_rank" in lines[-1]
    for line in lines:
        # the target sets of a tile are together all that is not its context
        hidden = 1 - line["context_share"]
        assert 0 < hidden / 4 <= line["target_share"] <= hidden + 1e-9 < 1
    parts = split(tiny_corpus.tiles, 0)
    seen = json.loads((finished / "seen.json").read_text())
    for name, rows in (("tiles", parts.train), ("validation", parts.validation)):
        assert sorted(seen[name]) == sorted(tile_keys(tiny_corpus.tiles.iloc[rows]))


def test_same_seed_gives_the_same_weights_and_another_does_not(finished, tiny_corpus, tmp_path):
    again = pretrain(tiny_corpus, tmp_path / "again", TINY)
    assert equal(weights(again), weights(finished))
    other = pretrain(tiny_corpus, tmp_path / "other", replace(TINY, seed=1))
    assert not equal(weights(other), weights(finished))


def test_killed_run_resumes_to_the_same_weights(finished, tiny_corpus, tmp_path):
    out = tmp_path / "killed"
    config = json.dumps(config_to_dict(TINY))
    command = [sys.executable, "-c", SCRIPT, str(tiny_corpus.paths[0]), str(out), config]
    threads = str(torch.get_num_threads())
    environment = os.environ | {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    while not (out / "checkpoint.safetensors").exists() and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (out / "model.safetensors").exists(), "the run ended before it could be killed"
    pretrain(tiny_corpus, out, TINY)
    assert equal(weights(out), weights(finished))
    steps = [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(1, len(steps) + 1))


def test_finished_run_returns_at_once(finished, tiny_corpus):
    before = (finished / "model.safetensors").stat().st_mtime_ns
    assert pretrain(tiny_corpus, finished, TINY) == finished
    assert (finished / "model.safetensors").stat().st_mtime_ns == before


def test_folder_of_other_settings_is_refused(finished, tiny_corpus):
    with pytest.raises(GeoJEPAError, match="another train setting"):
        pretrain(tiny_corpus, finished, replace(TINY, epochs=4))


def test_metrics_survive_a_second_kill(finished, tmp_path):
    """Reopening the log keeps its lines on disk from the start, cut to the step resumed from."""
    path = tmp_path / "metrics.jsonl"
    lines = (finished / "metrics.jsonl").read_text().splitlines(keepends=True)
    path.write_text("".join(lines))
    Log(path, 2)
    assert path.read_text() == "".join(lines[:2])


def test_lines_follow_a_row_late_and_flush_completes_them(tmp_path):
    log = Log(tmp_path / "metrics.jsonl", 0)
    for step in (1, 2):
        log.write({"step": step, "loss": torch.tensor(step / 2), "tokens": 3})
    assert log.last == {"step": 1, "loss": 0.5, "tokens": 3}
    log.flush()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines == [{"step": s, "loss": s / 2, "tokens": 3} for s in (1, 2)]
    log.close()


def test_a_step_is_made_when_the_one_before_is_enqueued(tiny_corpus):
    batches, made = Batches(tiny_corpus, MODEL), []

    def make(step):
        made.append(step)
        return batches(tiny_corpus.usable[step : step + 2])

    def draw(batch, step):
        return masks_of_step(batch, TINY, step)

    steps = passes_ahead(range(3, 6), make, draw, torch.device("cpu"))
    for number, ready in enumerate(steps, 3):
        assert made == list(range(3, number + 1))
        assert ready.number == number
        strategy, masks, _ = draw(ready.batch, number)
        assert ready.strategy == strategy
        assert torch.equal(ready.masks.targets, masks.targets)
        assert ready.sizes == Sizes.of(masks.sizes.tolist())


def test_shares_are_those_of_the_tokens(tiny_corpus):
    batch = Batches(tiny_corpus, MODEL)(tiny_corpus.usable[:5])
    strategy, masks, _ = masks_of_step(batch, TINY, 1)
    ahead = Pass(0, batch, strategy, masks, Sizes.of(masks.sizes.tolist()), None)
    here = Processes(0, 1, torch.device("cpu"))
    terms, _ = add_gradients(GeoJEPA(MODEL), TINY, here, iter([ahead]), 1)
    context, target = terms["context_share"], terms["target_share"]
    assert context == pytest.approx(masks.context.float().mean().item())
    in_set = [(masks.targets >> m & 1).float().mean().item() for m in range(masks.target_sets)]
    assert target == pytest.approx(np.mean(in_set))


def test_refused_run_leaves_nothing_in_the_way(tiny_corpus, tmp_path):
    with pytest.raises(GeoJEPAError, match="has no images"):
        pretrain(_without_images(tiny_corpus), tmp_path / "a", TINY)
    assert not (tmp_path / "a").exists()


def _without_images(corpus):
    bare = Corpus.open(corpus.paths)
    bare.has_image = np.zeros(len(bare), dtype=bool)
    return bare


@pytest.mark.parametrize("wrong", [{"seed": -1}, {"epochs": 0}, {"fold": 5}, {"fold": -5}])
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(GeoJEPAError, match="give a whole number"):
        replace(TINY, **wrong)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"momentum": (2.0, 1.0)}, "momentum"),
        ({"learning_rate": -1.0}, "above 0"),
        ({"learning_rate": float("nan")}, "above 0"),
        ({"clip": 0.0}, "above 0"),
        ({"warm_up": float("nan")}, "warm_up nan: give numbers from 0 to 1"),
        ({"cooldown": -0.5}, "cooldown"),
        ({"final_learning_rate": -1.0}, "final_learning_rate"),
        ({"weight_decay": (0.1, float("nan"))}, "weight_decay"),
        ({"averaged": "predictor"}, "none of path, encoder"),
    ],
)
def test_impossible_numbers_are_refused(wrong, says):
    with pytest.raises(GeoJEPAError, match=says):
        replace(TINY, **wrong)


def test_a_diverged_run_says_so_and_keeps_its_last_good_checkpoint(
    tiny_corpus, tmp_path, monkeypatch
):
    monkeypatch.setattr(record, "SAVE_SECONDS", -1.0)
    wild = replace(TINY, learning_rate=1e20, warm_up=0.0, epochs=20)
    with pytest.raises(GeoJEPAError, match="training has diverged by step"):
        pretrain(tiny_corpus, tmp_path / "a", wild)
    kept, _ = load_tensors(tmp_path / "a/checkpoint.safetensors")
    assert all(tensor.isfinite().all() for tensor in kept.values())
    assert not (tmp_path / "a/model.safetensors").exists()


def test_finished_run_names_its_code_and_weights(finished):
    facts = json.loads((finished / "config.json").read_text())
    assert facts["weights_sha256"] == sha256(finished / "model.safetensors")
    assert {
        "commit",
        "dirty",
        "seconds",
        "tokens_per_second",
        "threads",
        "parameters",
    } <= facts.keys()


def test_weights_of_another_model_are_refused(finished, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    facts = json.loads((finished / "config.json").read_text())
    facts["train"]["model"]["width"] = 64
    (other / "config.json").write_text(json.dumps(facts))
    (other / "model.safetensors").write_bytes((finished / "model.safetensors").read_bytes())
    with pytest.raises(GeoJEPAError, match="another model"):
        load_run(other)
    (other / "model.safetensors").write_bytes(b"not tensors")
    with pytest.raises(GeoJEPAError, match="not a readable checkpoint"):
        load_run(other)


def test_schedules_at_their_ends():
    config = replace(TINY, learning_rate=1e-3, warm_up=0.1)
    optimizer = optimizer_of(GeoJEPA(MODEL), config)
    rates = []
    for progress in (0.05, 0.1, 0.55, 1.0):
        set_schedules(optimizer, config, progress)
        rates.append(optimizer.param_groups[0]["lr"])
    middle = (config.learning_rate + config.final_learning_rate) / 2
    assert rates == pytest.approx([5e-4, 1e-3, middle, config.final_learning_rate])
    assert set_schedules(optimizer, config, 0.0) == config.momentum[0]
    assert set_schedules(optimizer, config, 1.0) == config.momentum[1]
    assert optimizer.param_groups[0]["weight_decay"] == config.weight_decay[1]
    assert optimizer.param_groups[1]["weight_decay"] == 0


def test_the_rate_stays_until_its_cooldown():
    config = replace(TINY, learning_rate=1e-3, warm_up=0.1, cooldown=0.2)
    middle = (config.learning_rate + config.final_learning_rate) / 2
    rates = [learning_rate(config, progress) for progress in (0.05, 0.1, 0.5, 0.8, 0.9, 1.0)]
    assert rates == pytest.approx([5e-4, 1e-3, 1e-3, 1e-3, middle, config.final_learning_rate])
    assert learning_rate(replace(config, cooldown=0.0), 1.0) == config.learning_rate


def test_unknown_preset_is_one_line():
    with pytest.raises(GeoJEPAError, match="choose one of small-t"):
        preset("large")


def test_effective_rank_counts_directions():
    x = np.random.default_rng(0).normal(size=(500, 8))
    assert effective_rank(x) > 7.5
    assert effective_rank(x[:, :1] * np.ones(8)) < 1.01
    assert effective_rank(np.zeros((5, 3))) == 1.0
