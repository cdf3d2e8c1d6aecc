"""Settings of the model: what changes its weights or its output, and nothing else."""

from dataclasses import dataclass

from geojepa.errors import GeoJEPAError

MODALITIES = ("t", "gt", "ti", "gti")


@dataclass(frozen=True)
class ModelConfig:
    """Shape of the networks (METHOD.md, sections 3 and 4)."""

    modalities: str = "gti"
    """Which inputs are read: t tags, g geometry, i image."""
    width: int = 128
    depth: int = 4
    heads: int = 4
    registers: int = 0
    predictor_width: int = 64
    predictor_depth: int = 2
    predictor_heads: int = 2
    dropout: float = 0.0
    image_size: int = 112
    """Pixels that an image's side is averaged to; patches have 16."""
    modality_dropout: float = 0.3
    """Probability that a training batch loses either all its tags or all its geometries."""
    position_noise: float = 5e-4

    def __post_init__(self) -> None:
        if self.modalities not in MODALITIES:
            raise GeoJEPAError(
                f"modalities {self.modalities!r} is none of {', '.join(MODALITIES)}; choose one"
            )
        if self.width % self.heads or self.predictor_width % self.predictor_heads:
            raise GeoJEPAError("a width is not a multiple of its heads; change one of the two")
        if self.image_size % 16 or 224 % self.image_size:
            raise GeoJEPAError(f"image_size {self.image_size} is not 224 or 112; choose one")

    @property
    def has_geometry(self) -> bool:
        """Whether entities carry their geometry."""
        return "g" in self.modalities

    @property
    def has_image(self) -> bool:
        """Whether image patches are tokens."""
        return "i" in self.modalities

    @property
    def patches(self) -> int:
        """Image tokens of a tile."""
        return (self.image_size // 16) ** 2
