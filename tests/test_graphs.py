"""Graphs of geometries against all pairs of nodes in rational arithmetic."""

from fractions import Fraction
from itertools import combinations, pairwise

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from geojepa.data.graphs import Graphs, geometry_graphs

many = settings(max_examples=150, deadline=None)
few = settings(max_examples=60, deadline=None)


def array_of(*shapes) -> np.ndarray:
    array = np.empty(len(shapes), dtype=object)
    array[:] = shapes
    return array


def runs_of(shape) -> list[list[tuple[float, float]]]:
    """Vertices of each primitive part, in order."""
    if shape is None or shape.is_empty:
        return []
    if hasattr(shape, "geoms"):
        return [run for inner in shape.geoms for run in runs_of(inner)]
    if shape.geom_type == "Polygon":
        return [run for ring in (shape.exterior, *shape.interiors) for run in runs_of(ring)]
    return [[xy[:2] for xy in shape.coords]]


def expected_parts(shape):
    """Positions of the nodes, their parts, and the pairs of rows joined within parts."""
    node, part, pairs = [], [], set()
    for number, run in enumerate(runs_of(shape)):
        run = [xy for i, xy in enumerate(run) if i == 0 or xy != run[i - 1]]
        is_closed = len(run) > 1 and run[0] == run[-1]
        run = run[:-1] if is_closed else run
        rows = list(range(len(node), len(node) + len(run)))
        node += run
        part += [number] * len(run)
        steps = list(pairwise(rows)) + ([(rows[-1], rows[0])] * is_closed)
        pairs |= {tuple(sorted(step)) for step in steps}
    return node, part, pairs


def is_hit(a, b, c, d) -> bool:
    """Whether the open segment ab has a point in common with the closed segment cd."""
    cross = lambda p, q: p[0] * q[1] - p[1] * q[0]  # noqa: E731
    minus = lambda p, q: (p[0] - q[0], p[1] - q[1])  # noqa: E731
    r, s, ac = minus(b, a), minus(d, c), minus(c, a)
    if cross(r, s):
        t, u = cross(ac, s) / cross(r, s), cross(ac, r) / cross(r, s)
        return 0 < t < 1 and 0 <= u <= 1
    if cross(ac, r):
        return False
    along = [(r[0] * v[0] + r[1] * v[1]) / (r[0] ** 2 + r[1] ** 2) for v in (ac, minus(d, a))]
    return min(along) < 1 and max(along) > 0


