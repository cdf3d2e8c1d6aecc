"""One pretraining run of the workflow: a stopped one goes on, one of other settings goes away."""

import shutil
import sys
from dataclasses import replace
from pathlib import Path

from geojepa.data.corpus import Corpus
from geojepa.errors import GeoJEPAError
from geojepa.training.checkpoint import read_config, settings_of
from geojepa.training.loop import pretrain
from geojepa.training.presets import preset

job = snakemake  # noqa: F821  given by Snakemake
folder = Path(job.output[0]).parent
fold, seed = int(job.wildcards.fold), int(job.wildcards.seed)
print(f"pretraining {job.params.preset}, fold {fold}, seed {seed} ...", flush=True)
try:
    config = replace(preset(job.params.preset), fold=fold, seed=seed)
    if job.params.epochs:
        config = replace(config, epochs=job.params.epochs)
    corpus = Corpus.open(job.params.corpus)
    if (folder / "config.json").exists():
        facts = read_config(folder)
        if settings_of(facts) != config or facts["corpus"]["hash"] != corpus.hash:
            print(f"{folder}: held a run of other settings; starting anew", flush=True)
            shutil.rmtree(folder)
    pretrain(corpus, folder, config, job.config["device"])
except GeoJEPAError as error:
    sys.exit(f"geojepa: {error}")
