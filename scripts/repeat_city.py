"""Repeat the sample city over the map: python scripts/repeat_city.py OUT.osm.pbf --entities 2000000

Copies stand side by side along one parallel, 64 tiles apart: that is a whole number of 1e-7
degrees, so every copy lies in its tiles, is cut and is boxed exactly as the first one is. Written
copy by copy as OPL text, which osmium turns into a sorted PBF: memory does not grow with copies.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import osmium
import tyro
from tqdm import tqdm

from geojepa.data.city import build_world
from geojepa.data.city.plan import make_plan
from geojepa.data.city.write import GENERATOR, write_extract
from geojepa.errors import GeoJEPAError
from geojepa.files import whole

STRIDE = 64
TURN = 3_600_000_000
# longitude of `STRIDE` tiles and of a whole turn, in 1e-7 degrees
SHIFT = TURN * STRIDE // 2**16
MOST = TURN // SHIFT


class Extract:
    """A small extract in memory, as text between the numbers that differ from copy to copy."""

    def __init__(self, path: str | Path):
        self.lines = {kind: [line.split(" ") for line in lines] for kind, lines in _opl(path)}
        first = {kind: [int(line[0][1:]) for line in lines] for kind, lines in self.lines.items()}
        self.last = {kind: max(ids, default=0) for kind, ids in first.items()}
        self.longitude = np.array(
            [round(float(line[-2][1:]) * 1e7) for line in self.lines["n"]], dtype=np.int64
        )
        self.tagged = sum(
            token[0] == "T" and len(token) > 1
            for lines in self.lines.values()
            for line in lines
            for token in line[1:]
        )
        box = osmium.io.Reader(str(path), osmium.osm.NOTHING).header().box()
        self.south, self.north = box.bottom_left.lat, box.top_right.lat

    def copies(self, entities: int) -> int:
        """How many copies hold at least so many tagged objects."""
        return max(1, -(-entities // self.tagged))

    def nodes(self, k: int) -> str:
        """Copy k of all nodes, as OPL."""
        shift = k * self.last["n"]
        places = (self.longitude + k * SHIFT + TURN // 2) % TURN - TURN // 2
        return "".join(
            f"n{int(name[1:]) + shift} {' '.join(middle)} x{x:.7f} {y}\n"
            for (name, *middle, _, y), x in zip(self.lines["n"], places / 1e7, strict=True)
        )

    def others(self, k: int, kind: str) -> str:
        """Copy k of all ways ("w") or relations ("r"), as OPL."""
        shift = {name: k * last for name, last in self.last.items()}

        def moved(reference: str) -> str:
            number, at, role = reference[1:].partition("@")
            return f"{reference[0]}{int(number) + shift[reference[0]]}{at}{role}"

        return "".join(
            f"{moved(name)} {' '.join(rest)} {last[0]}{','.join(map(moved, last[1:].split(',')))}\n"
            for name, *rest, last in self.lines[kind]
        )


def make_city(path: str | Path, size: int = 28) -> None:
    """Write the extract of the sample city alone, `size` tiles a side."""
    plan = make_plan(size, 0)
    write_extract(Path(path), build_world(plan), plan.frame)


def repeat(extract: Extract, out: str | Path, copies: int) -> None:
    """Write `copies` of an extract as one sorted .osm.pbf; ids and longitudes differ.

    Raises:
        GeoJEPAError: if so many copies do not fit on the parallel.
    """
    if copies > MOST:
        raise GeoJEPAError(
            f"{out}: {copies} copies do not fit on a parallel; ask for {MOST * extract.tagged:,} "
            "entities at most"
        )
    header = osmium.io.Header()
    header.set("generator", GENERATOR)
    header.add_box(osmium.osm.Box(-180.0, extract.south, 180.0, extract.north))
    with whole(out) as part:
        writer = osmium.SimpleWriter(osmium.io.File(str(part), "pbf"), header=header)
        for text in tqdm(
            _texts(extract, copies), total=3 * copies, desc=Path(out).name, disable=None
        ):
            buffer = osmium.io.FileBuffer(text.encode(), "opl")
            with osmium.io.Reader(buffer) as reader:
                osmium.apply(reader, writer)
        writer.close()


def _texts(extract: Extract, copies: int) -> Iterator[str]:
    yield from (extract.nodes(k) for k in range(copies))
    for kind in "wr":
        yield from (extract.others(k, kind) for k in range(copies))


def _opl(path: str | Path) -> Iterator[tuple[str, list[str]]]:
    """Lines of the nodes, ways and relations of an extract, without dates and names."""
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "extract.opl"
        with osmium.SimpleWriter(osmium.io.File(str(text), "opl,add_metadata=version")) as writer:
            osmium.apply(str(path), writer)
        lines = text.read_text(encoding="utf-8").splitlines()
    yield from ((kind, [line for line in lines if line[0] == kind]) for kind in "nwr")


def main(out: Annotated[Path, tyro.conf.Positional], entities: int = 2_000_000) -> None:
    """Write the repeated city.

    Args:
        out: the .osm.pbf file.
        entities: tagged objects, at least.
    """
    with tempfile.TemporaryDirectory() as folder:
        city = Path(folder) / "city.osm.pbf"
        make_city(city)
        extract = Extract(city)
    copies = extract.copies(entities)
    repeat(extract, out, copies)
    print(f"{out.name}: {copies} copies, {copies * extract.tagged:,} tagged objects")


if __name__ == "__main__":
    tyro.cli(main)
