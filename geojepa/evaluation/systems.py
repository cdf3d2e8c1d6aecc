"""GeoJEPA, pretrained and untrained, as systems of the benchmark, and the benchmark of a run."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from geojepa.data.corpus import Corpus
from geojepa.data.labels import TASKS
from geojepa.data.splits import Split, split_named
from geojepa.errors import GeoJEPAError
from geojepa.evaluation.baselines import baselines
from geojepa.evaluation.benchmark import benchmark
from geojepa.evaluation.results import Results
from geojepa.model.batch import Batches
from geojepa.model.config import ModelConfig
from geojepa.model.embedding import embed_tiles, fit_codebook
from geojepa.model.jepa import GeoJEPA
from geojepa.training.checkpoint import load_run, read_config
from geojepa.training.config import TrainConfig, config_from_dict
from geojepa.training.processes import device_of


def find_runs(folder: str | Path) -> list[Path]:
    """The pretraining runs in a folder, or the folder itself if it is one.

    Raises:
        GeoJEPAError: if there is none.
    """
    folder = Path(folder)
    if (folder / "config.json").is_file():
        return [folder]
    found = sorted(path.parent for path in folder.glob("*/config.json"))
    if not found:
        raise GeoJEPAError(f"{folder}: holds no run; train one with geojepa pretrain")
    return found


def digest(config: TrainConfig | ModelConfig) -> str:
    """Short sha256 of settings that are not at their defaults, but for seed and what is held out.

    It tells a system from another of its name, and outlives settings that come and go.
    """
    if isinstance(config, TrainConfig):
        config = replace(config, seed=0, fold=0, place="")
    text = json.dumps(_chosen(config), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _chosen(config: Any) -> dict[str, Any]:
    given = {field.name: getattr(config, field.name) for field in fields(config)}
    plain = type(config)()
    return {
        name: _chosen(value) if is_dataclass(value) else value
        for name, value in given.items()
        if value != getattr(plain, name)
    }


class Embedder:
    """Embeddings of tiles by view; a tile that a view leaves as it is, is embedded once."""

    def __init__(self, model: GeoJEPA, corpus: Corpus, rows: np.ndarray):
        self.model, self.corpus, self.rows = model, corpus, rows
        self.batches = Batches(corpus, model.config, model.shapes)
        self.shown = embed_tiles(model, self.batches, rows)

    def __call__(self, hide: str | None) -> np.ndarray:
        """Embeddings (T, F) of the view that hides a task."""
        if hide is None:
            return self.shown
        found = self.shown.copy()
        changed = self.corpus.is_changed(self.rows, hide)
        found[changed] = embed_tiles(self.model, self.batches, self.rows[changed], hide)
        return found


class Embedding:
    """What GeoJEPA, pretrained and untrained, share as systems."""

    kind = "frozen"
    probes = None
    per_split: bool
    corpus: Corpus
    computes_on: torch.device
    embedder: Embedder | None = None
    embeds: tuple = ()

    def model(self, split: Split | None, seed: int) -> GeoJEPA:
        """The model that serves a split and seed."""
        raise NotImplementedError

    def features(
        self, rows: np.ndarray, hide: str | None, split: Split | None, seed: int
    ) -> np.ndarray:
        """Embeddings (len(rows), F), see `embed_tiles`."""
        asked = split.name if split and self.per_split else "", seed, rows.tobytes()
        if self.embedder is None or asked != self.embeds:
            model = self.model(split, seed).to(self.computes_on)
            self.embedder = Embedder(model, self.corpus, rows)
            self.embeds = asked
        return self.embedder(hide)


class Untrained(Embedding):
    """The encoder with fresh weights: what the architecture and the frozen inputs give alone."""

    name = "Untrained"
    seconds = 0.0
    device = "cpu"

    def __init__(
        self, corpus: Corpus, config: ModelConfig, seeds: Sequence[int], device: str = "auto"
    ) -> None:
        self.config = config
        self.computes_on = device_of(device)
        self.seeds = tuple(seeds)
        self.modalities = config.modalities.upper()
        self.corpus = corpus
        self.settings = digest(config)
        self.per_split = config.pooling == "counts"
        self.parameters = sum(p.numel() for p in GeoJEPA(config).teacher.parameters())

    def commit(self, split: Split, seed: int) -> str:
        """None: it is not trained."""
        return ""

    def model(self, split: Split | None, seed: int) -> GeoJEPA:
        """The weights that pretraining starts from; a codebook of the split's training tiles."""
        torch.manual_seed(seed)
        model = GeoJEPA(self.config).eval()
        batches = Batches(self.corpus, self.config, model.shapes)
        fit_codebook(model, batches, split.train if split else self.corpus.usable)
        return model

    def seen(self, split: Split, seed: int) -> None:
        """No tile."""


