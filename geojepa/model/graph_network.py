"""The paper's geometry encoder: messages over the node triplets of a geometry's visibility graph.

After PolyGNN (Yu et al., PolygonGNN, KDD 2024), as arXiv:2503.05774 takes it, in plain torch on
ragged tensors. A node hears along every path of two edges that ends at it, i - j - k, of both
edges' lengths and the angle between them; one of four expert networks speaks, by whether either
edge runs along the geometry or is a line of sight. The path that turns back, k = i, counts too, so
that a line of two nodes has triplets; and a node keeps what it is, so that a point has a vector.
"""

import hashlib
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import shapely
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from geojepa.data.graphs import geometry_graphs
from geojepa.model.geometry import Frame, log_size

# names cached features: to be raised by any change of what `encode_by_network` returns
NETWORK_VERSION = 1
LAYERS = 4
# position, sides of the box, kind of the part
NODE_DIM = 2 + 2 + 4
# lengths of both edges, cosine and sine of the angle from the first to the second
TRIPLET_DIM = 4
_COORDINATES_PER_CHUNK = 1 << 14


@dataclass
class GraphBatch:
    """Graphs of N geometries: V nodes, and T triplets sorted by expert.

    Attributes:
        node: (V, NODE_DIM) float32.
        owner: (V,) int64, the geometry of each node.
        triplet: (T, 3) int64 nodes i, j, k: j speaks to i of k.
        shape: (T, TRIPLET_DIM) float32, in units of the geometry's box.
        experts: triplets of each expert, 2 * (i - j is a line of sight) + (j - k is one).
        count: N.
    """

    node: Tensor
    owner: Tensor
    triplet: Tensor
    shape: Tensor
    experts: tuple[int, int, int, int]
    count: int

    def to(self, device: torch.device) -> "GraphBatch":
        """The graphs on another device."""
        return replace(
            self,
            node=self.node.to(device),
            owner=self.owner.to(device),
            triplet=self.triplet.to(device),
            shape=self.shape.to(device),
        )


class TripletLayer(nn.Module):
    """One round of messages. Each expert is an MLP of one hidden layer, from i, j, k and shape.

    Its last, linear layer is applied to the sum of a node's messages, which is the same.
    """

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.ends = nn.ModuleList(nn.Linear(width, 3 * width) for _ in range(4))
        self.shape = nn.ModuleList(nn.Linear(TRIPLET_DIM, width, bias=False) for _ in range(4))
        self.out = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(4))

    def forward(self, x: Tensor, graphs: GraphBatch) -> Tensor:
        """(V, width) to (V, width)."""
        seen, heard = self.norm(x), x
        triplets, shapes = graphs.triplet.split(graphs.experts), graphs.shape.split(graphs.experts)
        for number, (triplet, shape) in enumerate(zip(triplets, shapes, strict=True)):
            i, j, k = triplet.T
            at_i, at_j, at_k = self.ends[number](seen).chunk(3, dim=1)
            message = F.gelu(at_i[i] + at_j[j] + at_k[k] + self.shape[number](shape))
            total = torch.zeros_like(x).index_add(0, i, message.to(x.dtype))
            heard = heard + self.out[number](total)
        return heard


class GraphNetwork(nn.Module):
    """Geometries to vectors of LAYERS * width: the sum over nodes after each layer.

    The sums are brought together by the inverse hyperbolic sine, which is the identity near zero
    and a logarithm far from it: a coast has a thousand times the nodes of a bench.
    """

    def __init__(self, width: int):
        super().__init__()
        self.width = width
        self.node = nn.Sequential(nn.Linear(NODE_DIM, width), nn.GELU(), nn.Linear(width, width))
        self.layers = nn.ModuleList(TripletLayer(width) for _ in range(LAYERS))

    def forward(self, graphs: GraphBatch) -> Tensor:
        """(N, LAYERS * width); zeros for a geometry without a node."""
        x = self.node(graphs.node)
        pooled = []
        for layer in self.layers:
            x = layer(x, graphs)
            pooled.append(x.new_zeros(graphs.count, self.width).index_add(0, graphs.owner, x))
        return torch.asinh(torch.cat(pooled, dim=1))

    def sha256(self) -> str:
        """Of the weights: what names cached features."""
        digest = hashlib.sha256()
        for name, weight in self.state_dict().items():
            digest.update(name.encode())
            digest.update(weight.detach().cpu().contiguous().numpy().data)
        return digest.hexdigest()


