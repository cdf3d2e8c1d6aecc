"""What goes beyond the published method: each part alone against its definition."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from geojepa.errors import GeoJEPAError
from geojepa.model.batch import Batches
from geojepa.model.config import LossConfig, ModelConfig
from geojepa.model.jepa import GeoJEPA
from geojepa.model.losses import sketched_gaussianity
from geojepa.model.numbers import KEYS, entity_numbers, number_of, tag_numbers
from geojepa.training.config import MaskConfig, TrainConfig
from geojepa.training.loop import pretrain
from geojepa.training.sampling import masks_of_step

TINY = ModelConfig(
    "gti", width=24, depth=2, heads=2, predictor_width=16, predictor_depth=1, registers=1
)
MASKS = MaskConfig(random=(0, 450, 100), area=(800, 350, 150), modality=(200, 450, 150))
PARTS = {
    "deep supervision": (dict(target_depths=2), {}),
    "random targets": (dict(targets="random"), {}),
    "random targets twice": (dict(targets="random", target_depths=2), {}),
    "numbers": (dict(numbers=True), {}),
    "no position": (dict(encodings=("modality",)), {}),
    "no modality": (dict(encodings=("position",)), {}),
    "context loss": ({}, dict(context_weight=0.5)),
    "pooled variance": ({}, dict(pooled="vicreg", pooled_weight=0.1)),
    "pooled SIGReg": ({}, dict(pooled="sigreg", pooled_weight=0.1)),
}


@pytest.mark.parametrize("name", PARTS)
def test_each_part_trains_and_changes_what_is_learnt(name, tiny_corpus, tmp_path):
    model, loss = PARTS[name]
    plain = TrainConfig(model=TINY, masks=MASKS, epochs=1, batch_tiles=8)
    config = replace(plain, model=replace(TINY, **model), loss=LossConfig(**loss))
    runs = [pretrain(tiny_corpus, tmp_path / str(i), c) for i, c in enumerate((plain, config))]
    losses = [
        [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]
        for run in runs
    ]
    assert np.isfinite(losses).all()
    assert losses[0] != losses[1]


def step_of(corpus, model: ModelConfig, loss: LossConfig):
    torch.manual_seed(0)
    jepa = GeoJEPA(model).eval()
    batch = Batches(corpus, model)(corpus.usable[:6])
    _, masks, _ = masks_of_step(batch, TrainConfig(model=model, masks=MASKS), 1)
    return jepa, batch, masks, jepa(batch, masks, loss=loss)


def test_context_loss_is_the_error_on_what_was_seen(tiny_corpus):
    """The weighted difference of the totals equals the error of guesses read by hand."""
    loss = LossConfig(mean="token", context_weight=2.0)
    jepa, batch, masks, losses = step_of(tiny_corpus, TINY, loss)
    found = []
    jepa.predictor.register_forward_hook(lambda _m, _i, out: found.append(out[1]))
    other = jepa(batch, masks, loss=replace(loss, context_weight=0.0))
    wanted = jepa.targets(batch)[masks.context]
    by_hand = F.smooth_l1_loss(jepa.predictor.read(found[0]), wanted)
    difference = losses.total - other.total
    assert difference.item() == pytest.approx(2 * by_hand.item(), rel=1e-4)


def test_context_loss_needs_one_context(tiny_corpus):
    model = replace(TINY, predictor_context="full")
    with pytest.raises(GeoJEPAError, match="predictor_context shared"):
        step_of(tiny_corpus, model, LossConfig(context_weight=1.0))


def test_depths_are_the_teachers_blocks(tiny_corpus):
    jepa, batch, _, _ = step_of(tiny_corpus, replace(TINY, target_depths=2), LossConfig())
    seen = []
    jepa.teacher.encoder.blocks[0].register_forward_hook(lambda _m, _i, out: seen.append(out))
    wanted = jepa.targets(batch)
    output = jepa.teacher(batch)
    # one register stands before each tile's tokens
    tile = torch.arange(len(batch.cu_seqlens) - 1).repeat_interleave(batch.cu_seqlens.diff())
    own = torch.arange(len(tile)) + tile + 1
    expected = torch.cat([F.layer_norm(x, (24,)) for x in (seen[0][own], output)], dim=1)
    torch.testing.assert_close(wanted, expected)


def test_random_targets_never_move(tiny_corpus, tmp_path):
    config = TrainConfig(model=replace(TINY, targets="random"), masks=MASKS, epochs=1)
    run = pretrain(tiny_corpus, tmp_path / "a", config)
    from geojepa.training.checkpoint import load_run

    trained = load_run(run)[0]
    torch.manual_seed(config.seed)
    fresh = GeoJEPA(config.model)
    for name, value in fresh.random.state_dict().items():
        assert torch.equal(value, trained.random.state_dict()[name])
    assert not torch.equal(
        fresh.student.tokenizer.tags[0].weight, trained.student.tokenizer.tags[0].weight
    )


def test_sketched_gaussianity_equals_its_integral():
    """One direction alone: x on a line, so every projection is plus or minus the same numbers."""
    x = torch.tensor([[0.3], [-1.2], [2.0], [0.1]], dtype=torch.float64)
    values = x[:, 0].numpy()
    t = np.linspace(-5, 5, 17)
    error = abs(np.exp(1j * np.outer(t, values)).mean(axis=1) - np.exp(-(t**2) / 2)) ** 2
    expected = len(values) * np.trapezoid(error * np.exp(-(t**2) / 2), t)
    assert sketched_gaussianity(x).item() == pytest.approx(expected, rel=1e-6)


def test_sketched_gaussianity_is_least_for_a_gaussian():
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(2000, 8, generator=generator)
    collapsed, wide = normal * 0.1, normal * 3
    line = normal[:, :1].expand(-1, 8)
    least = sketched_gaussianity(normal)
    for other in (collapsed, wide, line, normal.exp()):
        assert sketched_gaussianity(other) > 10 * least


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("maxspeed", "30 mph", 48.28032),
        ("maxspeed", "50", 50),
        ("lanes", "2", 2),
        ("lanes", "2;1", math.nan),
        ("height", "12.5", 12.5),
        ("height", "30 ft", 9.144),
        ("height", "6'6\"", 6 * 0.3048 + 6 * 0.0254),
        ("height", "tall", math.nan),
        ("width", "3 m", 3),
        ("building:levels", "4", 4),
        ("building:levels", "99999999", math.nan),
    ],
)
def test_numbers_are_read_in_si_units(key, value, expected):
    assert number_of(key, value) == pytest.approx(expected, nan_ok=True)


def test_entities_carry_the_numbers_of_their_own_tags():
    vocabulary = [("building", "yes"), ("height", "10"), ("lanes", "3"), ("height", "high")]
    place, value = tag_numbers(vocabulary)
    assert place.tolist() == [-1, KEYS.index("height"), KEYS.index("lanes"), -1]
    found = entity_numbers(place, value, np.array([1, 0, 2, 3]), np.array([0, 2, 2, 4]))
    found = found.reshape(3, len(KEYS), 2)
    assert found[0, KEYS.index("height")].tolist() == [1, pytest.approx(math.log(11))]
    assert found[2, KEYS.index("lanes")].tolist() == [1, pytest.approx(math.log(4))]
    assert found.sum() == pytest.approx(2 + math.log(11) + math.log(4))