class Pretrained(Embedding):
    """GeoJEPA's frozen teacher; one run for each split and seed."""

    per_split = True

    def __init__(
        self,
        corpus: Corpus,
        runs: Sequence[Path],
        name: str = "",
        weights: Literal["last", "best"] = "last",
        device: str = "auto",
    ) -> None:
        self.computes_on = device_of(device)
        facts = [read_config(run) for run in runs]
        self.runs = {
            (one["split"]["name"], one["train"]["seed"]): run
            for one, run in zip(facts, runs, strict=True)
        }
        settings = {digest(config_from_dict(one["train"])) for one in facts}
        if len(settings) > 1 or len(self.runs) < len(runs):
            raise GeoJEPAError(
                f"{runs[0].parent}: holds runs of different settings, or two of one fold and seed; "
                "benchmark one preset at a time, each in a folder of its own"
            )
        self.splits = list(dict.fromkeys(name for name, _ in self.runs))
        self.seeds = tuple(sorted({seed for _, seed in self.runs}))
        about = facts[0]["train"]["preset"] + ", best weights" * (weights == "best")
        self.name = name or f"GeoJEPA ({about})"
        model, config, _ = load_run(runs[0])
        self.config, self.settings = config.model, digest(config)
        self.modalities = config.model.modalities.upper()
        self.parameters = sum(p.numel() for p in model.teacher.parameters())
        self.seconds = float(np.mean([one.get("seconds", np.nan) for one in facts]))
        self.device = facts[0].get("device", "")
        self.corpus = corpus
        self.weights = weights

    def run(self, split: Split | None, seed: int) -> Path:
        """The run of a split and seed; the only run of a seed serves every split.

        What it was trained on is another question: see `seen`.
        """
        of_seed = [run for (_, its), run in self.runs.items() if its == seed]
        name = split.name if split else ""
        if (name, seed) in self.runs or len(of_seed) == 1:
            return self.runs.get((name, seed), of_seed[0])
        have = ", ".join(f"{its} seed {number}" for its, number in self.runs)
        raise GeoJEPAError(f"no run for {name} seed {seed}, only {have}; pretrain it first")

    def seen(self, split: Split, seed: int) -> np.ndarray:
        """Tiles that the run was trained on, and those whose labels chose its best weights."""
        seen = json.loads((self.run(split, seed) / "seen.json").read_text())
        chose = seen.get("validation", []) if self.weights == "best" else []
        return np.array(seen["tiles"] + chose, object)

    def commit(self, split: Split, seed: int) -> str:
        """Of the code that trained the run."""
        return read_config(self.run(split, seed)).get("commit") or ""

    def model(self, split: Split | None, seed: int) -> GeoJEPA:
        """The model of a run."""
        return load_run(self.run(split, seed), self.weights)[0]


def benchmark_run(
    run: str | Path,
    corpus: Corpus,
    tasks: Sequence[str] = TASKS,
    masked: Sequence[bool] = (False, True),
    probes: Sequence[str] = ("LIN", "MLP"),
    probe_seeds: int = 1,
    split: str | None = None,
    transductive: bool = False,
    rule: str = "exact",
    weights: Literal["last", "best"] = "last",
    device: str = "auto",
) -> Results:
    """Measure the runs of a folder beside every baseline, on the splits they held out.

    Args:
        run: folder of runs, or one run.
        corpus: the tiles that they were trained on.
        tasks, masked, probes, transductive, rule: as in `benchmark`.
        probe_seeds: how many seeds for heads that draw.
        split: test on this split instead, such as "fold 1 of 5" or "place malta".
        weights: of the runs, see `load_run`.
        device: where tiles are embedded: "cpu", "cuda", or "auto" for a GPU where there is one.

    Raises:
        GeoJEPAError: see `benchmark`; also if a run held nothing out and no split is named.
    """
    trained = Pretrained(corpus, find_runs(run), weights=weights, device=device)
    names = [split] if split else trained.splits
    if "none held out" in names:
        raise GeoJEPAError(
            f"{run}: was trained on every tile; name a --split and accept it with --transductive"
        )
    untrained = Untrained(corpus, trained.config, trained.seeds, device)
    return benchmark(
        [*baselines(corpus), untrained, trained],
        corpus,
        [split_named(corpus.tiles, name) for name in names],
        tasks,
        masked,
        probes,
        range(probe_seeds),
        transductive=transductive,
        rule=rule,
    )
