"""Pretrains the geometry network without labels: from its vector, how far is any place?

The paper's network is pretrained and frozen too, by a task that it does not state. Ours is to
answer, for places in and around a geometry's box, how far the geometry is and whether the place
lies within it, and how large the box is: who can answer that everywhere knows the shape.
"""

import json
import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import shapely
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from geojepa.data.corpus import Corpus
from geojepa.errors import GeoJEPAError
from geojepa.model.geometry import FREQUENCIES, Frame, log_size
from geojepa.model.graph_network import LAYERS, GraphBatch, GraphNetwork, graph_batch
from geojepa.training.checkpoint import load_checkpoint, save_checkpoint

# geometries learned from, of a step, and places asked about for each
GEOMETRIES, LOT, PLACES = 20_000, 256, 32
# half of the places are drawn from this square, in units of half the box's longer side, the other
# half near vertices
REACH, NEAR = 1.25, 0.1
LEARNING_RATE, WARM_UP = 2e-3, 0.05
SAVE_SECONDS = 20.0


class Field(nn.Module):
    """Answers at places, from a geometry's vector: distance, logit of lying within; box sides."""

    frequencies: Tensor

    def __init__(self, network: GraphNetwork):
        super().__init__()
        inputs, width = LAYERS * network.width, 2 * network.width
        frequencies = torch.tensor(FREQUENCIES.T, dtype=torch.float32)
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.vector = nn.Linear(inputs, width)
        self.place = nn.Linear(2 + 2 * len(FREQUENCIES), width)
        self.hidden = nn.Sequential(
            nn.Linear(width, width), nn.GELU(), nn.Linear(width, width), nn.GELU()
        )
        self.out = nn.Linear(width, 2)
        self.sides = nn.Linear(inputs, 2)

    def forward(self, vector: Tensor, place: Tensor) -> Tensor:
        """Vectors (N, D) and places (N, P, 2) in the frames of the boxes to (N, P, 2)."""
        phase = place @ self.frequencies
        lifted = torch.cat([place, phase.cos(), phase.sin()], dim=-1)
        return self.out(self.hidden(self.vector(vector)[:, None] * self.place(lifted)))


@dataclass
class Lot:
    """Geometries of one step, ready: their graphs, shapes, frames and sides."""

    graphs: GraphBatch
    geometry: np.ndarray
    frame: Frame
    sides: Tensor

    @classmethod
    def of(cls, geometry: np.ndarray, box: np.ndarray) -> "Lot":
        """Geometries (n,) and their boxes (n, 8), in tile units."""
        frame = Frame.of(box)
        sides = torch.tensor(log_size(frame.sides).astype(np.float32))
        return cls(graph_batch(geometry, box), geometry, frame, sides)

    def ask(self, draw: np.random.Generator, count: int = PLACES) -> tuple[Tensor, Tensor]:
        """Places (n, count, 2) in the boxes' frames, and the distance to the geometry (n, count).

        Where the distance is zero the place lies within an area.
        """
        n, half = len(self.geometry), count // 2
        place = draw.uniform(-REACH, REACH, (n, count, 2))
        nodes = np.bincount(self.graphs.owner.numpy(), minlength=n)
        node = (np.cumsum(nodes) - nodes)[:, None] + draw.integers(0, nodes[:, None], (n, half))
        near = self.graphs.node[:, :2].numpy()[node]
        place[:, :half] = near + draw.normal(0, NEAR, near.shape)
        owner = np.repeat(np.arange(n), count)
        points = shapely.points(self.frame.tile(place.reshape(-1, 2), owner))
        far = shapely.distance(self.geometry[owner], points) / self.frame.scale[owner]
        asked = torch.tensor(place.astype(np.float32))
        return asked, torch.tensor(far.reshape(n, count).astype(np.float32))


