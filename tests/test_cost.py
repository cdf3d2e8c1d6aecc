"""Bytes and floating-point operations of training, against counts by hand."""

import json
import sys
from dataclasses import replace

import pytest
import torch
from attention_oracle import draw, offsets
from geojepa_kernels import attention, shared_context_attention
from geojepa_kernels.attention import operator  # noqa: F401
from geojepa_kernels.attention.flops import pairs
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from geojepa.model.batch import Batches
from geojepa.model.config import ModelConfig
from geojepa.model.jepa import GeoJEPA
from geojepa.training import cost, loop
from geojepa.training.ahead import passes_ahead
from geojepa.training.checkpoint import load_tensors
from geojepa.training.cost import Cost, kept_for_backward, measure, peak_of
from geojepa.training.presets import preset
from geojepa.training.processes import Processes
from geojepa.training.sampling import masks_of_step

MODEL = ModelConfig("t", width=32, depth=2, heads=2, predictor_width=16, predictor_depth=1)
TINY = replace(preset("small-t"), model=MODEL, epochs=2, batch_tiles=8, fold=-1)
CPU = Processes(0, 1, torch.device("cpu"))


def counted(function, *inputs) -> tuple[int, int]:
    """Operations forward, and backward."""
    with FlopCounterMode(display=False) as counter:
        out = function(*inputs)
        forward = counter.get_total_flops()
        out.sum().backward()
    return forward, counter.get_total_flops() - forward


def inputs_of(queries: int, keys: int) -> list[torch.Tensor]:
    return [draw(n, 3, 16, seed=n).requires_grad_() for n in (queries, keys, keys)]


def test_a_full_sequence_costs_what_dense_attention_does():
    cu = offsets([40])
    shape = 1, 3, 40, 16
    found = counted(lambda *qkv: attention(*qkv, cu, cu, 40, 40, impl="triton"), *inputs_of(40, 40))
    dense = sdpa_flop_count(shape, shape, shape), sdpa_backward_flop_count(*[shape] * 4)
    assert found == dense


def test_sequences_cost_their_own_pairs_alone():
    queries, keys = [5, 0, 30], [7, 9, 2]
    cu = offsets(queries), offsets(keys)
    forward, backward = counted(
        lambda *qkv: attention(*qkv, *cu, 30, 9, impl="triton"), *inputs_of(35, 18)
    )
    assert forward == 4 * 3 * 16 * (5 * 7 + 30 * 2)
    assert backward == 2.5 * forward


def test_a_shared_context_costs_once():
    contexts, targets = [6, 4], [2, 3, 0, 5]
    cu = offsets(contexts), offsets(targets)
    forward, backward = counted(
        lambda *qkv: shared_context_attention(*qkv, *cu, 6, 5, impl="triton"), *inputs_of(20, 20)
    )
    assert forward == 4 * 3 * 16 * (36 + 16 + 2 * 8 + 3 * 9 + 5 * 9)
    assert backward == 2.5 * forward


def test_a_counted_kernel_gives_the_same_bits():
    cu = offsets([5, 9])
    x = inputs_of(14, 14)

    def run():
        return attention(*x, cu, cu, 9, 9, dropout_p=0.2, impl="triton")

    torch.manual_seed(0)
    plain = run()
    torch.manual_seed(0)
    with FlopCounterMode(display=False):
        assert torch.equal(run(), plain)


def test_bytes_kept_are_those_of_distinct_storages():
    layer = nn.Linear(8, 4, bias=False)
    x = torch.randn(3, 8)
    with kept_for_backward(layer) as kept:
        y = layer(x).relu()
        # both factors, and views of them, are one storage
        (y * y.view(12).view(3, 4)).sum().backward()
    assert sum(kept.values()) == (3 * 8 + 3 * 4) * 4
    assert layer.weight.grad is not None


def first_pass(corpus, config, tiles=6):
    batches = Batches(corpus, config.model)
    return next(
        passes_ahead(
            [0],
            lambda _: batches(corpus.usable[:tiles]),
            lambda batch, step: masks_of_step(batch, config, step),
            torch.device("cpu"),
        )
    )


