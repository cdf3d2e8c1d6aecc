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
from torch import Tensor

from geojepa.data.corpus import Corpus
from geojepa.errors import GeoJEPAError
from geojepa.model.batch import Batches
from geojepa.model.config import LossConfig, ModelConfig
from geojepa.model.jepa import GeoJEPA
from geojepa.model.losses import errors_by_set, variance_covariance
from geojepa.training.checkpoint import load_tensors
from geojepa.training.config import MaskConfig, TrainConfig, config_to_dict
from geojepa.training.gradients import add_gradients, together
from geojepa.training.loop import pretrain
from geojepa.training.presets import preset
from geojepa.training.processes import Processes
from geojepa.training.run import Run
from geojepa.training.sampling import (
    passes_per_step,
    rows_of_pass,
    rows_of_step,
    steps_per_epoch,
)

MODEL = ModelConfig(
    "gti",
    modality_dropout=0.0,
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
# a run by as many processes as torchrun starts; each leaves its number, for signals
SCRIPT = """
import json, os, sys
from pathlib import Path
from geojepa.data.corpus import Corpus
from geojepa.training import loop, record
from geojepa.training.config import config_from_dict
record.SAVE_SECONDS = float(sys.argv[4])
Path(sys.argv[0]).with_name("pid" + os.environ.get("RANK", "0")).write_text(str(os.getpid()))
config = config_from_dict(json.loads(sys.argv[3]))
loop.pretrain(Corpus.open(sys.argv[1]), sys.argv[2], config, "cpu")
"""


def command(
    corpus, out: Path, config: TrainConfig, world: int, folder: Path, save: float = -1.0
) -> list[str]:
    """A run that saves all so many seconds, by default after every step."""
    script = folder / "script.py"
    script.write_text(SCRIPT)
    values = [str(script), str(corpus.paths[0]), str(out), json.dumps(config_to_dict(config))]
    values.append(str(save))
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
        for name in ("step", "strategy", "tokens", "context_share", "target_share"):
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
    assert said.count("of 9, loss") == 3
    facts = json.loads((tmp_path / "two/config.json").read_text())
    assert facts["processes"] == 2
    assert "Warning" not in said


def statistics(rank: int, world: int, address: str, folder: str, corpus: str) -> None:
    """What a process of `world` finds for its share of rows that all know, or of tiles."""
    torch.distributed.init_process_group("gloo", address, rank=rank, world_size=world)
    torch.save(shares(rank, world), f"{folder}/{rank}.pt")
    here = Processes(rank, world, torch.device("cpu"), torch.distributed.group.WORLD)
    assert (here.highest(3 - rank), -here.highest(rank - 3)) == (3, 2)
    torch.save(gradients(Corpus.open(corpus), here), f"{folder}/gradients{rank}.pt")
    torch.distributed.destroy_process_group()


def gradients(corpus: Corpus, here: Processes, single: bool = False) -> list[dict[str, Tensor]]:
    """Of three steps of two passes each, at the weights that a run starts from.

    With `single` each pass alone is asked for its gradients, and their mean is returned.
    """
    torch.manual_seed(0)
    model = GeoJEPA(MODEL)
    run = Run(Path(), CONFIG, model, Batches(corpus, MODEL), corpus.usable, corpus.usable, here)
    assert run.passes_per_step == 2
    forward, passes, found = together(model, here), run.passes(0), []
    for _ in range(3):
        parts = []
        for _ in range(2 if single else 1):
            model.zero_grad()
            add_gradients(forward, CONFIG, here, passes, 1 if single else 2)
            named = model.named_parameters()
            parts.append({name: p.grad.clone() for name, p in named if p.grad is not None})
        found.append({name: sum(p[name] for p in parts) / len(parts) for name in parts[0]})
    return found


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


def test_statistics_and_gradients_are_those_of_all_tokens(tiny_corpus, tmp_path):
    address = f"file://{tmp_path}/meet"
    about = (2, address, str(tmp_path), str(tiny_corpus.paths[0]))
    torch.multiprocessing.spawn(statistics, about, nprocs=2)
    found = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    expected = shares(0, 1)
    for name in ("spread", "total", "count"):
        for one in found:
            torch.testing.assert_close(one[name], expected[name])
    # DDP takes the mean over processes
    mean = (found[0]["gradient"] + found[1]["gradient"]) / 2
    torch.testing.assert_close(mean, expected["gradient"])
    alone = gradients(tiny_corpus, Processes(0, 1, torch.device("cpu")))
    for rank in range(2):
        by_two = torch.load(tmp_path / f"gradients{rank}.pt", weights_only=True)
        assert_equal_gradients(by_two, alone)


def test_gradients_of_a_step_are_the_mean_of_its_passes(tiny_corpus):
    here = Processes(0, 1, torch.device("cpu"))
    assert_equal_gradients(gradients(tiny_corpus, here, single=True), gradients(tiny_corpus, here))


def assert_equal_gradients(found: list[dict[str, Tensor]], others: list[dict[str, Tensor]]) -> None:
    for step, other in zip(found, others, strict=True):
        assert step.keys() == other.keys()
        assert len(step) > 40
        for name, gradient in step.items():
            scale = other[name].norm()
            assert scale > 0 or not gradient.any()
            assert (gradient - other[name]).norm() <= 1e-5 * scale, name


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


def stop_at(process: subprocess.Popen, out: Path, step: int, receiver: Path | None = None) -> None:
    """Send SIGTERM, to the process whose number a file holds, once a run has told so many steps."""
    metrics = out / "metrics.jsonl"
    for _ in range(60_000):
        if metrics.exists() and len(metrics.read_text().splitlines()) >= step:
            break
        assert process.poll() is None, "the run ended before it could be stopped"
        time.sleep(0.001)
    pid = int(receiver.read_text()) if receiver else process.pid
    os.kill(pid, signal.SIGTERM)


def started_and_stopped(
    corpus, out: Path, config: TrainConfig, world: int, folder: Path, receiver: str = ""
) -> tuple[int, str]:
    """Exit status and words of a run that saves nothing but when it is asked to stop."""
    process = subprocess.Popen(
        command(corpus, out, config, world, folder, save=1e9),
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())},
    )
    stop_at(process, out, 3, folder / receiver if receiver else None)
    said = process.communicate()[1]
    assert "the same command goes on" in said, said
    assert (out / "checkpoint.safetensors").exists()
    assert not (out / "model.safetensors").exists()
    return process.returncode, said


