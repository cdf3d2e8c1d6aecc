"""A figure as it is published: picture, table and where both come from, in one folder."""

import json
import platform
import textwrap
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import torch
from matplotlib.figure import Figure

from geojepa.data.corpus import Corpus
from geojepa.errors import GeoJEPAError
from geojepa.figures.style import GREY, plain
from geojepa.files import whole
from geojepa.origin import code_state, version_of

PACKAGES = (
    "geojepa",
    "torch",
    "numpy",
    "scipy",
    "pandas",
    "shapely",
    "geopandas",
    "scikit-learn",
    "umap-learn",
    "matplotlib",
)
_STARTED = time.monotonic()

Scalar = str | int | float | None


def save_figure(
    run: str | Path,
    name: str,
    figure: Figure,
    table: pd.DataFrame,
    *,
    caption: str,
    corpus: Corpus,
    parameters: Mapping[str, Scalar],
) -> Path:
    """Write `run/results/name/`: figure.png, figure.pdf, table.csv and provenance.json.

    The folder appears whole. The corpus's attribution is drawn below the figure.

    Args:
        run: folder of the run.
        name: of the figure, letters, digits, "_" and "-".
        figure: to save; it is not closed.
        table: what the figure was drawn from.
        caption: one sentence.
        corpus: what the figure shows.
        parameters: of the notebook.

    Returns:
        The folder.

    Raises:
        GeoJEPAError: if the name cannot be a folder's, or the table is empty.
    """
    if not name.replace("_", "").replace("-", "").isalnum():
        raise GeoJEPAError(f"figure {name!r}: use letters, digits, _ and - in its name")
    if not len(table):
        raise GeoJEPAError(f"figure {name}: its table is empty; nothing was computed to draw")
    attribute(figure, credit(corpus))
    facts = provenance(name, caption, corpus, parameters)
    with whole(Path(run) / "results" / name) as part:
        part.mkdir()
        figure.savefig(part / "figure.png", dpi=150, bbox_inches="tight")
        # without its date a PDF of the same figure has the same bytes
        figure.savefig(
            part / "figure.pdf", dpi=150, bbox_inches="tight", metadata={"CreationDate": None}
        )
        table.to_csv(part / "table.csv", index=False, float_format="%.7g")
        text = json.dumps(facts, indent=1, ensure_ascii=False)
        (part / "provenance.json").write_text(text + "\n", encoding="utf-8")
    return Path(run) / "results" / name


def credit(corpus: Corpus) -> str:
    """Whose data a figure of this corpus shows: the map's, and the images' if there are any."""
    credits = [info["imagery_credit"] for info in corpus.infos if info["imagery_credit"]]
    return "; ".join([corpus.attribution, *(f"images: {one}" for one in dict.fromkeys(credits))])


def attribute(figure: Figure, text: str) -> None:
    """Draw the sources of a figure below it, once."""
    # laid out once and then held, which saves time; else a legend below is drawn over the note
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for legend in figure.legends:
        legend.set_bbox_to_anchor((0, 0, 1, 1), transform=figure.transFigure)
    for old in [t for t in figure.texts if t.get_gid() == "attribution"]:
        old.remove()
    # about 16 characters of this size an inch
    lines = textwrap.fill(plain(text, 400), max(20, round(16 * figure.get_figwidth())))
    note = figure.text(0.0, -0.01, lines, fontsize=7, color=GREY, ha="left", va="top")
    note.set_gid("attribution")
    note.set_in_layout(True)


def provenance(
    name: str, caption: str, corpus: Corpus, parameters: Mapping[str, Scalar]
) -> dict[str, object]:
    """What a reader needs to make a figure again: code, settings, inputs, machine.

    `dirty` tells whether the code differed from its commit; both are None outside a repository.
    `seconds` have passed since this process first imported the module.
    """
    return {
        "figure": name,
        "caption": caption,
        "attribution": credit(corpus),
        **code_state(Path(__file__).parent),
        "parameters": dict(parameters),
        "seed": parameters.get("seed", parameters.get("seeds")),
        "corpus": {"name": corpus.name, "hash": corpus.hash, "tiles": len(corpus)},
        "python": platform.python_version(),
        "versions": {package: version_of(package) for package in PACKAGES},
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "cpu": _cpu(),
        "threads": torch.get_num_threads(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(time.monotonic() - _STARTED, 1),
    }


def _cpu() -> str:
    """The processor's name where Linux tells it, else the machine's kind."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
