"""The geometry network: triplets and experts against the definition, and what must not mix."""

import math
from copy import deepcopy
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import shapely
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely.geometry import LineString, MultiPolygon, Point, Polygon

from geojepa.data.graphs import geometry_graphs
from geojepa.errors import GeoJEPAError
from geojepa.model.batch import Batches
from geojepa.model.config import ModelConfig
from geojepa.model.frozen import geometry_features
from geojepa.model.graph_network import GraphNetwork, encode_by_network, graph_batch
from geojepa.training import geometry
from geojepa.training.checkpoint import load_run, save_checkpoint
from geojepa.training.geometry import Field, Lot, pretrain_geometry
from geojepa.training.loop import pretrain, training_split
from geojepa.training.presets import preset

BOX = np.array([0, 0, 1, 0, 1, 1, 0, 1], float)
SQUARE = Polygon([(0.1, 0.1), (0.9, 0.1), (0.9, 0.9), (0.1, 0.9)])
COURT = Polygon(SQUARE.exterior.coords, [[(0.4, 0.4), (0.6, 0.4), (0.6, 0.6), (0.4, 0.6)]])
PAIR = MultiPolygon(
    [SQUARE.intersection(shapely.box(0, 0, 0.4, 1)), shapely.box(0.5, 0.2, 0.8, 0.7)]
)


def array_of(*shapes) -> np.ndarray:
    array = np.empty(len(shapes), dtype=object)
    array[:] = shapes
    return array


def network(width: int = 8, seed: int = 0) -> GraphNetwork:
    torch.manual_seed(seed)
    made = GraphNetwork(width).double().eval()
    return made.requires_grad_(False)


def vectors(*shapes, made: GraphNetwork | None = None) -> torch.Tensor:
    graphs = graph_batch(array_of(*shapes), np.tile(BOX, (len(shapes), 1)))
    graphs = replace(graphs, node=graphs.node.double(), shape=graphs.shape.double())
    return (made or network())(graphs)


@pytest.mark.parametrize(
    "shape", [SQUARE, COURT, PAIR, LineString([(0, 0), (1, 0.5)]), Point(0, 1)]
)
def test_triplets_are_all_paths_of_two_edges(shape):
    """Every i - j - k over the edges of the graph, way back included, by nested loops."""
    graphs = geometry_graphs(array_of(shape))
    sight = {}
    for (a, b), is_sight in zip(graphs.edge.tolist(), graphs.is_visibility.tolist(), strict=True):
        sight[a, b] = sight[b, a] = is_sight
    at = (graphs.node - 0.5) * 2
    expected = {}
    for (i, j), (j_, k) in product(sight, sight):
        if j != j_:
            continue
        one, two = at[i] - at[j], at[k] - at[j]
        angle = math.atan2(two[1], two[0]) - math.atan2(one[1], one[0])
        numbers = [math.hypot(*one), math.hypot(*two), math.cos(angle), math.sin(angle)]
        expected[i, j, k] = (2 * sight[i, j] + sight[j, k], numbers)
    batch = graph_batch(array_of(shape), BOX[None])
    expert = np.repeat(range(4), batch.experts)
    found = dict(
        zip(map(tuple, batch.triplet.tolist()), zip(expert, batch.shape, strict=True), strict=True)
    )
    assert found.keys() == expected.keys()
    assert len(found) == len(batch.triplet)
    for key, (number, numbers) in expected.items():
        assert found[key][0] == number
        assert found[key][1].tolist() == pytest.approx(numbers, abs=1e-5)
    np.testing.assert_allclose(batch.node[:, :2], at, atol=1e-6)


def test_each_expert_hears_its_own_triplets_alone():
    """Silence one expert: only geometries with triplets of its kind change."""
    line = LineString([(0, 0), (0.5, 0.2), (1, 0)])
    before = vectors(line, PAIR)
    for number in range(4):
        made = network()
        for layer in made.layers:
            layer.out[number].weight.zero_()
        after = vectors(line, PAIR, made=made)
        # a line has edges of its own alone, and so none but the first expert's triplets
        assert torch.equal(before[0], after[0]) == (number > 0)
        assert not torch.allclose(before[1], after[1])


