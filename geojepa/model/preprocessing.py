"""How a vision model wants its images: size, mean and deviation, as its own files say.

The numbers are read from preprocessor_config.json: the processors of several models exist only
for torchvision, which is no dependency.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from geojepa.errors import GeoJEPAError

_BILINEAR = 2


@dataclass(frozen=True)
class Preprocessing:
    """Images to the pixels that a model takes.

    Attributes:
        size: pixels of a side. The whole tile is resized to it: nothing is cropped, for a crop
            would lose the tile's edge.
        rescale: factor on 0 to 255.
        mean, std: of each channel, after `rescale`.
        resample: PIL's number of the filter.
    """

    size: int
    rescale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resample: int

    @classmethod
    def read(cls, said: Mapping[str, Any], name: str) -> "Preprocessing":
        """Take the numbers from a preprocessor_config.json.

        Args:
            said: its content; older files write a size as a number, newer ones as its sides.
            name: of the model, for the error.

        Raises:
            GeoJEPAError: if it tells no square size or not how colours are normalised.
        """
        is_cropped = said.get("do_center_crop", "crop_size" in said)
        size = said.get("crop_size" if is_cropped else "size")
        sides: set[Any] = set(size.values()) if isinstance(size, Mapping) else {size}
        is_normalised = said.get("do_normalize", True)
        mean, std = (said.get(f"image_{one}") for one in ("mean", "std"))
        if not is_normalised:
            mean, std = (0.0,) * 3, (1.0,) * 3
        side = sides.pop()
        if sides or not side or not mean or not std:
            raise GeoJEPAError(
                f"{name}: its preprocessor_config.json tells no square size with image_mean and "
                "image_std; add them as the model's authors give them"
            )
        return cls(
            size=int(side),
            rescale=said.get("rescale_factor", 1 / 255) if said.get("do_rescale", True) else 1.0,
            mean=tuple(mean),
            std=tuple(std),
            resample=said.get("resample", _BILINEAR),
        )

    def __call__(self, images: np.ndarray) -> Tensor:
        """(n, H, W, 3) uint8 to (n, 3, size, size) float32."""
        if images.shape[1:3] != (self.size, self.size):
            shape, how = (self.size, self.size), Image.Resampling(self.resample)
            resized = [np.asarray(Image.fromarray(one).resize(shape, how)) for one in images]
            images = np.stack(resized) if resized else np.empty((0, *shape, 3), np.uint8)
        pixels = torch.from_numpy(images.astype(np.float32)) * self.rescale
        pixels = (pixels - torch.tensor(self.mean)) / torch.tensor(self.std)
        return pixels.permute(0, 3, 1, 2).contiguous()
