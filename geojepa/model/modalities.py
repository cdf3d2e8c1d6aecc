"""Modalities besides the entities: how their tokens are read and what content they get.

A modality joins by one class here or anywhere that is imported, and by its name in
`ModelConfig.more`. Masks, networks, loss and training see tokens with a box and a modality's
number, and need no change.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from torch import Tensor, nn

from geojepa.data.corpus import Corpus
from geojepa.errors import GeoJEPAError
from geojepa.model.config import ModelConfig

if TYPE_CHECKING:
    from geojepa.model.backbone import Backbone

PATCH = 16


@dataclass(frozen=True)
class Source:
    """Where the tokens of a modality come from.

    Attributes:
        count: (tiles of the corpus,) int64, tokens of each; 0 where a tile has none.
        read: takes rows of tiles; gives the boxes (n, 8) float32, corners in tile units, and the
            values (n, F) float32 of their tokens, tile by tile.
    """

    count: np.ndarray
    read: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


class Modality(nn.Module):
    """A kind of tokens: a subclass says where they come from, and gives them their content."""

    name: ClassVar[str]

    def __init__(self, config: ModelConfig):
        super().__init__()

    @classmethod
    def source(cls, corpus: Corpus, config: ModelConfig) -> Source:
        """Where a corpus's tokens of this modality come from.

        Raises:
            GeoJEPAError: if the corpus lacks what the modality needs.
        """
        raise NotImplementedError

    def forward(self, value: Tensor) -> Tensor:
        """(n, F) values to (n, width) content."""
        raise NotImplementedError


KNOWN: dict[str, type[Modality]] = {}


def register(modality: type[Modality]) -> type[Modality]:
    """Make a modality known under its name; a class decorator."""
    KNOWN[modality.name] = modality
    return modality


def modality_classes(config: ModelConfig) -> tuple[type[Modality], ...]:
    """The classes of a model's modalities besides the entities.

    Raises:
        GeoJEPAError: if one is not registered.
    """
    for name in config.token_modalities[1:]:
        if name not in KNOWN:
            raise GeoJEPAError(
                f"modality {name!r} is not known; import the module that registers it, "
                f"or choose from {', '.join(sorted(KNOWN))}"
            )
    return tuple(KNOWN[name] for name in config.token_modalities[1:])


@register
class Image(Modality):
    """The aerial image: square patches of its pixels, or the tokens of a frozen transformer."""

    name = "image"

    def __init__(self, config: ModelConfig):
        super().__init__(config)
        backbone = backbone_of(config)
        features = backbone.shape[1] if backbone else 3 * PATCH * PATCH
        self.project = nn.Sequential(nn.Linear(features, config.width), nn.LayerNorm(config.width))

    @classmethod
    def source(cls, corpus: Corpus, config: ModelConfig) -> Source:
        """Tokens of the tiles that have an image."""
        if not corpus.has_images:
            raise GeoJEPAError(
                f"{corpus.name}: has no images, but modalities {config.modalities!r} need them; "
                "prepare it with --imagery, or choose a preset without i"
            )
        if backbone := backbone_of(config):
            from geojepa.model.backbone import token_reader

            return Source(*token_reader(corpus, backbone))
        boxes = patch_boxes(config.image_size)

        def read(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            shown = rows[corpus.has_image[rows]]
            if len(shown) == 0:
                return boxes[:0], np.empty((0, 3 * PATCH * PATCH), dtype=np.float32)
            pixels = cut_patches(corpus.images(shown), config.image_size)
            return np.tile(boxes, (len(shown), 1)), pixels

        return Source(len(boxes) * corpus.has_image.astype(np.int64), read)

    def forward(self, value: Tensor) -> Tensor:
        """(n, 768) pixels in [-1, 1], or (n, D) frozen tokens, to (n, width)."""
        return self.project(value)


@cache
def _load(name: str) -> "Backbone":
    from geojepa.model.backbone import Backbone

    return Backbone.load(name)


def backbone_of(config: ModelConfig) -> "Backbone | None":
    """The frozen transformer that image tokens come from; None for patches of pixels."""
    if not config.has_image or config.image == "patches":
        return None
    return _load(config.image)


def cut_patches(images: np.ndarray, size: int) -> np.ndarray:
    """(n, 224, 224, 3) uint8 to (n * patches, 768) float32 in [-1, 1], rows from the north-west."""
    n, full = images.shape[:2]
    pixels = images.astype(np.float32) / 127.5 - 1.0
    if size != full:
        factor = full // size
        pixels = pixels.reshape(n, size, factor, size, factor, 3).mean(axis=(2, 4))
    side = size // PATCH
    pixels = pixels.reshape(n, side, PATCH, side, PATCH, 3).transpose(0, 1, 3, 2, 4, 5)
    return pixels.reshape(n * side * side, 3 * PATCH * PATCH)


def patch_boxes(size: int) -> np.ndarray:
    """(patches, 8) float32 boxes in tile units, in the order of `cut_patches`."""
    side = size // PATCH
    row, column = np.divmod(np.arange(side * side), side)
    left, bottom = column / side, 1 - (row + 1) / side
    right, top = (column + 1) / side, 1 - row / side
    corners = [left, bottom, right, bottom, right, top, left, top]
    return np.stack(corners, axis=1).astype(np.float32)
