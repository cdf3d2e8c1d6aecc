"""All that only a GPU can show, in one command: `make check-gpu`, or, where only PyTorch is,

    PYTHONPATH=.:kernels python3 scripts/check_gpu.py --corpus CORPUS --out FOLDER

Four parts, which --parts selects where a lease is short: the tests of the kernels on the GPU, in
bfloat16 too; the losses of 50 training steps beside the CPU's, and the rate of training, on a
prepared corpus with images (these need geojepa's readers: shapely, geopandas, pyproj); the
benchmark. Where there is no git, GEOJEPA_COMMIT names the code.
"""

import argparse
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import torch

PARTS = ("tests", "training", "rate", "benchmark")
OF_A_CORPUS = ("training", "rate")
ROOT = Path(__file__).parents[1]
TESTS = [
    f"tests/test_{name}.py"
    for name in ("attention", "shared_context", "masking_kernel", "masking_gpu")
]


def run(*arguments: str) -> bool:
    """Whether a Python command of this repository ends well."""
    print("$ python", *arguments, flush=True)
    paths = os.pathsep.join(map(str, (ROOT, ROOT / "kernels")))
    environment = os.environ | {"PYTHONPATH": paths + os.pathsep + os.environ.get("PYTHONPATH", "")}
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, env=environment).returncode == 0


def main() -> int:
    """Runs every part; 1 if one failed, 2 without a GPU."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--corpus",
        type=Path,
        help="a prepared corpus, as of lilliput; without one nothing is trained",
    )
    parser.add_argument("--out", type=Path, default=ROOT / "results/kernels")
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=PARTS)
    parser.add_argument("--budget", default="420", help="seconds of the benchmark")
    options = parser.parse_args()
    if options.corpus is None and options.parts is not PARTS:
        for part in set(options.parts) & set(OF_A_CORPUS):
            parser.error(f"part {part} needs a corpus: give --corpus")
    if not torch.cuda.is_available():
        print("check_gpu: no GPU is visible to torch; run it where there is one", file=sys.stderr)
        return 2
    out = str(options.out.resolve())
    corpus = str(options.corpus.resolve()) if options.corpus else ""
    # compilation is most of the tests' time, and a fault of one worker is not the others'
    workers = ("-n", "8") if find_spec("xdist") else ()
    commands = {
        "tests": ("-m", "pytest", "-q", "-p", "no:cacheprovider", *workers, *TESTS),
        "training": ("scripts/compare_devices.py", corpus, "--out", out),
        "rate": ("scripts/train_rate.py", corpus, "--out", out),
        "benchmark": ("scripts/bench_kernels.py", "--out", out, "--budget", options.budget),
    }
    wanted = [part for part in options.parts if corpus or part not in OF_A_CORPUS]
    parts = {part: run(*commands[part]) for part in wanted}
    for part in options.parts:
        said = {True: "well", False: "FAILED", None: "not run: give --corpus"}[parts.get(part)]
        print(f"{part}: {said}")
    return int(not all(parts.values()))


if __name__ == "__main__":
    sys.exit(main())
