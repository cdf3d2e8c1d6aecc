"""Copies a run's figures to results/<place>/ and writes the gallery, results/README.md.

`python -m geojepa.figures.publish RUN`, or `make publish RUN=...`.
"""

import json
import shutil
import sys
from importlib.metadata import version
from pathlib import Path

from geojepa.errors import GeoJEPAError
from geojepa.figures.style import plain
from geojepa.files import whole
from geojepa.model.config import MODALITIES

FILES = ("figure.png", "figure.pdf", "table.csv", "provenance.json")
# the order of the gallery, by notebook
ORDER = {
    "04_embeddings": ("umap", "components", "neighbours"),
    "05_benchmark": ("headline", "benchmark"),
    "03_pretraining": ("curves", "stages"),
    "01_data": ("splits", "entities", "treemap", "tags", "cooccurrence", "tile", "labels"),
    "02_masking": ("masks", "mask_shares"),
    "06_kernels": ("padding", "attention_ways", "generator"),
    "07_ablations": tuple(
        f"ablations_{modalities}{design}{seeds}"
        for modalities in MODALITIES
        for design in ("", "_half")
        for seeds in ("", "_seeds")
    ),
    "08_geometry": ("fields", "shapes"),
    "09_image_leak": ("image_leak",),
    "10_study": tuple(
        f"study_{modalities}{cities}{part}"
        for modalities in MODALITIES
        for cities in ("", "_cities")
        for part in ("", "_tasks", "_longer")
    ),
}
NAMES = tuple(name for names in ORDER.values() for name in names)
TITLE = "GeoJEPA: a notebook-first companion"
HEAD = """# Results

Made by `make reproduce` and `make publish`; do not edit. Each figure is a folder: the picture
(PNG, PDF), the table it was drawn from, and `provenance.json`, which names commit, settings,
inputs, versions and machine. A **made** place does not exist: it shows that everything works, and
says nothing of the world. What the figures say, in words: [findings](FINDINGS.md).
"""
CITE = """## How to cite a figure

Name the figure, the place and the commit, which together fix every number:

> Figure *{figure}* of {place}, in: {title}, version {version}, commit {commit},
> `results/{place}/{figure}`.

and cite the paper whose method it shows, as [CITATION.cff](../CITATION.cff) does: Theodor
Lundqvist and Ludvig Delvret, *GeoJEPA: Towards Eliminating Augmentation- and Sampling Bias in
Multimodal Geospatial Learning*, arXiv:2503.05774, 2025. Keep the attribution of the data that
stands under each picture.
"""


def publish(run: str | Path, results: str | Path = "results") -> list[Path]:
    """Copy a run's figures to `results/<place>/<figure>/` and write the gallery anew.

    Args:
        run: folder of a run, with figures in its own `results/`.
        results: folder of all published places.

    Returns:
        The folders that were copied.

    Raises:
        GeoJEPAError: the run has no figures, or one lacks a file.
    """
    found = sorted(Path(run).glob("results/*/provenance.json"))
    if not found:
        raise GeoJEPAError(f"{run}: has no figures; run its notebooks first (make reproduce)")
    copied = []
    for path in found:
        missing = [name for name in FILES if not (path.parent / name).is_file()]
        if missing:
            raise GeoJEPAError(f"{path.parent}: lacks {', '.join(missing)}; draw the figure again")
        place = Path(results) / _facts(path)["corpus"]["name"]
        with whole(place / path.parent.name) as part:
            shutil.copytree(path.parent, part)
        copied.append(place / path.parent.name)
    settings = sorted(Path(run).glob("*/config.json"))
    if settings:
        with whole(copied[0].parent / "config.json") as part:
            shutil.copyfile(settings[0], part)
    with whole(Path(results) / "README.md") as part:
        part.write_text(gallery(results), encoding="utf-8")
    return copied


def gallery(results: str | Path) -> str:
    """Markdown that shows every published figure, made places last."""
    by_place: dict[str, list[tuple[str, dict]]] = {}
    for path in sorted(Path(results).glob("*/*/provenance.json")):
        by_place.setdefault(path.parent.parent.name, []).append((path.parent.name, _facts(path)))
    if not by_place:
        raise GeoJEPAError(f"{results}: holds no published figure; publish a run first")
    places = sorted(by_place, key=lambda place: (_is_made(by_place[place][0][1]), place))
    parts = [HEAD, "\n".join(f"- [{_title(p, by_place[p])}](#{_anchor(p)})" for p in places) + "\n"]
    for place in places:
        parts.append(_section(Path(results), place, by_place[place]))
    name, facts = min(by_place[places[0]], key=_rank)
    about = {"figure": name, "place": places[0], "commit": _commit(facts)}
    parts.append(CITE.format(title=TITLE, version=version("geojepa"), **about))
    return "\n".join(parts)


def _section(results: Path, place: str, figures: list[tuple[str, dict]]) -> str:
    first = figures[0][1]
    settings = ""
    if (results / place / "config.json").is_file():
        settings = f" Settings of the pretraining: [config.json]({place}/config.json)."
    lines = [
        f'<a id="{_anchor(place)}"></a>\n',
        f"## {_title(place, figures)}\n",
        f"{first['corpus']['tiles']:,} tiles. {plain(first['attribution'], 400)}.{settings}\n",
    ]
    for name, facts in sorted(figures, key=_rank):
        folder = f"{place}/{name}"
        notes = [f"[table]({folder}/table.csv)", f"[PDF]({folder}/figure.pdf)"]
        if (results / folder / "predictions.parquet").is_file():
            notes.append(f"[predictions]({folder}/predictions.parquet)")
        notes.append(f"[provenance]({folder}/provenance.json)")
        notes.append(f"commit {_commit(facts)}")
        given = {key: value for key, value in facts["parameters"].items() if value != ""}
        notes.append(", ".join(f"{key} {plain(value)}" for key, value in given.items()))
        lines.append(f"### {name}\n\n![{name} of {place}]({folder}/figure.png)\n")
        lines.append(f"{plain(facts['caption'], 400)}\n\n{' · '.join(filter(None, notes))}\n")
    return "\n".join(lines)


def _facts(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def _rank(figure: tuple[str, dict]) -> tuple[int, str]:
    name = figure[0]
    return (NAMES.index(name) if name in NAMES else len(NAMES), name)


def _is_made(facts: dict) -> bool:
    return "made city" in facts["attribution"]


def _title(place: str, figures: list[tuple[str, dict]]) -> str:
    return f"{place} (made, no real place)" if _is_made(figures[0][1]) else place


def _anchor(place: str) -> str:
    return f"place-{place}"


def _commit(facts: dict) -> str:
    if not facts["commit"]:
        return "unknown"
    return facts["commit"][:10] + (" with uncommitted changes" if facts["dirty"] else "")


def main() -> None:
    """Publish the run named on the command line."""
    if len(sys.argv) != 2:
        sys.exit("name one run, as in: make publish RUN=runs/lilliput")
    try:
        copied = publish(sys.argv[1])
    except GeoJEPAError as error:
        sys.exit(f"geojepa: {error}")
    print(f"{len(copied)} figures are in {copied[0].parent}; see results/README.md")


if __name__ == "__main__":
    main()
