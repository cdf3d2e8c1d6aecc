"""Run a command and say what it cost: seconds, processor time, memory and processes of its tree."""

import os
import re
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from geojepa.errors import GeoJEPAError

# the share of its time that watching memory may take
WATCHING = 0.02


@dataclass(frozen=True)
class Cost:
    """Of one command, from its start to its end.

    Attributes:
        seconds: by the clock.
        cpu_seconds: user and system, of all its processes that ended before it.
        peak_bytes: the most that the tree held at once, shared pages counted once (PSS, sampled);
            never less than the most that one process held, of which the kernel keeps a record.
        processes: the most that lived at once.
        text: what it printed.
    """

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    processes: int
    text: str


def run(command: Sequence[str]) -> Cost:
    """Run a command to its end.

    Raises:
        GeoJEPAError: if it fails; with its last line.
    """
    peak, processes = 0, 0
    ended = threading.Event()

    def watch(pid: int) -> None:
        nonlocal peak, processes
        pause = 0.0
        while not ended.wait(pause):
            start = time.perf_counter()
            now, alive = held(pid)
            peak, processes = max(peak, now), max(processes, alive)
            pause = max(0.05, (time.perf_counter() - start) / WATCHING)

    with tempfile.TemporaryFile("w+") as text:
        start = time.perf_counter()
        child = subprocess.Popen(command, stdout=text, stderr=subprocess.STDOUT)
        watcher = threading.Thread(target=watch, args=(child.pid,), daemon=True)
        watcher.start()
        try:
            _, status, used = os.wait4(child.pid, 0)
            seconds = time.perf_counter() - start
            child.returncode = os.waitstatus_to_exitcode(status)
        finally:
            ended.set()
            watcher.join()
            if child.returncode is None:
                child.kill()
                child.wait()
        text.seek(0)
        said = text.read()
    if child.returncode:
        last = (said.strip().splitlines() or ["no message"])[-1]
        raise GeoJEPAError(f"{' '.join(command[1:4])} ...: failed ({last}); run it by itself")
    return Cost(seconds, used.ru_utime + used.ru_stime, peak, processes, said)


def tree(pid: int) -> list[int]:
    """A process and all that descend from it, as far as they live."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            # the name, in brackets, may hold anything
            parent = int(path.read_text(errors="replace").rpartition(")")[2].split()[1])
        except (OSError, IndexError, ValueError):
            continue
        children.setdefault(parent, []).append(int(path.parent.name))
    found = [pid]
    for one in found:
        found += children.get(one, [])
    return found


def held(pid: int) -> tuple[int, int]:
    """Bytes that a process and its descendants hold, and how many of them live.

    Shared pages are counted once, but never less than the most that one of them ever held.
    """
    found = [one for one in map(_held_by, tree(pid)) if one]
    return max([sum(share for share, _ in found), *(most for _, most in found)]), len(found)


def _held_by(pid: int) -> tuple[int, int] | None:
    """Proportional set size of a process, and its most resident bytes; None once it has ended."""
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return None
    share, most = re.search(r"^Pss:\s+(\d+)", rollup, re.M), re.search(r"VmHWM:\s+(\d+)", status)
    return (int(share[1]) * 1024, int(most[1]) * 1024) if share and most else None
