"""Whether a GPU trains as the CPU does: `python scripts/compare_devices.py CORPUS --out FOLDER`.

Both train the first steps of a preset in float32 without dropout and position noise, through the
same code: Triton kernels on one, plain PyTorch on the other. Their losses, step by step, go to
FOLDER/devices.csv; more than 1e-3 apart, relative, is an error.
"""

import json
import math
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import torch
import tyro

from geojepa.data.corpus import Corpus
from geojepa.files import whole
from geojepa.training.config import preset
from geojepa.training.loop import pretrain, steps_per_epoch, training_split

LIMIT = 1e-3


@dataclass(frozen=True)
class CompareConfig:
    """What is trained, and where the table goes."""

    corpus: tyro.conf.Positional[Path]
    out: Path
    steps: int = 50
    preset: str = "small-gti"


def losses(corpus: Corpus, config: CompareConfig, device: str) -> list[float]:
    """The loss of each of the first steps on a device."""
    train = preset(config.preset)
    model = replace(train.model, dropout=0.0, position_noise=0.0)
    parts = training_split(corpus, train.fold)
    tiles = len(parts.train if parts else corpus.usable)
    epochs = math.ceil(config.steps / steps_per_epoch(tiles, train))
    with tempfile.TemporaryDirectory() as folder:
        run = pretrain(corpus, folder, replace(train, model=model, epochs=epochs), device)
        lines = (run / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines[: config.steps]]


def main(config: CompareConfig) -> int:
    """Trains twice, writes the table; 1 if the curves part."""
    if not torch.cuda.is_available():
        print("compare_devices: no GPU is visible to torch; run it where there is one")
        return 2
    torch.backends.cuda.matmul.allow_tf32 = False
    corpus = Corpus.open(config.corpus)
    table = pd.DataFrame({device: losses(corpus, config, device) for device in ("cpu", "cuda")})
    table.insert(0, "step", range(1, len(table) + 1))
    table["relative"] = (table["cuda"] / table["cpu"] - 1).abs()
    config.out.mkdir(parents=True, exist_ok=True)
    with whole(config.out / "devices.csv") as part:
        table.to_csv(part, index=False)
    worst = table["relative"].max()
    print(f"{len(table)} steps, at most {worst:.2e} apart; the limit is {LIMIT}")
    return int(not worst <= LIMIT)


if __name__ == "__main__":
    sys.exit(main(tyro.cli(CompareConfig)))
