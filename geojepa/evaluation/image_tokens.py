"""Tokenisers of an image that nothing has trained, and frozen backbones that something has."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from geojepa.errors import GeoJEPAError
from geojepa.model.backbone import Backbone
from geojepa.model.modalities import PATCH, cut_patches

# (n, 224, 224, 3) uint8 -> (n, patches, D), rows from the north-west, without a class token
Tokens = Callable[[np.ndarray], np.ndarray]


def raw_patches(images: np.ndarray) -> np.ndarray:
    """Pixels of patches of 16: (n, 224, 224, 3) to (n, 196, 768), what local tokens are made of."""
    return cut_patches(images, images.shape[1]).reshape(len(images), -1, 3 * PATCH * PATCH)


def random_linear(width: int = 128, seed: int = 0) -> Tokens:
    """Raw patches through a random linear layer and a layer norm: local tokens before training."""
    weight = np.random.default_rng(seed).standard_normal((3 * PATCH * PATCH, width))

    def tokens(images: np.ndarray) -> np.ndarray:
        x = raw_patches(images) @ weight.astype(np.float32)
        x -= x.mean(axis=2, keepdims=True)
        return x / np.sqrt(np.square(x).mean(axis=2, keepdims=True) + 1e-5)

    return tokens


class RandomViT(nn.Module):
    """A vision transformer of patches of 16 before training, of the shape of ViT-Ti/16.

    Weights and positions are drawn as ViTs' are, normal with deviation 0.02; biases are 0.
    """

    def __init__(self, width: int = 192, depth: int = 12, heads: int = 3, seed: int = 0):
        super().__init__()
        patches, pixels = (224 // PATCH) ** 2, 3 * PATCH * PATCH
        self.project = nn.Linear(pixels, width)
        self.first = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(torch.zeros(1, 1 + patches, width))
        block = nn.TransformerEncoderLayer(
            width, heads, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True
        )
        norm = nn.LayerNorm(width)
        self.blocks = nn.TransformerEncoder(block, depth, norm, enable_nested_tensor=False)
        draw = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for weight in self.parameters():
                if weight.ndim > 1:
                    weight.normal_(0, 0.02, generator=draw)
        for bias in (one for name, one in self.named_parameters() if name.endswith("bias")):
            nn.init.zeros_(bias)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.eval().requires_grad_(False).to(device)

    def forward(self, patches: Tensor) -> Tensor:
        """(n, 196, 768) pixels in [-1, 1] to (n, 196, width), without the class token."""
        x = torch.cat([self.first.expand(len(patches), -1, -1), self.project(patches)], dim=1)
        return self.blocks(x + self.position)[:, 1:]

    @torch.inference_mode()
    def tokens(self, images: np.ndarray) -> np.ndarray:
        """(n, 224, 224, 3) uint8 to (n, 196, width)."""
        patches = torch.from_numpy(raw_patches(images)).to(self.position.device)
        return self(patches).cpu().numpy()


def patch_tokens(backbone: Tokens) -> Tokens:
    """A backbone's tokens of patches, without its class token."""
    return lambda images: backbone(images)[:, 1:]


def load_backbones(names: str) -> dict[str, Backbone]:
    """Frozen vision models, by the label that a figure gives them.

    Args:
        names: of the hub or folders, as `Backbone.load` takes them, with ";" between; "" for none.

    Returns:
        By name on the hub, or by the name of the folder.

    Raises:
        GeoJEPAError: if one cannot be loaded, or two have the same label.
    """
    found: dict[str, Backbone] = {}
    for name in filter(None, map(str.strip, names.split(";"))):
        label = Path(name).resolve().name if Path(name).is_dir() else name
        if label in found:
            raise GeoJEPAError(f"{name}: two vision models are called {label}; rename a folder")
        found[label] = Backbone.load(name)
    return found


def weights_of(backbones: dict[str, Backbone]) -> str:
    """Which weights they are, for a provenance: source or revision, and hash."""
    return "; ".join(
        f"{label}@{one.revision or 'folder'} sha256 {one.sha256}"
        for label, one in backbones.items()
    )
