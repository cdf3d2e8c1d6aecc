"""GeoJEPA: a student that sees the context, a teacher that sees all, a predictor between them."""

import copy
from dataclasses import dataclass

import torch
from geojepa_kernels.masking import Masks, Sizes, compact
from torch import Tensor, nn
from torch.nn import functional as F

from geojepa.model.batch import Batch
from geojepa.model.config import ModelConfig
from geojepa.model.losses import prediction_loss, variance_covariance
from geojepa.model.tokenizer import Position, Tokenizer
from geojepa.model.transformer import Encoder, Predictor


class Network(nn.Module):
    """The whole path from a batch to latents: tokeniser, position, encoder."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.tokenizer = Tokenizer(config)
        self.position = Position(config.width, config.dropout)
        self.encoder = Encoder(config)

    def forward(self, batch: Batch) -> Tensor:
        """(S, width) latents of every token, each tile seen whole."""
        return self.depths(batch)[1]

    def depths(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Content tokens before the encoder, and latents after it, (S, width) each."""
        content = self.tokenizer(batch)
        position = self.position(batch.box, batch.modality)
        return content, self.encoder(content + position, batch.cu_seqlens, batch.max_seqlen)


@dataclass
class Losses:
    """The terms of one step; `total` is what is minimised."""

    total: Tensor
    prediction: Tensor
    regulariser: Tensor


class GeoJEPA(nn.Module):
    """Student, teacher and predictor. The teacher's tokens are the representation."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.student = Network(config)
        self.predictor = Predictor(config)
        self.student.apply(_initialise)
        self.predictor.apply(_initialise)
        self.teacher = copy.deepcopy(self.student).requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "GeoJEPA":
        """Student and predictor train; the teacher never drops."""
        super().train(mode)
        self.teacher.eval()
        return self

    def forward(
        self,
        batch: Batch,
        masks: Masks,
        sizes: Sizes | None = None,
        *,
        vicreg_weight: float,
        beta: float,
        drop: str | None = None,
    ) -> Losses:
        """One training step: targets, context, predict, loss.

        Args:
            batch: of T tiles.
            masks: which tokens are targets of which set.
            sizes: the masks' totals, read ahead; None reads them here, and waits for a GPU.
            vicreg_weight: of the variance and covariance terms.
            beta: of the smooth L1 loss.
            drop: "tags" or "geometry", zeroed in the student's entities; None for neither.
        """
        packed = compact(masks, batch.cu_seqlens, sizes)
        sizes = packed.sizes
        with torch.no_grad():
            latents = packed.targets(self.teacher(batch))
            targets = F.layer_norm(latents, latents.shape[-1:])

        content = self.student.tokenizer(batch, drop)
        box = batch.box
        if self.training and self.config.position_noise:
            box = box + torch.randn_like(box) * self.config.position_noise
        position = self.student.position(box, batch.modality)
        context_position = packed.context(position)
        context = self.student.encoder(
            packed.context(content) + context_position, packed.cu_context, sizes.longest_context
        )

        predicted = self.predictor(
            context,
            context_position,
            packed.targets(position),
            packed.cu_context,
            packed.cu_targets,
            (sizes.longest_context, sizes.longest_targets),
        )

        sets = masks.target_sets
        counts = packed.cu_targets.diff().long()
        target_set = (torch.arange(len(counts), device=counts.device) % sets).repeat_interleave(
            counts, output_size=len(predicted)
        )
        modality = packed.targets(batch.modality)
        prediction = prediction_loss(predicted, targets, target_set, modality, sets, beta)
        spread = torch.stack([variance_covariance(x) for x in packed.by_set(predicted)]).mean()
        regulariser = spread + variance_covariance(context)
        return Losses(prediction + vicreg_weight * regulariser, prediction, regulariser)

    @torch.no_grad()
    def update_teacher(self, momentum: float) -> None:
        """teacher = momentum teacher + (1 - momentum) student, over the whole path."""
        pairs = zip(self.teacher.parameters(), self.student.parameters(), strict=True)
        for teacher, student in pairs:
            teacher.lerp_(student, 1 - momentum)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
