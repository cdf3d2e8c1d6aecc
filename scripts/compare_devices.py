"""Whether a GPU trains as the CPU does: `python scripts/compare_devices.py CORPUS --out FOLDER`.

Both train the first steps of a preset in float32 without dropout and position noise, through the
same code: Triton kernels on one, plain PyTorch on the other. Their losses, step by step, go to
FOLDER/devices.csv; more than 1e-3 apart, relative, is an error.
"""

import argparse
import json
import math
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch

from geojepa.data.corpus import Corpus
from geojepa.files import whole
from geojepa.training.loop import pretrain, training_split
from geojepa.training.presets import preset
from geojepa.training.sampling import steps_per_epoch

LIMIT = 1e-3


def losses(corpus: Corpus, name: str, steps: int, device: str) -> list[float]:
    """The loss of each of the first steps of a preset on a device."""
    train = preset(name)
    model = replace(train.model, dropout=0.0, position_noise=0.0)
    parts = training_split(corpus, train.fold)
    tiles = len(parts.train if parts else corpus.usable)
    epochs = math.ceil(steps / steps_per_epoch(tiles, train))
    train = replace(train, model=model, epochs=epochs, bfloat16=False)
    with tempfile.TemporaryDirectory() as folder:
        run = pretrain(corpus, folder, train, device)
        lines = (run / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines[:steps]]


def main() -> int:
    """Trains twice, writes the table; 1 if the curves part."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--preset", default="small-gti")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("compare_devices: no GPU is visible to torch; run it where there is one")
        return 2
    torch.backends.cuda.matmul.allow_tf32 = False
    corpus = Corpus.open(options.corpus)
    curves = {d: losses(corpus, options.preset, options.steps, d) for d in ("cpu", "cuda")}
    table = pd.DataFrame(curves)
    table.insert(0, "step", range(1, len(table) + 1))
    table["relative"] = (table["cuda"] / table["cpu"] - 1).abs()
    options.out.mkdir(parents=True, exist_ok=True)
    with whole(options.out / "devices.csv") as part:
        table.to_csv(part, index=False)
    worst = table["relative"].max()
    print(f"{len(table)} steps, at most {worst:.2e} apart; the limit is {LIMIT}")
    return int(not worst <= LIMIT)


if __name__ == "__main__":
    sys.exit(main())
