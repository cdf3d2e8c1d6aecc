"""Minimum rotated rectangles against a sweep of all angles."""

import tracemalloc

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from geojepa.data import boxes
from geojepa.data.boxes import MIN_SIDE, rotated_boxes

few = settings(max_examples=80, deadline=None)
number = st.integers(0, 1000).map(lambda k: k / 1000)
clouds = st.lists(st.tuples(number, number), min_size=3, max_size=12, unique=True)


def box_of(shape) -> np.ndarray:
    """(4, 2) corners."""
    return rotated_boxes(np.array([shape], dtype=object))[0].reshape(4, 2)


def sides(corners: np.ndarray) -> np.ndarray:
    return np.linalg.norm(np.roll(corners, -1, axis=0) - corners, axis=1)


def swept_area(points: np.ndarray, degrees: np.ndarray) -> np.ndarray:
    """Areas of the rectangles about points at these angles, widened as boxes are."""
    angle = np.radians(degrees)[:, None]
    along = np.cos(angle) * points[:, 0] + np.sin(angle) * points[:, 1]
    across = np.cos(angle) * points[:, 1] - np.sin(angle) * points[:, 0]
    return np.ptp(along, axis=1) * np.ptp(across, axis=1)


@few
@given(clouds)
def test_box_is_minimal_holds_the_shape_and_is_in_order(points):
    shape = shapely.MultiPoint(points)
    corners = box_of(shape)
    length = sides(corners)
    assert length.min() >= MIN_SIDE - 1e-12
    # a rectangle: opposite sides equal, corners square
    np.testing.assert_allclose(length[:2], length[2:], atol=1e-12)
    edges = np.roll(corners, -1, axis=0) - corners
    np.testing.assert_allclose((edges * np.roll(edges, -1, axis=0)).sum(axis=1), 0, atol=1e-12)
    assert shapely.Polygon(corners).buffer(1e-9).covers(shape)
    if length.min() > MIN_SIDE + 1e-9:
        sweep = swept_area(np.array(points), np.arange(0, 90, 0.05))
        assert length[0] * length[1] <= sweep.min() + 1e-9
    assert shapely.is_ccw(shapely.LinearRing(corners))
    lowest = min(map(tuple, corners[:, ::-1]))
    assert corners[0, 1] <= lowest[0] + 1e-12
    level = corners[np.abs(corners[:, 1] - corners[0, 1]) < 1e-12]
    assert corners[0, 0] <= level[:, 0].min() + 1e-12


@few
@given(clouds, st.integers(0, 11), st.booleans())
def test_box_does_not_depend_on_where_a_ring_starts_or_runs(points, turn, is_reversed):
    hull = shapely.MultiPoint(points).convex_hull
    if hull.geom_type != "Polygon":
        return
    ring = list(hull.exterior.coords)[:-1]
    turned = ring[turn % len(ring) :] + ring[: turn % len(ring)]
    turned = turned[::-1] if is_reversed else turned
    np.testing.assert_allclose(box_of(shapely.Polygon(turned)), box_of(hull), atol=1e-12)


@pytest.mark.parametrize("shape", [shapely.Point(0.3, 0.7), shapely.MultiPoint([(0.3, 0.7)] * 2)])
def test_a_point_is_an_axis_aligned_square(shape):
    h = MIN_SIDE / 2
    expected = [(0.3 - h, 0.7 - h), (0.3 + h, 0.7 - h), (0.3 + h, 0.7 + h), (0.3 - h, 0.7 + h)]
    np.testing.assert_allclose(box_of(shape), expected, atol=1e-15)


@pytest.mark.parametrize("degrees", [0, 10, 45, 80, 89.9, 90, 135, 179.99])
def test_a_segment_keeps_its_direction_and_is_widened_about_itself(degrees):
    angle = np.radians(degrees)
    step = 0.3 * np.array([np.cos(angle), np.sin(angle)])
    corners = box_of(shapely.LineString([(0.5, 0.5), 0.5 + step]))
    np.testing.assert_allclose(sorted(sides(corners)), [MIN_SIDE] * 2 + [0.3] * 2, atol=1e-12)
    np.testing.assert_allclose(corners.mean(axis=0), 0.5 + step / 2, atol=1e-12)
    long = (np.roll(corners, -1, axis=0) - corners)[sides(corners) > 0.2]
    assert abs(np.cross([*long[0], 0], [*step, 0])[2]) < 1e-12


def test_ties_take_the_smallest_angle():
    """A regular octagon is held by equal squares at 0 and at 45 degrees."""
    angle = np.radians(22.5 + 45 * np.arange(8))
    octagon = np.stack([np.cos(angle), np.sin(angle)], axis=1) * 0.4 + 0.5
    half = 0.4 * np.cos(np.radians(22.5))
    for turn in range(8):
        corners = box_of(shapely.Polygon(np.roll(octagon, turn, axis=0)))
        expected = 0.5 + half * np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)])
        np.testing.assert_allclose(corners, expected, atol=1e-9)


def test_an_axis_aligned_rectangle_starts_at_its_lower_left_corner():
    corners = box_of(shapely.box(0.1, 0.2, 0.4, 0.9))
    np.testing.assert_allclose(corners, [(0.1, 0.2), (0.4, 0.2), (0.4, 0.9), (0.1, 0.9)])


def test_boxes_of_many_are_those_of_each_alone():
    rng = np.random.default_rng(0)
    shapes = np.array(
        [shapely.MultiPoint(rng.random((n, 2))) for n in (1, 2, 3, 5, 50, 400, 3, 2, 1)], object
    )
    together = rotated_boxes(shapes)
    for shape, box in zip(shapes, together, strict=True):
        np.testing.assert_array_equal(box_of(shape).ravel(), box)
    assert rotated_boxes(shapes[:0]).shape == (0, 8)


def test_boxes_do_not_depend_on_how_much_is_done_at_once(monkeypatch):
    rng = np.random.default_rng(0)
    shapes = [shapely.MultiPoint(rng.random((n, 2))) for n in (1, 2, 3, 9, 400) for _ in range(9)]
    shapes += [shapely.Point(0, 0).buffer(0.4, quad_segs=n) for n in (1, 7, 100, 101)]
    shapes = np.array(shapes, object)
    found = []
    for lot in (1, 1_000, 1 << 16, 1 << 24):
        monkeypatch.setattr(boxes, "_LOT", lot)
        found.append(rotated_boxes(shapes).tobytes())
    assert len(set(found)) == 1


def test_an_outline_of_many_vertices_takes_little_memory():
    """Every vertex against every edge would be 3 GB an array."""
    circle = shapely.Point(0.5, 0.5).buffer(0.4, quad_segs=5_000)
    assert shapely.get_num_coordinates(circle) == 20_001
    tracemalloc.start()
    corners = box_of(circle)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6
    np.testing.assert_allclose(sides(corners), 0.8, atol=1e-6)
