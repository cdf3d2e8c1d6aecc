"""What a vector knows of its geometry: linear answers to questions that have known answers."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
import shapely

from geojepa.data.corpus import Corpus
from geojepa.data.splits import Split, blocks
from geojepa.errors import GeoJEPAError
from geojepa.evaluation.leak import held_out, r2_of
from geojepa.evaluation.metrics import block_draws, interval, replicate
from geojepa.model.geometry import Frame, log_size

# entities asked about, of each part of the split
MOST = 10_000
# a corner stands out by this share of its box's longer side
CORNER = 0.02
QUESTIONS = ("kind", "area", "length", "elongation", "orientation", "corners", "holes")


@dataclass(frozen=True)
class Sample:
    """Geometries to ask about.

    Attributes:
        geometry: (N,) in tile units.
        box: (N, 8).
        block: (N,) int64, of the tile that they lie in.
        parts: rows of train, validation and test.
    """

    geometry: np.ndarray
    box: np.ndarray
    block: np.ndarray
    parts: list[np.ndarray]


def sample(corpus: Corpus, parts: Split, seed: int = 0) -> Sample:
    """Geometries of train, validation and test tiles, at most MOST of each.

    Raises:
        GeoJEPAError: if a part has none.
    """
    geometry, box, block, sizes = [], [], [], []
    of_tile = np.unique(blocks(corpus.tiles), return_inverse=True)[1]
    for rows in (parts.train, parts.validation, parts.test):
        if len(rows) == 0:
            raise GeoJEPAError(f"{corpus.name}: {parts.name} leaves a part empty; give more tiles")
        draw = np.random.default_rng(seed).permutation(rows)
        entities = corpus.tiles.entities.to_numpy(np.int64)[draw]
        draw = np.sort(draw[: np.searchsorted(np.cumsum(entities), MOST) + 1])
        data = corpus.read(draw)
        tile = np.repeat(draw, np.diff(data.cu_entities))
        there = np.flatnonzero(shapely.get_num_coordinates(data.geometry) > 0)[:MOST]
        if len(there) == 0:
            raise GeoJEPAError(
                f"{corpus.name}: a part of {parts.name} has no geometry; give a larger corpus"
            )
        geometry.append(data.geometry[there])
        box.append(data.box[there])
        block.append(of_tile[tile[there]])
        sizes.append(len(there))
    bounds = np.cumsum([0, *sizes])
    folded = [np.arange(a, b) for a, b in pairwise(bounds)]
    return Sample(np.concatenate(geometry), np.concatenate(box), np.concatenate(block), folded)


def answers(geometry: np.ndarray, box: np.ndarray) -> dict[str, np.ndarray]:
    """The right answers, NaN where a question does not apply.

    Args:
        geometry: (N,) shapely geometries in tile units.
        box: (N, 8) corners of their boxes in tile units.

    Returns:
        (N, columns) for each of QUESTIONS. kind: point, line, area. area: its root, on the scale
        of `log_size`, as the length is. Elongation and orientation are of the outline (a line
        itself, an area's rings) as a uniform distribution: 1 - sqrt(l2 / l1) of its covariance C,
        and (Cxx - Cyy, 2 Cxy) / (Cxx + Cyy) along the box's sides. corners: log (1 + those that
        are left by simplification). holes: log (1 + number).
    """
    dimension = np.maximum(shapely.get_dimensions(geometry), 0)
    is_area, is_long = dimension == 2, dimension > 0
    frame = Frame.of(box)
    outline = geometry.copy()
    outline[is_area] = shapely.boundary(geometry[is_area])
    xx, xy, yy = _covariance(outline, frame)
    trace = np.where(xx + yy > 0, xx + yy, np.nan)
    spread = np.hypot(xx - yy, 2 * xy)
    least = np.maximum(trace - spread, 0) / (trace + spread)
    simple = shapely.simplify(geometry, 2 * CORNER * frame.scale)
    part, owner = shapely.get_parts(geometry, return_index=True)
    rings = shapely.get_num_interior_rings(part)
    found = {
        "kind": np.eye(3)[dimension],
        "area": log_size(np.sqrt(shapely.area(geometry))),
        "length": log_size(shapely.length(outline)),
        "elongation": 1 - np.sqrt(least),
        "orientation": np.stack([xx - yy, 2 * xy], axis=1) / trace[:, None],
        "corners": np.log1p(shapely.get_num_coordinates(simple)),
        "holes": np.log1p(np.bincount(owner, rings, minlength=len(geometry))),
    }
    of_areas, of_all = ("area", "holes"), ("kind",)
    for name, value in found.items():
        columns = value.reshape(len(geometry), -1).astype(np.float64)
        applies = is_area if name in of_areas else is_long | (name in of_all)
        # a collection has an outline of no known kind
        applies &= shapely.get_type_id(geometry) != shapely.GeometryType.GEOMETRYCOLLECTION
        found[name] = np.where(applies[:, None], columns, np.nan)
    return found


def _covariance(outline: np.ndarray, frame: Frame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """xx, xy and yy of lines, each a uniform distribution over its length, along its box."""
    n = len(outline)
    path, owner = shapely.get_parts(outline, return_index=True)
    xy, line = shapely.get_coordinates(path, return_index=True)
    xy = frame.local(xy, owner[line])
    joins = line[1:] == line[:-1]
    start, end, owner = xy[:-1][joins], xy[1:][joins], owner[line[1:][joins]]
    length = np.linalg.norm(end - start, axis=1)
    total = np.maximum(np.bincount(owner, length, minlength=n), 1e-12)
    middle, step = (start + end) / 2, end - start

    def mean(value: np.ndarray) -> np.ndarray:
        return np.bincount(owner, value * length, minlength=n) / total

    at = mean(middle[:, 0]), mean(middle[:, 1])

    def second(a: int, b: int) -> np.ndarray:
        # of a segment about its own middle: step step' / 12
        return mean(middle[:, a] * middle[:, b] + step[:, a] * step[:, b] / 12) - at[a] * at[b]

    return second(0, 0), second(0, 1), second(1, 1)


def shape_table(asked: Sample, encoders: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """Linear R2 of each encoder's vectors on each question, on held-out tiles.

    Ridge is fitted on train, its penalty chosen on validation; the columns of a question count
    alike. A question that fewer than 20 geometries of a part can answer is left out.

    Args:
        asked: the geometries.
        encoders: (N, D) vectors of them, by name.

    Returns:
        One row a question and encoder: r2 with its 95 % interval `low` to `high` over blocks of
        tiles, `geometries` tested, `width` of the vectors.
    """
    rows = []
    for question, answer in answers(asked.geometry, asked.box).items():
        applies = np.isfinite(answer).all(axis=1)
        parts = [part[applies[part]] for part in asked.parts]
        if min(map(len, parts)) < 20 or np.ptp(answer[parts[0]], axis=0).min() == 0:
            continue
        block = np.unique(asked.block[parts[2]], return_inverse=True)[1]
        draws = block_draws(block.max() + 1)
        for name, vectors in encoders.items():
            errors = held_out(vectors[:, None], answer, [parts])
            error, spread = (column[parts[2]] for column in errors)
            r2, low, high = interval(replicate(r2_of, draws, block, error, spread))
            row = {"question": question, "encoder": name, "r2": r2, "low": low, "high": high}
            rows.append(row | {"geometries": len(parts[2]), "width": vectors.shape[1]})
    return pd.DataFrame(rows)
