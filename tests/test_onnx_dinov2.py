"""A DINOv2 that is taken out of an ONNX file gives the tokens of the one that was put in."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import load_file

pytest.importorskip("transformers", reason="needs geojepa[vision]")
sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))

import onnx_dinov2
from test_backbone import images, make

from geojepa.model.backbone import Backbone


def exported(weights: dict[str, np.ndarray]) -> SimpleNamespace:
    """What `onnx.load` returns: weights of linear layers transposed and without names."""
    held, nodes = {}, []

    def node(kind: str, name: str, array: np.ndarray) -> None:
        held[f"onnx::{kind}_{len(held)}"] = array
        inputs = ["onnx::Unsqueeze_0", list(held)[-1], "some_output"]
        nodes.append(SimpleNamespace(op_type=kind, name=f"/backbone/{name}", input=inputs))

    for name, array in weights.items():
        if name.endswith("position_embeddings"):
            node("Concat", "embeddings/Concat_6", array[:, :1])
            node("Reshape", "embeddings/Reshape_1", array[:, 1:])
        elif array.ndim == 2 and name.endswith("weight"):
            node("MatMul", name.removesuffix(".weight").replace(".", "/") + "/MatMul", array.T)
        elif not name.endswith("mask_token"):
            held[f"backbone.{name}"] = array
    held["decoder.final_conv.bias"] = np.zeros(1, np.float32)
    initializer = [SimpleNamespace(name=name, array=array) for name, array in held.items()]
    return SimpleNamespace(graph=SimpleNamespace(initializer=initializer, node=nodes))


def test_the_encoder_comes_out_as_it_went_in(tmp_path, monkeypatch, capsys):
    settings = {"hidden_size": 64, "num_attention_heads": 1, "mlp_ratio": 4, "image_size": 56}
    folder = make("Dinov2", tmp_path / "dinov2", **settings)
    said = json.dumps(onnx_dinov2.PREPROCESSOR)
    (folder / "preprocessor_config.json").write_text(said)
    given = exported(load_file(folder / "model.safetensors"))
    helper = SimpleNamespace(to_array=lambda one: one.array)
    fake = SimpleNamespace(load=lambda path: given, numpy_helper=helper)
    monkeypatch.setitem(sys.modules, "onnx", fake)
    monkeypatch.setattr(sys, "argv", ["onnx_dinov2", "a.onnx", str(tmp_path / "taken")])
    onnx_dinov2.main()
    assert "taken: written" in capsys.readouterr().out
    found, exact = (Backbone.load(one)(images()) for one in (tmp_path / "taken", folder))
    assert found.shape == (2, 257, 64)
    np.testing.assert_allclose(found, exact, atol=1e-5)
