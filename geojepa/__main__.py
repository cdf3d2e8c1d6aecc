"""The command line: `geojepa` and `python -m geojepa` are one."""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from geojepa.errors import GeoJEPAError

Device = Literal["auto", "cpu", "cuda"]
Rule = Literal["exact", "paper"]
Weights = Literal["last", "best"]


def city(out: Path = Path("data"), seed: int = 0, size: int = 28) -> None:
    """Make the sample city lilliput: an extract, an orthophoto and its true quarters.

    Args:
        out: folder of the three files.
        seed: of the city.
        size: tiles along one side.
    """
    from geojepa.data.city import build_city

    files = build_city(out, seed=seed, size=size)
    print(f"wrote {files.extract}, {files.imagery} and {files.quarters}")


def prepare(
    extracts: Annotated[list[str], tyro.conf.Positional],
    out: Path,
    footprints: Path | None = None,
    imagery: str | None = None,
    credit: str = "",
    simplify: float = 0.0,
    processes: int = 0,
) -> None:
    """Turn extracts (.osm.pbf, or GeoParquet of features) into one corpus.

    Args:
        extracts: one a place: a file, a URL, a place of the catalogue (malta), or a region of
            Geofabrik (europe/malta).
        out: folder of the corpus.
        footprints: polygons to cut to (GeoParquet); zoom-16 tiles without.
        imagery: a GeoTIFF or VRT, a folder of images named by tile or of GeoTIFFs, xyz:PROVIDER,
            a URL with {z}, {x} and {y}, or stac:naip.
        credit: whose the imagery is, as every figure will say; what the source says without.
        simplify: metres to which outlines are simplified; 0.3 halves many.
        processes: at work at once; as many as there are cores without.
    """
    from geojepa.data.prepare import prepare as run
    from geojepa.data.prepare import prepared_text

    run(extracts, out, footprints, imagery, credit, simplify, processes)
    print(prepared_text(out))


def inspect(
    corpora: Annotated[list[Path], tyro.conf.Positional],
    json_: Annotated[bool, tyro.conf.arg(name="json")] = False,
    labels: Path | None = None,
    rule: Rule = "exact",
) -> None:
    """Say what is in a corpus: tiles, entities, tags, labels, splits.

    Args:
        corpora: folders made by prepare.
        json_: print JSON.
        labels: also write one line a tile to this CSV file.
        rule: of the labels: ours, or the paper's with the tiles that it keeps.
    """
    from geojepa.data.corpus import Corpus
    from geojepa.data.inspect import summary, summary_text, write_labels
    from geojepa.model.tags import TagTable

    corpus = Corpus.open(corpora)
    coverage = TagTable.load().coverage(corpus.vocabulary, corpus.tag_uses.tolist())
    found = summary(corpus, rule) | {"tag_coverage": coverage}
    if json_:
        print(json.dumps(found, indent=1))
    else:
        print(summary_text(found))
        told = ", ".join(f"{match} {count:,}" for match, count in coverage.items())
        print(f"tags in the table of embeddings: {told}")
    if labels:
        write_labels(corpus, labels, rule)


def pretrain(
    corpora: Annotated[list[Path], tyro.conf.Positional],
    out: Path,
    preset: str | None = None,
    fold: int = 0,
    place: str = "",
    seed: int = 0,
    epochs: int | None = None,
    image: str = "patches",
    compile: bool = False,
    device: Device = "auto",
    tensorboard: bool = False,
) -> None:
    """Pretrain GeoJEPA; the same command again goes on where it stopped.

    Args:
        corpora: folders made by prepare.
        out: folder of the run.
        preset: settings by name; small-gti for a corpus with images, else small-gt.
        fold: of five, held out for the benchmark; -1 trains on every tile.
        place: whose city is held out instead of a fold.
        seed: of weights, order and masks.
        epochs: in place of the preset's.
        image: tokens of images: patches, or a frozen vision transformer by hub name or folder.
        compile: the blocks of the networks by torch.compile, minutes before the first step.
        device: where to compute.
        tensorboard: also write the numbers of metrics.jsonl to a folder tensorboard of the run.
    """
    from geojepa.data.corpus import Corpus
    from geojepa.training.loop import pretrain as run
    from geojepa.training.presets import preset as settings

    corpus = Corpus.open(corpora)
    default = "small-gti" if corpus.has_images else "small-gt"
    config = replace(settings(preset or default), seed=seed, fold=fold, place=place)
    config = replace(config, compile=compile)
    config = replace(config, model=replace(config.model, image=image))
    if epochs is not None:
        config = replace(config, epochs=epochs)
    folder = run(corpus, out, config, device, tensorboard)
    if os.environ.get("RANK", "0") == "0":
        print(f"{folder}: pretrained")


