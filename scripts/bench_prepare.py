"""How fast extracts become a corpus: beside a bare loop, and at a tenth of a size and the whole."""

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from measures import Measures
from process_tree import Cost, run
from repeat_city import Extract, repeat
from tqdm import tqdm

from geojepa.data.corpus import Corpus

LOOP = Path(__file__).with_name("bare_loop.py")
LOOPS = {
    "nodes_and_ways": "bare loop",
    "lean": "bare loop, untagged objects dropped in C++",
    "areas": "bare loop with areas",
}


def find_extracts(names: Sequence[str]) -> list[Path]:
    """Files of the places that are here; says which are not."""
    folders = [os.environ.get("GEOJEPA_DATA", ""), os.environ.get("GEOJEPA_MIRROR", "")]
    places = [Path(folders[0]) / "osm"] if folders[0] else []
    places += [Path(folders[1])] if folders[1] else []
    found = []
    for name in names:
        paths = [Path(name), *(folder / f"{name}.osm.pbf" for folder in places)]
        at = next((path for path in paths if path.is_file()), None)
        if at is None:
            print(
                f"{name}: not found, left out; set GEOJEPA_DATA to the folder of osm/{name}.osm.pbf"
            )
        else:
            found.append(at)
    return found


def prepare(extracts: Sequence[Path], out: Path) -> Cost:
    """Prepare a corpus as a user does, in a process of its own."""
    names = [str(path) for path in extracts]
    # an older corpus would have to be replaced
    shutil.rmtree(out, ignore_errors=True)
    return run([sys.executable, "-m", "geojepa", "prepare", *names, "--out", str(out)])


def beside_the_loop(measures: Measures, extracts: list[Path], out: Path, repeats: int) -> None:
    """Prepare and the bare loops in turn, `repeats` times."""
    names = [str(path) for path in extracts]
    for path in extracts:
        path.read_bytes()
    costs: dict[str, list[Cost]] = {name: [] for name in ("prepare", *LOOPS)}
    for _ in tqdm(range(repeats), desc="prepare beside the loops", disable=None):
        costs["prepare"].append(prepare(extracts, out))
        for loop in LOOPS:
            command = [sys.executable, str(LOOP), loop, *names]
            costs[loop].append(run(command))
    ours = [c.seconds for c in costs["prepare"]]
    places = ", ".join(path.name.split(".")[0] for path in extracts)
    print(f"\nprepare of {places}")
    measures.add_costs("prepare", costs["prepare"])
    made = int(costs["nodes_and_ways"][0].text.split()[-1])
    tiles = len(Corpus.open(out))
    measures.add("prepare: tiles", [tiles], "tiles")
    measures.add("prepare: rate of tiles", [tiles / s for s in ours], "tiles/s")
    measures.add("prepare: rate of tagged nodes and ways", [made / s for s in ours], "objects/s")
    for loop, name in LOOPS.items():
        theirs = [c.seconds for c in costs[loop]]
        measures.add_costs(name, costs[loop])
        pairs = [a / b for a, b in zip(ours, theirs, strict=True)]
        ratio = float(np.median(ours) / np.median(theirs))
        measures.add(f"prepare over {name}", pairs, "times", ratio)


def large_and_small(measures: Measures, extract: Extract, folder: Path, large: int) -> Path:
    """Prepare many copies of the city between two runs of a tenth; the large corpus."""
    many = extract.copies(large)
    few = max(1, many // 10)
    costs: dict[int, list[Cost]] = {few: [], many: []}
    for copies in (few, many):
        repeat(extract, folder / f"city_{copies}.osm.pbf", copies)
    for copies in (few, many, few) if few < many else (many,):
        print(f"preparing {copies * extract.tagged:,} tagged objects ...", flush=True)
        out = folder / f"corpus_{copies}"
        costs[copies].append(prepare([folder / f"city_{copies}.osm.pbf"], out))
    rates = {k: [k * extract.tagged / c.seconds for c in costs[k]] for k in costs}
    for copies, name in ((few, "small city"), (many, "large city")):
        measures.add(f"{name}: tagged objects", [copies * extract.tagged], "objects")
        measures.add_costs(name, costs[copies])
        measures.add(f"{name}: rate", rates[copies], "objects/s")
    pairs = [rates[many][0] / rate for rate in rates[few]]
    ratio = rates[many][0] / float(np.median(rates[few]))
    measures.add("large city's rate over the small one's", pairs, "times", ratio)
    return folder / f"corpus_{many}"


def corpus_of_tiles(measures: Measures, extract: Extract, large: Path, tiles: int) -> Path:
    """A corpus of so many tiles: the large one, or one of more copies."""
    have = len(Corpus.open(large))
    if have >= tiles:
        return large
    copies = -(-tiles * int(large.name.split("_")[1]) // have)
    path = large.parent / f"city_{copies}.osm.pbf"
    repeat(extract, path, copies)
    print(f"preparing {copies * extract.tagged:,} tagged objects for the loader ...", flush=True)
    cost = prepare([path], large.parent / f"corpus_{copies}")
    measures.add_costs(f"loader's corpus, {copies * extract.tagged:,} objects", [cost])
    return large.parent / f"corpus_{copies}"
