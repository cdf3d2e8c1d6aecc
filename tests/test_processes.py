"""Several processes are as one: loss, gradients, tiles, files, stopping and going on."""

import json
import multiprocessing
import os
import runpy
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.multiprocessing import start_processes

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
# a run by as many processes as are started; it saves all so many seconds
SCRIPT = """
import json, sys
from geojepa.data.corpus import Corpus
from geojepa.training import loop, record
from geojepa.training.config import config_from_dict
record.SAVE_SECONDS = float(sys.argv[4])
config = config_from_dict(json.loads(sys.argv[3]))
loop.pretrain(Corpus.open(sys.argv[1]), sys.argv[2], config, "cpu")
"""


# processes that start from one that has imported all this save seconds each
multiprocessing.set_forkserver_preload(["geojepa.training.loop", "torch._dynamo"])


def values(corpus, out: Path, config: TrainConfig, folder: Path, save: float = -1.0) -> list[str]:
    """The script and its values: a run that saves all so many seconds, by default every step."""
    script = folder / "script.py"
    script.write_text(SCRIPT)
    told = json.dumps(config_to_dict(config))
    return [str(script), str(corpus.paths[0]), str(out), told, str(save)]


def command(world: int, script: list[str]) -> list[str]:
    if world == 1:
        return [sys.executable, *script]
    start = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={world}"]
    return [sys.executable, *start, *script]


def by_torchrun(world: int, script: list[str]) -> str:
    """What a script says that torchrun starts."""
    done = subprocess.run(command(world, script), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def as_torchrun_would(rank: int, world: int, port: int, script: list[str]) -> None:
    """Run a script here, told of the others as torchrun tells it; keep what it says."""
    with Path(script[0]).with_name(f"said{rank}").open("w") as said:
        os.dup2(said.fileno(), sys.stdout.fileno())
        os.dup2(said.fileno(), sys.stderr.fileno())
    told = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world}
    told |= {"MASTER_ADDR": "localhost", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in told.items()})
    sys.argv = script
    runpy.run_path(script[0], run_name="__main__")


def forked(world: int, script: list[str], join: bool = True):
    """The same without torchrun, whose every process imports PyTorch anew; none outlives us."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        about = (world, free.getsockname()[1], script)
    return start_processes(as_torchrun_would, about, world, join, True, "forkserver")


def words(script: list[str]) -> str:
    """What forked processes have said."""
    return "".join(path.read_text() for path in Path(script[0]).parent.glob("said*"))


def by_forks(world: int, script: list[str]) -> str:
    """What a script says in forked processes."""
    forked(world, script)
    return words(script)


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
    ("loss", "start"),
    [
        (CONFIG.loss, by_torchrun),
        (LossConfig(mean="token", sets="sum", vicreg_weight=0.02), by_forks),
    ],
    ids=["ours", "paper"],
)
def test_two_processes_train_as_one(loss, start, tiny_corpus, tmp_path):
    config = replace(CONFIG, loss=loss)
    one = pretrain(tiny_corpus, tmp_path / "one", config, "cpu")
    said = start(2, values(tiny_corpus, tmp_path / "two", config, tmp_path))
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
    start_processes(statistics, about, 2, True, True, "forkserver")
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


def wait_for(step: int, out: Path, is_over: Callable[[], bool]) -> None:
    """Return once a run has told so many steps."""
    metrics = out / "metrics.jsonl"
    for _ in range(60_000):
        if metrics.exists() and len(metrics.read_text().splitlines()) >= step:
            return
        assert not is_over(), "the run ended before it could be stopped"
        time.sleep(0.001)


def started_and_stopped(world: int, script: list[str], out: Path) -> tuple[int, str]:
    """Exit status and words of a run, by torchrun if there are several, that is asked to stop."""
    process = subprocess.Popen(
        command(world, script),
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())},
    )
    wait_for(3, out, lambda: process.poll() is not None)
    process.terminate()
    said = process.communicate()[1]
    return process.returncode, said


def assert_saved(out: Path, said: str) -> None:
    assert said.count("the same command goes on") == 1, said
    assert (out / "checkpoint.safetensors").exists()
    assert not (out / "model.safetensors").exists()


def test_sigterm_saves_and_the_same_command_goes_on(tiny_corpus, tmp_path):
    config = replace(CONFIG, epochs=5, model=replace(MODEL, dropout=0.1))
    out = tmp_path / "run"
    code, said = started_and_stopped(1, values(tiny_corpus, out, config, tmp_path, 1e9), out)
    assert_saved(out, said)
    assert code == 143
    assert "Traceback" not in said
    pretrain(tiny_corpus, out, config, "cpu")
    whole = pretrain(tiny_corpus, tmp_path / "whole", config, "cpu")
    one, other = (load_tensors(run / "model.safetensors")[0] for run in (out, whole))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_sigterm_to_torchrun_saves_once(tiny_corpus, tmp_path):
    out = tmp_path / "run"
    script = values(tiny_corpus, out, replace(CONFIG, epochs=400), tmp_path, 1e9)
    code, said = started_and_stopped(2, script, out)
    assert_saved(out, said)
    assert code != 0
    assert "gloo" not in said.lower()


@pytest.mark.parametrize("receiver", [0, 1])
def test_sigterm_to_one_stops_all_processes_after_the_same_step(receiver, tiny_corpus, tmp_path):
    out = tmp_path / "run"
    script = values(tiny_corpus, out, replace(CONFIG, epochs=400), tmp_path, 1e9)
    started = forked(2, script, join=False).processes
    wait_for(3, out, lambda: not started[0].is_alive())
    started[receiver].terminate()
    for process in started:
        process.join()
        assert process.exitcode == 143
    said = words(script)
    assert_saved(out, said)
    assert "gloo" not in said.lower()


def test_processes_without_a_common_folder_are_refused(tiny_corpus, tmp_path, monkeypatch):
    """Another process has a checkpoint, this one none."""
    monkeypatch.setattr(Processes, "highest", lambda self, value: max(value, 7))
    with pytest.raises(GeoJEPAError, match="give a folder that all share"):
        pretrain(tiny_corpus, tmp_path / "a", CONFIG, "cpu")


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1)])
def test_another_number_of_processes_goes_on(before, after, tiny_corpus, tmp_path):
    config = replace(CONFIG, epochs=5)
    out = tmp_path / "run"
    script = values(tiny_corpus, out, config, tmp_path)
    first = forked(before, script, join=False).processes
    wait_for(2, out, lambda: not first[0].is_alive())
    first[0].terminate()
    for process in first:
        process.join()
        assert process.exitcode == 143
    assert not (out / "model.safetensors").exists()
    steps = len((out / "metrics.jsonl").read_text().splitlines())
    forked(after, script)
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