def test_operations_of_a_pass_are_those_of_its_layers(tiny_corpus):
    """Without geometry and images every product is known: lengths times widths."""
    torch.manual_seed(0)
    model = GeoJEPA(MODEL).train()
    ahead = first_pass(tiny_corpus, TINY)
    before = torch.get_rng_state()
    found = measure(model, TINY, CPU, ahead)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(p.grad is None for p in model.parameters())
    assert (found.tiles, found.tokens) == (6, len(ahead.batch.box))

    lengths = ahead.batch.cu_seqlens.diff().double()
    context = ahead.masks.cu_context.diff().double()
    targets = ahead.masks.cu_targets.diff().double().view(6, -1)
    s, c, p = (float(n.sum()) for n in (lengths, context, targets))
    d, w = MODEL.width, MODEL.predictor_width
    vectors = model.student.tokenizer.table.shape[1]
    # of a token: query, key, value, output and the feed-forward are 12 squares of the width
    teacher = 2 * MODEL.depth * 12 * d * d * s + 4 * MODEL.depth * d * float(lengths.square().sum())
    student = 2 * MODEL.depth * 12 * d * d * c + 4 * MODEL.depth * d * float(context.square().sum())
    seen = context.square().sum() + (targets * (context[:, None] + targets)).sum()
    predictor = 2 * 12 * w * w * (c + p) + 4 * w * float(seen)
    project = 2 * (d * 4 * w + 4 * w * w) * (2 * c + p)
    out = 2 * w * d * p
    position = 2 * (8 * 4 * d + 4 * d * d + 2 * d * 2 * d + 2 * d * d) * s
    tags = 2 * vectors * d * s
    # the regulariser's scatter of each target set and of the context
    scatter = 2 * d * d * (p + c)
    forward = teacher + student + predictor + project + out + 2 * (position + tags) + scatter
    # gradients of inputs and weights, the features' own left out
    backward = 2 * (student + predictor + project + out + position + scatter) + tags
    backward -= 2 * 8 * 4 * d * s
    assert found.flops == forward + backward
    assert found.activation_bytes > 4 * c * d * MODEL.depth * 12


def test_kernels_are_counted_in_a_pass(tiny_corpus, monkeypatch):
    """They cost what plain PyTorch does, and the scores once more in the backward pass."""
    torch.manual_seed(0)
    model = GeoJEPA(MODEL).train()
    ahead = first_pass(tiny_corpus, TINY, 2)
    plain = measure(model, TINY, CPU, ahead).flops
    for name in ("attention", "shared_context"):
        module = sys.modules[f"geojepa_kernels.{name}"]
        monkeypatch.setattr(module, "uses_triton", lambda *_: True)
    found = measure(model, TINY, CPU, ahead).flops
    cu = ahead.masks.cu_context, ahead.masks.cu_targets
    student = MODEL.depth * MODEL.width * pairs(cu[0], cu[0], 0)
    shared = MODEL.predictor_width * pairs(*cu, 4)
    assert found - plain == 2 * (student + shared)


def test_long_sequences_are_counted_on_a_cpu():
    cu = torch.tensor([0, 300], dtype=torch.int32)
    q = torch.randn(300, 2, 16, requires_grad=True)
    with FlopCounterMode(display=False, custom_mapping=cost.CPU_ATTENTION) as counter:
        attention(q, q, q, cu, cu, 300, 300, impl="reference").sum().backward()
    assert counter.get_total_flops() == 14 * 2 * 16 * 300**2


def test_measuring_changes_no_weight_and_is_told(tiny_corpus, tmp_path, monkeypatch, capsys):
    measured = loop.pretrain(tiny_corpus, tmp_path / "measured", TINY, "cpu")
    said = capsys.readouterr().out
    assert "activations" in said
    assert "GFLOP a tile" in said
    assert "FLOP/s" in said
    facts = json.loads((measured / "config.json").read_text())
    assert facts["activation_bytes_per_token"] > 1000
    speed = facts["flops_per_token"] * facts["tokens_per_second"]
    assert facts["flops_per_second"] == pytest.approx(speed, rel=0.01)
    assert facts["utilisation"] is None
    monkeypatch.setattr(loop, "measure", lambda *_: Cost(1, 1, 1, 1))
    blind = loop.pretrain(tiny_corpus, tmp_path / "blind", TINY, "cpu")
    one, other = (load_tensors(run / "model.safetensors")[0] for run in (measured, blind))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_utilisation_is_the_share_of_all_devices(monkeypatch):
    assert peak_of(torch.device("cpu")) is None
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA H100 80GB HBM3")
    peak = peak_of(torch.device("cuda"))
    facts = Cost(tiles=10, tokens=1000, activation_bytes=5000, flops=10**9).facts(989e6, peak, 2)
    assert facts == {
        "activation_bytes_per_token": 5,
        "flops_per_token": 10**6,
        "flops_per_second": 989 * 10**12,
        "utilisation": 0.5,
    }
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA T4")
    assert peak_of(torch.device("cuda")) is None