def expected_visibility(node, part, pairs, k: int) -> set[tuple[int, int]]:
    at = [(Fraction(x), Fraction(y)) for x, y in node]
    seen = [[] for _ in at]
    for i, j in combinations(range(len(at)), 2):
        if part[i] == part[j]:
            continue
        a, b = at[i], at[j]
        if a == b or not any(is_hit(a, b, at[c], at[d]) for c, d in pairs):
            square = (a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2
            seen[i].append((square, b, j))
            seen[j].append((square, a, i))
    chosen = ((i, j) for i, view in enumerate(seen) for *_, j in sorted(view)[:k])
    return {tuple(sorted(pair)) for pair in chosen}


def edges_of(graphs: Graphs, i: int) -> list[tuple[int, int, bool]]:
    """Edges of one geometry, in its own rows."""
    rows = slice(graphs.cu_edges[i], graphs.cu_edges[i + 1])
    local = (graphs.edge[rows] - graphs.cu_nodes[i]).tolist()
    return [(a, b, seen) for (a, b), seen in zip(local, graphs.is_visibility[rows], strict=True)]


def check(shapes: list, k: int) -> Graphs:
    """Compare with the oracle, and look after the form."""
    graphs = geometry_graphs(array_of(*shapes), k)
    assert graphs.node.dtype == np.float64
    assert graphs.part.dtype == np.int32
    assert graphs.is_visibility.dtype == bool
    integers = (graphs.cu_nodes, graphs.edge, graphs.cu_edges)
    assert {array.dtype for array in integers} == {np.dtype(np.int64)}
    assert len(graphs.cu_nodes) == len(graphs.cu_edges) == len(shapes) + 1
    assert (graphs.cu_nodes[0], graphs.cu_nodes[-1]) == (0, len(graphs.node))
    assert (graphs.cu_edges[0], graphs.cu_edges[-1]) == (0, len(graphs.edge))
    assert (graphs.edge[:, 0] < graphs.edge[:, 1]).all()
    for i, shape in enumerate(shapes):
        node, part, within = expected_parts(shape)
        rows = slice(graphs.cu_nodes[i], graphs.cu_nodes[i + 1])
        assert [tuple(xy) for xy in graphs.node[rows].tolist()] == node
        assert graphs.part[rows].tolist() == part
        seen = expected_visibility(node, part, within, k)
        wanted = [(*pair, False) for pair in within] + [(*pair, True) for pair in seen]
        assert edges_of(graphs, i) == sorted(wanted)
    return graphs


# Tenths of integers are nearly, and only nearly, on one line.
vertex = st.tuples(st.integers(0, 4), st.integers(0, 4))
points = vertex.map(shapely.Point)
lines = st.lists(vertex, min_size=2, max_size=5).map(shapely.LineString)
rings = st.lists(vertex, min_size=3, max_size=6)
polygons = st.builds(shapely.Polygon, rings, st.lists(rings, max_size=2))
members = st.lists(st.one_of(points, lines, lines, polygons), min_size=1, max_size=4)
groups = st.recursive(
    members.map(shapely.GeometryCollection),
    lambda inner: st.lists(inner, min_size=1, max_size=2).map(shapely.GeometryCollection),
    max_leaves=2,
)
scales = st.sampled_from([(1.0, 0.0), (0.1, 0.0), (0.1, 0.7), (1e-9, 0.3), (1e-160, 0.0)])


def scaled(shape, scale):
    return shapely.transform(shape, lambda xy: xy * scale[0] + scale[1])


@many
@given(st.lists(groups, min_size=1, max_size=2), scales, st.sampled_from([0, 1, 1, 3]))
def test_graphs_equal_all_pairs_on_a_grid(shapes, scale, k):
    check([scaled(shape, scale) for shape in shapes], k)


@few
@given(st.lists(lines, min_size=6, max_size=9), scales, st.sampled_from([1, 3]))
def test_graphs_equal_all_pairs_in_a_thicket(several, scale, k):
    check([scaled(shapely.GeometryCollection(several), scale)], k)


def positions(graphs: Graphs) -> set:
    return {
        (frozenset(map(tuple, graphs.node[[a, b]].tolist())), seen)
        for a, b, seen in edges_of(graphs, 0)
    }


@few
@given(st.data(), scales, st.sampled_from([1, 3]))
def test_order_of_parts_and_start_and_sense_of_rings_change_nothing(data, scale, k):
    loops = data.draw(st.lists(rings, min_size=1, max_size=4))
    others = data.draw(st.lists(lines, max_size=2))

    def group(loops):
        closed = [shapely.LinearRing(loop) for loop in loops]
        return scaled(shapely.GeometryCollection(closed + others), scale)

    first = positions(geometry_graphs(array_of(group(loops)), k))
    for i, loop in enumerate(loops):
        turn = data.draw(st.integers(0, len(loop) - 1))
        loops[i] = (loop[turn:] + loop[:turn])[:: data.draw(st.sampled_from([1, -1]))]
    loops, others = data.draw(st.permutations(loops)), data.draw(st.permutations(others))
    assert positions(geometry_graphs(array_of(group(loops)), k)) == first


@pytest.mark.parametrize("k", [1, 3])
def test_graphs_of_many_geometries_equal_those_of_each(k):
    random = np.random.default_rng(0)
    shapes = [
        scaled(shapely.MultiLineString(random.integers(0, 5, (n, 2, 2)).tolist()), (0.1, 0.2))
        for n in (1, 2, 7, 3, 12)
    ]
    shapes[1:1] = [None, shapely.Point(0.3, 0.4), shapely.box(0, 0, 1, 1), shapely.Polygon()]
    check(shapes, k)


@pytest.mark.parametrize("k", [1, 3])
def test_what_hides_the_rest_is_found_among_hundreds(k):
    # In general position, so that a segment is met if and only if it is met in its inside.
    random = np.random.default_rng(1)
    start, angle = random.random((150, 2)), random.random(150) * 2 * np.pi
    stop = start + 0.15 * np.column_stack([np.cos(angle), np.sin(angle)])
    several = np.stack([start, stop], axis=1)
    graphs = geometry_graphs(array_of(shapely.multilinestrings(several)), k)
    a, b = np.triu_indices(300, 1)
    a, b = a[a // 2 != b // 2], b[a // 2 != b // 2]
    xy = several.reshape(-1, 2)
    segment = shapely.linestrings(np.stack([xy[a], xy[b]], axis=1))
    which, edge = shapely.STRtree(shapely.linestrings(several)).query(segment, "intersects")
    is_hit = (edge != a[which] // 2) & (edge != b[which] // 2)
    sees = np.delete(np.arange(len(a)), np.unique(which[is_hit]))
    near = np.full((300, 300), np.inf)
    near[a[sees], b[sees]] = near[b[sees], a[sees]] = shapely.length(segment[sees])
    first = np.argsort(near, axis=1)[:, :k]
    wanted = {
        (min(i, j), max(i, j)) for i in range(300) for j in first[i].tolist() if near[i, j] < np.inf
    }
    assert {(a, b) for a, b, seen in edges_of(graphs, 0) if seen} == wanted


def test_rooms_hide_what_is_outside():
    rooms = [shapely.box(x, y, x + 2, y + 2) for x in range(0, 9, 3) for y in range(0, 9, 3)]
    walls = [room.exterior for room in rooms]
    inside = [shapely.Point(room.centroid) for room in rooms]
    graphs = check([shapely.GeometryCollection(walls + inside)], 3)
    for a, b, seen in edges_of(graphs, 0):
        if seen and b >= 36:
            assert a // 4 == b - 36


@pytest.mark.parametrize(("low", "high"), [(1, 1), (1, 1 + 2.0**-40), (-(2.0**-59), -(2.0**-60))])
def test_a_view_through_a_hairline_gap(low, high):
    # a wall about its own middle node, with its ends at the gap; others are nearer, but hidden
    upper = [(4, high), (4, 4), (-4, 4), (-4, 0), (0, 0)]
    lower = [(-4, 0), (-4, -4), (4, -4), (4, low)]
    hidden = [shapely.Point(x, y / 4 + 0.1) for x in (6, 7) for y in range(-10, 5)]
    far = shapely.Point(8, low + high)
    shape = shapely.GeometryCollection([shapely.LineString(upper + lower), *hidden, far])
    graphs = check([shape], 1)
    assert ((4, 39, True) in edges_of(graphs, 0)) == (low < high)


def visible(*shapes, k=3) -> set[tuple[int, int]]:
    graphs = check([shapely.GeometryCollection(shapes)], k)
    return {(a, b) for a, b, seen in edges_of(graphs, 0) if seen}


def test_what_blocks_the_view():
    a, b = shapely.Point(0, 0), shapely.Point(4, 0)
    line = lambda *xy: shapely.LineString(xy)  # noqa: E731
    assert (0, 1) in visible(a, b)
    assert (0, 1) not in visible(a, b, line((2, -9), (2, 9)))
    # a touch of an end, or a run along, is enough
    assert (0, 1) not in visible(a, b, line((2, 0), (2, 9)))
    assert (0, 1) not in visible(a, b, line((1, 0), (3, 0)))
    assert (0, 1) not in visible(a, b, line((0, 0), (1, 0)))
    assert (0, 1) not in visible(a, b, line((0, 0), (4, 0)))
    # what starts at a node, passes through it, or has no edge is no obstacle
    assert (0, 1) in visible(a, b, line((0, 0), (-1, 9)), line((4, -9), (4, 9)))
    assert (0, 1) in visible(a, b, shapely.Point(2, 0))
    assert (0, 1) in visible(a, b, line((2, 0), (2, 0)))


def test_nodes_of_two_parts_at_one_position_see_each_other():
    assert visible(shapely.Point(1, 1), shapely.Point(1, 1)) == {(0, 1)}
    cross = shapely.LineString([(0, 0), (2, 2)]), shapely.LineString([(0, 0), (2, -2)])
    assert (0, 2) in visible(*cross, k=1)


def test_ties_go_to_the_lower_x_then_y_then_row():
    middle, lone = shapely.Point(0, 0), shapely.Point
    ring = [lone(1, 0), lone(0, 1), lone(-1, 0), lone(0, -1), lone(-1, 0)]
    graphs = geometry_graphs(array_of(shapely.GeometryCollection([middle, *ring])), 1)
    assert (0, 3, True) in edges_of(graphs, 0)
    assert (0, 5, True) not in edges_of(graphs, 0)


@pytest.mark.parametrize("k", [0, 1, 3])
@pytest.mark.parametrize("shapes", [[], [None], [shapely.GeometryCollection()] * 2], ids=len)
def test_nothing_has_an_empty_graph(shapes, k):
    graphs = check(shapes, k)
    assert graphs.node.shape == (0, 2)
    assert graphs.edge.shape == (0, 2)


def test_degenerate_parts():
    there_and_back = shapely.LineString([(0, 0), (1, 0), (0, 0)])
    still = shapely.LineString([(2, 2), (2, 2), (2, 2)])
    doubled = shapely.LinearRing([(3, 3), (4, 3), (4, 3), (4, 4), (3, 3)])
    graphs = check([there_and_back, still, doubled], 1)
    assert np.diff(graphs.cu_nodes).tolist() == [2, 1, 3]
    assert np.diff(graphs.cu_edges).tolist() == [1, 0, 3]
