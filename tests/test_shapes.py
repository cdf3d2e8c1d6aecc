"""Questions about geometries: the right answers by hand, and ridge on what is known."""

from dataclasses import replace

import numpy as np
import pytest
import shapely
from shapely.geometry import GeometryCollection, LineString, MultiPolygon, Point, Polygon, box

from geojepa.data.splits import split
from geojepa.errors import GeoJEPAError
from geojepa.evaluation import shapes
from geojepa.evaluation.shapes import QUESTIONS, Sample, answers, sample, shape_table
from geojepa.model.geometry import encode_geometries, log_size

TILE = np.array([0, 0, 1, 0, 1, 1, 0, 1], float)


def array_of(*some) -> np.ndarray:
    array = np.empty(len(some), dtype=object)
    array[:] = some
    return array


def of(shape, frame=TILE) -> dict[str, np.ndarray]:
    return {k: v[0] for k, v in answers(array_of(shape), frame[None]).items()}


def test_answers_of_simple_shapes():
    found = of(box(0, 0, 0.8, 0.2))
    assert found["kind"].tolist() == [0, 0, 1]
    assert found["area"] == pytest.approx(log_size(np.array(0.4)))
    assert found["length"] == pytest.approx(log_size(np.array(2.0)))
    assert found["corners"] == pytest.approx(np.log1p(5))
    assert found["holes"] == 0
    # the outline of a by b: Cxx = (a^3 / 6 + a^2 b / 2) / (2 a + 2 b), and the like
    a, b = 1.6, 0.4
    xx = (a**3 / 6 + a**2 * b / 2) / (2 * (a + b))
    yy = (b**3 / 6 + b**2 * a / 2) / (2 * (a + b))
    assert found["elongation"] == pytest.approx(1 - np.sqrt(yy / xx))
    assert found["orientation"] == pytest.approx([(xx - yy) / (xx + yy), 0], abs=1e-9)
    line = of(LineString([(0, 0), (0.5, 0.5), (1, 1)]))
    assert line["kind"].tolist() == [0, 1, 0]
    assert line["elongation"] == pytest.approx(1)
    assert line["orientation"] == pytest.approx([0, 1])
    assert line["corners"] == pytest.approx(np.log1p(2))
    assert np.isnan(line["area"])
    assert np.isnan(line["holes"])


def test_orientation_is_seen_from_the_box():
    diagonal = LineString([(0, 0), (1, 1)])
    turned = np.array([0, 0, 1, 1, 1, 1, 0, 0], float)
    assert of(diagonal, turned)["orientation"] == pytest.approx([1, 0])


def test_holes_and_parts_are_counted_and_points_and_collections_left_out():
    hole = [(0.4, 0.4), (0.6, 0.4), (0.6, 0.6)]
    two = MultiPolygon([Polygon(box(0.3, 0.3, 0.8, 0.8).exterior, [hole]), box(0, 0, 0.1, 0.1)])
    assert of(two)["holes"] == pytest.approx(np.log(2))
    point = of(Point(0.5, 0.5))
    assert point["kind"].tolist() == [1, 0, 0]
    assert all(np.isnan(point[name]).all() for name in QUESTIONS if name != "kind")
    mixed = of(GeometryCollection([Point(0, 0), box(0, 0, 1, 1)]))
    assert all(np.isnan(value).all() for value in mixed.values())


def test_elongation_agrees_with_points_along_the_outline():
    shape = Polygon([(0.1, 0.2), (0.9, 0.4), (0.7, 0.8), (0.5, 0.5), (0.2, 0.6)])
    steps = (np.arange(20_000) + 0.5) / 20_000
    along = shapely.line_interpolate_point(shape.exterior, steps, normalized=True)
    least, most = np.linalg.eigvalsh(np.cov(2 * shapely.get_coordinates(along).T))
    assert of(shape)["elongation"] == pytest.approx(1 - np.sqrt(least / most), abs=1e-4)


def test_what_a_vector_holds_is_found_and_noise_is_not(wide_corpus, monkeypatch):
    monkeypatch.setattr(shapes, "MOST", 800)
    parts = split(wide_corpus.tiles, 0)
    asked = sample(wide_corpus, parts)
    assert isinstance(asked, Sample)
    assert [len(part) <= 800 for part in asked.parts] == [True] * 3
    noise = np.random.default_rng(0).standard_normal((len(asked.geometry), 20))
    encoders = {"Fourier": encode_geometries(asked.geometry, asked.box), "noise": noise}
    table = shape_table(asked, encoders).set_index(["encoder", "question"])
    # these it holds as they are
    for question in ("kind", "length"):
        assert table.r2["Fourier", question] > 0.99
        assert table.low["Fourier", question] <= table.r2["Fourier", question]
    assert table.r2["noise"].max() < 0.1
    again = shape_table(sample(wide_corpus, parts), encoders).set_index(["encoder", "question"])
    assert again.equals(table)


def test_a_part_without_geometry_is_refused(wide_corpus):
    parts = split(wide_corpus.tiles, 0)
    with pytest.raises(GeoJEPAError, match="leaves a part empty"):
        sample(wide_corpus, replace(parts, validation=parts.validation[:0]))
