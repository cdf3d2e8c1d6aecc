"""The benchmark of the data: its inputs are what it says, and its table adds up."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import osmium
import pandas as pd
import pytest

from geojepa.data.corpus import Corpus
from geojepa.data.prepare import prepare
from geojepa.errors import GeoJEPAError

SCRIPTS = Path(__file__).parent.parent / "scripts"
sys.path.insert(0, str(SCRIPTS))

import bench_data  # noqa: E402
import process_tree  # noqa: E402
import repeat_city  # noqa: E402

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="needs Linux's /proc")


@pytest.fixture(scope="module")
def city(tmp_path_factory):
    path = tmp_path_factory.mktemp("bench") / "city.osm.pbf"
    repeat_city.make_city(path, size=6)
    return path


@pytest.fixture(scope="module")
def extract(city):
    return repeat_city.Extract(city)


@pytest.fixture(scope="module")
def three(city, extract):
    path = city.parent / "three.osm.pbf"
    repeat_city.repeat(extract, path, 3)
    return path


def objects(path):
    """Everything of a file: (type, id), tags, place in 1e-7 degrees or references."""
    found = []
    for item in osmium.FileProcessor(str(path)):
        if item.is_node():
            content = (item.location.x, item.location.y)
        elif item.is_way():
            content = [node.ref for node in item.nodes]
        else:
            content = [(member.type, member.ref, member.role) for member in item.members]
        found.append((item.type_str(), item.id, dict(item.tags), content))
    return found


def test_copies_are_the_city_with_other_ids_and_longitudes(city, three):
    once, thrice = objects(city), objects(three)
    last = {kind: max(number for k, number, *_ in once if k == kind) for kind in "nwr"}
    # 64 tiles of 360 / 65536 degrees
    shift = round(64 * 360 / 65536 * 1e7)
    expected = []
    for copy in range(3):
        for kind, number, tags, content in once:
            if kind == "n":
                moved = (content[0] + copy * shift, content[1])
            elif kind == "w":
                moved = [ref + copy * last["n"] for ref in content]
            else:
                moved = [(k, ref + copy * last[k], role) for k, ref, role in content]
            expected.append((kind, number + copy * last[kind], tags, moved))
    order = {"n": 0, "w": 1, "r": 2}
    assert thrice == sorted(expected, key=lambda one: (order[one[0]], one[1]))


def test_every_copy_is_cut_as_the_first(three):
    corpus = Corpus.open(prepare([three], three.parent / "corpus"))
    column = corpus.tiles.x // 64
    copies = [corpus.read(np.flatnonzero(column == k)) for k in sorted(set(column))]
    assert len(copies) == 3
    for copy in copies[1:]:
        assert (copy.cu_entities == copies[0].cu_entities).all()
        assert (copy.kind == copies[0].kind).all()
        np.testing.assert_allclose(copy.box, copies[0].box, atol=1e-6)
    assert corpus.attribution.startswith("lilliput: a made city")


def test_tagged_objects_are_counted(city, extract):
    tagged = sum(bool(tags) for _, _, tags, _ in objects(city))
    assert extract.tagged == tagged
    assert extract.copies(1) == 1
    assert extract.copies(2 * tagged) == 2
    assert extract.copies(2 * tagged + 1) == 3


def test_copies_go_round_the_globe(extract):
    first = extract.longitude
    for copy in (650, 1023):
        rows = extract.nodes(copy).splitlines()
        found = np.array([float(row.split(" x")[1].split(" ")[0]) for row in rows])
        turns = (np.rint(found * 1e7) - first) / 1e7 - copy * 64 * 360 / 65536
        assert (np.abs(found) <= 180).all()
        np.testing.assert_allclose(turns, -360, atol=1e-6)


def test_more_copies_than_fit_are_refused(extract, tmp_path):
    with pytest.raises(GeoJEPAError, match="do not fit"):
        repeat_city.repeat(extract, tmp_path / "all.osm.pbf", 1025)
    assert not list(tmp_path.iterdir())


def test_the_bare_loop_makes_every_tagged_node_and_way(city, three):
    kinds = Counter(kind for path in (city, three) for kind, _, tags, _ in objects(path) if tags)
    for variant in ("nodes_and_ways", "lean", "areas"):
        command = [sys.executable, str(SCRIPTS / "bare_loop.py"), variant, str(city), str(three)]
        made = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        if variant == "areas":
            assert made > kinds["n"] + kinds["w"]
        else:
            assert made == kinds["n"] + kinds["w"]


def test_a_tree_holds_what_its_processes_hold():
    # a child that starts a child, of 64 MiB each; both wait for the end of their input
    wait = "held = bytearray(b'x') * 2**26; print('up', flush=True); sys.stdin.read()"
    start = f"subprocess.Popen([sys.executable, '-c', {'import sys; ' + wait!r}]); "
    command = [sys.executable, "-c", "import subprocess, sys; " + start + wait]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert [child.stdout.readline() for _ in "ab"] == ["up\n", "up\n"]
        size, count = process_tree.held(child.pid)
        assert child.pid in process_tree.tree(os.getpid())
        child.stdin.close()
    assert count == 2
    assert 2**27 < size < 2**28


def test_a_command_is_measured():
    cost = process_tree.run([sys.executable, "-c", "print('done', sum(range(10**6)))"])
    assert cost.text == "done 499999500000\n"
    assert cost.processes >= 1
    assert 2**20 < cost.peak_bytes < 2**28
    assert cost.cpu_seconds > 0


def test_a_command_that_fails_is_an_error():
    with pytest.raises(GeoJEPAError, match="no such luck"):
        process_tree.run([sys.executable, "-c", "raise SystemExit('no such luck')"])


def test_the_whole_benchmark_at_its_smallest(city, extract, tmp_path, monkeypatch, capsys):
    readers = {key: bench_data.READERS[key] for key in (("read", 2), ("take", 1))}
    monkeypatch.setattr(bench_data, "READERS", readers)
    monkeypatch.setattr(os, "sched_setaffinity", lambda pid, cores: None)
    config = bench_data.BenchConfig(
        (str(city), "atlantis"), repeats=1, seconds=0.01, large=1, tiles=40, size=6, run=tmp_path
    )
    bench_data.main(config)
    assert "atlantis: not found, left out" in capsys.readouterr().out
    folder = tmp_path / "results" / "data_speed"
    table = pd.read_csv(folder / "table.csv")
    assert list(table) == ["measure", "value", "low", "high", "unit", "repeats"]
    assert table.measure.is_unique
    assert (table.value > 0).all()
    assert (table.low <= table.value * 1.000001).all()
    assert (table.value <= table.high * 1.000001).all()
    value = table.set_index("measure").value
    ratio = value["prepare: time"] / value["bare loop: time"]
    assert value["prepare over bare loop"] == pytest.approx(ratio, rel=1e-5)
    assert value["large city: tagged objects"] == extract.tagged
    assert value["loader: tiles"] >= 40
    for name in readers.values():
        mean = value[f"{name}: entities"] / value[f"{name}: tiles"]
        assert mean == pytest.approx(value["loader: entities a tile, mean"], rel=0.3)
    facts = json.loads((folder / "provenance.json").read_text())
    assert facts["parameters"]["extracts"] == "city.osm.pbf"
    assert str(tmp_path) not in json.dumps(facts)
    assert (folder / "figure.png").stat().st_size > 0