def test_sigterm_saves_and_the_same_command_goes_on(tiny_corpus, tmp_path):
    config = replace(CONFIG, epochs=10, model=replace(MODEL, dropout=0.1))
    out = tmp_path / "run"
    code, said = started_and_stopped(tiny_corpus, out, config, 1, tmp_path)
    assert code == 143
    assert "Traceback" not in said
    pretrain(tiny_corpus, out, config, "cpu")
    whole = pretrain(tiny_corpus, tmp_path / "whole", config, "cpu")
    one, other = (load_tensors(run / "model.safetensors")[0] for run in (out, whole))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("receiver", ["", "pid1"], ids=["torchrun", "the second process"])
def test_sigterm_stops_all_processes_after_the_same_step(receiver, tiny_corpus, tmp_path):
    config = replace(CONFIG, epochs=400)
    out = tmp_path / "run"
    code, said = started_and_stopped(tiny_corpus, out, config, 2, tmp_path, receiver)
    assert code != 0
    assert said.count("the same command goes on") == 1
    assert "gloo" not in said.lower()


def test_processes_without_a_common_folder_are_refused(tiny_corpus, tmp_path, monkeypatch):
    """Another process has a checkpoint, this one none."""
    monkeypatch.setattr(Processes, "highest", lambda self, value: max(value, 7))
    with pytest.raises(GeoJEPAError, match="give a folder that all share"):
        pretrain(tiny_corpus, tmp_path / "a", CONFIG, "cpu")


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1)])
def test_another_number_of_processes_goes_on(before, after, tiny_corpus, tmp_path):
    config = replace(CONFIG, epochs=8)
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
    assert losses.regulariser.dtype == torch.float32
    assert losses.prediction.item() == pytest.approx(exact.prediction.item(), rel=0.1)
    losses.total.backward()
    trained = [p for p in model.parameters() if p.requires_grad]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in trained)