def pretrain_geometry(
    corpus: Corpus,
    rows: np.ndarray,
    network: GraphNetwork,
    steps: int,
    seed: int,
    device: torch.device | str = "cpu",
    half: Path | None = None,
) -> tuple[Field, dict[str, float]]:
    """Train the network, in place, on geometries of some tiles.

    Args:
        corpus: the tiles.
        rows: of the tiles to learn from.
        network: is left frozen, in evaluation, on `device`.
        steps: of `LOT` geometries each.
        seed: of geometries, places and the field's weights.
        device: where to compute.
        half: a file kept meanwhile, from which the same call goes on if it was stopped.

    Returns:
        The field that answers, and the means over the last tenth of the steps of "loss",
        "distance" (absolute error, in units of half the box's longer side) and "within" (share
        of places rightly said to lie within or not), and "seconds", over all starts.

    Raises:
        GeoJEPAError: if the tiles hold no geometry.
    """
    lots = _lots(corpus, rows, seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        field = Field(network).to(device)
    network.to(device).train().requires_grad_(True)
    trained = [*network.parameters(), *field.parameters()]
    optimizer = torch.optim.AdamW(trained, lr=LEARNING_RATE, weight_decay=0.01)
    both = nn.ModuleDict({"network": network, "field": field})
    first, seconds, measured = 0, 0.0, []
    if half is not None and half.exists():
        told = load_checkpoint(half, both, optimizer)
        first, seconds, measured = (json.loads(told[k]) for k in ("step", "seconds", "measured"))
    started = saved = time.monotonic()
    for step in tqdm(range(first, steps), "geometry network", steps, initial=first, disable=None):
        draw = np.random.default_rng((seed, step))
        if step % len(lots) == 0 or step == first:
            begin = step - step % len(lots)
            dealt = draw if begin == step else np.random.default_rng((seed, begin))
            order = dealt.permutation(len(lots))
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * _share(step / steps)
        terms = _terms(network, field, lots[order[step % len(lots)]], draw, device)
        optimizer.zero_grad()
        terms["loss"].backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        measured.append({name: value.detach() for name, value in terms.items()})
        if half is not None and time.monotonic() - saved > SAVE_SECONDS:
            measured = [{k: float(v) for k, v in row.items()} for row in measured[-steps // 10 :]]
            saved = time.monotonic()
            now = {"step": step + 1, "seconds": seconds + saved - started}
            save_checkpoint(half, both, optimizer, **now, measured=json.dumps(measured))
    # gradients that are left would count in the clipping of the run that comes after
    optimizer.zero_grad()
    network.eval().requires_grad_(False)
    last = measured[-max(1, steps // 10) :]
    found = {name: float(np.mean([float(row[name]) for row in last])) for name in last[0]}
    seconds += time.monotonic() - started
    return field.eval().requires_grad_(False), found | {"seconds": round(seconds, 1)}


def _share(progress: float) -> float:
    """Of the learning rate: a rise, then half a cosine."""
    rise = min(1.0, (progress + 0.01) / WARM_UP)
    return rise * (1 + math.cos(math.pi * progress)) / 2


def _terms(
    network: GraphNetwork,
    field: Field,
    lot: Lot,
    draw: np.random.Generator,
    device: torch.device | str,
) -> dict[str, Tensor]:
    """What is minimised, "loss", and what is measured at one lot."""
    place, far = (x.to(device) for x in lot.ask(draw))
    vector = network(lot.graphs.to(torch.device(device)))
    distance, logit = field(vector, place).unbind(-1)
    is_within = (far == 0).float()
    loss = (
        F.smooth_l1_loss(distance, far, beta=0.1)
        + 0.1 * F.binary_cross_entropy_with_logits(logit, is_within)
        + F.smooth_l1_loss(field.sides(vector), lot.sides.to(device), beta=0.1)
    )
    right = ((logit > 0) == (far == 0)).float()
    return {"loss": loss, "distance": (distance - far).abs().mean(), "within": right.mean()}


def _lots(corpus: Corpus, rows: np.ndarray, seed: int) -> list[Lot]:
    """At most GEOMETRIES of whole tiles, shuffled and cut."""
    draw = np.random.default_rng(seed)
    shuffled = draw.permutation(rows)
    entities = corpus.tiles.entities.to_numpy(np.int64)[shuffled]
    enough = int(np.searchsorted(np.cumsum(entities), GEOMETRIES)) + 1
    data = corpus.read(np.sort(shuffled[:enough]))
    there = np.flatnonzero(shapely.get_num_coordinates(data.geometry) > 0)
    if len(there) == 0:
        raise GeoJEPAError(f"{corpus.name}: its training tiles hold no geometry to learn from")
    there = draw.permutation(there)[:GEOMETRIES]
    parts = np.array_split(there, max(1, len(there) // LOT))
    return [
        Lot.of(data.geometry[part], data.box[part])
        for part in tqdm(parts, desc="visibility graphs", disable=None)
    ]
