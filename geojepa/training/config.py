"""Settings of a training run."""

from dataclasses import asdict, dataclass, field
from math import inf
from typing import Any

from geojepa.errors import GeoJEPAError
from geojepa.model.config import LossConfig, ModelConfig, check_choices


@dataclass(frozen=True)
class MaskConfig:
    """Masking strategies: share of steps, target size and least context, all per mille."""

    random: tuple[int, int, int] = (250, 450, 100)
    contiguous: tuple[int, int, int] = (0, 450, 100)
    area: tuple[int, int, int] = (750, 350, 150)
    modality: tuple[int, int, int] = (0, 450, 150)
    target_sets: int = 4
    shows_targets: bool = False
    """A fault of the released code: where targets leave too little context, it is filled up with
    tokens that stay targets, instead of freeing them."""
    is_unbalanced: bool = False
    """A fault of the released code: strategies are gone through in turn, again and again, each
    taken with its own share, so that the later ones get less than theirs."""

    def __post_init__(self) -> None:
        shares = [share for share, _, _ in self.strategies().values()]
        if min(shares) < 0 or sum(shares) != 1000:
            raise GeoJEPAError(f"masks: shares of {shares} per mille are not 1000 together")
        if not 1 <= self.target_sets <= 8:
            raise GeoJEPAError(f"target_sets {self.target_sets}: give a whole number from 1 to 8")

    def strategies(self) -> dict[str, tuple[int, int, int]]:
        """Strategy -> (share, size, least context), all per mille, in a fixed order."""
        names = ("random", "contiguous", "area", "modality")
        return {name: getattr(self, name) for name in names}

    def shares(self) -> dict[str, int]:
        """Strategy -> how often it is drawn, per mille of the steps, 1000 together."""
        stated = {name: share for name, (share, _, _) in self.strategies().items()}
        if not self.is_unbalanced:
            return stated
        left, taken = 1.0, {}
        for name, share in stated.items():
            taken[name] = left * share / 1000
            left -= taken[name]
        drawn = {name: round(part / (1 - left) * 1000) for name, part in taken.items()}
        return drawn | {"area": drawn["area"] + 1000 - sum(drawn.values())}


@dataclass(frozen=True)
class TrainConfig:
    """Everything that changes the weights of a run, beside the corpus."""

    preset: str = "small-gti"
    model: ModelConfig = field(default_factory=ModelConfig)
    masks: MaskConfig = field(default_factory=MaskConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    epochs: int = 30
    batch_tiles: int = 16
    """Tiles a step, over all processes and passes."""
    pass_tiles: int = 96
    """About how many of them share a forward and backward pass, over all processes. Each pass has
    a loss of its own; their gradients are averaged."""
    learning_rate: float = 1e-3
    final_learning_rate: float = 1e-6
    warm_up: float = 0.1
    """Share of the steps in which the learning rate rises."""
    cooldown: float = 0.9
    """Share of the steps in which it falls, by half a cosine; it is constant between."""
    weight_decay: tuple[float, float] = (0.04, 0.1)
    """At the start of a run and at its last step, linear between."""
    momentum: tuple[float, float] = (0.99, 0.999)
    """Of the teacher, at the start of a run and at its last step, linear between."""
    averaged: str = "path"
    """What of the teacher is a moving average: its whole path, or the encoder alone."""
    clip: float = 10.0
    bfloat16: bool = False
    """Autocast on a GPU; weights, optimiser and losses stay float32."""
    compile: bool = False
    """Whether torch.compile makes the blocks of the networks; it rounds differently."""
    geometry_steps: int = 1500
    """Of the geometry network's pretraining, where the model has one."""
    seed: int = 0
    fold: int = 0
    """Fold held out for testing; -1 trains on every tile."""
    place: str = ""
    """A place whose city is held out instead of a fold."""

    def __post_init__(self) -> None:
        limits = {
            "epochs": (1, 10**6),
            "seed": (0, 2**32 - 1),
            "fold": (-1, 4),
            "batch_tiles": (1, 10**6),
            "pass_tiles": (1, 10**6),
            "geometry_steps": (1, 10**6),
        }
        for name, (least, most) in limits.items():
            value = getattr(self, name)
            if not least <= value <= most:
                raise GeoJEPAError(f"{name} {value}: give a whole number from {least} to {most}")
        for name in ("momentum", "warm_up", "cooldown"):
            value = getattr(self, name)
            if not all(0 <= one <= 1 for one in (value if isinstance(value, tuple) else (value,))):
                raise GeoJEPAError(f"{name} {value}: give numbers from 0 to 1")
        if not (0 < self.learning_rate < inf and self.clip > 0):
            raise GeoJEPAError("learning_rate and clip: give numbers above 0")
        if not all(0 <= one < inf for one in (self.final_learning_rate, *self.weight_decay)):
            raise GeoJEPAError("final_learning_rate and weight_decay: give numbers, 0 or more")
        check_choices(self, averaged=("path", "encoder"))
        if self.warm_up + self.cooldown > 1 + 1e-9:
            raise GeoJEPAError("warm_up and cooldown together are over 1; lower one of the two")
        if self.masks.modality[0] and len(self.model.token_modalities) < 2:
            raise GeoJEPAError("modality masking needs a second modality; give it a share of 0")


def config_from_dict(values: dict) -> TrainConfig:
    """Inverse of `config_to_dict`."""

    def tuples(found: dict[str, Any]) -> dict[str, Any]:
        return {k: tuple(v) if isinstance(v, list) else v for k, v in found.items()}

    parts = {
        "model": ModelConfig(**tuples(values["model"])),
        "masks": MaskConfig(**tuples(values["masks"])),
        "loss": LossConfig(**values["loss"]),
    }
    return TrainConfig(**tuples(values) | parts)


def config_to_dict(config: TrainConfig) -> dict:
    """Plain values for `config.json`."""
    return asdict(config)
