"""From a batch to tokens: their content, and where and of which modality they are."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from geojepa.model.batch import Batch
from geojepa.model.config import ModelConfig
from geojepa.model.geometry import GEOMETRY_DIM
from geojepa.model.graph_network import LAYERS
from geojepa.model.modalities import modality_classes
from geojepa.model.tags import TagTable


def mlp(*widths: int, activation: type[nn.Module] = nn.GELU, dropout: float = 0.0) -> nn.Sequential:
    """Linear layers with an activation between them."""
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), activation(), nn.Dropout(dropout)]
    return nn.Sequential(*layers[:-2])


class Tokenizer(nn.Module):
    """Content tokens (arXiv:2503.05774): frozen tag embeddings, geometry, other modalities.

    An entity is fused from its tags and its geometry; the half that is absent is zero.
    """

    table: Tensor

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        width = config.width
        matrix = torch.tensor(TagTable.load().matrix)
        self.register_buffer("table", matrix, persistent=False)
        self.tags = nn.Sequential(nn.Linear(matrix.shape[1], width), nn.LayerNorm(width))
        if config.has_geometry:
            is_network = config.has_geometry_network
            features = LAYERS * config.geometry_width if is_network else GEOMETRY_DIM
            norm = nn.LayerNorm(width)
            self.geometry = nn.Sequential(nn.Linear(features, width), norm)
            if config.fusion == "mlp":
                self.fusion = mlp(2 * width, 2 * width, width)
            else:
                nn.init.zeros_(norm.weight)
        self.others = nn.ModuleDict({one.name: one(config) for one in modality_classes(config)})

    def forward(self, batch: Batch, drop: str | None = None) -> Tensor:
        """(S, width) content; `drop` zeroes "tags" or "geometry" of all entities."""
        content = self.table.new_zeros(len(batch.box), self.config.width)
        # also without tokens: every process that trains gets a gradient for every weight
        content = _put(content, batch.entity_slot, self.entities(batch, drop))
        for name, slot in batch.slots.items():
            content = _put(content, slot, self.others[name](batch.values[name]))
        return content

    def entities(self, batch: Batch, drop: str | None = None) -> Tensor:
        """(N, width) fused entity tokens."""
        total = F.embedding_bag(
            batch.tag_rows,
            self.table,
            batch.cu_tags,
            mode="sum",
            include_last_offset=True,
        )
        tags = self.tags(F.layer_norm(total, total.shape[-1:]))
        tags = tags * (batch.cu_tags.diff() > 0)[:, None]
        if not self.config.has_geometry:
            return tags
        geometry = self.geometry(batch.geometry)
        if drop is not None:
            tags, geometry = (tags * 0, geometry) if drop == "tags" else (tags, geometry * 0)
        if self.config.fusion == "gated":
            return tags + geometry
        return self.fusion(torch.cat([tags, geometry], dim=1))


def _put(content: Tensor, slot: Tensor, tokens: Tensor) -> Tensor:
    """`content` with `tokens` at their slots; autocast may have made them narrower."""
    return content.index_copy(0, slot, tokens.to(content.dtype))


class Position(nn.Module):
    """Where a token is (its box) and of which modality: one vector, added to its content."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        width = config.width
        self.encodings = config.encodings
        self.box = mlp(8, 4 * width, width, dropout=config.dropout)
        self.modality = nn.Embedding(len(config.token_modalities), width)
        self.join = mlp(2 * width, 2 * width, width)

    def forward(self, box: Tensor, modality: Tensor) -> Tensor:
        """(S, 8) and (S,) to (S, width)."""
        told = {"position": self.box(box), "modality": self.modality(modality.int())}
        parts = [x * (name in self.encodings) for name, x in told.items()]
        return self.join(torch.cat(parts, dim=1))
