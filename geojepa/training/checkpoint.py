"""The folder of a run: config.json, model.safetensors, checkpoint.safetensors, metrics.jsonl.

Tensors are safetensors and everything else is JSON, so that loading runs no code.
"""

import json
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from geojepa.errors import GeoJEPAError
from geojepa.files import whole
from geojepa.model.batch import Batches
from geojepa.model.embedding import fit_codebook
from geojepa.model.jepa import GeoJEPA
from geojepa.model.modalities import backbone_of
from geojepa.training.config import TrainConfig, config_from_dict


def save_json(path: Path, values: dict) -> None:
    """Write `values` to a file that appears whole."""
    with whole(path) as part:
        part.write_text(json.dumps(values, indent=1, ensure_ascii=False))


def save_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write tensors to a safetensors file that appears whole."""
    with whole(path) as part:
        save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, part, metadata)


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file.

    Raises:
        GeoJEPAError: if the file is missing or damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            names = file.keys()
            return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
    except Exception as error:  # safetensors has errors of its own, and the file may be missing
        raise GeoJEPAError(f"{path}: not a readable checkpoint; train the run again") from error


def save_checkpoint(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, **told: str | int | float
) -> None:
    """What training needs to go on as if it had never stopped, and what else is told.

    The random state is not among it: each step seeds its own.
    """
    tensors = {f"model.{k}": v for k, v in model.state_dict().items()}
    for name, state in _named_state(model, optimizer).items():
        tensors |= {f"optimizer.{name}.{k}": v for k, v in state.items()}
    save_tensors(path, tensors, {name: str(value) for name, value in told.items()})


def load_checkpoint(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer
) -> dict[str, str]:
    """Restore a checkpoint in place; returns what was told with it."""
    tensors, metadata = load_tensors(path)
    load_weights(model, {k[6:]: v for k, v in tensors.items() if k.startswith("model.")}, path)
    for name, parameter in _trained(model).items():
        prefix = f"optimizer.{name}."
        optimizer.state[parameter] = {
            # the count of steps stays on the CPU, as AdamW keeps it; the rest is copied out of the
            # file's memory, which may start anywhere
            k[len(prefix) :]: v if k.endswith(".step") else v.to(parameter.device, copy=True)
            for k, v in tensors.items()
            if k.startswith(prefix)
        }
    return metadata


def load_weights(model: nn.Module, weights: dict[str, Tensor], path: Path) -> None:
    """Put weights into a model of the same shape.

    Raises:
        GeoJEPAError: if names or shapes differ.
    """
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise GeoJEPAError(
            f"{path}: holds weights of another model; give the run's own config.json and weights"
        ) from error


class Best:
    """The weights of the best moment of a run: by the probe, without labels by the rank.

    Never by the loss, which falls while the representation gets worse.

    Attributes:
        facts: step, measure and score of the best, empty before the first.
    """

    def __init__(self, path: Path):
        self.path = path
        self.facts: dict[str, str | int | float] = {}
        if path.exists():
            told = load_tensors(path)[1]
            measure, score = told["measure"], float(told["score"])
            self.facts = {"step": int(told["step"]), "measure": measure, "score": score}

    def offer(self, model: GeoJEPA, step: int, measured: dict[str, float]) -> None:
        """Keep the weights if what was measured of them is better than ever."""
        measure = "probe" if "probe" in measured else "effective_rank"
        score = measured[measure]
        if self.facts and score <= float(self.facts["score"]):
            return
        self.facts = {"step": step, "measure": measure, "score": score}
        told = {name: repr(v) if name == "score" else str(v) for name, v in self.facts.items()}
        save_tensors(self.path, dict(model.state_dict()), told)

    def give_words(self, model: GeoJEPA, batches: Batches, rows: np.ndarray) -> None:
        """Fit the codebook of the best weights to as many tiles as that of the last ones.

        While a run is watched it is fitted to few. The model then holds the best weights.
        """
        weights, told = load_tensors(self.path)
        load_weights(model, weights, self.path)
        fit_codebook(model, batches, rows)
        save_tensors(self.path, dict(model.state_dict()), told)


def load_run(
    run: str | Path, weights: Literal["last", "best"] = "last"
) -> tuple[GeoJEPA, TrainConfig, dict]:
    """A finished run: its model in evaluation mode, its settings and the facts of its config.json.

    Args:
        run: its folder.
        weights: of its end, or of the moment that `Best` kept.

    Raises:
        GeoJEPAError: if the folder is no run, is unfinished, or holds another model's weights.
    """
    folder = Path(run)
    facts = read_config(folder)
    try:
        config = config_from_dict(facts["train"])
    except (KeyError, TypeError) as error:
        raise GeoJEPAError(
            f"{folder}/config.json: of another version of geojepa; train the run again"
        ) from error
    if not (folder / "model.safetensors").is_file():
        raise GeoJEPAError(f"{folder}: pretraining has not finished; run geojepa pretrain again")
    backbone = backbone_of(config.model)
    if backbone and backbone.sha256 != facts.get("image", {}).get("sha256"):
        raise GeoJEPAError(
            f"{config.model.image}: holds other weights than {folder} was trained with; "
            "give back the ones that its config.json names"
        )
    model = GeoJEPA(config.model)
    path = folder / {"last": "model.safetensors", "best": "best.safetensors"}[weights]
    load_weights(model, load_tensors(path)[0], path)
    return model.eval(), config, facts


def load(run: str | Path, weights: Literal["last", "best"] = "last") -> GeoJEPA:
    """The model of a finished run, in evaluation mode; see `load_run`."""
    return load_run(run, weights)[0]


def read_config(folder: Path) -> dict:
    """The facts in a run's config.json.

    Raises:
        GeoJEPAError: if it is missing or damaged.
    """
    path = Path(folder) / "config.json"
    if not path.is_file():
        raise GeoJEPAError(f"{folder}: not a run (no config.json); train one with geojepa pretrain")
    try:
        return json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise GeoJEPAError(f"{path}: damaged; train the run again") from error


def is_new_run(out: Path, facts: dict) -> bool:
    """Whether a folder holds no run yet; one that it holds must be of the same facts.

    Raises:
        GeoJEPAError: if its run has other settings, or another corpus.
    """
    if not (out / "config.json").exists():
        return True
    # Through JSON, so that tuples and lists compare equal.
    wanted = json.loads(json.dumps(facts))
    found = read_config(out)
    for part in facts:
        if part == "train" and settings_of(found) == settings_of(wanted):
            continue
        if found.get(part) != wanted[part]:
            raise GeoJEPAError(
                f"{out}: holds a run with another {part} setting; choose another --out, "
                "or remove the folder"
            )
    return False


def settings_of(facts: dict) -> TrainConfig | None:
    """Settings with what they lack at its default: a run from before a setting existed goes on."""
    try:
        return config_from_dict(facts["train"])
    except (KeyError, TypeError, GeoJEPAError):
        return None


def _trained(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def _named_state(
    model: nn.Module, optimizer: torch.optim.Optimizer
) -> dict[str, dict[str, Tensor]]:
    return {name: optimizer.state[p] for name, p in _trained(model).items() if p in optimizer.state}
