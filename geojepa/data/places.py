"""Places cut to pieces on disk, block by block, by several processes."""

import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import numpy as np
from tqdm import tqdm

from geojepa.data.jobs import Job, Workers
from geojepa.data.pieces import Spill
from geojepa.data.vocabulary import Pair

# extracts that together are smaller than this are not worth the start of processes
_SMALL_BYTES = 1 << 20


@dataclass
class Place:
    """A place cut to pieces.

    Attributes:
        name: of the place; source: its file, a table of features or not.
        spills: its pieces, some in each.
        features: how many were read; said: what any of their tags says, as bits of `Says`.
        skipped: what was left out, and how often.
    """

    name: str
    source: Path
    is_table: bool
    spills: list[Spill]
    features: int
    said: int
    skipped: Counter[str]


def cut_places(
    sources: list[Path], names: list[str], work: Path, simplify: float, processes: int
) -> tuple[list[Place], dict[Pair, int]]:
    """Cut every source to pieces in the folder `work`.

    Returns:
        The places, and the number of each tag by which `Spill.vocabulary` knows it.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    is_small = sum(source.stat().st_size for source in sources) < _SMALL_BYTES
    processes = processes or (1 if is_small else cores or 1)
    tags: dict[Pair, int] = {}
    lock = Lock()
    with (
        ThreadPoolExecutor(processes + 1) as places,
        ThreadPoolExecutor(2 * processes) as jobs,
        tqdm(desc="cut", total=len(sources), unit=" blocks", disable=None) as progress,
        # the innermost, so that after an error threads wait for no process
        Workers(processes) as workers,
    ):

        def cut(name: str, source: Path) -> Place:
            def run(job: Job) -> Job:
                answer = workers.run(job)
                with lock:
                    progress.update()
                    for spill in answer["spills"]:
                        numbers = [tags.setdefault((k, v), len(tags)) for k, v in spill["tags"]]
                        spill["tags"] = np.array(numbers, dtype=np.int64)
                return answer

            folder = work / f"{names.index(name):04d}"
            folder.mkdir()
            common = {"path": str(source), "folder": str(folder), "simplify": simplify}
            is_table = source.suffix == ".parquet"
            skipped: Counter[str] = Counter()
            if is_table:
                from geojepa.data.table import row_groups

                todo = [
                    common | {"do": "table", "out": f"{a}", "start": a, "stop": b}
                    for a, b in row_groups(source)
                ]
            else:
                exported = workers.run(common | {"do": "export"})
                skipped.update(exported["skipped"])
                todo = [common | {"do": "relations", "out": "0"}]
                todo += [
                    common | {"do": "objects", "out": f"{i + 1}", "start": a, "stop": b}
                    for i, (a, b) in enumerate(exported["blocks"])
                ]
            with lock:
                progress.total += len(todo)
                progress.update()
            done = list(jobs.map(run, todo))
            for text in folder.glob("*.opl"):
                text.unlink()
            said = 0
            for answer in done:
                skipped.update(answer["skipped"])
                said |= answer["said"]
            spills = [
                Spill.open(folder / spill["out"], spill["tags"])
                for answer in done
                for spill in answer["spills"]
            ]
            features = sum(answer["features"] for answer in done)
            return Place(name, source, is_table, spills, features, said, skipped)

        return list(places.map(cut, names, sources)), tags
