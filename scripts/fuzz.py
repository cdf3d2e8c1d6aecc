"""Prepare corpora from broken files: only clean errors and counted skips may come of it.

Each case is a small file of a made town, spoilt by its number and a seed alone: objects or columns
changed before they are written, bytes changed in the file or inside its compressed blocks. A child
process prepares it, with a limit of time and of memory, and says what became of it:

- ok: a corpus that opens, reads back whole, and shows itself in printable lines
- refused: a GeoJEPAError of one line that names the file, with nothing left behind
- BUG: anything else

`scripts/fuzz.py --seed S --only I` repeats case I, and `--keep FOLDER` keeps its file.
"""

import argparse
import bz2
import gzip
import json
import os
import random
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from collections import Counter
from contextlib import suppress
from pathlib import Path

import fuzz_bytes
import fuzz_scene
import fuzz_table
from tqdm import tqdm

SUFFIXES = (".osm.pbf", ".parquet", ".osm.gz", ".osm.pbf", ".osm.bz2", ".osm")
SECONDS = 30
MEMORY = 3 << 30
LABELS = ("ok", "refused", "BUG")


def make_case(seed: int, number: int) -> tuple[str, str, bytes]:
    """Suffix of a file, what was done to it, and its bytes."""
    rng = random.Random(f"{seed}/{number}")
    suffix = SUFFIXES[number % len(SUFFIXES)]
    done = []
    # the first ones are as good as can be
    is_spoilt = number >= len(SUFFIXES)
    changes = rng.choice([0, 1, 1, 2, 4]) if is_spoilt else 0
    where = rng.choice(["file", "inside"]) if is_spoilt and rng.random() < 0.4 else ""
    where = where or ("inside" if is_spoilt and not changes else "")
    if suffix == ".parquet":
        table = fuzz_table.town(rng)
        for change in rng.sample(fuzz_table.MUTATIONS, changes):
            try:
                table = change(table, rng)
            except (KeyError, ValueError, TypeError, NotImplementedError):
                # no room for it after an earlier change
                continue
            done.append(change.__name__)
        data = fuzz_table.parquet(table, rng)
        where = "file" if where else ""
    else:
        items = fuzz_scene.town(rng)
        for mutate in rng.sample(fuzz_scene.MUTATIONS, changes):
            mutate(items, rng)
            done.append(mutate.__name__)
        if suffix == ".osm.pbf":
            data = fuzz_bytes.pbf(items, rng, where == "inside")
        else:
            data = fuzz_bytes.xml(items, rng)
            data = fuzz_bytes.spoil(data, rng) if where == "inside" else data
            # without the time of day, which a gzip file would hold
            data = gzip.compress(data, mtime=0) if suffix == ".osm.gz" else data
            data = bz2.compress(data) if suffix == ".osm.bz2" else data
    if where == "file":
        data = fuzz_bytes.spoil(data, rng)
    done += [f"bytes of the {where}" if where == "file" else "bytes inside"] if where else []
    return suffix, ", ".join(done) or "nothing", data


def judge(path: Path, out: Path) -> tuple[str, str]:
    """Prepare a file in this process; the verdict and a line about it."""
    from geojepa.data.prepare import prepare
    from geojepa.errors import GeoJEPAError

    before = _content(out.parent)
    try:
        prepare([path], out)
    except GeoJEPAError as error:
        said = str(error)
        if str(path) not in said or not said.isprintable():
            return "BUG", f"the error is not one line with the path: {said!r:.600}"
        if "process died" in said:
            return "BUG", said
        if _content(out.parent) != before:
            return "BUG", f"refused ({said:.300}), but the folder of the corpus has changed"
        verdict = "refused", said.replace(str(path), "FILE")
    except BaseException:
        return "BUG", traceback.format_exc()
    else:
        try:
            verdict = "ok", _read_back(out)
        except BaseException:
            return "BUG", f"the corpus is not whole: {traceback.format_exc()}"
    left = [str(p) for p in Path(tempfile.gettempdir()).iterdir()]
    return ("BUG", f"left behind: {left}") if left else verdict


def _content(folder: Path) -> dict[str, bytes]:
    files = (p for p in sorted(folder.rglob("*")))
    return {str(p): p.read_bytes() if p.is_file() else b"" for p in files}