def test_a_message_is_the_sum_over_triplets_of_an_mlp():
    """One layer against the definition, triplet by triplet, node by node."""
    layer = network().layers[0]
    graphs = graph_batch(array_of(PAIR), BOX[None])
    assert min(graphs.experts) > 0
    graphs = replace(graphs, shape=graphs.shape.double())
    x = torch.randn(len(graphs.node), 8, dtype=torch.float64)
    seen, expected = layer.norm(x), x.clone()
    expert = np.repeat(range(4), graphs.experts)
    for e, (i, j, k), shape in zip(expert, graphs.triplet.tolist(), graphs.shape, strict=True):
        ends = layer.ends[e]
        weights = torch.cat([*ends.weight.chunk(3), layer.shape[e].weight], dim=1)
        inputs = torch.cat([seen[i], seen[j], seen[k], shape])
        hidden = weights @ inputs + sum(ends.bias.chunk(3))
        expected[i] += layer.out[e].weight @ torch.nn.functional.gelu(hidden)
    torch.testing.assert_close(layer(x, graphs), expected)


coordinates = st.integers(0, 40).map(lambda n: n / 40)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(coordinates, coordinates), min_size=3, max_size=8, unique=True), st.data()
)
def test_shift_and_sense_of_vertices_change_nothing(points, data):
    hull = shapely.convex_hull(shapely.multipoints(points))
    if hull.geom_type != "Polygon":
        return
    ring = list(hull.exterior.coords)[:-1]
    shift = data.draw(st.integers(0, len(ring) - 1))
    turned = Polygon((ring[shift:] + ring[:shift])[:: data.draw(st.sampled_from([1, -1]))])
    hole = [(0.45, 0.45), (0.55, 0.45), (0.5, 0.55)]
    one, two = vectors(Polygon(ring), turned)
    torch.testing.assert_close(one, two, rtol=1e-6, atol=1e-6)
    one, two = vectors(
        Polygon(SQUARE.exterior, [hole]), Polygon(SQUARE.exterior, [hole[1:] + hole[:1]])
    )
    torch.testing.assert_close(one, two, rtol=1e-6, atol=1e-6)


def test_kinds_are_told_apart_and_none_is_zero():
    corners = list(SQUARE.exterior.coords)
    shapes = [
        Point(0.5, 0.5),
        Point(0.2, 0.5),
        LineString([(0.1, 0.1), (0.9, 0.9)]),
        LineString(corners),
        SQUARE,
        COURT,
        MultiPolygon([shapely.box(0, 0, 0.2, 0.2), shapely.box(0.5, 0.5, 1, 1)]),
    ]
    x = vectors(*shapes)
    assert (x.abs().amax(dim=1) > 1e-3).all()
    apart = torch.cdist(x, x) + torch.eye(len(x))
    assert apart.min() > 1e-3


def test_a_geometry_does_not_know_its_batch():
    shapes = [Point(0.5, 0.5), COURT, LineString([(0, 0), (1, 1)]), PAIR]
    together = vectors(*shapes, None, Polygon())
    for shape, vector in zip(shapes, together, strict=False):
        torch.testing.assert_close(vectors(shape)[0], vector)
    assert (together[4:] == 0).all()
    assert vectors().shape == (0, 32)


def test_gradients():
    made = network(4).requires_grad_(True)
    graphs = graph_batch(array_of(COURT, Point(0.3, 0.4), PAIR), np.tile(BOX, (3, 1)))
    node = graphs.node.double().requires_grad_(True)
    graphs = replace(graphs, shape=graphs.shape.double())
    assert torch.autograd.gradcheck(lambda x: made(replace(graphs, node=x)), (node,))
    made(replace(graphs, node=node.detach())).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in made.parameters())