def graph_batch(geometry: NDArray[np.object_], box: NDArray[np.floating]) -> GraphBatch:
    """Visibility graphs of geometries in the frames of their boxes.

    Args:
        geometry: (N,) shapely geometries in tile units, of any type; None or empty has no node.
        box: (N, 8) corners of their boxes in tile units.
    """
    graphs = geometry_graphs(geometry)
    frame = Frame.of(box)
    owner = np.repeat(np.arange(len(geometry)), np.diff(graphs.cu_nodes))
    at = frame.local(graphs.node, owner)
    kind = np.eye(4)[graphs.kind]
    node = np.column_stack([at, log_size(frame.sides)[owner], kind])

    # every edge both ways, by the node where it ends
    start, end = np.concatenate([graphs.edge, graphs.edge[:, ::-1]]).T
    is_sight = np.concatenate([graphs.is_visibility] * 2)
    order = np.argsort(end, kind="stable")
    start, end, is_sight = start[order], end[order], is_sight[order]
    degree = np.bincount(end, minlength=len(at))
    first = np.cumsum(degree) - degree
    # every pair of edges that end at one node j, an edge with itself included
    many = degree[end]
    into = np.repeat(np.arange(len(end)), many)
    within = np.arange(len(into)) - np.repeat(np.cumsum(many) - many, many)
    other = first[end[into]] + within
    i, j, k = start[into], end[into], start[other]
    expert = 2 * is_sight[into] + is_sight[other]
    to_i, to_k = at[i] - at[j], at[k] - at[j]
    lengths = np.linalg.norm(to_i, axis=1), np.linalg.norm(to_k, axis=1)
    product = np.maximum(lengths[0] * lengths[1], 1e-12)
    cosine = (to_i * to_k).sum(axis=1) / product
    sine = (to_i[:, 0] * to_k[:, 1] - to_i[:, 1] * to_k[:, 0]) / product
    order = np.argsort(expert, kind="stable")
    a, b, c, d = np.bincount(expert, minlength=4).tolist()
    # torch.tensor copies to memory of torch's own: a product rounds by where its memory starts
    return GraphBatch(
        node=torch.tensor(node.astype(np.float32)),
        owner=torch.tensor(owner.astype(np.int64)),
        triplet=torch.tensor(np.stack([i, j, k], axis=1)[order].astype(np.int64)),
        shape=torch.tensor(np.stack([*lengths, cosine, sine], axis=1)[order].astype(np.float32)),
        experts=(a, b, c, d),
        count=len(geometry),
    )


@torch.no_grad()
def encode_by_network(
    network: GraphNetwork, geometry: NDArray[np.object_], box: NDArray[np.floating]
) -> np.ndarray:
    """(N, LAYERS * width) float32 of geometries (N,) and their boxes (N, 8); see `graph_batch`."""
    geometry, device = np.asarray(geometry, dtype=object), next(network.parameters()).device
    out = np.empty((len(geometry), LAYERS * network.width), dtype=np.float32)
    chunk = np.cumsum(shapely.get_num_coordinates(geometry)) // _COORDINATES_PER_CHUNK
    for start, stop in pairwise([0, *np.flatnonzero(np.diff(chunk)) + 1, len(geometry)]):
        graphs = graph_batch(geometry[start:stop], box[start:stop])
        out[start:stop] = network(graphs.to(device)).float().cpu().numpy()
    return out
