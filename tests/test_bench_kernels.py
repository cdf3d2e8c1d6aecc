"""The benchmark of the kernels: every way computes the same, and rows say what they should."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import torch
from geojepa_kernels.attention.ways import CPU_WAYS, WAYS
from geojepa_kernels.bench.attending import called, draw, exact, inputs, largest_error
from geojepa_kernels.bench.batches import Batch, SharedBatch
from geojepa_kernels.bench.bounds import Rates, Work, attention_work, bounds, measure_rates
from geojepa_kernels.bench.compare import compare_ways
from geojepa_kernels.bench.contest import Entry, Judge
from geojepa_kernels.bench.lengths import read_lengths, typical_batch, uniform_batch
from geojepa_kernels.bench.rows import COLUMNS, Table
from geojepa_kernels.bench.shared_ways import SHARED_WAYS
from geojepa_kernels.bench.timing import HostClock, summary, take_turns

from geojepa.data.corpus import Corpus
from geojepa.figures import kernel_speed

mpl.use("agg")
ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

import bench_kernels  # noqa: E402
import tile_lengths  # noqa: E402

CPU = torch.device("cpu")
BATCHES = {"self": Batch([3, 17, 1, 40]), "shared": SharedBatch([3, 20], [1, 2, 5, 6])}
pytestmark = pytest.mark.filterwarnings("ignore")


def by_hand(batch, qkv):
    """softmax(q k') v in float64, by who may see whom, a query and a head at a time."""
    index = torch.arange(batch.tokens)
    sees = batch.rule()(None, None, index[:, None], index[None])
    q, k, v = qkv.double().unbind(1)
    out = torch.zeros_like(q)
    for one in range(batch.tokens):
        for head in range(q.shape[1]):
            keys = sees[one].nonzero()[:, 0]
            weights = (k[keys, head] @ q[one, head] / q.shape[-1] ** 0.5).exp()
            out[one, head] = weights @ v[keys, head] / weights.sum()
    return out, int(sees.sum())


@pytest.mark.parametrize("name", BATCHES)
def test_the_exact_result_is_softmax_by_the_rule(name):
    batch = BATCHES[name]
    drawn = draw(batch, 2, 16, torch.float32, 0)
    wanted, pairs = by_hand(batch, drawn[0])
    torch.testing.assert_close(exact(batch, *drawn)[:, 0], wanted, rtol=0, atol=1e-12)
    assert batch.pairs == pairs


def test_the_shared_rule_is_the_one_stated():
    # contexts a a | b, target sets c of a, d of a, e of b, f of b
    rule = SharedBatch([2, 1], [1, 1, 1, 2]).rule()
    index = torch.arange(8)
    seen = rule(None, None, index[:, None], index[None]).int().tolist()
    assert ["".join(map(str, row)) for row in seen] == [
        "11000000",
        "11000000",
        "00100000",
        "11010000",
        "11001000",
        "00100100",
        "00100011",
        "00100011",
    ]


@pytest.mark.parametrize("way", [*CPU_WAYS, "padded throughout"])
def test_every_way_computes_the_same(way):
    batch = BATCHES["self"]
    drawn = draw(batch, 2, 16, torch.float32, 0)
    assert largest_error(WAYS[way], batch, drawn, exact(batch, *drawn), backward=True) < 5e-6


@pytest.mark.parametrize("way", ["ours", "joined keys", "passes"])
def test_every_shared_way_computes_the_same(way):
    batch = BATCHES["shared"]
    drawn = draw(batch, 2, 16, torch.float32, 0)
    error = largest_error(SHARED_WAYS[way], batch, drawn, exact(batch, *drawn), backward=True)
    assert error < 5e-6


@pytest.mark.parametrize("way", ["flex", "flex, mask counted"])
@pytest.mark.parametrize("name", BATCHES)
def test_flex_attention_by_the_rule(name, way):
    batch = BATCHES[name]
    drawn = draw(batch, 2, 16, torch.float32, 0)
    ways = WAYS if name == "self" else SHARED_WAYS
    # on a CPU it has no backward
    error = largest_error(ways[way], batch, drawn, exact(batch, *drawn), backward=False)
    assert error < 5e-6


def test_inputs_are_views_of_one_projection():
    batch = BATCHES["self"]
    drawn = draw(batch, 2, 16, torch.float32, 0)
    qkv, grad = inputs(WAYS["ours"], batch, drawn, backward=True)
    assert [x.stride() for x in qkv] == [(96, 16, 1)] * 3
    assert {x.untyped_storage().data_ptr() for x in qkv} == {drawn[0].untyped_storage().data_ptr()}
    assert len(called(WAYS["ours"].prepare(batch), qkv, grad)) == 4


def test_compare_ways_has_a_row_for_each():
    rows = compare_ways([3, 17, 17, 40], heads=2, head_dim=16, repeats=1)
    assert [row.way for row in rows] == list(CPU_WAYS)
    assert all(row.max_error < 5e-6 and row.median_ms > 0 for row in rows)


def test_bounds_by_hand():
    # two tiles of 2 and 3 tokens, 8 heads of 48, two bytes a number
    assert Batch([2, 3]).pairs == 13
    array = 5 * 8 * 48 * 2
    assert attention_work(5, 13, 8, 48, 2, False) == Work(4 * array, 4 * 8 * 48 * 13)
    assert attention_work(5, 13, 8, 48, 2, True) == Work(12 * array, 14 * 8 * 48 * 13)
    # contexts of 2 and 1, sets of 1 and 1, and of 1 and 2
    assert SharedBatch([2, 1], [1, 1, 1, 2]).pairs == 4 + 1 + 3 + 3 + 2 + 6
    found = bounds(Work(3_000_000, 10**9), Rates(3e12, 5e14), 0.004)
    assert found["memory_bound_ms"] == pytest.approx(0.001)
    assert found["compute_bound_ms"] == pytest.approx(0.002)
    assert found["binding"] == "compute"
    assert found["share"] == pytest.approx(0.5)
    assert "share" not in bounds(Work(1), Rates(1.0, 1.0), None)
    rates = measure_rates(CPU, torch.float32, HostClock())
    assert min(rates) > 0


def test_lengths_are_read_and_sampled(tmp_path):
    path = tmp_path / "lengths.csv"
    path.write_text("# a note\nplace,tokens,tiles\na,5,2\na,9,1\nb,5,1\nb,20,4\n")
    counts = read_lengths(path)
    assert counts == {5: 3, 9: 1, 20: 4}
    assert sorted(typical_batch(counts, 8)) == [5, 5, 5, 9, 20, 20, 20, 20]
    assert sorted(typical_batch(counts, 4)) == [5, 9, 20, 20]
    long = typical_batch(counts, 96)
    assert long == typical_batch(counts, 96)
    assert long != sorted(long)
    assert uniform_batch(50, 5000) == [50] * 100
    assert uniform_batch(1000, 300) == [1000]
    path.write_text("place,tokens,tiles\n")
    with pytest.raises(ValueError, match="no tiles"):
        read_lengths(path)


def test_the_committed_lengths_say_whose_they_are():
    path = ROOT / "results/kernels/lengths.csv"
    assert "© OpenStreetMap contributors, ODbL" in path.read_text(encoding="utf-8").splitlines()[0]
    table = pd.read_csv(path, comment="#")
    facts = json.loads((ROOT / "results/kernels/lengths.json").read_text(encoding="utf-8"))
    tiles = table.groupby("place").tiles.sum().to_dict()
    assert tiles == {name: corpus["tiles"] for name, corpus in facts["corpora"].items()}
    assert table.tokens.between(5, 1250).all()


def test_lengths_of_a_corpus_are_counted(tiny_corpus: Corpus, tmp_path):
    tile_lengths.write_lengths([tiny_corpus], tmp_path)
    counts = read_lengths(tmp_path / "lengths.csv")
    entities = tiny_corpus.tiles.entities.to_numpy()[tiny_corpus.usable]
    assert sum(counts.values()) == len(entities)
    assert sum(length * tiles for length, tiles in counts.items()) == entities.sum()


def test_turns_are_taken_and_failures_told():
    calls = []

    def fail(buffer):
        raise RuntimeError("no such luck\nand more")

    runs = {"ours": lambda b: calls.append(("ours", b)), "other": lambda b: calls.append(("o", b))}
    times, failures = take_turns(runs | {"bad": fail}, 3, HostClock(), 7, 60.0)
    assert failures == {"bad": "RuntimeError: no such luck"}
    assert set(times) == {("ours", "launched"), ("other", "launched")}
    assert all(list(found) == list(range(7)) for found in times.values())
    # two blocks that are not timed, then seven, on every buffer
    assert calls.count(("ours", 0)) == calls.count(("o", 2)) == 9
    slow = take_turns({"ours": lambda b: sum(range(10_000))}, 1, HostClock(), 50, 1e-6)[0]
    assert len(slow["ours", "launched"]) == 5


def test_ratios_are_of_the_same_rounds():
    ours = {0: 0.001, 1: 0.002, 2: 0.004}
    found = summary({0: 0.002, 1: 0.004}, ours)
    assert found["rounds"] == 2
    assert found["ms_median"] == pytest.approx(3.0)
    assert found["ratio_q10"] == found["ratio_median"] == found["ratio_q90"] == pytest.approx(2.0)
    assert summary({}, ours) == {"rounds": 0}


def test_a_way_that_fails_has_a_row_that_says_so(tmp_path):
    def refuse():
        raise ValueError("head_dim 7 is odd")

    judge = Judge(CPU, Rates(1e9, 1e9), 2, 1.0)
    entries = {
        "ours": Entry(lambda: 1e-7, lambda: lambda buffer: buffer),
        "refuses": Entry(refuse, lambda: lambda buffer: buffer),
        "breaks": Entry(lambda: 0.0, lambda: lambda buffer: refuse()),
    }
    rows = judge.rows({"case": "x"}, entries, 2, Work(8))
    assert [row["status"] for row in rows] == ["ok", *["ValueError: head_dim 7 is odd"] * 2]
    table = Table(tmp_path / "rows.csv")
    table.add(rows[:1])
    table.add(rows[1:])
    assert [path.name for path in tmp_path.iterdir()] == ["rows.csv"]
    with open(tmp_path / "rows.csv", newline="") as file:
        read = list(csv.DictReader(file))
    assert [row["way"] for row in read] == ["ours", "refuses", "breaks"]
    assert read[1]["ms_median"] == ""


def test_the_whole_benchmark_at_its_smallest(tmp_path, capsys):
    """On the CPU, to see that it runs: its rows are of no use and go nowhere."""
    small = "--tiles 3 --uniform 7 --head-dims 16 --dtypes float32 --rounds 2 --seconds 0.01"
    command = [*small.split(), "--out", str(tmp_path), "--commit", "abc"]
    bench_kernels.measure(bench_kernels.parse(command), CPU)
    assert "extracts, 3 tiles, 16 forward: ours (launched)" in capsys.readouterr().out
    for name in bench_kernels.OPERATIONS:
        table = pd.read_csv(tmp_path / f"{name}.csv")
        assert tuple(table) == COLUMNS
        assert (table.operation == name).all()
        assert (table.status == "ok").all()
        assert (table.commit == "abc").all()
        assert (table.error < 5e-6).all()
        assert (table.ms_q10 <= table.ms_q90).all()
        assert (table[table.way == "ours"].ratio_median == 1).all()
        share = table[["memory_bound_ms", "compute_bound_ms"]].max(axis=1) / table.ms_median
        np.testing.assert_allclose(table.share, share, rtol=1e-4)
    assert set(pd.read_csv(tmp_path / "attention.csv").way) == set(CPU_WAYS)
    facts = json.loads((tmp_path / "provenance.json").read_text(encoding="utf-8"))
    assert set(facts) == set(bench_kernels.OPERATIONS)
    assert "OpenStreetMap" in facts["attention"]["attribution"]
    assert str(tmp_path) not in json.dumps(facts)


def test_tables_are_drawn_where_there_are_any(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(kernel_speed, "FOLDER", tmp_path)
    assert kernel_speed.read_table("attention", tmp_path) is None
    small = "--tiles 3 --uniform 7 --head-dims 16 24 --dtypes float32 --rounds 1 --seconds 0"
    command = [*small.split(), "--out", str(tmp_path), "--operations", "attention", "masking"]
    bench_kernels.measure(bench_kernels.parse(command), CPU)
    table = kernel_speed.read_table("attention", tmp_path)
    assert kernel_speed.comparable(table).empty
    rows = kernel_speed.comparable(table, "float32")
    assert len(kernel_speed.plot_speed(rows).axes) == 4
    share = kernel_speed.plot_share(rows)
    heights = np.concatenate([dots.get_offsets()[:, 1] for dots in share.axes[1].collections])
    ours = rows[(rows.way == "ours") & (rows["pass"] == "forward+backward")]
    np.testing.assert_allclose(sorted(heights), sorted(100 * ours.share))
    masks = kernel_speed.comparable(kernel_speed.read_table("masking", tmp_path), "float32")
    assert len(kernel_speed.plot_masking(masks).axes[0].get_yticks()) == 7


def test_compiled_kernels_are_drawn_and_spills_ringed():
    columns = ["kernel", "dtype", "head_dim", "config", "target"]
    columns += ["registers", "spill_bytes", "shared_bytes"]
    rows = [
        ("forward", "bf16", 24, "plain", "sm_90", 90, 0, 2048),
        ("forward", "bf16", 96, "plain", "sm_90", 255, 64, 4096),
        ("forward", "fp32", 96, "plain", "sm_90", 255, 64, 4096),
        ("forward", "bf16", 24, "plain", "sm_80", 200, 64, 2048),
        ("draw", None, None, None, "sm_90", 40, 0, 0),
    ]
    figure = kernel_speed.plot_compiled(pd.DataFrame(rows, columns=columns))
    drawn = [line.get_ydata()[0] for line in figure.axes[0].lines]
    assert sorted(drawn) == [40, 90, 255, 255, 255]
    assert [text.get_text() for text in figure.axes[0].get_xticklabels()] == ["24", "96", "none"]
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["forward", "kernels without heads", "spills"]


def test_a_spent_budget_leaves_whole_tables(tmp_path):
    small = "--tiles 3 --uniform --head-dims 16 24 --dtypes float32 --rounds 1 --seconds 0"
    command = [*small.split(), "--out", str(tmp_path), "--operations", "attention"]
    bench_kernels.measure(bench_kernels.parse([*command, "--budget", "0"]), CPU)
    assert set(pd.read_csv(tmp_path / "attention.csv").head_dim) == {16}
    facts = json.loads((tmp_path / "provenance.json").read_text(encoding="utf-8"))
    assert facts["attention"]["cut short by the budget"] is True


@pytest.mark.skipif(torch.cuda.is_available(), reason="is for machines without a GPU")
def test_without_a_gpu_it_says_so_in_one_line(tmp_path):
    command = [sys.executable, str(ROOT / "scripts/bench_kernels.py"), "--out", str(tmp_path / "x")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "no CUDA GPU" in done.stderr
    assert not (tmp_path / "x").exists()


def test_a_way_of_many_launches_is_queued_in_shorter_blocks():
    class Narrow(HostClock):
        """Queues no more than two calls."""

        names = ("launched", "queued")

        def seconds(self, work, name):
            begun = len(called_with)
            work()
            was_long = name == "queued" and len(called_with) - begun > 2
            return None if was_long else 1.0

    called_with: list[int] = []
    times, _ = take_turns({"ours": called_with.append}, 8, Narrow(), 5, 60.0)
    assert set(times["ours", "launched"].values()) == {1 / 8}
    assert set(times["ours", "queued"].values()) == {1 / 2}
    assert set(called_with) == set(range(8))


def test_a_wrong_or_failed_row_of_ours_is_no_success():
    assert bench_kernels.is_sound({"status": "ok", "error": 1e-3})
    assert bench_kernels.is_sound({"status": bench_kernels.UNQUEUED})
    assert not bench_kernels.is_sound({"status": "ok", "error": float("inf")})
    assert not bench_kernels.is_sound({"status": "ok", "error": float("nan")})
    assert not bench_kernels.is_sound({"status": "RuntimeError: an illegal address"})
