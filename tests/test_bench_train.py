"""The published way of a training step, and the benchmark that times it beside ours."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from geojepa_kernels.masking import draw_masks

from geojepa.model.batch import Batches
from geojepa.model.jepa import GeoJEPA
from geojepa.training.presets import preset
from geojepa.training.sampling import masks_of_step

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))
import bench_train
from padded_jepa import PaddedJEPA, gather, picked


@pytest.mark.parametrize("name", ["smoke-t", "smoke-gt", "smoke-ti"])
def test_without_padding_both_ways_do_the_same_work(name, tiny_corpus):
    """One tile, four times: nothing is padded, and loss and gradients are those of ours."""
    config = preset(name)
    config = replace(config, model=replace(config.model, dropout=0.0, position_noise=0.0))
    torch.manual_seed(0)
    ours = GeoJEPA(config.model)
    theirs = PaddedJEPA(ours)
    assert bench_train.optimizer_of(theirs, config).param_groups[0]["params"]
    batches = Batches(tiny_corpus, config.model, ours.shapes)
    batch = batches(np.repeat(tiny_corpus.usable[3], 4))
    _, masks, _ = masks_of_step(batch, config, 1)
    one = ours(batch, masks, loss=config.loss).total
    other = theirs(batch, masks, config.loss)
    assert other.item() == pytest.approx(one.item(), rel=1e-5)
    one.backward()
    other.backward()
    pairs = [
        (ours.student.tokenizer.tags[0].weight, theirs.tokenizer.tags[0].weight),
        (ours.predictor.mask_token, theirs.mask_token),
        (
            ours.student.encoder.blocks[1].qkv.weight,
            theirs.encoder[0].layers[1].self_attn.in_proj_weight,
        ),
    ]
    for mine, its in pairs:
        torch.testing.assert_close(mine.grad, its.grad, rtol=1e-3, atol=1e-6)


def test_padding_enters_what_the_published_way_computes(tiny_corpus):
    """The same tiles beside a longer one give another loss: the fault that it is timed with."""
    config = preset("smoke-t")
    config = replace(config, model=replace(config.model, dropout=0.0, position_noise=0.0))
    torch.manual_seed(0)
    theirs = PaddedJEPA(GeoJEPA(config.model))
    counts = tiny_corpus.tiles.entities.to_numpy()[tiny_corpus.usable]
    rows = tiny_corpus.usable[[counts.argmin(), counts.argmax()]]
    batch = Batches(tiny_corpus, config.model)(rows)
    masks = draw_masks(
        batch.cu_seqlens, batch.box, batch.modality, batch.tile_key, batch.max_seqlen,
        strategy="random", seed=0, step=0, size=450, min_context=100,
    )  # fmt: skip
    alone = Batches(tiny_corpus, config.model)(rows[:1])
    seen = []
    theirs.encoder.register_forward_hook(lambda _m, _i, out: seen.append(out[0]))
    theirs(batch, masks, config.loss)
    single = draw_masks(
        alone.cu_seqlens, alone.box, alone.modality, alone.tile_key, alone.max_seqlen,
        strategy="random", seed=0, step=0, size=450, min_context=100,
    )  # fmt: skip
    theirs(alone, single, config.loss)
    own = int((single.targets == 0).sum())
    assert len(seen[0]) > own
    assert (seen[0][:own] - seen[1][:own]).abs().max() > 1e-3


def test_sort_and_gather_pick_in_order():
    chosen = torch.tensor([[False, True, False, True], [True, False, False, False]])
    where = picked(chosen)
    assert where[0].tolist() == [1, 3]
    x = torch.arange(8.0).view(2, 4, 1) + 1
    assert gather(x, where, chosen)[:, :, 0].tolist() == [[2, 4], [5, 0]]


def test_the_benchmark_writes_its_table(tiny_corpus, tmp_path):
    config = bench_train.BenchConfig(
        corpus=tiny_corpus.paths[0], preset="smoke-t", tiles=6, rounds=2, threads=1, run=tmp_path
    )
    before = torch.get_num_threads()
    try:
        bench_train.main(config)
    finally:
        torch.set_num_threads(before)
    table = pd.read_csv(tmp_path / "results/train_speed/table.csv")
    assert table["way"].tolist() == [bench_train.OURS, bench_train.FULL, bench_train.PADDED]
    assert table["times"].iloc[2] == 1
    assert (table["times_low"] <= table["times"]).all()
    assert (table["times"] <= table["times_high"]).all()
    assert (table["rounds"] == 2).all()
