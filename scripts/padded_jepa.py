"""GeoJEPA's training step done the published way, on padded batches, from plain torch modules.

Tiles are padded to the longest of the batch and attend to their padding; contexts and target sets
are picked by sort and gather, and padded too; the predictor runs once for each target set over
context and targets; the loss is a mean over every position; the encoder alone is averaged.
Tokens and positions come from the same modules as ours, without padding, in its favour.
"""

import copy

import torch
from geojepa_kernels.masking import Masks
from torch import Tensor, nn
from torch.nn import functional as F

from geojepa.model.batch import Batch
from geojepa.model.config import LossConfig
from geojepa.model.jepa import GeoJEPA
from geojepa.model.losses import variance_covariance
from geojepa.model.transformer import Block


def layer_of(block: Block) -> nn.TransformerEncoderLayer:
    """Torch's own layer with the weights of a block."""
    width = block.norm_attention.normalized_shape[0]
    layer = nn.TransformerEncoderLayer(
        width, block.heads, 4 * width, block.dropout, batch_first=True, norm_first=True
    )
    first, last = block.feed[0], block.feed[-1]
    pairs = {
        layer.norm1: block.norm_attention,
        layer.norm2: block.norm_feed,
        layer.linear1: first,
        layer.linear2: last,
        layer.self_attn.out_proj: block.out,
    }
    for ours, its in pairs.items():
        ours.load_state_dict(its.state_dict())
    with torch.no_grad():
        layer.self_attn.in_proj_weight.copy_(block.qkv.weight)
        layer.self_attn.in_proj_bias.copy_(block.qkv.bias)
    return layer


class Stack(nn.Module):
    """Layers over padded sequences (T, L, width), after the registers; no padding is masked."""

    def __init__(self, blocks: nn.ModuleList, registers: Tensor):
        super().__init__()
        self.layers = nn.ModuleList(layer_of(block) for block in blocks)
        self.registers = nn.Parameter(registers.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.registers.expand(len(x), -1, -1), x], dim=1)
        for layer in self.layers:
            x = layer(x)
        return x[:, len(self.registers) :]


class PaddedJEPA(nn.Module):
    """Student, teacher and predictor with the weights of a GeoJEPA."""

    def __init__(self, model: GeoJEPA):
        super().__init__()
        self.config = model.config
        student, predictor = (copy.deepcopy(part) for part in (model.student, model.predictor))
        self.tokenizer, self.position = student.tokenizer, student.position
        self.encoder = nn.Sequential(
            Stack(student.encoder.blocks, student.encoder.registers), student.encoder.norm
        )
        self.teacher = copy.deepcopy(self.encoder).requires_grad_(False).eval()
        self.project, self.mask_token = predictor.project, predictor.mask_token
        self.predictor = Stack(predictor.blocks, predictor.registers)
        self.out = nn.Sequential(predictor.norm, predictor.out)

    def train(self, mode: bool = True) -> "PaddedJEPA":
        """The teacher never drops."""
        super().train(mode)
        self.teacher.eval()
        return self

    def forward(self, batch: Batch, masks: Masks, loss: LossConfig) -> Tensor:
        """The loss of a step."""
        tile = torch.repeat_interleave(
            torch.arange(len(batch.cu_seqlens) - 1), batch.cu_seqlens.diff().long()
        )
        place = torch.arange(len(tile)) - batch.cu_seqlens.long()[tile]
        shape = len(batch.cu_seqlens) - 1, batch.max_seqlen

        def padded(x: Tensor) -> Tensor:
            return x.new_zeros(*shape, *x.shape[1:]).index_put((tile, place), x)

        content = padded(self.tokenizer(batch))
        box = batch.box
        if self.training and self.config.position_noise:
            box = box + torch.randn_like(box) * self.config.position_noise
        position = padded(self.position(box, batch.modality))
        bits = padded(masks.targets.int() | 1 << masks.target_sets)  # the last bit: no padding
        with torch.no_grad():
            latents = self.teacher(content + position)
            targets = F.layer_norm(latents, latents.shape[-1:])
        seen = bits == 1 << masks.target_sets
        where = picked(seen)
        context = self.encoder(gather(content + position, where, seen))
        known = self.project(context) + self.project(gather(position, where, seen))
        losses, spread = [], []
        for bit in range(masks.target_sets):
            hidden = (bits >> bit) & 1 == 1
            where = picked(hidden)
            wanted = self.mask_token + self.project(gather(position, where, hidden))
            both = self.predictor(torch.cat([known, wanted], dim=1))
            guessed = self.out(both[:, known.shape[1] :])
            target = gather(targets, where, hidden)
            losses.append(F.smooth_l1_loss(guessed, target, beta=loss.beta))
            spread.append(variance_covariance(guessed.flatten(0, 1)))
        regulariser = sum(spread) + variance_covariance(context.flatten(0, 1))
        return sum(losses) + loss.vicreg_weight * regulariser

    @torch.no_grad()
    def update_teacher(self, momentum: float) -> None:
        """The encoder alone."""
        pairs = zip(self.teacher.parameters(), self.encoder.parameters(), strict=True)
        for teacher, student in pairs:
            teacher.lerp_(student, 1 - momentum)


def picked(chosen: Tensor) -> Tensor:
    """(T, L) bool to (T, longest) places of the chosen tokens first, by a stable sort."""
    order = torch.argsort(~chosen, dim=1, stable=True)
    return order[:, : int(chosen.sum(dim=1).max())]


def gather(x: Tensor, where: Tensor, chosen: Tensor) -> Tensor:
    """(T, longest, D) rows of x (T, L, D) at their places, zero beyond a tile's own."""
    rows = x.gather(1, where[:, :, None].expand(-1, -1, x.shape[-1]))
    return rows * chosen.gather(1, where)[:, :, None]