def test_answers_are_distances(tiny_corpus):
    """The places of a lot against shapely's own distance, in the tile, one by one."""
    box = np.array([[0.2, 0.2, 0.6, 0.4, 0.5, 0.6, 0.1, 0.4]])
    lot = Lot.of(array_of(COURT), box)
    place, far = lot.ask(np.random.default_rng(0), count=64)
    corners = box.reshape(4, 2)
    half = np.linalg.norm(corners[1] - corners[0]) / 2
    along = (corners[1] - corners[0]) / (2 * half)
    for (x, y), distance in zip(place[0].numpy(), far[0].numpy(), strict=True):
        at = corners.mean(0) + half * (x * along + y * np.array([-along[1], along[0]]))
        assert COURT.distance(Point(at)) == pytest.approx(distance * half, abs=1e-6)
    assert 0 < (far == 0).float().mean() < 1


def test_pretraining_learns_shapes_and_can_be_repeated(tiny_corpus):
    rows = training_split(tiny_corpus, 0).train
    ends = []
    for steps in (3, 60, 60):
        torch.manual_seed(0)
        made = GraphNetwork(16)
        field, measured = pretrain_geometry(tiny_corpus, rows, made, steps, seed=1)
        assert isinstance(field, Field)
        assert not any(p.requires_grad or p.grad is not None for p in made.parameters())
        assert measured.pop("seconds") > 0
        ends.append((made.sha256(), measured))
    assert ends[1] == ends[2]
    assert ends[1][0] != ends[0][0]
    assert ends[1][1]["distance"] < 0.6 * ends[0][1]["distance"]


def test_pretraining_that_was_stopped_goes_on_to_the_same_weights(
    tiny_corpus, tmp_path, monkeypatch
):
    """Stopped at its fifth save, in the midst of a deal of lots."""
    rows, half = training_split(tiny_corpus, 0).train, tmp_path / "half.safetensors"
    whole = GraphNetwork(16)
    stopped, again = deepcopy(whole), deepcopy(whole)
    _, measured = pretrain_geometry(tiny_corpus, rows, whole, 12, 1)
    saves = []

    def save(*values, **told):
        save_checkpoint(*values, **told)
        saves.append(told["step"])
        if len(saves) == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(geometry, "SAVE_SECONDS", -1.0)
    monkeypatch.setattr(geometry, "save_checkpoint", save)
    with pytest.raises(KeyboardInterrupt):
        pretrain_geometry(tiny_corpus, rows, stopped, 12, 1, "cpu", half)
    _, found = pretrain_geometry(tiny_corpus, rows, again, 12, 1, "cpu", half)
    assert saves == list(range(1, 13))
    assert again.sha256() == whole.sha256()
    for name in ("loss", "distance", "within"):
        assert found[name] == measured[name]


def test_a_run_carries_its_network(tiny_corpus, tmp_path):
    config = replace(preset("smoke-gt"), epochs=1, geometry_steps=5)
    run = pretrain(tiny_corpus, tmp_path / "run", config, "cpu")
    model, _, facts = load_run(run)
    assert set(facts["geometry_network"]) == {"loss", "distance", "within", "seconds"}
    assert facts["seconds"] >= facts["geometry_network"]["seconds"] > 0
    assert not (run / "geometry.safetensors").exists()
    torch.manual_seed(config.seed)
    fresh = GraphNetwork(config.model.geometry_width)
    assert model.shapes.sha256() != fresh.sha256()
    # what the run was trained with is what its weights encode
    data = tiny_corpus.read(tiny_corpus.usable[:3])
    batch = Batches(tiny_corpus, model.config, model.shapes)(tiny_corpus.usable[:3])
    direct = encode_by_network(model.shapes, data.geometry, data.box)
    np.testing.assert_allclose(batch.geometry, direct, atol=2e-3, rtol=2e-3)
    other = geometry_features(tiny_corpus, fresh)[data.entity]
    assert np.abs(other - direct).max() > 0.1
    with pytest.raises(GeoJEPAError, match=r"model\.shapes"):
        Batches(tiny_corpus, model.config)
    with pytest.raises(GeoJEPAError, match="geometry"):
        ModelConfig(geometry="poly")
