"""Frozen vision models: tiny ones with random weights, of the classes that people use."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from geojepa.data.corpus import Corpus
from geojepa.errors import GeoJEPAError
from geojepa.model.backbone import Backbone, token_reader
from geojepa.model.frozen import patch_features
from geojepa.model.preprocessing import Preprocessing

transformers = pytest.importorskip("transformers", reason="needs geojepa[vision]")

TINY = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
COLOURS = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
# the files of the published models, by class: settings, preprocessor, pixels and patches of a side
VIT = {"size": 224, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "do_normalize": True}
DINOV2 = COLOURS | {
    "size": {"shortest_edge": 256},
    "crop_size": {"height": 224, "width": 224},
    "do_center_crop": True,
    "do_resize": True,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "resample": 3,
}
DINOV3 = COLOURS | {
    "size": {"height": 224, "width": 224},
    "rescale_factor": 1 / 255,
    "resample": 2,
}
KINDS = {
    "ViT": ({"image_size": 224, "patch_size": 16}, VIT, 14),
    "Dinov2": ({"image_size": 518, "patch_size": 14}, DINOV2, 16),
    "Dinov2WithRegisters": (
        {"image_size": 518, "patch_size": 14, "num_register_tokens": 4},
        DINOV2,
        16,
    ),
    "DINOv3ViT": ({"image_size": 224, "patch_size": 16, "num_register_tokens": 4}, DINOV3, 14),
    "ViTMAE": ({"image_size": 224, "patch_size": 16, "mask_ratio": 0.75}, VIT | COLOURS, 14),
    "IJepa": ({"image_size": 224, "patch_size": 16}, VIT, 14),
}


def make(kind: str, folder: Path, seed: int = 0, **changes) -> Path:
    """A model of a class with random weights, large enough that tokens differ visibly."""
    settings, preprocessor, _ = KINDS[kind]
    config = getattr(transformers, f"{kind}Config")(**TINY | settings | changes)
    torch.manual_seed(seed)
    model = getattr(transformers, f"{kind}Model")(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "position" not in name:
                weight.add_(0.2 * torch.randn(weight.shape))
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return folder


@pytest.fixture(scope="module", params=list(KINDS))
def kind(request) -> str:
    if not hasattr(transformers, f"{request.param}Model"):
        pytest.skip(f"this transformers has no {request.param}Model")
    return request.param


@pytest.fixture(scope="module")
def folder(kind, tmp_path_factory) -> Path:
    return make(kind, tmp_path_factory.mktemp(kind) / kind)


@pytest.fixture(scope="module")
def backbone(folder) -> Backbone:
    return Backbone.load(folder)


@pytest.fixture(scope="module")
def vit(tmp_path_factory) -> Path:
    return make("ViT", tmp_path_factory.mktemp("vit") / "vit")


@pytest.fixture
def corpus(tiny_corpus, tmp_path) -> Corpus:
    """A copy without features."""
    ignored = shutil.ignore_patterns("features")
    return Corpus.open(shutil.copytree(tiny_corpus.paths[0], tmp_path / "one", ignore=ignored))


def images(n: int = 2, size: int = 224) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, size, size, 3), dtype=np.uint8)


def test_a_class_token_and_one_for_each_patch(kind, backbone):
    tokens = 1 + KINDS[kind][2] ** 2
    assert backbone.shape == (tokens, 24)
    found = backbone(images(3))
    assert found.shape == (3, tokens, 24)
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    assert backbone(images(0)).shape == (0, tokens, 24)
    # alone as among others, and each time
    np.testing.assert_allclose(backbone(images(3)[2:])[0], found[2], atol=1e-5)


def test_tokens_are_those_of_the_model_without_its_registers(kind, folder, backbone):
    model = getattr(transformers, f"{kind}Model").from_pretrained(folder).eval()
    said, side = json.loads((folder / "preprocessor_config.json").read_text()), KINDS[kind][2]
    mean, std = (np.array(said[f"image_{one}"]) for one in ("mean", "std"))
    pixels = torch.tensor(((images() / 255 - mean) / std).transpose(0, 3, 1, 2)).float()
    arguments = {}
    if kind == "ViTMAE":
        model.config.mask_ratio = 0.0
        arguments["noise"] = torch.linspace(0, 1, side**2).expand(2, -1)
    with torch.no_grad():
        hidden = model(pixels, **arguments).last_hidden_state.numpy()
    extra = getattr(model.config, "num_register_tokens", 0)
    has_class = kind != "IJepa"
    assert hidden.shape[1] == has_class + extra + side**2
    found = backbone(images())
    np.testing.assert_allclose(found[:, 1:], hidden[:, has_class + extra :], atol=1e-4)
    first = hidden[:, 0] if has_class else hidden.mean(1)
    np.testing.assert_allclose(found[:, 0], first, atol=1e-4)


@pytest.mark.parametrize("place", [(0, 0), (0, 5), (9, 2), (-1, -1)], ids=str)
def test_patches_are_rows_from_the_north_west_and_lie_in_their_boxes(kind, tmp_path, place):
    """With attention silenced, another patch of the image changes one token."""
    folder = make(kind, tmp_path / "local")
    backbone = Backbone.load(folder)
    side = KINDS[kind][2]
    row, column = (number % side for number in place)
    step = 224 // side
    before, after = images(1), images(1)
    window = np.s_[0, row * step : (row + 1) * step, column * step : (column + 1) * step]
    after[window] = 255 - after[window]
    change = np.abs(backbone(before) - backbone(after))[0].max(axis=1)
    assert (change > 1e-4).mean() > 0.9
    for name, weight in backbone.model.named_parameters():
        if "attention" in name and any(one in name for one in ("output", "o_proj")):
            weight.zero_()
    change = np.abs(backbone(before) - backbone(after))[0].max(axis=1)
    assert np.flatnonzero(change[1:] > 1e-4).tolist() == [row * side + column]
    left, bottom = column / side, 1 - (row + 1) / side
    right, top = (column + 1) / side, 1 - row / side
    corners = [left, bottom, right, bottom, right, top, left, top]
    np.testing.assert_allclose(backbone.boxes[1 + row * side + column], corners, atol=1e-6)
    assert backbone.boxes[0].tolist() == [0, 0, 1, 0, 1, 1, 0, 1]
    assert len(backbone.boxes) == backbone.shape[0]


@pytest.mark.parametrize("kind", ["ViT", "Dinov2", "DINOv3ViT"])
@pytest.mark.parametrize("size", [224, 100])
def test_pixels_equal_those_of_the_models_own_processor(kind, size):
    """Whose crop is off: it would lose the edge of the tile."""
    processors = {"ViT": "ViTImageProcessor", "Dinov2": "BitImageProcessor"}
    name = processors.get(kind, "DINOv3ViTImageProcessor")
    names = [f"{name}Pil", name]
    made = next((getattr(transformers, one) for one in names if hasattr(transformers, one)), None)
    said = dict(KINDS[kind][1])
    ours = Preprocessing.read(said, kind)
    if "crop_size" in said:
        said |= {"do_center_crop": False, "size": said["crop_size"]}
    try:
        processor = made(**said)
        theirs = processor(list(images(size=size)), return_tensors="pt")["pixel_values"]
    except (ImportError, TypeError) as error:
        pytest.skip(f"{name} does not run here: {str(error).strip().splitlines()[0]}")
    found = ours(images(size=size))
    assert found.dtype == torch.float32
    assert found.shape == theirs.shape == (2, 3, 224, 224)
    # a resized pixel is a whole number of 255 in both
    np.testing.assert_allclose(found, theirs, atol=1e-5)


def test_pixels_equal_arithmetic():
    found = Preprocessing.read(VIT | {"size": 64, "resample": 3}, "m")(images(1))
    shown = Image.fromarray(images(1)[0]).resize((64, 64), Image.Resampling.BICUBIC)
    exact = (np.asarray(shown, np.float64) / 255 - 0.5) / 0.5
    np.testing.assert_allclose(found[0], exact.transpose(2, 0, 1), atol=1e-6)


@pytest.mark.parametrize(
    ("said", "size"),
    [
        ({"size": 384}, 384),
        ({"size": {"height": 224, "width": 224}}, 224),
        ({"size": {"shortest_edge": 256}, "crop_size": 224}, 224),
        ({"size": {"shortest_edge": 256}, "crop_size": 224, "do_center_crop": False}, 256),
    ],
    ids=str,
)
def test_sizes_are_written_in_several_ways(said, size):
    assert Preprocessing.read(COLOURS | said, "m").size == size


def test_what_is_not_said_is_not_invented():
    plain = Preprocessing.read({"size": 8, "do_normalize": False, "do_rescale": False}, "m")
    assert (plain.mean, plain.std, plain.rescale) == ((0.0,) * 3, (1.0,) * 3, 1.0)
    for said in ({}, {"size": 224}, COLOURS, COLOURS | {"size": {"height": 2, "width": 3}}):
        with pytest.raises(GeoJEPAError, match=r"m: its preprocessor_config\.json tells no square"):
            Preprocessing.read(said, "m")


def test_another_size_than_the_weights_were_made_for(tmp_path):
    folder = make("ViT", tmp_path / "vit")
    (folder / "preprocessor_config.json").write_text(json.dumps(VIT | {"size": 320}))
    assert Backbone.load(folder)(images(1)).shape == (1, 401, 24)
    (folder / "preprocessor_config.json").write_text(json.dumps(VIT | {"size": 230}))
    with pytest.raises(GeoJEPAError, match="no whole number of patches of 16"):
        Backbone.load(folder)


def test_identity_is_that_of_weights_settings_and_preprocessing(vit, tmp_path):
    one = Backbone.load(vit)
    copy = Path(shutil.copytree(vit, tmp_path / "copy"))
    assert Backbone.load(copy).name == one.name
    assert make("ViT", tmp_path / "other", seed=1).exists()
    other = Backbone.load(tmp_path / "other")
    assert other.sha256 != one.sha256
    assert other.name != one.name
    # the same weights, read otherwise
    (copy / "preprocessor_config.json").write_text(json.dumps(VIT | COLOURS))
    brighter = Backbone.load(copy)
    assert (brighter.sha256, brighter.name == one.name) == (one.sha256, False)
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"hidden_act": "relu"}))
    sharper = Backbone.load(copy)
    assert sharper.sha256 == one.sha256
    assert len({sharper.name, brighter.name, one.name}) == 3


def test_a_classifier_serves_though_it_has_no_pooler(tmp_path):
    """The pooler that it lacks is drawn at random at each loading, and counts for nothing."""
    config = transformers.ViTConfig(**TINY, num_labels=3)
    transformers.ViTForImageClassification(config).save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(VIT))
    one, again = Backbone.load(tmp_path), Backbone.load(tmp_path)
    assert one.name == again.name
    np.testing.assert_array_equal(one(images()), again(images()))


def test_facts_name_the_model_and_its_licence(vit, tmp_path):
    copy = Path(shutil.copytree(vit, tmp_path / "copy"))
    assert Backbone.load(copy).facts() | {"sha256": ""} == {
        "source": str(copy),
        "revision": "",
        "sha256": "",
        "licence": "",
        "tokens": 197,
        "width": 24,
    }
    (copy / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A model\n")
    facts = Backbone.load(copy).facts()
    assert facts["licence"] == "apache-2.0"
    assert len(str(facts["sha256"])) == 64
    json.dumps(facts)


def test_tokens_are_kept_by_corpus_and_weights(corpus, vit, tmp_path, monkeypatch):
    backbone = Backbone.load(vit)
    features = patch_features(corpus, backbone)
    rows = np.flatnonzero(corpus.has_image)
    assert features.shape == (197 * len(rows), 24)
    assert features.dtype == np.float16
    direct = backbone(corpus.images(rows)).reshape(-1, 24)
    np.testing.assert_allclose(features[np.arange(len(features))], direct, atol=5e-3)
    kept = list((corpus.paths[0] / "features").glob("patches-*.npy"))
    assert len(kept) == 1
    about = json.loads(kept[0].with_suffix(".json").read_text())
    assert about["corpus"] == corpus.hash
    assert backbone.sha256 in about["encoder"]
    # the second time nothing is computed
    with monkeypatch.context() as patch:
        patch.setattr(Backbone, "__call__", None)
        again = patch_features(corpus, Backbone.load(vit))
    np.testing.assert_array_equal(again[np.arange(99)], features[np.arange(99)])
    patch_features(corpus, Backbone.load(make("ViT", tmp_path / "other", seed=1)))
    assert len(list((corpus.paths[0] / "features").glob("patches-*.npy"))) == 2


def test_the_reader_gives_tokens_and_boxes_tile_by_tile(corpus, vit):
    corpus.has_image[[0, 3]] = False
    backbone = Backbone.load(vit)
    count, read = token_reader(corpus, backbone)
    assert count.tolist() == [197 * bool(one) for one in corpus.has_image]
    rows = np.array([5, 3, 2, 0])
    box, value = read(rows)
    assert box.shape == (2 * 197, 8)
    assert (box.dtype, value.dtype) == (np.float32, np.float32)
    np.testing.assert_array_equal(box, np.concatenate([backbone.boxes] * 2))
    direct = backbone(corpus.images(np.array([5, 2])))
    np.testing.assert_allclose(value, direct.reshape(-1, 24), atol=5e-3)
    assert [part.shape for part in read(np.array([0]))] == [(0, 8), (0, 24)]


def test_without_transformers(vit, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(GeoJEPAError, match=r"needs transformers; pip install 'geojepa\[vision\]'"):
        Backbone.load(vit)


def test_weights_that_are_not_there(vit, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for name in ("nobody/no-such-model", tmp_path / "nowhere"):
        with pytest.raises(GeoJEPAError, match=r"cannot be loaded .*; download it once") as told:
            Backbone.load(name)
        assert "\n" not in str(told.value)
    for file in ("config.json", "preprocessor_config.json", "model.safetensors"):
        copy = Path(shutil.copytree(vit, tmp_path / file))
        (copy / file).unlink()
        with pytest.raises(GeoJEPAError, match="cannot be loaded"):
            Backbone.load(copy)


def test_pickled_weights_are_refused(vit, tmp_path):
    copy = Path(shutil.copytree(vit, tmp_path / "copy"))
    (copy / "model.safetensors").unlink()
    model = transformers.ViTModel.from_pretrained(vit)
    torch.save(model.state_dict(), copy / "pytorch_model.bin")
    with pytest.raises(GeoJEPAError, match="cannot be loaded"):
        Backbone.load(copy)


def test_damaged_and_incomplete_weights(vit, tmp_path):
    from safetensors.torch import load_file, save_file

    copy = Path(shutil.copytree(vit, tmp_path / "copy"))
    weights = load_file(copy / "model.safetensors")
    name = next(key for key in weights if "layernorm.weight" in key)
    save_file(
        {key: value for key, value in weights.items() if key != name},
        copy / "model.safetensors",
        {"format": "pt"},
    )
    with pytest.raises(GeoJEPAError, match="its weights lack"):
        Backbone.load(copy)
    (copy / "model.safetensors").write_bytes(b"\0" * 100)
    with pytest.raises(GeoJEPAError, match="cannot be loaded"):
        Backbone.load(copy)


def test_models_that_are_no_vision_transformers(tmp_path):
    transformers.BertModel(
        transformers.BertConfig(
            vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=1
        )
    ).save_pretrained(tmp_path / "text")
    swin = transformers.SwinConfig(embed_dim=8, depths=[1, 1], num_heads=[1, 1], window_size=7)
    transformers.SwinModel(swin).save_pretrained(tmp_path / "swin")
    grey = transformers.ViTConfig(**TINY, num_channels=1)
    transformers.ViTModel(grey).save_pretrained(tmp_path / "grey")
    for name in ("text", "swin", "grey"):
        (tmp_path / name / "preprocessor_config.json").write_text(json.dumps(VIT))
        with pytest.raises(GeoJEPAError, match="is no vision transformer"):
            Backbone.load(tmp_path / name)
