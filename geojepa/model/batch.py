"""A batch of tiles as tensors: ragged tokens, entities first, then other modalities, by tile."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from geojepa.data.corpus import Corpus
from geojepa.errors import GeoJEPAError
from geojepa.model.config import ModelConfig
from geojepa.model.frozen import geometry_features
from geojepa.model.graph_network import GraphNetwork
from geojepa.model.modalities import modality_classes
from geojepa.model.tags import TagTable

ENTITY = 0


@dataclass
class Batch:
    """T tiles with S tokens in all, N of them entities (K tags).

    Attributes:
        cu_seqlens: (T + 1,) int32, tokens of each tile.
        max_seqlen: tokens of the longest tile.
        box: (S, 8) float32.
        modality: (S,) uint8, its number in `ModelConfig.token_modalities`; 0 is an entity.
        entity_slot: (N,) int64, the token of each entity.
        cu_tags: (N + 1,) int64 and tag_rows: (K,) int64, rows of the tag table.
        geometry: (N, D) float32, of the Fourier transform or the geometry network, or (N, 0).
        slots: the tokens of each other modality, by its name: (n,) int64.
        values: what its content is made of, by its name: (n, F) float32.
        tile_key: (T,) int64, what the mask generator knows a tile by.
    """

    cu_seqlens: Tensor
    max_seqlen: int
    box: Tensor
    modality: Tensor
    entity_slot: Tensor
    cu_tags: Tensor
    tag_rows: Tensor
    geometry: Tensor
    slots: dict[str, Tensor]
    values: dict[str, Tensor]
    tile_key: Tensor

    def to(self, device: torch.device) -> "Batch":
        """The batch on another device."""
        return self.map(lambda tensor: tensor.to(device, non_blocking=True))

    def map(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        """The batch with every tensor changed."""

        def changed(value: Any) -> Any:
            if isinstance(value, dict):
                return {name: changed(part) for name, part in value.items()}
            return change(value) if torch.is_tensor(value) else value

        return Batch(**{name: changed(value) for name, value in vars(self).items()})

    def tensors(self) -> list[Tensor]:
        """Every tensor."""
        found: list[Tensor] = []

        def keep(tensor: Tensor) -> Tensor:
            found.append(tensor)
            return tensor

        self.map(keep)
        return found


class Batches:
    """Makes batches of a corpus for a model: tags, geometries, the tokens of each modality.

    Geometry features are computed once for a corpus, and for a geometry network's weights, and
    kept, see `feature_cache`.

    Args:
        corpus: the tiles.
        config: of the model.
        network: the model's `shapes`, where it has a network that reads geometries.

    Raises:
        GeoJEPAError: if the network is lacking.
    """

    def __init__(self, corpus: Corpus, config: ModelConfig, network: GraphNetwork | None = None):
        self.corpus = corpus
        self.config = config
        if config.has_geometry_network and network is None:
            raise GeoJEPAError(
                "this model reads geometries with a network of its own; give it: "
                "Batches(corpus, model.config, model.shapes)"
            )
        self.tag_row = TagTable.load().lookup(corpus.vocabulary)
        self.geometry = geometry_features(corpus, network) if config.has_geometry else None
        self.sources = {one.name: one.source(corpus, config) for one in modality_classes(config)}

    @cached_property
    def lengths(self) -> np.ndarray:
        """(tiles of the corpus,) int64, tokens of each."""
        entities = self.corpus.tiles.entities.to_numpy(dtype=np.int64)
        return entities + sum(source.count for source in self.sources.values())

    def __call__(self, rows: np.ndarray, hide: str | None = None) -> Batch:
        """The batch of `rows`; with `hide`, as that task's masked version shows them."""
        data = self.corpus.read(rows, hide)
        others = [source.count[rows] for source in self.sources.values()]
        counts = np.stack([np.diff(data.cu_entities), *others])  # [modalities, T]
        cu = np.concatenate([[0], np.cumsum(counts.sum(axis=0))])
        starts = cu[:-1] + np.cumsum(counts, axis=0) - counts
        entity_slot = _slots(starts[0], counts[0])
        box = np.empty((cu[-1], 8), dtype=np.float32)
        box[entity_slot] = data.box
        modality = np.full(cu[-1], ENTITY, dtype=np.uint8)
        slots, values = {}, {}
        for number, (name, source) in enumerate(self.sources.items(), start=1):
            slot = _slots(starts[number], counts[number])
            modality[slot] = number
            box[slot], value = source.read(np.asarray(rows))
            slots[name], values[name] = torch.from_numpy(slot), torch.from_numpy(value)
        table_row = self.tag_row[data.tag_ids]
        known = table_row >= 0
        cu_tags = np.concatenate([[0], np.cumsum(known)])[data.cu_tags]
        geometry = np.empty((len(entity_slot), 0), dtype=np.float32)
        if self.geometry is not None:
            geometry = self.geometry[data.entity].astype(np.float32, copy=False)
        made = Batch(
            cu_seqlens=torch.from_numpy(cu.astype(np.int32)),
            max_seqlen=int(np.diff(cu).max(initial=0)),
            box=torch.from_numpy(box),
            modality=torch.from_numpy(modality),
            entity_slot=torch.from_numpy(entity_slot),
            cu_tags=torch.from_numpy(cu_tags),
            tag_rows=torch.from_numpy(table_row[known].astype(np.int64)),
            geometry=torch.from_numpy(geometry),
            slots=slots,
            values=values,
            tile_key=torch.from_numpy(np.array(rows, dtype=np.int64)),
        )
        # numpy's memory may start anywhere, and a product of few rows rounds by where it starts:
        # in torch's own, every run gets the same bits
        return made.map(torch.clone)


def _slots(start: np.ndarray, count: np.ndarray) -> np.ndarray:
    """start[i], start[i] + 1, ... count[i] of them, for each i."""
    before = np.cumsum(count) - count
    return (np.repeat(start - before, count) + np.arange(count.sum())).astype(np.int64)
