"""Settings of the model: what changes its weights or its output, and nothing else."""

from dataclasses import dataclass

from geojepa.errors import GeoJEPAError

MODALITIES = ("t", "gt", "ti", "gti")


def check_choices(config: object, **choices: tuple) -> None:
    """Refuse a setting that is none of the values known, or a tuple that holds another one.

    Raises:
        GeoJEPAError: a setting is refused; the known ones are named.
    """
    for name, known in choices.items():
        given = getattr(config, name)
        for value in given if isinstance(given, tuple) else (given,):
            if value not in known:
                listed = ", ".join(map(str, known))
                raise GeoJEPAError(f"{name} {value!r} is none of {listed}; choose among them")


@dataclass(frozen=True)
class ModelConfig:
    """Shape of the networks (arXiv:2503.05774; what differs from it, says so)."""

    modalities: str = "gti"
    """Which inputs are read: t tags, g geometry, i image."""
    more: tuple[str, ...] = ()
    """Further modalities, by the names they are registered under (`model/modalities.py`)."""
    width: int = 128
    depth: int = 4
    heads: int = 4
    registers: int = 0
    """Learned tokens put before each sequence of the encoder and of the predictor."""
    predictor_width: int = 64
    predictor_depth: int = 2
    predictor_heads: int = 2
    predictor_context: str = "shared"
    """shared: the context attends to itself alone, and all target sets to it; full: a pass of its
    own for each target set, in which all tokens attend to all, as the paper does."""
    encodings: tuple[str, ...] = ("position", "modality")
    """What a token is told of where and what it is."""
    dropout: float = 0.0
    geometry: str = "fourier"
    """What a geometry's vector is: its Fourier transform, exact and training-free; or "network",
    the sums of a graph network that the run pretrains first and freezes, as in the paper."""
    geometry_width: int = 64
    """Of the graph network; its vectors are four times as long."""
    fusion: str = "mlp"
    """How an entity's token is made of its tags and its geometry: by an MLP of both, as the
    paper's; or "gated", their sum, each dimension of the geometry times a factor that starts at
    zero, so that it enters as far as it helps to predict (ReZero, Bachlechner et al., 2021)."""
    image: str = "patches"
    """What image tokens are: patches of pixels, or those of a frozen vision transformer, by its
    name on the Hugging Face hub or its folder; see `model/backbone.py`."""
    image_size: int = 112
    """Pixels that an image's side is averaged to before it is cut to patches of 16."""
    pooling: str = "mean"
    """What a tile's embedding holds of its tokens beside their maximum: their mean, as the paper's;
    or "counts", which tell how many, of each modality apart: the logarithms of how much of each
    direction there is, and of how many tokens are nearest to each word of a codebook
    (`model/codebook.py`)."""
    modality_dropout: float = 0.3
    """Probability that a training batch loses either all its tags or all its geometries."""
    position_noise: float = 5e-4

    def __post_init__(self) -> None:
        check_choices(
            self,
            modalities=MODALITIES,
            predictor_context=("shared", "full"),
            image_size=(112, 224),
            geometry=("fourier", "network"),
            fusion=("mlp", "gated"),
            pooling=("mean", "counts"),
            encodings=("position", "modality"),
        )
        if self.width % self.heads or self.predictor_width % self.predictor_heads:
            raise GeoJEPAError("a width is not a multiple of its heads; change one of the two")
        if self.image != "patches" and not self.has_image:
            raise GeoJEPAError(
                f"image {self.image}: modalities {self.modalities} have no images; choose a preset "
                "that ends in i"
            )

    @property
    def has_geometry(self) -> bool:
        """Whether entities carry their geometry."""
        return "g" in self.modalities

    @property
    def has_geometry_network(self) -> bool:
        """Whether a network of the model's own reads the geometries."""
        return self.has_geometry and self.geometry == "network"

    @property
    def has_image(self) -> bool:
        """Whether image patches are tokens."""
        return "i" in self.modalities

    @property
    def patches(self) -> int:
        """Image tokens of a tile."""
        return (self.image_size // 16) ** 2

    @property
    def token_modalities(self) -> tuple[str, ...]:
        """The kinds of tokens, in the order of their numbers; entities come first."""
        return ("entity", *["image"] * self.has_image, *self.more)


@dataclass(frozen=True)
class LossConfig:
    """What is minimised."""

    mean: str = "modality"
    """Of a target set's error: over the tokens of each modality, then over modalities; or "token",
    over all its tokens, so that the modality with most tokens rules, as the paper does."""
    sets: str = "mean"
    """Over target sets: mean, or sum as in the paper."""
    beta: float = 1.0
    """Where smooth L1 turns from square to absolute."""
    vicreg_weight: float = 0.002
    """Of the variance and covariance terms of predictions and context."""

    def __post_init__(self) -> None:
        check_choices(self, mean=("modality", "token"), sets=("mean", "sum"))
        if not (self.beta > 0 and self.vicreg_weight >= 0):
            raise GeoJEPAError("beta: give a number above 0; vicreg_weight: 0 or more")
