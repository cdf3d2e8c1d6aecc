"""How fast data are prepared and read: `make bench-data`. Linux; about half an hour at full size.

Three measures, each printed as it is made: prepare beside a bare loop over the same extracts
(`bare_loop.py`), turn by turn; prepare of the sample city repeated to millions of objects, beside a
tenth of it; shuffled batches from a corpus of 100,000 tiles. They go to
`results/data_speed/{table.csv, figure.png, figure.pdf, provenance.json}`.
"""

import os
import sys
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import tyro
from bench_prepare import LOOPS, beside_the_loop, corpus_of_tiles, find_extracts, large_and_small
from loader_rate import rates
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from measures import Measures
from repeat_city import Extract, make_city

from geojepa.data.corpus import Corpus
from geojepa.errors import GeoJEPAError
from geojepa.figures.publication import save_figure
from geojepa.figures.style import BLUE, GREY, WIDTH, use_style

READERS = {
    ("read", 1): "Corpus.read, 1 process",
    ("read", 2): "Corpus.read, 2 processes",
    ("geometry", 2): "Corpus.read and geometries, 2 processes",
    ("take", 1): "pyarrow take, 1 process",
    ("take", 2): "pyarrow take, 2 processes",
}
AIM = 100_000
CAPTION = (
    "Seconds of prepare and of bare loops over the same extracts, rate of prepare on a small and a "
    "large repeated city, and shuffled batches read from {tiles:,} tiles, all on {cores} cores; "
    "whiskers from least to most, dotted: 100,000 tiles/s."
)


@dataclass(frozen=True)
class BenchConfig:
    """Sizes of the benchmark.

    Attributes:
        extracts: places, looked for in $GEOJEPA_DATA/osm and $GEOJEPA_MIRROR, or paths.
        repeats: of prepare beside the loop, and of each reader's turn.
        seconds: of a reader's turn.
        large: tagged objects of the large extract, at least.
        tiles: of the loader's corpus, at least.
        size: of the repeated city, in tiles a side.
        cores: that everything shares.
        run: folder whose results/data_speed is written.
    """

    extracts: tuple[str, ...] = ("liechtenstein", "malta", "nassau_bahamas")
    repeats: int = 5
    seconds: float = 5.0
    large: int = 2_000_000
    tiles: int = 100_000
    size: int = 28
    cores: int = 2
    run: Path = Path()


def loader(measures: Measures, corpus: Path, repeats: int, seconds: float) -> None:
    """Rates of shuffled batches, by reader and number of processes."""
    entities = Corpus.open(corpus).tiles.entities
    measures.add("loader: tiles", [len(entities)], "tiles")
    measures.add("loader: entities a tile, mean", [entities.mean()], "entities")
    for (how, processes), name in READERS.items():
        found = rates(corpus, how, processes, repeats, seconds)
        for what in ("tiles", "entities"):
            measures.add(f"{name}: {what}", [rate[what] for rate in found], f"{what}/s")


def draw(table: pd.DataFrame) -> Figure:
    """Bars of times, rates of prepare and rates of the loader, as far as they were measured."""
    use_style()
    panels = {
        "seconds": {f"{name}: time": name for name in ("prepare", *LOOPS.values())},
        "tagged objects a second": {f"{c} city: rate": f"{c} city" for c in ("small", "large")},
        "tiles a second": {f"{name}: tiles": name for name in READERS.values()},
    }
    rows = {
        title: table[table.measure.isin(names)].assign(name_=lambda t, n=names: t.measure.map(n))
        for title, names in panels.items()
    }
    rows = {title: bars for title, bars in rows.items() if len(bars)}
    heights = [len(bars) + 1 for bars in rows.values()]
    figure, axes = plt.subplots(
        len(rows),
        1,
        figsize=(WIDTH, 0.36 * sum(heights) + 0.8),
        height_ratios=heights,
        squeeze=False,
    )
    for (title, bars), panel in zip(rows.items(), axes[:, 0], strict=True):
        _bars(panel, bars, title)
        if title.startswith("tiles"):
            panel.axvline(AIM, color=GREY, linestyle=":", linewidth=1)
    return figure


def _bars(axes: Axes, bars: pd.DataFrame, title: str) -> None:
    at = range(len(bars))[::-1]
    axes.barh(at, bars.value, color=BLUE, height=0.65)
    spread = [bars.value - bars.low, bars.high - bars.value]
    axes.errorbar(bars.value, at, xerr=spread, fmt="none", ecolor=GREY, capsize=2)
    axes.set_yticks(at, bars.name_)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_formatter("{x:,.0f}" if bars.value.max() > 1000 else "{x:g}")
    axes.set(xlabel=title)


def main(config: BenchConfig) -> None:
    """Measure, print, and write results/data_speed."""
    cores = sorted(os.sched_getaffinity(0))[: config.cores]
    # of this process and all that it starts
    os.sched_setaffinity(0, cores)
    measures = Measures()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        extracts = find_extracts(config.extracts)
        shown = []
        if extracts:
            beside_the_loop(measures, extracts, folder / "extracts", config.repeats)
            shown.append(folder / "extracts")
        make_city(folder / "city.osm.pbf", config.size)
        city = Extract(folder / "city.osm.pbf")
        large = large_and_small(measures, city, folder, config.large)
        tiles = corpus_of_tiles(measures, city, large, config.tiles)
        loader(measures, tiles, config.repeats, config.seconds)
        table = pd.DataFrame(measures.rows)
        count = len(Corpus.open(tiles))
        written = save_figure(
            config.run,
            "data_speed",
            draw(table),
            table,
            caption=CAPTION.format(tiles=count, cores=len(cores)),
            corpus=Corpus.open([*shown, tiles]),
            parameters={
                "extracts": " ".join(path.name for path in extracts),
                "repeats": config.repeats,
                "seconds": config.seconds,
                "large": config.large,
                "tiles": config.tiles,
                "size": config.size,
                "cores": len(cores),
                **{name: version(name) for name in ("osmium", "pyarrow", "datasets")},
            },
        )
    print(f"{written}: table, figure and provenance")


if __name__ == "__main__":
    try:
        main(tyro.cli(BenchConfig))
    except GeoJEPAError as error:
        sys.exit(f"bench_data: {error}")
