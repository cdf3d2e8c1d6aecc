"""Settings by name.

| preset | what it is |
|---|---|
| `small-*` | our method for a laptop: a small city in a minute or so |
| `paper-*` | the published method with its final settings (arXiv:2503.05774) |
| `study-*` | the published method and its ratios at a size that a CPU trains |
| `ours-*` | the recipe that the ablations start from, at the size of `study-*` |
| `smoke-*` | the published method at a size for tests: its results mean nothing |
"""

from dataclasses import replace

from geojepa.errors import GeoJEPAError
from geojepa.model.config import MODALITIES, LossConfig, ModelConfig
from geojepa.training.config import MaskConfig, TrainConfig

_MIXED = MaskConfig(random=(200, 450, 100), area=(600, 350, 150), modality=(200, 450, 150))
_MASKS = {
    "t": MaskConfig(),
    "gt": MaskConfig(),
    "ti": MaskConfig(area=(750, 450, 150)),
    "gti": _MIXED,
}
_BATCHES = {"t": 960, "gt": 384, "ti": 960, "gti": 432}


def _small(modalities: str) -> TrainConfig:
    masks = _MIXED if "i" in modalities else MaskConfig()
    return TrainConfig(f"small-{modalities}", ModelConfig(modalities), masks)


def _paper(modalities: str) -> TrainConfig:
    is_all = modalities == "gti"
    return TrainConfig(
        preset=f"paper-{modalities}",
        model=ModelConfig(
            modalities,
            width=384,
            depth=12,
            heads=8,
            registers=0 if is_all else 2,
            predictor_width=256 if is_all else 192,
            predictor_depth=4,
            predictor_heads=8,
            predictor_context="full",
            dropout=0.1,
            # where there is none to read, the name of its encoder says nothing
            geometry="network" if "g" in modalities else "fourier",
            geometry_width=256 if "g" in modalities else 64,
            image_size=224,
        ),
        masks=_MASKS[modalities],
        loss=LossConfig(
            mean="token",
            sets="sum",
            beta=2.0 if modalities == "gt" else 1.0,
            vicreg_weight=0.01 if is_all else 0.02,
        ),
        epochs=300,
        batch_tiles=_BATCHES[modalities],
        weight_decay=(0.05, 0.1) if is_all else (0.04, 0.4),
        momentum=(0.99 if is_all else 0.997, 0.99999),
        averaged="encoder",
        bfloat16=True,
    )


def _study(modalities: str) -> TrainConfig:
    paper = _paper(modalities)
    model = replace(
        paper.model,
        width=128,
        depth=6,
        heads=4,
        predictor_width=96,
        predictor_depth=3,
        predictor_heads=4,
        geometry_width=64,
        image_size=112,
    )
    # a thirtieth of the paper's steps or fewer: its slowest momentum would never see the student
    return replace(
        paper,
        preset=f"study-{modalities}",
        model=model,
        epochs=30,
        batch_tiles=32,
        momentum=(0.99, 0.99999),
    )


def _smoke(modalities: str) -> TrainConfig:
    study = _study(modalities)
    model = replace(
        study.model,
        width=48,
        depth=2,
        heads=2,
        predictor_width=32,
        predictor_depth=1,
        predictor_heads=2,
        geometry_width=16,
    )
    return replace(
        study,
        preset=f"smoke-{modalities}",
        model=model,
        epochs=2,
        batch_tiles=8,
        pass_tiles=4,
        geometry_steps=20,
    )


def _ours(modalities: str) -> TrainConfig:
    study = _study(modalities)
    return replace(
        study,
        preset=f"ours-{modalities}",
        model=replace(
            study.model,
            predictor_context="shared",
            registers=2,
            geometry="fourier",
            # tags alone are not fused, and keep the digest of the runs that are published
            fusion="gated" if "g" in modalities else "mlp",
            dropout=0.0,
            pooling="counts",
        ),
        masks=_MIXED if "i" in modalities else MaskConfig(),
        # a quarter of the paper's: with all of it a longer run declines
        loss=LossConfig(vicreg_weight=0.005),
        batch_tiles=16,
        cooldown=0.2,
        weight_decay=(0.04, 0.04),
        momentum=(0.99, 0.99),
        averaged="path",
    )


PRESETS = {
    config.preset: config
    for family in (_small, _paper, _study, _smoke, _ours)
    for config in map(family, MODALITIES)
}


def preset(name: str) -> TrainConfig:
    """The preset of this name.

    Raises:
        GeoJEPAError: if there is none.
    """
    if name not in PRESETS:
        raise GeoJEPAError(f"preset {name!r} does not exist; choose one of {', '.join(PRESETS)}")
    return PRESETS[name]
