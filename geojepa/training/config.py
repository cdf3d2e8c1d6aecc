"""Settings of a training run, and the presets."""

from dataclasses import asdict, dataclass, field
from typing import Any

from geojepa.errors import GeoJEPAError
from geojepa.model.config import ModelConfig


@dataclass(frozen=True)
class MaskConfig:
    """Masking strategies: share of steps, target size and least context, all per mille."""

    random: tuple[int, int, int] = (250, 450, 100)
    area: tuple[int, int, int] = (750, 350, 150)
    modality: tuple[int, int, int] = (0, 450, 150)
    target_sets: int = 4

    def strategies(self) -> dict[str, tuple[int, int, int]]:
        """Strategy -> (share, size, least context), all per mille, in a fixed order."""
        return {"random": self.random, "area": self.area, "modality": self.modality}


@dataclass(frozen=True)
class TrainConfig:
    """Everything that changes the weights of a run, beside the corpus."""

    preset: str = "small-gti"
    model: ModelConfig = field(default_factory=ModelConfig)
    masks: MaskConfig = field(default_factory=MaskConfig)
    epochs: int = 30
    batch_tiles: int = 16
    learning_rate: float = 1e-3
    final_learning_rate: float = 1e-6
    warm_up: float = 0.1
    """Share of the steps in which the learning rate rises."""
    weight_decay: tuple[float, float] = (0.04, 0.1)
    momentum: tuple[float, float] = (0.99, 0.999)
    """Of the teacher, first and last step, linear between."""
    vicreg_weight: float = 0.002
    beta: float = 1.0
    clip: float = 10.0
    seed: int = 0
    fold: int = 0
    """Fold held out for testing; -1 trains on every tile."""

    def __post_init__(self) -> None:
        limits = {"epochs": (1, 10**6), "seed": (0, 2**32 - 1), "fold": (-1, 4)}
        for name, (least, most) in limits.items():
            value = getattr(self, name)
            if not least <= value <= most:
                raise GeoJEPAError(f"{name} {value}: give a whole number from {least} to {most}")


_GTI_MASKS = MaskConfig(random=(200, 450, 100), area=(600, 350, 150), modality=(200, 450, 150))

PRESETS = {
    "small-t": TrainConfig("small-t", ModelConfig("t")),
    "small-gt": TrainConfig("small-gt", ModelConfig("gt")),
    "small-ti": TrainConfig("small-ti", ModelConfig("ti"), _GTI_MASKS),
    "small-gti": TrainConfig("small-gti", ModelConfig("gti"), _GTI_MASKS),
}


def preset(name: str) -> TrainConfig:
    """The preset of this name.

    Raises:
        GeoJEPAError: if there is none.
    """
    if name not in PRESETS:
        raise GeoJEPAError(f"preset {name!r} does not exist; choose one of {', '.join(PRESETS)}")
    return PRESETS[name]


def config_from_dict(values: dict) -> TrainConfig:
    """Inverse of `dataclasses.asdict`."""

    def tuples(found: dict[str, Any]) -> dict[str, Any]:
        return {k: tuple(v) if isinstance(v, list) else v for k, v in found.items()}

    parts = {
        "model": ModelConfig(**values["model"]),
        "masks": MaskConfig(**tuples(values["masks"])),
    }
    return TrainConfig(**tuples(values) | parts)


def config_to_dict(config: TrainConfig) -> dict:
    """Plain values for `config.json`."""
    return asdict(config)