def _read_back(out: Path) -> str:
    """Read all of a corpus that must be sound; says what is in it."""
    import numpy as np
    import shapely

    from geojepa.data.corpus import Corpus
    from geojepa.data.features import GROUP
    from geojepa.data.inspect import summary, summary_text
    from geojepa.data.labels import TASKS

    assert os.listdir(out.parent) == [out.name], "something lies beside the corpus"
    strange = [p.name for p in out.iterdir() if p.suffix not in (".json", ".arrow")]
    assert not strange, f"in the corpus: {strange}"
    corpus = Corpus.open(out)
    assert len(corpus) > 0, "no tile"
    assert not corpus.has_images, "an image out of nothing"
    for start in range(0, len(corpus), 1024):
        rows = np.arange(start, min(start + 1024, len(corpus)))
        some = corpus.read(rows)
        assert np.isfinite(some.box).all(), "a box is not finite"
        # of a group only the parts of the highest dimension count, and they may lie elsewhere
        least = np.where(some.kind == GROUP, 0, 1e-38)
        assert ((some.share >= least) & (some.share <= 1)).all(), "a share is none"
        bounds = shapely.bounds(some.geometry)
        assert (np.abs(bounds - 0.5) <= 0.5 + 1e-9).all(), "beyond the tile"
        assert len(some.feature_id) == len(some.tags()) == len(some.kind)
        # masked views of the first rows will do
        for task in TASKS if start == 0 else ():
            corpus.read(rows, hide=task)
    assert corpus.tiles.geometry.is_valid.all(), "a footprint is not valid"
    text = summary_text(summary(corpus))
    assert all(line.isprintable() for line in text.split("\n")), "not printable"
    skipped = corpus.infos[0]["places"][0]["skipped"]
    return f"{len(corpus)} tiles, {corpus.entities} entities, skipped {skipped}"


def serve() -> None:
    """Judge files as they are named on standard input, one answer a line."""
    import datasets  # noqa: F401
    import geopandas  # noqa: F401

    import geojepa.data.prepare  # noqa: F401

    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        path, out = json.loads(line)
        print(json.dumps(judge(Path(path), Path(out))), file=answers, flush=True)


class Child:
    """A process that judges; started again after it died or took too long."""

    def __init__(self, folder: Path):
        self.scratch = folder / "scratch"
        self.log = folder / "log"
        self.process: subprocess.Popen[str] | None = None

    def _start(self) -> subprocess.Popen[str]:
        shutil.rmtree(self.scratch, ignore_errors=True)
        self.scratch.mkdir()
        threads = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TMPDIR": str(self.scratch)}
        with open(self.log, "w") as log:
            return subprocess.Popen(
                [sys.executable, __file__, "--serve"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=os.environ | threads,
                start_new_session=True,
            )

    def judge(self, path: Path, out: Path) -> tuple[str, str]:
        """Verdict on a file."""
        is_new = self.process is None
        self.process = self.process or self._start()
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps([str(path), str(out)]), file=self.process.stdin, flush=True)
        patience = SECONDS + 60 * is_new
        if not select.select([self.process.stdout], [], [], patience)[0]:
            self.stop()
            return "BUG", f"no end after {SECONDS} s"
        answer = self.process.stdout.readline()
        if not answer:
            status = self.process.wait()
            self.stop()
            return "BUG", f"the process died (status {status}): {self.log.read_text()[-2000:]}"
        verdict, told = json.loads(answer)
        return verdict, told

    def stop(self) -> None:
        """End the process and all that it started."""
        if self.process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.communicate()
            self.process = None


def fuzz(seed: int, numbers: list[int], folder: Path, is_loud: bool) -> list[tuple[int, str, str]]:
    """Number, verdict and a line for each case; prints those that are bugs."""
    child = Child(folder)
    found = []
    try:
        for number in tqdm(numbers, desc="fuzz", unit=" files", disable=None):
            suffix, done, data = make_case(seed, number)
            place = folder / "corpora"
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir()
            # every other time an older corpus stands in the way
            old = folder / "old"
            if number % 2 and old.is_dir():
                shutil.copytree(old, place / "town")
            path = folder / f"town{suffix}"
            path.write_bytes(data)
            verdict, told = child.judge(path, place / "town")
            if number == 0 and verdict == "ok":
                shutil.copytree(place / "town", old)
            found.append((number, verdict, told))
            if verdict == "BUG" or is_loud:
                about = f"case {number} ({suffix}, {len(data):,} bytes, {done})"
                tqdm.write(f"{verdict} {about}: {told}", file=sys.stdout)
                sys.stdout.flush()
    finally:
        child.stop()
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cases", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, help="one case")
    parser.add_argument("--keep", type=Path, help="folder for the file of the one case")
    parser.add_argument("--loud", action="store_true", help="say what becomes of each case")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve()
        return 0
    if args.keep:
        args.keep.mkdir(parents=True, exist_ok=True)
        suffix, done, data = make_case(args.seed, args.only or 0)
        (args.keep / f"town{suffix}").write_bytes(data)
        print(f"{args.keep / f'town{suffix}'}: {done}")
    numbers = list(range(args.cases)) if args.only is None else [args.only]
    with tempfile.TemporaryDirectory() as folder:
        found = fuzz(args.seed, numbers, Path(folder), args.loud or args.only is not None)
    counts = Counter(verdict for _, verdict, _ in found)
    print(f"seed {args.seed}: " + ", ".join(f"{counts[label]} {label}" for label in LABELS))
    for number, verdict, _ in found:
        if verdict == "BUG":
            print(f"repeat: {Path(__file__).name} --seed {args.seed} --only {number}")
    return int(counts["BUG"] > 0)


if __name__ == "__main__":
    sys.exit(main())
