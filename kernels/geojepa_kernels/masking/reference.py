"""The masks in plain PyTorch, by integer rules alone: what the kernel must draw bit for bit."""

from math import isqrt

import torch
from torch import Tensor
from torch.nn.functional import pad

from geojepa_kernels.masking.streams import Purpose, below, draw_words

# One tile side: coordinates are integers in units of 1/65536 tile.
UNIT = 1 << 16
# An area's lower corner lies in [-0.1, 1.1 - side].
CORNER_LOW, CORNER_HIGH = round(-0.1 * UNIT), round(1.1 * UNIT)
# Its shape a lies in [0.5, 2].
SHAPE_LOW, SHAPES = UNIT // 2, 2 * UNIT - UNIT // 2 + 1


class Ragged:
    """A batch of tiles as the rules need it: which tile each token is of, and its place there."""

    def __init__(self, cu_seqlens: Tensor, tokens: int, tile_key: Tensor, key: tuple[int, int]):
        self.start = cu_seqlens[:-1].long()
        self.count = cu_seqlens.diff().long()
        self.key = key
        self.tile_key = tile_key
        tiles = torch.arange(len(self.count), device=cu_seqlens.device)
        self.tile = torch.repeat_interleave(tiles, self.count, output_size=tokens)
        self.first = self.start[self.tile]
        self.place = torch.arange(tokens, device=cu_seqlens.device) - self.first

    def token_words(self, purpose: Purpose, sets: int) -> Tensor:
        """A random word for each set and token, (sets, tokens): word m % 4 of block m // 4."""
        tile_key = self.tile_key[self.tile]
        blocks = [
            draw_words(self.key, purpose, self.place, tile_key, block)
            for block in range((sets + 3) // 4)
        ]
        return torch.stack([word for block in blocks for word in block][:sets])

    def tile_words(self, purpose: Purpose, sets: int) -> tuple[Tensor, ...]:
        """Four random words for each set and tile, each (sets, tiles)."""
        index = torch.arange(sets, device=self.tile_key.device)[:, None]
        index, tile_key = torch.broadcast_tensors(index, self.tile_key)
        return draw_words(self.key, purpose, index.contiguous(), tile_key)

    def rank(self, keys: Tensor) -> Tensor:
        """The rank of each token among its tile's, ties by place; keys (rows, tokens) < 2**33."""
        order = torch.argsort((self.tile << 33) | keys, dim=1, stable=True)
        return torch.empty_like(order).scatter_(1, order, self.place.expand_as(order))

    def any(self, claim: Tensor) -> Tensor:
        """Whether a claim (tokens,) holds for a token of the tile, (tiles,)."""
        return self.total(claim) > 0

    def total(self, claim: Tensor) -> Tensor:
        """For how many tokens of the tile a claim (tokens,) holds, (tiles,)."""
        before = pad(claim.long().cumsum(0), (1, 0))
        return before[self.start + self.count] - before[self.start]


def box_centres(box: Tensor) -> Tensor:
    """Centres in 1/65536 tile, (tokens, 2) int64, of corners (tokens, 8) or points (tokens, 2).

    Each coordinate is rounded first (ties to even), then the mean of the corners (ties up), so
    that no float sum can differ between devices.
    """
    units = (box * UNIT).round().long()
    if box.shape[1] == 2:
        return units
    return (units.view(-1, 4, 2).sum(1) + 2) >> 2


def target_count(count: Tensor, size: int) -> Tensor:
    """Tokens of a target set: the per-mille size of the tile's count, rounded down, at least 1."""
    return (count * size // 1000).clamp(min=1)


def random_targets(batch: Ragged, size: int, sets: int) -> Tensor:
    """The tokens of smallest random words, (sets, tokens) bool."""
    ranks = batch.rank(batch.token_words(Purpose.RANDOM, sets))
    return ranks < target_count(batch.count, size)[batch.tile]


def contiguous_targets(batch: Ragged, centres: Tensor, size: int, sets: int) -> Tensor:
    """A run in Morton order of the box centres, (sets, tokens) bool."""
    bits = centres.clamp(0, UNIT - 1)
    for shift, mask in ((8, 0x00FF00FF), (4, 0x0F0F0F0F), (2, 0x33333333), (1, 0x55555555)):
        bits = (bits | (bits << shift)) & mask
    place = batch.rank((bits[:, 0] | (bits[:, 1] << 1))[None])
    length = target_count(batch.count, size)
    start = below(batch.tile_words(Purpose.RUN, sets)[0], (batch.count - length).clamp(min=0) + 1)
    offset = place - start[:, batch.tile]
    return (offset >= 0) & (offset < length[batch.tile])


def area_targets(batch: Ragged, centres: Tensor, size: int, sets: int) -> Tensor:
    """The tokens whose centre lies in a random rectangle, edges included, (sets, tokens) bool."""
    # the side of a square of this area, rounded: sqrt(size / 1000) * UNIT
    side = (isqrt(4 * size * UNIT * UNIT // 1000) + 1) // 2
    shape, *corner = batch.tile_words(Purpose.AREA, sets)[:3]
    shape = SHAPE_LOW + below(shape, SHAPES)
    sides = (side * shape + UNIT // 2) >> 16, (side * UNIT + shape // 2) // shape
    inside = torch.ones(sets, len(centres), dtype=torch.bool, device=centres.device)
    for axis, (length, word) in enumerate(zip(sides, corner, strict=True)):
        length = length.clamp(max=UNIT)
        low = CORNER_LOW + below(word, CORNER_HIGH - length - CORNER_LOW + 1)
        offset = centres[:, axis] - low[:, batch.tile]
        inside &= (offset >= 0) & (offset <= length[:, batch.tile])
    return inside


def modality_targets(batch: Ragged, modality: Tensor, modalities: int) -> Tensor:
    """All but one modality, drawn among those of the tile; (modalities - 1, tokens) bool.

    Set m is modality m, or m + 1 from the context's modality on.
    """
    present = torch.stack([batch.any(modality == kind) for kind in range(modalities)])
    chosen = below(batch.tile_words(Purpose.MODALITY, 1)[0], present.sum(0))
    context = (present & (present.cumsum(0) == chosen + 1)).int().argmax(0)[batch.tile]
    kinds = torch.arange(modalities - 1, device=modality.device)[:, None]
    return modality == kinds + (kinds >= context)


def free_context(batch: Ragged, sets: Tensor, min_context: int) -> Tensor:
    """Frees tokens from every set, smallest random word first, until the context suffices."""
    is_target = sets.any(0)
    needed = ((batch.count * min_context + 999) // 1000).clamp(min=1)
    missing = needed - (batch.count - batch.total(is_target))
    # context tokens rank behind every target, whose words are below 2**32
    words = torch.where(is_target, batch.token_words(Purpose.FREE, 1)[0], 1 << 32)
    return sets & (batch.rank(words[None]) >= missing[batch.tile])


def draw_masks_reference(
    cu_seqlens: Tensor,
    box: Tensor,
    modality: Tensor,
    tile_key: Tensor,
    key: tuple[int, int],
    strategy: str,
    size: int,
    min_context: int,
    sets: int,
    modalities: int,
) -> Tensor:
    """The target sets of each token, (tokens,) uint8; arguments as in `draw_masks`."""
    batch = Ragged(cu_seqlens, len(box), tile_key.long(), key)
    if strategy == "contiguous":
        targets = contiguous_targets(batch, box_centres(box), size, sets)
    else:
        targets = random_targets(batch, size, sets)
    if strategy == "area":
        chosen = area_targets(batch, box_centres(box), size, sets)
    elif strategy == "modality":
        chosen = modality_targets(batch, modality, modalities)
    else:
        chosen = targets
    # a tile whose sets are all empty keeps the random ones
    targets = torch.where(batch.any(chosen.any(0))[batch.tile], chosen, targets)
    targets = free_context(batch, targets, min_context)
    bits = torch.arange(sets, device=box.device)[:, None]
    return (targets.long() << bits).sum(0).to(torch.uint8)
