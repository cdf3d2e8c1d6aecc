"""Several processes are as one: loss, gradients, tiles, files, stopping and going on."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.multiprocessing

from geojepa.errors import GeoJEPAError
from geojepa.model.config import LossConfig, ModelConfig
from geojepa.model.losses import errors_by_set, variance_covariance
from geojepa.training.checkpoint import load_tensors
from geojepa.training.config import MaskConfig, TrainConfig, config_to_dict
from geojepa.training.loop import pretrain
from geojepa.training.presets import preset
from geojepa.training.sampling import (
    passes_per_step,
    rows_of_pass,
    rows_of_step,
    steps_per_epoch,
)

MODEL = ModelConfig(
    "gti",
    width=32,
    depth=1,
    heads=2,
    registers=1,
    predictor_width=16,
    predictor_depth=1,
    dropout=0.0,
    position_noise=0.0,
)
MASKS = MaskConfig(random=(300, 450, 100), area=(500, 350, 150), modality=(200, 450, 150))
CONFIG = TrainConfig(
    preset="together",
    model=MODEL,
    masks=MASKS,
    loss=LossConfig(vicreg_weight=0.02),
    epochs=3,
    batch_tiles=12,
    pass_tiles=6,
    fold=-1,
)
# a run by as many processes as torchrun starts; saves after every step
SCRIPT = """
import json, sys
from geojepa.data.corpus import Corpus
from geojepa.training import loop
from geojepa.training.config import config_from_dict
loop.SAVE_SECONDS = -1.0
config = config_from_dict(json.loads(sys.argv[3]))
loop.pretrain(Corpus.open(sys.argv[1]), sys.argv[2], config, "cpu")
"""


def command(corpus, out: Path, config: TrainConfig, world: int, folder: Path) -> list[str]:
    script = folder / "script.py"
    script.write_text(SCRIPT)
    values = [str(script), str(corpus.paths[0]), str(out), json.dumps(config_to_dict(config))]
    if world == 1:
        return [sys.executable, *values]
    start = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={world}"]
    return [sys.executable, *start, *values]


def train(corpus, out: Path, config: TrainConfig, world: int, folder: Path) -> str:
    done = subprocess.run(
        command(corpus, out, config, world, folder), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def read(run: Path) -> tuple[list[dict], dict[str, torch.Tensor]]:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines], load_tensors(run / "model.safetensors")[0]


def assert_equal_runs(one: Path, other: Path) -> None:
    (rows, weights), (others, their) = read(one), read(other)
    assert len(rows) == len(others) > 3
    for row, its in zip(rows, others, strict=True):
        for name in ("step", "strategy", "tokens"):
            assert row[name] == its[name]
        for name in ("loss", "prediction", "regulariser", "gradient_norm", "prediction_image"):
            if row[name] is not None:
                assert row[name] == pytest.approx(its[name], rel=2e-4), name
    for name, weight in weights.items():
        # AdamW divides by the gradients' size, which enlarges their rounding
        torch.testing.assert_close(weight, their[name], rtol=0, atol=2e-3)


@pytest.mark.parametrize(
    "loss",
    [CONFIG.loss, LossConfig(mean="token", sets="sum", vicreg_weight=0.02)],
    ids=["ours", "paper"],
)
def test_two_processes_train_as_one(loss, tiny_corpus, tmp_path):
    config = replace(CONFIG, loss=loss)
    one = pretrain(tiny_corpus, tmp_path / "one", config, "cpu")
    said = train(tiny_corpus, tmp_path / "two", config, 2, tmp_path)
    assert_equal_runs(one, tmp_path / "two")
    assert said.count("of 9, loss") <= 3
    facts = json.loads((tmp_path / "two/config.json").read_text())
    assert facts["processes"] == 2
    assert "Warning" not in said


def statistics(rank: int, world: int, address: str, folder: str) -> None:
    """What a process of `world` finds for its share of rows that all know."""
    torch.distributed.init_process_group("gloo", address, rank=rank, world_size=world)
    torch.save(shares(rank, world), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def shares(rank: int, world: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x, target = torch.randn(2, 40, 6, generator=generator, dtype=torch.float64) * 2 + 1
    sets = torch.randint(3, (40,), generator=generator)
    modality = torch.randint(2, (40,), generator=generator)
    # unequal shares, and none of set 2 with the second process
    mine = torch.arange(40) >= 29 if rank else torch.arange(40) < 29
    mine = (mine | (sets == 2)) if rank == 0 else (mine & (sets != 2))
    mine = mine if world > 1 else torch.ones(40, dtype=torch.bool)
    x = x.requires_grad_()
    values = {"spread": variance_covariance(x[mine])}
    total, count = errors_by_set(x[mine], target[mine], sets[mine], modality[mine], 3, 2, 1.0)
    values |= {"total": total.square().sum(), "count": count.square().sum()}
    (values["spread"] + values["total"]).backward()
    return {k: v.detach() for k, v in values.items()} | {"gradient": x.grad}


def test_statistics_are_those_of_all_tokens(tmp_path):
    address = f"file://{tmp_path}/meet"
    torch.multiprocessing.spawn(statistics, (2, address, str(tmp_path)), nprocs=2)
    found = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    expected = shares(0, 1)
    for name in ("spread", "total", "count"):
        for one in found:
            torch.testing.assert_close(one[name], expected[name])
    # DDP takes the mean over processes
    mean = (found[0]["gradient"] + found[1]["gradient"]) / 2
    torch.testing.assert_close(mean, expected["gradient"])


@pytest.mark.parametrize("world", [1, 2, 3, 5])
def test_every_tile_of_a_step_is_with_one_process(world):
    rows = np.arange(100, 331)
    lengths = np.random.default_rng(0).lognormal(4, 1, 400).astype(int)
    config = replace(CONFIG, batch_tiles=64, pass_tiles=20)
    passes = passes_per_step(len(rows), config)
    seen = []
    for step in range(steps_per_epoch(len(rows), config)):
        found = []
        for part in range(passes):
            number = step * passes + part
            dealt = [rows_of_pass(rows, config, number, lengths, r, world) for r in range(world)]
            sizes = [len(tiles) for tiles in dealt]
            assert max(sizes) - min(sizes) <= 1
            load = [lengths[tiles].sum() for tiles in dealt]
            assert max(load) - min(load) <= 2 * lengths[np.concatenate(dealt)].max()
            found += dealt
        found = np.concatenate(found)
        assert sorted(found) == sorted(rows_of_step(rows, config, step, lengths))
        seen.append(found)
    assert sorted(np.concatenate(seen)) == rows.tolist()


def stop_at(process: subprocess.Popen, out: Path, step: int) -> None:
    """Send SIGTERM once a run has saved so many steps."""
    metrics = out / "metrics.jsonl"
    for _ in range(60_000):
        if metrics.exists() and len(metrics.read_text().splitlines()) >= step:
            break
        assert process.poll() is None, "the run ended before it could be stopped"
        time.sleep(0.001)
    process.send_signal(signal.SIGTERM)


def test_sigterm_saves_and_the_same_command_goes_on(tiny_corpus, tmp_path):
    config = replace(CONFIG, epochs=30, model=replace(MODEL, dropout=0.1))
    out = tmp_path / "run"
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    process = subprocess.Popen(
        command(tiny_corpus, out, config, 1, tmp_path),
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | threads,
    )
    stop_at(process, out, 3)
    said = process.communicate()[1]
    assert process.returncode == 143, said
    assert "the same command goes on" in said
    assert "Traceback" not in said
    assert (out / "checkpoint.safetensors").exists()
    assert not (out / "model.safetensors").exists()
    pretrain(tiny_corpus, out, config, "cpu")
    whole = pretrain(tiny_corpus, tmp_path / "whole", config, "cpu")
    one, other = (load_tensors(run / "model.safetensors")[0] for run in (out, whole))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1)])
def test_another_number_of_processes_goes_on(before, after, tiny_corpus, tmp_path):
    config = replace(CONFIG, epochs=20)
    out = tmp_path / "run"
    process = subprocess.Popen(
        command(tiny_corpus, out, config, before, tmp_path),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    stop_at(process, out, 2)
    process.wait()
    assert not (out / "model.safetensors").exists()
    steps = len((out / "metrics.jsonl").read_text().splitlines())
    train(tiny_corpus, out, config, after, tmp_path)
    whole = pretrain(tiny_corpus, tmp_path / "whole", config, "cpu")
    assert steps < len(read(whole)[0])
    rows, others = read(out)[0], read(whole)[0]
    assert [row["step"] for row in rows] == [row["step"] for row in others]
    for row, its in zip(rows, others, strict=True):
        assert row["loss"] == pytest.approx(its["loss"], rel=5e-3)


def test_more_processes_than_tiles_is_one_line(tiny_corpus, tmp_path, monkeypatch):
    from contextlib import contextmanager

    from geojepa.training import loop
    from geojepa.training.processes import Processes

    @contextmanager
    def many(device):
        yield Processes(0, 50, torch.device("cpu"))

    monkeypatch.setattr(loop, "processes", many)
    with pytest.raises(GeoJEPAError, match=r"fewer tiles than there are processes \(50\)"):
        pretrain(tiny_corpus, tmp_path / "a", CONFIG)


def test_autocast_keeps_losses_wide(tiny_corpus):
    """Bfloat16 in the networks, as on a GPU: no mixture of types fails, and gradients are sound."""
    from geojepa.model.batch import Batches
    from geojepa.model.jepa import GeoJEPA
    from geojepa.training.sampling import masks_of_step

    config = preset("small-gti")
    torch.manual_seed(0)
    model = GeoJEPA(config.model)
    batch = Batches(tiny_corpus, config.model)(tiny_corpus.usable[:6])
    _, masks, _ = masks_of_step(batch, config, 0)
    exact = model(batch, masks, loss=config.loss)
    with torch.autocast("cpu", torch.bfloat16):
        losses = model(batch, masks, loss=config.loss)
    assert losses.total.dtype == torch.float32
    assert losses.prediction.item() == pytest.approx(exact.prediction.item(), rel=0.1)
    losses.total.backward()
    trained = [p for p in model.parameters() if p.requires_grad]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in trained)
