"""GeoJEPA: a student that sees the context, a teacher that sees all, a predictor between them."""

import copy
from dataclasses import dataclass

import torch
from geojepa_kernels.masking import Masks, Sizes, compact
from torch import Tensor, nn
from torch.nn import functional as F

from geojepa.model.batch import Batch
from geojepa.model.codebook import DEPTHS, WORDS
from geojepa.model.config import LossConfig, ModelConfig
from geojepa.model.graph_network import GraphNetwork
from geojepa.model.losses import (
    errors_by_set,
    over_sets,
    prediction_loss,
    variance_covariance,
)
from geojepa.model.predictor import Predictor
from geojepa.model.tokenizer import Position, Tokenizer
from geojepa.model.transformer import Encoder


class Network(nn.Module):
    """The whole path from a batch to latents: tokeniser, position, encoder."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.tokenizer = Tokenizer(config)
        self.position = Position(config)
        self.encoder = Encoder(config)

    def forward(self, batch: Batch) -> Tensor:
        """(S, width) latents of every token, each tile seen whole."""
        return self.latents(batch, 1)[1][0]

    def latents(self, batch: Batch, count: int) -> tuple[Tensor, list[Tensor]]:
        """Content tokens, and latents at `count` depths of the encoder, (S, width) each."""
        content = self.tokenizer(batch)
        x = content + self.position(batch.box, batch.modality)
        return content, self.encoder.depths(x, batch.cu_seqlens, batch.max_seqlen, count)


@dataclass
class Losses:
    """The terms of one step; `total` is what is minimised."""

    total: Tensor
    prediction: Tensor
    regulariser: Tensor
    by_modality: Tensor
    """(modalities,) mean error of a token, NaN where none of the modality was a target."""


class GeoJEPA(nn.Module):
    """Student, teacher and predictor. The teacher's tokens are the representation.

    Attributes:
        shapes: the frozen network that reads geometries; None where they need none. Its vectors
            come with a batch: give it to `Batches`.
        codebook: (depths * modalities, WORDS, width), the words that an embedding counts: at evenly
            spaced depths of the encoder, those of each modality; zeros until `fit_codebook`, none
            where the pooling has none.
    """

    shapes: GraphNetwork | None
    codebook: Tensor

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.student = Network(config)
        self.predictor = Predictor(config)
        self.student.apply(_initialise)
        self.predictor.apply(_initialise)
        self.teacher = copy.deepcopy(self.student).requires_grad_(False).eval()
        self.shapes = None
        if config.has_geometry_network:
            self.shapes = GraphNetwork(config.geometry_width).requires_grad_(False).eval()
        depths = min(DEPTHS, config.depth) if config.pooling == "counts" else 0
        words = torch.zeros(depths * len(config.token_modalities), WORDS, config.width)
        self.register_buffer("codebook", words, persistent=depths > 0)

    def train(self, mode: bool = True) -> "GeoJEPA":
        """Student and predictor train; the teacher never drops."""
        super().train(mode)
        self.teacher.eval()
        if self.shapes is not None:
            self.shapes.eval()
        return self

    @torch.no_grad()
    def targets(self, batch: Batch) -> Tensor:
        """(S, width) what is predicted of every token, layer-normed."""
        x = self.teacher(batch)
        return F.layer_norm(x, x.shape[-1:])

    def forward(
        self,
        batch: Batch,
        masks: Masks,
        sizes: Sizes | None = None,
        *,
        loss: LossConfig,
        drop: str | None = None,
        shown: Masks | None = None,
    ) -> Losses:
        """One training step: targets, context, predict, loss.

        Args:
            batch: of T tiles.
            masks: which tokens are targets of which set.
            sizes: the masks' totals, read ahead; None reads them here, and waits for a GPU.
            loss: what is minimised.
            drop: "tags" or "geometry", zeroed in the student's entities; None for neither.
            shown: masks whose context is seen in place of that of `masks`, targets or not.
        """
        packed = compact(masks, batch.cu_seqlens, sizes)
        sizes = packed.sizes
        seen = packed if shown is None else compact(shown, batch.cu_seqlens)
        longest = seen.sizes.longest_context, sizes.longest_targets
        targets = packed.targets(self.targets(batch))

        content = self.student.tokenizer(batch, drop)
        box = batch.box
        if self.training and self.config.position_noise:
            box = box + torch.randn_like(box) * self.config.position_noise
        position = self.student.position(box, batch.modality)
        context_position = seen.context(position)
        context = self.student.encoder(
            seen.context(content) + context_position, seen.cu_context, longest[0]
        )

        predicted = self.predictor(
            context,
            context_position,
            packed.targets(position),
            seen.cu_context,
            packed.cu_targets,
            longest,
        )

        sets = masks.target_sets
        counts = packed.cu_targets.diff().long()
        target_set = (torch.arange(len(counts), device=counts.device) % sets).repeat_interleave(
            counts, output_size=len(predicted)
        )
        modality = packed.targets(batch.modality)
        kinds = len(self.config.token_modalities)
        total, count = errors_by_set(
            predicted, targets, target_set, modality, sets, kinds, loss.beta
        )
        prediction = prediction_loss(total, count, loss.mean, loss.sets)
        spread = torch.stack([variance_covariance(x) for x in packed.by_set(predicted)])
        regulariser = over_sets(spread, count.sum(dim=1), loss.sets) + variance_covariance(context)
        return Losses(
            total=prediction + loss.vicreg_weight * regulariser,
            prediction=prediction,
            regulariser=regulariser,
            by_modality=(total.sum(dim=0) / count.sum(dim=0)).detach(),
        )

    @torch.no_grad()
    def update_teacher(self, momentum: float, part: str = "path") -> None:
        """teacher = momentum teacher + (1 - momentum) student.

        Args:
            momentum: in [0, 1].
            part: averaged: "path", tokeniser, position and encoder; or "encoder" alone, where the
                teacher takes the student's tokeniser and position as they are, as in the paper.
        """
        pairs = zip(self.teacher.named_parameters(), self.student.parameters(), strict=True)
        for (name, teacher), student in pairs:
            is_averaged = part == "path" or name.startswith("encoder.")
            teacher.lerp_(student, 1 - momentum if is_averaged else 1.0)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
