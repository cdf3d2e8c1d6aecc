"""Tokens, encoder, predictor and losses against first principles."""

import math

import numpy as np
import pytest
import torch
from geojepa_kernels import draw_masks
from torch.nn import functional as F

from geojepa.model.batch import Batches
from geojepa.model.config import LossConfig, ModelConfig
from geojepa.model.embedding import embed_regions, embed_tiles, fit_codebook, pool
from geojepa.model.jepa import GeoJEPA
from geojepa.model.losses import errors_by_set, prediction_loss, variance_covariance
from geojepa.model.modalities import cut_patches, patch_boxes
from geojepa.model.tags import TagTable
from geojepa.model.transformer import with_registers

TINY = dict(width=32, depth=2, heads=2, predictor_width=16, predictor_depth=1, predictor_heads=1)


def model_of(modalities: str, **settings) -> GeoJEPA:
    torch.manual_seed(0)
    return GeoJEPA(ModelConfig(modalities, **(TINY | settings))).eval()


def masks_for(batch, strategy="area", seed=0):
    return draw_masks(
        batch.cu_seqlens,
        batch.box,
        batch.modality,
        batch.tile_key,
        batch.max_seqlen,
        strategy=strategy,
        seed=seed,
        step=0,
        size=350,
        min_context=150,
    )


@pytest.mark.parametrize("pooling", ["mean", "counts"])
@pytest.mark.parametrize("modalities", ["t", "gt", "ti", "gti"])
def test_one_tile_alone_and_in_a_batch_agree(tiny_corpus, modalities, pooling):
    model = model_of(modalities, registers=2, pooling=pooling)
    batches = Batches(tiny_corpus, model.config)
    rows = tiny_corpus.usable[:12]
    fit_codebook(model, batches, tiny_corpus.usable[12:])
    together = embed_tiles(model, batches, rows)
    alone = np.concatenate([embed_tiles(model, batches, rows[i : i + 1]) for i in range(12)])
    assert np.abs(together - alone).max() < 1e-5
    assert np.abs(embed_tiles(model, batches, rows[::-1])[::-1] - together).max() < 1e-5


def test_batches_lie_where_products_round_alike(tiny_corpus):
    """On 64 bytes: elsewhere MKL's product of three rows has other last bits, from run to run."""
    batches = Batches(tiny_corpus, ModelConfig("gti", **TINY))
    for row in tiny_corpus.usable[:8]:
        batch = batches(np.array([row]))
        assert [x.data_ptr() % 64 for x in batch.tensors()] == [0] * len(batch.tensors())


def test_batch_holds_what_the_corpus_holds(tiny_corpus):
    config = ModelConfig("gti", **TINY)
    row = int(tiny_corpus.usable[3])
    batch, data = Batches(tiny_corpus, config)(np.array([row])), tiny_corpus.read([row])
    assert len(batch.box) == len(data.kind) + 49
    assert torch.equal(batch.box[: len(data.kind)], torch.from_numpy(data.box))
    assert batch.modality.tolist() == [0] * len(data.kind) + [1] * 49
    table = TagTable.load()
    for i, tags in enumerate(data.tags()):
        rows = batch.tag_rows[batch.cu_tags[i] : batch.cu_tags[i + 1]].tolist()
        resolved = [table.resolve(key, value)[0] for key, value in tags.items()]
        assert rows == [r for r in resolved if r >= 0]


def test_patches_lie_where_their_boxes_say():
    image = np.zeros((1, 224, 224, 3), dtype=np.uint8)
    image[0, :32, 192:] = 255  # the north-east corner, one patch of a 112 px image
    bright = cut_patches(image, 112).mean(axis=1)
    box = patch_boxes(112)[np.argmax(bright)].reshape(4, 2)
    assert bright.max() == 1
    assert (bright > -1).sum() == 1
    assert np.allclose(box, [[6 / 7, 6 / 7], [1, 6 / 7], [1, 1], [6 / 7, 1]])


def test_masked_view_hides_tags_from_the_embedding(tiny_corpus):
    model = model_of("t")
    batches = Batches(tiny_corpus, model.config)
    tiles = tiny_corpus.tiles
    usable = np.isin(np.arange(len(tiles)), tiny_corpus.usable)
    speed = np.flatnonzero(usable & tiles.max_speed.notna())
    changed = embed_tiles(model, batches, speed) - embed_tiles(model, batches, speed, "max_speed")
    assert (np.abs(changed).max(axis=1) > 1e-6).all()


def test_a_tile_without_tokens_is_zero():
    pooled = pool(torch.ones(3, 4), torch.tensor([0, 0, 3, 3], dtype=torch.int32))
    assert pooled.isfinite().all()
    assert (pooled[[0, 2]] == 0).all()
    assert (pooled[1] == 1).all()


def test_pooled_counts_are_those_of_a_sum_written_out():
    x = torch.randn(9, 4, generator=torch.Generator().manual_seed(0))
    cu = torch.tensor([0, 2, 2, 9], dtype=torch.int32)
    pooled = pool(x, cu, "counts")
    assert pooled.shape == (3, 12)
    assert (pooled[1] == 0).all()
    for tile, rows in ((0, range(2)), (2, range(2, 9))):
        for column in range(4):
            values = [float(x[row, column]) for row in rows]
            above = math.log(1 + sum(v for v in values if v > 0))
            below = math.log(1 + sum(-v for v in values if v < 0))
            found = pooled[tile, [column, 4 + column, 8 + column]].tolist()
            assert found == pytest.approx([above, below, max(values)], abs=1e-6)


