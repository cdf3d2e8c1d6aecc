"""A full disk, a killed process, an interrupt, a read-only folder: the corpus that was stays."""

import json
import os
import resource
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from handmade import node, way, write_osm

from geojepa.data.corpus import Corpus
from geojepa.data.prepare import prepare
from geojepa.files import whole

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's namespaces")


@pytest.fixture(scope="module")
def extracts(tmp_path_factory):
    """A small extract, and one of several blocks."""
    folder = tmp_path_factory.mktemp("extracts")
    small = [node(i, 11 + i * 1e-5, 55, shop="books", level=str(i)) for i in range(1, 40)]
    write_osm(folder / "small.osm.pbf", small)
    write_osm(folder / "other.osm.pbf", small[:20])
    large = [node(i, 11 + i % 300 * 1e-4, 55 + i // 300 * 1e-4, shop="yes", level=f"{i}")
             for i in range(1, 21_000)]  # fmt: skip
    large += [way(i, [i, i + 1], highway="service", note="x" * 200, surface=f"{i} " + "y" * 200)
              for i in range(1, 20_000)]  # fmt: skip
    write_osm(folder / "large.osm.pbf", large)
    return folder


def content(corpus: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in corpus.iterdir()}


def read_whole(corpus: Path) -> int:
    opened = Corpus.open(corpus)
    return len(opened.read(np.arange(len(opened))).tags())


@pytest.fixture
def old(extracts, tmp_path):
    """A corpus in a folder of its own, and what is in it."""
    out = prepare([extracts / "small.osm.pbf"], tmp_path / "place" / "c")
    return out, content(out)


def is_as_it_was(old) -> bool:
    out, before = old
    return content(out) == before and read_whole(out) == 39 and os.listdir(out.parent) == ["c"]


RUN = "import sys; from geojepa.data.prepare import prepare\n"
PREPARE = "prepare([sys.argv[1]], sys.argv[2], processes=int(sys.argv[3]))"


def run(code, *args, **kwargs):
    """Run code in a process of its own, with its arguments."""
    command = [sys.executable, "-W", "ignore", "-c", code, *map(str, args)]
    kwargs = {"capture_output": True, "text": True, "timeout": 120} | kwargs
    return subprocess.run(command, check=False, **kwargs)


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("limit", [1_000, 1_000_000, 8_000_000])
def test_no_room_for_a_file(extracts, old, processes, limit):
    def small_files():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    done = run(RUN + PREPARE, extracts / "large.osm.pbf", old[0], processes, preexec_fn=small_files)
    assert "GeoJEPAError" in done.stderr
    assert "cannot be written" in done.stderr
    assert "File too large" in done.stderr
    assert is_as_it_was(old)


def can_mount() -> bool:
    command = [
        "unshare",
        "--user",
        "--map-root-user",
        "--mount",
        "mount",
        "-t",
        "tmpfs",
        "x",
        "/mnt",
    ]
    return bool(shutil.which("unshare")) and not subprocess.run(command, check=False).returncode


MOUNTED = pytest.mark.skipif(not can_mount(), reason="may not mount file systems here")
# the mount is gone with the process
MOUNT = """
import os, shutil, subprocess, sys
from geojepa.data.prepare import prepare
from geojepa.errors import GeoJEPAError
extract, old, folder, size, processes, mode = sys.argv[1:]
subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}m", "tmpfs", folder], check=True)
shutil.copytree(old, f"{folder}/c")
subprocess.run(["mount", "-o", f"remount,{mode}", folder], check=True)
try:
    prepare([extract], f"{folder}/c", processes=int(processes))
except GeoJEPAError as error:
    print(error)
files = sorted(os.listdir(f"{folder}/c"))
assert os.listdir(folder) == ["c"], os.listdir(folder)
assert files == sorted(os.listdir(old))
assert all(open(f"{folder}/c/{f}", "rb").read() == open(f"{old}/{f}", "rb").read() for f in files)
"""


@MOUNTED
@pytest.mark.parametrize(("size", "processes"), [(2, 1), (2, 2), (14, 1)])
def test_a_full_disk(extracts, old, tmp_path, size, processes):
    told = mounted(extracts, old, tmp_path, size, processes, "rw")
    assert "cannot be written" in told
    assert "No space left on device" in told


@MOUNTED
def test_a_read_only_folder(extracts, old, tmp_path):
    told = mounted(extracts, old, tmp_path, 50, 1, "ro")
    assert "cannot be written" in told
    assert "Read-only file system" in told


def mounted(extracts, old, tmp_path, size, processes, mode) -> str:
    """What `prepare` says where the corpus lies on a small disk."""
    (tmp_path / "disk").mkdir()
    namespace = ["unshare", "--user", "--map-root-user", "--mount"]
    code = [sys.executable, "-W", "ignore", "-c", MOUNT, str(extracts / "large.osm.pbf")]
    args = [str(old[0]), str(tmp_path / "disk"), str(size), str(processes), mode]
    done = subprocess.run(
        [*namespace, *code, *args], check=False, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1
    assert is_as_it_was(old)
    return done.stdout


# each moment is a function, before whose first call of a kind the process kills itself
KILL = """
import importlib, os, signal, sys
from geojepa.data.prepare import prepare
module, name, call = sys.argv[4:]
module = importlib.import_module(module)
real, left = getattr(module, name), [int(call)]
def die(*args, **kwargs):
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*args, **kwargs)
setattr(module, name, die)
"""


@pytest.mark.parametrize(
    ("module", "name", "call"),
    [
        ("geojepa.data.opl", "write_opl", 1),
        ("geojepa.data.opl", "write_opl", 2),
        ("geojepa.data.jobs", "write_pieces", 1),
        ("geojepa.data.jobs", "write_pieces", 2),
        ("geojepa.data.prepare", "merge", 1),
        ("geojepa.data.prepare", "tile_rows", 1),
        ("os", "replace", 1),
        ("shutil", "rmtree", 1),
    ],
)
def test_a_kill_at_any_moment_leaves_the_old(extracts, old, module, name, call):
    out, before = old
    done = run(KILL + PREPARE, extracts / "other.osm.pbf", out, 1, module, name, call)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert content(out) == before
    assert read_whole(out) == 39


def test_a_kill_between_the_two_renames_loses_nothing(extracts, old):
    out, before = old
    done = run(KILL + PREPARE, extracts / "other.osm.pbf", out, 1, "os", "replace", 2)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not out.exists()
    assert read_whole(out) == 39
    assert content(out) == before
    # and the next that writes finds it as well
    run(KILL + PREPARE, extracts / "other.osm.pbf", out, 1, "os", "replace", 2)
    assert not out.exists()
    with pytest.raises(ZeroDivisionError), whole(out) as part:
        part.write_text(f"{1 / 0}")
    assert content(out) == before


def start(code, *args):
    """A process in a group of its own, whose standard output is a pipe."""
    command = [sys.executable, "-W", "ignore", "-c", code, *map(str, args)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def have_ended(pids: list[int]) -> bool:
    """Wait, no longer than a minute each, until processes are gone."""
    for pid in pids:
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        ended = select.select([handle], [], [], 60)[0]
        os.close(handle)
        if not ended:
            return False
    return True


# says which processes work, once the first of them has something to do
WORK = """
import json, sys
from geojepa.data import jobs
from geojepa.data.prepare import prepare
workers, told, real = [], [], jobs._Worker.run
# no export in the calling process
jobs.LONG_BYTES = 0
def tell(self, job):
    workers.append(self._process.pid)
    if job["do"] == sys.argv[4] and not told:
        told.append(job)
        print(json.dumps([w._process.pid for w in known]), flush=True)
    return real(self, job)
known, make = [], jobs._Worker.__init__
def remember(self):
    make(self)
    known.append(self)
jobs._Worker.__init__, jobs._Worker.run = remember, tell
"""


@pytest.mark.parametrize("moment", ["export", "objects"])
@pytest.mark.parametrize("to", ["main", "group", "killed", "worker"])
def test_interrupts_leave_no_process_and_no_file(extracts, old, moment, to):
    process = start(WORK + PREPARE, extracts / "large.osm.pbf", old[0], 3, moment)
    workers = json.loads(process.stdout.readline())
    assert len(workers) == 2
    if to == "main":
        os.kill(process.pid, signal.SIGINT)
    elif to == "group":
        os.killpg(process.pid, signal.SIGINT)
    elif to == "killed":
        os.kill(process.pid, signal.SIGKILL)
    else:
        for worker in workers:
            os.kill(worker, signal.SIGKILL)
    _, told = process.communicate(timeout=60)
    assert process.returncode != 0
    assert have_ended(workers)
    if to == "killed":
        assert content(old[0]) == old[1]
        assert read_whole(old[0]) == 39
        return
    assert is_as_it_was(old)
    if to == "worker":
        assert "GeoJEPAError" in told.splitlines()[-1]
        assert "a worker process died" in told
    else:
        assert told.splitlines()[-1] == "KeyboardInterrupt"
