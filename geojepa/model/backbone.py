"""Frozen vision transformers of the transformers library, as tokenisers of images.

`patch_features(corpus, Backbone.load(name))` computes their tokens once and keeps them.
"""

import hashlib
import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from geojepa.data.corpus import Corpus
from geojepa.errors import GeoJEPAError
from geojepa.model.frozen import patch_features
from geojepa.model.modalities import PATCH, patch_boxes
from geojepa.model.preprocessing import Preprocessing
from geojepa.model.pretrained import no_transformer, read_pretrained

# raised when the same weights come to give other tokens
VERSION = 1
# images that go through the network at once
_AT_ONCE = 32
# what a config says of its file, not of its model
_OF_THE_FILE = ("transformers_version", "architectures", "dtype", "torch_dtype")
_WHOLE_TILE = np.array([[0, 0, 1, 0, 1, 1, 0, 1]], np.float32)


@dataclass(frozen=True, eq=False)
class Backbone:
    """A frozen vision transformer: images to a class token and one token a patch.

    Attributes:
        model: of transformers, in evaluation, float32.
        preprocessing: its own.
        source: hub name or folder it was loaded from.
        revision: commit of the hub; "" of a folder.
        sha256: of its weights, whatever files they came in.
        licence: that its model card says, "" where it says none.
    """

    model: Any
    preprocessing: Preprocessing
    source: str
    revision: str
    sha256: str
    licence: str

    @classmethod
    def load(cls, name: str | Path, revision: str | None = None) -> "Backbone":
        """Load from the hub (or its local cache), or from a folder made by `save_pretrained`.

        It runs on the GPU where there is one.

        Args:
            name: such as "facebook/dinov2-base", or a folder.
            revision: branch, tag or commit on the hub.

        Raises:
            GeoJEPAError: if transformers is missing, the model cannot be had, or it is no
                vision transformer.
        """
        found = read_pretrained(str(name), revision)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        backbone = cls(
            model=found.model.to(device),
            preprocessing=Preprocessing.read(found.preprocessor, str(name)),
            source=str(name),
            revision=found.revision,
            sha256=found.sha256,
            licence=found.licence,
        )
        backbone._try()
        return backbone

    @property
    def side(self) -> int:
        """Patches along a side of the tile."""
        return self.preprocessing.size // _one(self.model.config.patch_size)

    @property
    def shape(self) -> tuple[int, int]:
        """Tokens of an image, and D."""
        return 1 + self.side**2, self.model.config.hidden_size

    @property
    def boxes(self) -> np.ndarray:
        """(tokens, 8) float32 in tile units: the whole tile's, then rows from the north-west."""
        return np.concatenate([_WHOLE_TILE, patch_boxes(PATCH * self.side)])

    @cached_property
    def name(self) -> str:
        """Whatever changes the tokens: weights, settings and preprocessing."""
        config = self.model.config.to_dict()
        kept = {k: v for k, v in config.items() if k[0] != "_" and k not in _OF_THE_FILE}
        settings = json.dumps(kept, sort_keys=True, default=str)
        digest = hashlib.sha256(settings.encode()).hexdigest()
        return f"backbone {VERSION} {self.sha256} {digest} {self.preprocessing}"

    def facts(self) -> dict[str, str | int]:
        """What a run records of it."""
        tokens, width = self.shape
        names = ("source", "revision", "sha256", "licence")
        return {name: getattr(self, name) for name in names} | {"tokens": tokens, "width": width}

    @torch.inference_mode()
    def __call__(self, images: np.ndarray) -> np.ndarray:
        """(n, 224, 224, 3) uint8 to (n, *shape) float32.

        The first token is the model's class token, or the mean of its patches where it has none.
        Register tokens are left out.
        """
        out = np.empty((len(images), *self.shape), np.float32)
        patches = self.side**2
        for start in range(0, len(images), _AT_ONCE):
            hidden = self._run(images[start : start + _AT_ONCE])
            last = hidden[:, -patches:]
            first = hidden[:, :1] if hidden.shape[1] > patches else last.mean(1, keepdim=True)
            out[start : start + _AT_ONCE] = torch.cat([first, last], dim=1).cpu().numpy()
        return out

    def _run(self, images: np.ndarray) -> Tensor:
        """(n, tokens with registers, D), the last hidden state."""
        config = self.model.config
        pixels = self.preprocessing(images).to(self.model.device)
        arguments: dict[str, Any] = {}
        if config.model_type == "vit_mae":
            # keeps all patches, and noise in ascending order shuffles none
            config.mask_ratio = 0.0
            noise = torch.arange(self.side**2, dtype=torch.float32, device=pixels.device)
            arguments["noise"] = noise.expand(len(pixels), -1)
        takes = inspect.signature(self.model.forward).parameters
        is_other = self.preprocessing.size != _one(config.image_size)
        if is_other and "interpolate_pos_encoding" in takes:
            arguments["interpolate_pos_encoding"] = True
        return self.model(pixel_values=pixels, **arguments).last_hidden_state

    @torch.inference_mode()
    def _try(self) -> None:
        """Run a blank image.

        Raises:
            GeoJEPAError: if that gives anything else than patches after a class token and the
                registers, or patches alone.
        """
        config, size, patches = self.model.config, self.preprocessing.size, self.side**2
        if size % _one(config.patch_size):
            raise GeoJEPAError(
                f"{self.source}: an image of {size} pixels is no whole number of patches of "
                f"{_one(config.patch_size)}; correct the size in its preprocessor_config.json"
            )
        try:
            shape = tuple(self._run(np.zeros((1, size, size, 3), np.uint8)).shape)
        except (AttributeError, RuntimeError, TypeError, ValueError) as error:
            raise no_transformer(self.source, config.model_type) from error
        lengths = patches, patches + 1 + getattr(config, "num_register_tokens", 0)
        if shape not in [(1, length, config.hidden_size) for length in lengths]:
            raise no_transformer(self.source, config.model_type)


def token_reader(
    corpus: Corpus, backbone: Backbone
) -> tuple[np.ndarray, Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]]:
    """What `modalities.Source` is made of: tokens of each tile, and how they are read.

    The features are computed now, where no cache has them.

    Returns:
        (tiles,) int64, 0 where a tile has no image; and a function of rows that gives the boxes
        (n, 8) and the tokens (n, D), both float32, tile by tile.
    """
    features, boxes = patch_features(corpus, backbone), backbone.boxes
    tokens = len(boxes)
    image = np.cumsum(corpus.has_image) - 1

    def read(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        shown = rows[corpus.has_image[rows]]
        places = (image[shown, None] * tokens + np.arange(tokens)).ravel()
        return np.tile(boxes, (len(shown), 1)), features[places].astype(np.float32)

    return tokens * corpus.has_image.astype(np.int64), read


def _one(size: Any) -> int:
    """A side that a config gives as a number or as two equal ones."""
    return size if isinstance(size, int) else size[0]