def embed(
    run: Annotated[Path, tyro.conf.Positional],
    corpora: Annotated[list[Path], tyro.conf.Positional],
    out: Path,
    entities: bool = False,
    weights: Weights = "last",
    device: Device = "auto",
) -> None:
    """Write embeddings as GeoParquet: footprint or entity geometry, embedding, model id.

    Args:
        run: folder of a pretraining run.
        corpora: folders made by prepare.
        out: the GeoParquet file.
        entities: one row an entity instead of one a tile.
        weights: of the run's end, or of its best moment by the probe on validation tiles.
        device: where to compute.
    """
    from geojepa.data.corpus import Corpus
    from geojepa.model.embedding import write_embeddings
    from geojepa.training.checkpoint import load_run
    from geojepa.training.processes import device_of

    model, _, facts = load_run(run, weights)
    model = model.to(device_of(device))
    told = facts | {"weights": weights}
    rows = write_embeddings(model, Corpus.open(corpora), out, told, entities)
    print(f"{out}: {rows} embeddings")


def benchmark(
    run: Annotated[Path, tyro.conf.Positional],
    corpora: Annotated[list[Path], tyro.conf.Positional],
    task: tuple[str, ...] = (),
    masked: bool = False,
    probes: tuple[str, ...] = ("LIN", "MLP"),
    probe_seeds: int = 1,
    split: str | None = None,
    transductive: bool = False,
    rule: Rule = "exact",
    weights: Weights = "last",
    device: Device = "auto",
    out: Path | None = None,
) -> None:
    """Measure a run beside every baseline and print a tidy table.

    Args:
        run: folder of a run, or of several (folds and seeds of one preset).
        corpora: folders made by prepare.
        task: of the five; all without.
        masked: only with the evidence of the task removed; both versions without.
        probes: heads: LIN, MLP, kNN, GBM.
        probe_seeds: seeds of the heads that draw.
        split: such as "fold 1 of 5"; without, the splits that the runs held out.
        transductive: accept test tiles that the run has seen, and say so in the table.
        rule: of the labels: ours, or the paper's on the tiles that it keeps.
        weights: of the run's end, or of its best moment by the probe on validation tiles.
        device: where to compute.
        out: also write the whole table to this CSV file.
    """
    from geojepa.data.corpus import Corpus
    from geojepa.data.labels import TASKS
    from geojepa.evaluation.systems import benchmark_run
    from geojepa.files import whole

    results = benchmark_run(
        run,
        Corpus.open(corpora),
        task or TASKS,
        (True,) if masked else (False, True),
        probes,
        probe_seeds,
        split,
        transductive,
        rule,
        weights,
        device,
    )
    columns = ["system", "probe", "task", "rule", "masked", "thinned", "n_test", "positives"]
    columns += ["mae", "skill", "auroc", "average_precision", "spearman", "transductive"]
    print(results.table[columns].to_string(index=False, float_format="{:.3f}".format))
    if out:
        with whole(out) as part:
            results.table.to_csv(part, index=False)


def _command() -> None:
    commands = {f.__name__: f for f in (city, prepare, inspect, pretrain, embed, benchmark)}
    tyro.extras.subcommand_cli_from_dict(commands, prog="geojepa", description=__doc__)


def main() -> None:
    """Run one command; a mistake in the input is one line and exit status 2."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        _command()
    except (GeoJEPAError, OSError) as error:
        print(f"geojepa: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("geojepa: interrupted", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
