"""The steps from a file to pieces on disk, each a job that any process can take.

A job is a dictionary of plain values, as is its answer, so that jobs go to worker processes as
lines of JSON. `Workers` starts them as programs of their own: nothing of the caller is copied or
imported again, which holds in a notebook, in a script and under a debugger alike.
"""

import gc
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import osmium

from geojepa.data.extract import export_extract, read_objects
from geojepa.data.features import Features
from geojepa.data.grid import load_grid
from geojepa.data.limits import lots_within_limits
from geojepa.data.pieces import cut_features, write_pieces
from geojepa.data.relations import read_relations
from geojepa.data.vocabulary import Vocabulary
from geojepa.errors import GeoJEPAError

Job = dict[str, Any]
LONG_BYTES = 64 << 20


@contextmanager
def _without_collection() -> Iterator[None]:
    """Let nobody search for cycles of references: a job makes a million objects and none."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@_without_collection()
def run_job(job: Job) -> Job:
    """Do one job.

    Jobs, by their `do`: "export" an extract into a folder; cut the "objects" of one of its blocks,
    its "relations", or row groups of a "table" of features, to files of pieces.

    Raises:
        GeoJEPAError: for input that cannot be read, naming it.
    """
    path, folder = Path(job["path"]), Path(job["folder"])
    skipped: Counter[str] = Counter()
    if job["do"] == "export":
        with _named(path):
            return {"blocks": export_extract(path, folder, skipped), "skipped": skipped}
    vocabulary = Vocabulary()
    with _named(path):
        read = _read(job, path, folder, vocabulary)
    grid = load_grid(folder.parent / "footprints.arrow")
    spills: list[Job] = []
    entities, said = 0, 0
    for features in read:
        for lot in lots_within_limits(features):
            out = f"{job['out']}-{len(spills)}.arrow"
            table = cut_features(lot, grid, job["simplify"])
            used = write_pieces(table, vocabulary, folder / out)
            spills.append({"out": out, "tags": used})
            entities += int(lot.is_entity.sum())
            said |= int(np.bitwise_or.reduce(lot.tags.any[lot.is_entity], initial=0))
        skipped.update(features.skipped)
    return {"spills": spills, "features": entities, "skipped": skipped, "said": said}


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Name the extract and the remedy where it cannot be read."""
    try:
        yield
    except GeoJEPAError:
        raise
    except (RuntimeError, ValueError, osmium.InvalidLocationError, OverflowError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise GeoJEPAError(
            f"{path}: cannot be read as OpenStreetMap data ({reason}); "
            "it is damaged or of another format: download the extract again"
        ) from error


def _read(job: Job, path: Path, folder: Path, vocabulary: Vocabulary) -> Iterable[Features]:
    if job["do"] == "objects":
        return [read_objects(folder, job["start"], job["stop"], vocabulary)]
    if job["do"] == "relations":
        return [read_relations(folder, vocabulary)]
    from geojepa.data.table import read_table

    return read_table(path, job["start"], job["stop"], vocabulary)


class Workers:
    """Some processes that take jobs, this one among them. A context manager."""

    def __init__(self, processes: int):
        self._is_stopped = False
        self._here = threading.Lock()
        self._all = [_Worker() for _ in range(processes - 1)]
        self._idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        for worker in self._all:
            self._idle.put(worker)

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *error: object) -> None:
        self._is_stopped = True
        for worker in self._all:
            worker.stop()

    def run(self, job: Job) -> Job:
        """Do a job, here or in the next idle process; may be called from several threads."""
        if (not self._all or not _is_long(job)) and self._here.acquire(blocking=not self._all):
            try:
                if self._is_stopped:
                    raise GeoJEPAError(f"{job['path']}: stopped")
                return run_job(job)
            finally:
                self._here.release()
        worker = self._idle.get()
        try:
            return worker.run(job)
        finally:
            self._idle.put(worker)


def _is_long(job: Job) -> bool:
    """Whether a job takes long and cannot be interrupted, so that another process should do it."""
    return job["do"] == "export" and Path(job["path"]).stat().st_size > LONG_BYTES


class _Worker:
    def __init__(self) -> None:
        # one thread each: as many workers as cores
        settings = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")}
        # this package and not what the working folder holds
        paths = [
            str(Path(__file__).parents[2]),
            *os.environ.get("PYTHONPATH", "").split(os.pathsep),
        ]
        settings["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "geojepa.data.jobs"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | settings,
            text=True,
            encoding="utf-8",
        )

    def run(self, job: Job) -> Job:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            print(json.dumps(job), file=stdin, flush=True)
            answer = json.loads(stdout.readline())
        except (OSError, ValueError) as error:
            status = self._process.wait()
            raise GeoJEPAError(
                f"{job['path']}: a worker process died (status {status}), perhaps for want of "
                "memory; give the machine more, or a smaller extract"
            ) from error
        if "error" in answer:
            kinds = {"GeoJEPAError": GeoJEPAError, "OSError": OSError}
            raise kinds.get(answer["kind"], RuntimeError)(answer["error"])
        return answer

    def stop(self) -> None:
        self._process.kill()
        self._process.communicate()


def _serve(answer: Callable[[str], None]) -> None:
    for line in sys.stdin.buffer:
        try:
            answer(json.dumps(run_job(json.loads(line))))
        except (GeoJEPAError, OSError) as error:
            kind = "GeoJEPAError" if isinstance(error, GeoJEPAError) else "OSError"
            answer(json.dumps({"error": str(error), "kind": kind}))
        except Exception as error:
            traceback.print_exc()
            answer(json.dumps({"error": f"{type(error).__name__}: {error}", "kind": "fault"}))


if __name__ == "__main__":
    # an interrupt is the caller's to handle, who then stops this process
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # what libraries print must not mix with the answers
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    _serve(lambda line: print(line, file=answers, flush=True))
