"""The sample city and its corpus, made once for all tests; how kernels run in tests."""

import os
from typing import TYPE_CHECKING

import pytest
import torch

# before any kernel is imported: without a GPU, Triton's interpreter runs them on the CPU
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"
# what PyTorch's deterministic mode asks of cuBLAS
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from geojepa.data.city import CityFiles
    from geojepa.data.corpus import Corpus
    from geojepa.training.config import TrainConfig


@pytest.fixture(scope="session")
def city(tmp_path_factory: pytest.TempPathFactory) -> "CityFiles":
    """The smallest sample city."""
    # imported late: the tests of kernels also run where only PyTorch and Triton are installed
    from geojepa.data.city import build_city

    return build_city(tmp_path_factory.mktemp("city"), size=6)


@pytest.fixture(scope="session")
def tiny_corpus(city: "CityFiles", tmp_path_factory: pytest.TempPathFactory) -> "Corpus":
    """The smallest sample city with its picture, opened."""
    from geojepa.data.corpus import Corpus
    from geojepa.data.prepare import prepare

    folder = tmp_path_factory.mktemp("corpus") / "lilliput"
    return Corpus.open(prepare([city.extract], folder, imagery=city.imagery, credit="made by us"))


@pytest.fixture(scope="session")
def wide_corpus(tmp_path_factory: pytest.TempPathFactory) -> "Corpus":
    """A city without a picture, of so many blocks that training tiles can be split again."""
    from geojepa.data.city import build_city
    from geojepa.data.corpus import Corpus
    from geojepa.data.prepare import prepare

    folder = tmp_path_factory.mktemp("wide")
    city = build_city(folder, size=12)
    return Corpus.open(prepare([city.extract], folder / "corpus"))


@pytest.fixture
def stopped_and_resumed(monkeypatch: pytest.MonkeyPatch) -> "Callable[..., Path]":
    """`pretrain` on the CPU, stopped as it first saves, and called again."""
    from geojepa.training import loop, record

    class Stopped(Exception):
        pass

    def train(corpus: "Corpus", out: "Path", config: "TrainConfig") -> "Path":
        save = record.save_checkpoint

        def save_and_stop(*values, **told):
            save(*values, **told)
            raise Stopped

        with monkeypatch.context() as patch:
            patch.setattr(record, "SAVE_SECONDS", -1.0)
            patch.setattr(record, "save_checkpoint", save_and_stop)
            with pytest.raises(Stopped):
                loop.pretrain(corpus, out, config, "cpu")
        return loop.pretrain(corpus, out, config, "cpu")

    return train
