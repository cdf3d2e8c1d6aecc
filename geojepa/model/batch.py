"""A batch of tiles as tensors: ragged tokens, entities first, then image patches, tile by tile."""

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from geojepa.data.corpus import Corpus
from geojepa.errors import GeoJEPAError
from geojepa.model.config import ModelConfig
from geojepa.model.feature_cache import geometry_features
from geojepa.model.tags import TagTable

PATCH = 16
ENTITY, IMAGE = 0, 1


@dataclass
class Batch:
    """T tiles with S tokens in all, of N entities (K tags) and P patches.

    Attributes:
        cu_seqlens: (T + 1,) int32, tokens of each tile.
        max_seqlen: tokens of the longest tile.
        box: (S, 8) float32.
        modality: (S,) uint8, 0 entity or 1 image.
        entity_slot: (N,) int64, the token of each entity.
        patch_slot: (P,) int64, the token of each patch.
        cu_tags: (N + 1,) int64 and tag_rows: (K,) int64, rows of the tag table.
        geometry: (N, GEOMETRY_DIM) float32, or (N, 0).
        pixels: (P, 768) float32 in [-1, 1].
        tile_key: (T,) int64, what the mask generator knows a tile by.
    """

    cu_seqlens: Tensor
    max_seqlen: int
    box: Tensor
    modality: Tensor
    entity_slot: Tensor
    patch_slot: Tensor
    cu_tags: Tensor
    tag_rows: Tensor
    geometry: Tensor
    pixels: Tensor
    tile_key: Tensor

    def to(self, device: torch.device) -> "Batch":
        """The batch on another device."""
        moved: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        for name, value in moved.items():
            if torch.is_tensor(value):
                moved[name] = value.to(device, non_blocking=True)
        return replace(self, **moved)


class Batches:
    """Makes batches of a corpus for a model: looks tags up, encodes geometries once, cuts patches.

    Geometry features depend on no weight: they are computed once for a corpus and kept, see
    `feature_cache`.
    """

    def __init__(self, corpus: Corpus, config: ModelConfig):
        if config.has_image and not corpus.has_images:
            raise GeoJEPAError(
                f"{corpus.name}: has no images, but modalities {config.modalities!r} need them; "
                "prepare it with --imagery, or choose a preset without i"
            )
        self.corpus = corpus
        self.config = config
        self.tag_row = TagTable.load().lookup(corpus.vocabulary)
        self.geometry = geometry_features(corpus) if config.has_geometry else None

    def __call__(self, rows: np.ndarray, hide: str | None = None) -> Batch:
        """The batch of `rows`; with `hide`, as that task's masked version shows them."""
        data = self.corpus.read(rows, hide)
        patches = self.config.patches * data.has_image if self.config.has_image else 0 * rows
        entities = np.diff(data.cu_entities)
        cu = np.concatenate([[0], np.cumsum(entities + patches)])
        entity_slot = _slots(cu[:-1], entities)
        patch_slot = _slots(cu[:-1] + entities, patches)
        box = np.empty((cu[-1], 8), dtype=np.float32)
        box[entity_slot] = data.box
        modality = np.full(cu[-1], ENTITY, dtype=np.uint8)
        modality[patch_slot] = IMAGE
        pixels = np.empty((0, 3 * PATCH * PATCH), dtype=np.float32)
        if len(patch_slot):
            with_image = np.flatnonzero(data.has_image)
            pixels = cut_patches(self.corpus.images(rows[with_image]), self.config.image_size)
            box[patch_slot] = np.tile(patch_boxes(self.config.image_size), (len(with_image), 1))
        table_row = self.tag_row[data.tag_ids]
        known = table_row >= 0
        cu_tags = np.concatenate([[0], np.cumsum(known)])[data.cu_tags]
        geometry = np.empty((len(entity_slot), 0), dtype=np.float32)
        if self.geometry is not None:
            geometry = self.geometry[data.entity]
        return Batch(
            cu_seqlens=torch.from_numpy(cu.astype(np.int32)),
            max_seqlen=int((entities + patches).max(initial=0)),
            box=torch.from_numpy(box),
            modality=torch.from_numpy(modality),
            entity_slot=torch.from_numpy(entity_slot),
            patch_slot=torch.from_numpy(patch_slot),
            cu_tags=torch.from_numpy(cu_tags),
            tag_rows=torch.from_numpy(table_row[known].astype(np.int64)),
            geometry=torch.from_numpy(geometry),
            pixels=torch.from_numpy(pixels),
            tile_key=torch.from_numpy(np.array(rows, dtype=np.int64)),
        )


def _slots(start: np.ndarray, count: np.ndarray) -> np.ndarray:
    """start[i], start[i] + 1, ... count[i] of them, for each i."""
    before = np.cumsum(count) - count
    return (np.repeat(start - before, count) + np.arange(count.sum())).astype(np.int64)


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