def test_counts_tell_how_many_and_a_mean_does_not():
    x = torch.randn(1, 4, generator=torch.Generator().manual_seed(0))
    cu = torch.tensor([0, 1, 8], dtype=torch.int32)
    alike = x.expand(8, -1).contiguous()
    torch.testing.assert_close(*pool(alike, cu, "mean"))
    assert (pool(alike, cu, "counts")[1] - pool(alike, cu, "counts")[0]).abs().max() > 0.1


def test_registers_stand_before_each_tile():
    x, registers = torch.arange(5.0)[:, None], torch.tensor([[-1.0], [-2.0]])
    cu = torch.tensor([0, 2, 2, 5], dtype=torch.int32)
    joined, joined_cu, slots = with_registers(x, registers, cu)
    assert joined[:, 0].tolist() == [-1, -2, 0, 1, -1, -2, -1, -2, 2, 3, 4]
    assert joined_cu.tolist() == [0, 4, 6, 11]
    assert torch.equal(joined[slots], x)


def test_predictor_sees_no_content_of_targets(tiny_corpus):
    """Changing a target's tags changes no prediction of it: position is all the predictor knows."""
    model = model_of("gt")
    batch = Batches(tiny_corpus, model.config)(tiny_corpus.usable[:4])
    masks = masks_for(batch)
    hidden = (masks.targets != 0)[batch.entity_slot]
    guesses = []
    model.predictor.register_forward_hook(lambda _m, _i, out: guesses.append(out))
    model(batch, masks, loss=LossConfig(vicreg_weight=0.0))
    changed = torch.where(hidden[:, None], batch.geometry + 1, batch.geometry)
    batch.geometry = changed
    model(batch, masks, loss=LossConfig(vicreg_weight=0.0))
    assert torch.equal(guesses[0], guesses[1])


def test_teacher_is_the_average_of_the_whole_path(tiny_corpus):
    model = model_of("gti")
    before = {k: v.clone() for k, v in model.teacher.named_parameters()}
    with torch.no_grad():
        for p in model.student.parameters():
            p.add_(1.0)
    model.update_teacher(0.75)
    for name, value in model.teacher.named_parameters():
        assert torch.allclose(value, before[name] + 0.25, atol=1e-6)
    names = set(before)
    assert any(n.startswith("tokenizer.") for n in names)
    assert any(n.startswith("position.") for n in names)


def test_a_gated_geometry_starts_at_nothing_and_is_added_as_far_as_its_gate_opens(tiny_corpus):
    batch = Batches(tiny_corpus, ModelConfig("gt"))(tiny_corpus.usable[:8])
    both, tags = (model_of(m, fusion="gated").student.tokenizer for m in ("gt", "t"))
    tags.load_state_dict(both.state_dict(), strict=False)
    shut = both.entities(batch)
    assert torch.equal(shut, tags.entities(batch))
    gate = both.geometry[1].weight
    (shut * torch.randn_like(shut)).sum().backward()
    assert (gate.grad != 0).all()
    torch.nn.init.constant_(gate, 0.5)
    halves = [both.entities(batch, drop) for drop in ("tags", "geometry")]
    assert torch.allclose(both.entities(batch), sum(halves))
    assert torch.equal(halves[1], shut)
    assert not torch.allclose(halves[0], torch.zeros_like(shut))


@pytest.mark.parametrize("fusion", ["mlp", "gated"])
def test_every_trained_weight_gets_a_gradient(tiny_corpus, fusion):
    model = model_of("gti", registers=1, fusion=fusion).train()
    batch = Batches(tiny_corpus, model.config)(tiny_corpus.usable[:8])
    model(batch, masks_for(batch), loss=LossConfig(vicreg_weight=0.02)).total.backward()
    trained = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    assert not [n for n, p in trained if p.grad is None or not p.grad.isfinite().all()]
    assert all(not p.requires_grad for p in model.teacher.parameters())


def test_variance_covariance_equals_its_formula():
    x = np.random.default_rng(0).normal(size=(40, 6)) * [0.1, 1, 2, 0.5, 1, 1]
    variance = np.maximum(0, 1 - np.sqrt(x.var(axis=0) + 1e-4)).mean()
    covariance = np.cov(x.T)
    off = (covariance**2).sum() - (np.diag(covariance) ** 2).sum()
    expected = 25 * variance + off / 6
    assert variance_covariance(torch.from_numpy(x)).item() == pytest.approx(expected, rel=1e-9)
    assert variance_covariance(torch.zeros(1, 6)).item() == 0


def test_prediction_loss_means_within_modality_then_over_sets():
    generator = torch.Generator().manual_seed(0)
    predicted, target = torch.randn(2, 9, 4, generator=generator)
    target_set = torch.tensor([0, 0, 0, 0, 1, 1, 3, 3, 3])
    modality = torch.tensor([0, 0, 0, 1, 1, 1, 0, 0, 1], dtype=torch.uint8)
    total, count = errors_by_set(predicted, target, target_set, modality, 4, 2, 1.0)
    got = prediction_loss(total, count, "modality", "mean")
    sets = []
    for s in (0, 1, 3):  # set 2 is empty and adds nothing
        cells = []
        for m in (0, 1):
            chosen = (target_set == s) & (modality == m)
            if chosen.any():
                cells.append(F.smooth_l1_loss(predicted[chosen], target[chosen]).item())
        sets.append(np.mean(cells))
    assert got.item() == pytest.approx(np.mean(sets), rel=1e-5)


def test_regions_carry_footprint_and_name(tiny_corpus):
    table = embed_regions(model_of("gti"), tiny_corpus)
    assert table.index.name == "region_id"
    assert table.crs.to_epsg() == 4326
    assert len(table) == len(tiny_corpus)
    assert len(table.embedding.iloc[0]) == 4 * TINY["width"]
