"""Rates of shuffled batches of a corpus, read by one or several processes.

As a script, `python scripts/loader_rate.py CORPUS HOW PART PARTS` is one of these processes. It
reads its part of the shuffled tiles, `HOW` being `read` (Corpus.read: kinds, boxes, tags),
`geometry` (the same and every geometry) or `take` (pyarrow's own take of the same columns). It says
"ready" after a first epoch, which warms the page cache; then it answers each number of seconds on
its standard input with the rates of tiles and entities over that time.
"""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from itertools import count
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa

from geojepa.data.corpus import Corpus
from geojepa.errors import GeoJEPAError

BATCH = 256
COLUMNS = ["kind", "evidence", "box", "tags"]


def rates(
    corpus: str | Path, how: str, processes: int, repeats: int, seconds: float
) -> list[Counter[str]]:
    """Rates of `tiles` and `entities`, summed over processes that read at once, by repeat.

    Raises:
        GeoJEPAError: if one of the processes fails.
    """
    command = [sys.executable, str(Path(__file__)), str(corpus), how]
    children = [
        subprocess.Popen(
            [*command, str(part), str(processes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        for part in range(processes)
    ]
    try:
        _lines(children, how)
        found = []
        for _ in range(repeats):
            for child in children:
                child.stdin.write(f"{seconds}\n")
                child.stdin.flush()
            found.append(sum((Counter(json.loads(x)) for x in _lines(children, how)), Counter()))
        return found
    finally:
        for child in children:
            child.communicate()


def _lines(children: list[subprocess.Popen], how: str) -> list[str]:
    lines = [child.stdout.readline() for child in children]
    if not all(lines):
        raise GeoJEPAError(f"loader_rate.py {how}: a process ended early; see its message above")
    return lines


def reader(folder: str, how: str) -> tuple[int, Callable[[np.ndarray], int]]:
    """Tiles of a corpus, and what reads a batch of rows and counts its entities."""
    if how == "take":
        # of one chunk, on which take is fastest
        table = datasets.load_from_disk(folder).data.table.select(COLUMNS).combine_chunks()

        def take(rows: np.ndarray) -> int:
            batch = table.take(pa.array(rows))
            return sum(len(chunk.flatten()) for chunk in batch["kind"].chunks)

        return table.num_rows, take
    corpus = Corpus.open(folder)

    def read(rows: np.ndarray) -> int:
        batch = corpus.read(rows)
        # asked for, should one be made only then
        arrays = (batch.cu_entities, batch.kind, batch.box, batch.cu_tags, batch.tag_ids)
        if how == "geometry":
            arrays += (batch.geometry,)
        return len(arrays[1])

    return len(corpus), read


def main() -> None:
    """Answer each line of standard input."""
    folder, how, part, parts = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[part % len(cores)]})
    pa.set_cpu_count(1)
    tiles, entities_of = reader(folder, how)

    def batches():
        for epoch in count():
            rows = np.random.default_rng(epoch).permutation(tiles)[part::parts]
            yield from (rows[at : at + BATCH] for at in range(0, len(rows), BATCH))

    coming = batches()
    for _ in range(0, len(range(part, tiles, parts)), BATCH):
        entities_of(next(coming))
    print("ready", flush=True)
    for line in sys.stdin:
        read = entities = 0
        start = time.perf_counter()
        passed = 0.0
        while not read or passed < float(line):
            rows = next(coming)
            read, entities = read + len(rows), entities + entities_of(rows)
            passed = time.perf_counter() - start
        print(json.dumps({"tiles": read / passed, "entities": entities / passed}), flush=True)


if __name__ == "__main__":
    main()
