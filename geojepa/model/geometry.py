"""A training-free geometry encoder: the exact Fourier transform of points, lines and polygons.

A geometry is read as a uniform distribution over its points, its length or its area; its
characteristic function at fixed frequencies is closed-form in the edges (compare Poly2Vec, Siampou
et al., arXiv:2408.14806). So vertex order, ring direction and extra vertices on an edge change
nothing, and points, lines and polygons with holes differ.
"""

from itertools import pairwise
from typing import NamedTuple

import numpy as np
import shapely
from numpy.typing import NDArray
from scipy.sparse import csr_array

from geojepa.data.features import primitive_parts

_RADII = np.pi * np.array([0.5, 1.0, 2.0, 4.0])
_ANGLES = np.pi * np.arange(12) / 12
# (F, 2) frequencies of the upper half-plane; the lower one holds the conjugates
FREQUENCIES = np.stack(
    [np.outer(_RADII, np.cos(_ANGLES)).ravel(), np.outer(_RADII, np.sin(_ANGLES)).ravel()], axis=1
)
SCALARS = (
    *("point", "line", "polygon", "collection", "log_side_0", "log_side_1", "aspect", "fill"),
    *("log_length", "log_pieces", "log_holes"),
)
# names cached features: to be raised by any change of what `encode_geometries` returns
ENCODER_VERSION = 1
GEOMETRY_DIM = 2 * len(FREQUENCIES) + len(SCALARS)

# the smallest box side, in tiles: lengths are counted in it
_UNIT = 0.005
# below this area or length, in box units, a polygon counts as its rings and a line as its points
_NEGLIGIBLE = 1e-9
_COORDINATES_PER_CHUNK = 1 << 14
_COLLECTION = 7


class Frame(NamedTuple):
    """The frames of N boxes.

    The origin is the box centre, the axes go along the box's sides, the first from the first corner
    to the second, and half the longer side is one.
    """

    centre: NDArray[np.float64]  # (N, 2)
    axis: NDArray[np.float64]  # (N, 2) unit vector, zero where the box has no first side
    sides: NDArray[np.float64]  # (N, 2) lengths in tiles, the first side's first
    scale: NDArray[np.float64]  # (N,) tiles a unit

    @classmethod
    def of(cls, box: NDArray[np.floating]) -> "Frame":
        """Frames of boxes (N, 8), corners in tile units."""
        corners = np.asarray(box, dtype=np.float64).reshape(-1, 4, 2)
        sides = np.linalg.norm(corners[:, [1, 2]] - corners[:, [0, 1]], axis=2)
        axis = corners[:, 1] - corners[:, 0]
        axis = axis / np.maximum(np.linalg.norm(axis, axis=1, keepdims=True), 1e-18)
        scale = np.maximum(sides.max(axis=1, initial=0), 1e-9) / 2
        return cls(corners.mean(axis=1), axis, sides, scale)

    def local(self, xy: NDArray[np.float64], owner: NDArray[np.intp]) -> NDArray[np.float64]:
        """Positions (n, 2) in tile units, seen from the box of their owner (n,)."""
        x, y = (xy - self.centre[owner]).T
        ux, uy = self.axis[owner].T
        return np.stack([ux * x + uy * y, ux * y - uy * x], axis=1) / self.scale[owner, None]

    def tile(self, xy: NDArray[np.float64], owner: NDArray[np.intp]) -> NDArray[np.float64]:
        """The inverse of `local`."""
        x, y = (xy * self.scale[owner, None]).T
        ux, uy = self.axis[owner].T
        return np.stack([ux * x - uy * y, uy * x + ux * y], axis=1) + self.centre[owner]


class Atoms(NamedTuple):
    """The points and edges of N geometries in their box frames, and what they add up to.

    Atom e adds `(weight + w . normal) exp(-i w . middle) sinc(w . step / 2)` to its owner's sum.
    """

    owner: NDArray[np.intp]  # (E,) which geometry
    middle: NDArray[np.float64]  # (E, 2)
    step: NDArray[np.float64]  # (E, 2) end minus start, zero for a point
    weight: NDArray[np.float64]  # (E,) zero for an edge of an area
    normal: NDArray[np.float64]  # (E, 2) outward, as long as the edge; zero unless of an area
    dimension: NDArray[np.intp]  # (N,) -1 for an empty geometry
    area: NDArray[np.float64]  # (N,) zero where negligible
    length: NDArray[np.float64]  # (N,) of all edges
    pieces: NDArray[np.intp]  # (N,)
    holes: NDArray[np.intp]  # (N,)


def encode_geometries(geometry: NDArray[np.object_], box: NDArray[np.floating]) -> np.ndarray:
    """Describe each geometry by its Fourier transform in the frame of its box and by its size.

    For the frame see `Frame`. Of a collection only the members of the highest dimension count. An
    empty or missing geometry is all zeros.

    Args:
        geometry: (N,) shapely geometries in tile units, of any type.
        box: (N, 8) corners x0, y0, ..., x3, y3 of their boxes in tile units.

    Returns:
        (N, GEOMETRY_DIM) float32: real parts, imaginary parts, then `SCALARS`.
    """
    geometry = np.asarray(geometry, dtype=object)
    box = np.asarray(box, dtype=np.float64).reshape(-1, 8)
    out = np.zeros((len(geometry), GEOMETRY_DIM), dtype=np.float32)
    chunk = np.cumsum(shapely.get_num_coordinates(geometry)) // _COORDINATES_PER_CHUNK
    bounds = [0, *np.flatnonzero(np.diff(chunk)) + 1, len(geometry)]
    for start, stop in pairwise(bounds):
        out[start:stop] = _encode(geometry[start:stop], box[start:stop])
    return out


def _encode(geometry: NDArray[np.object_], box: NDArray[np.float64]) -> NDArray[np.float64]:
    frame = Frame.of(box)
    sides, scale = frame.sides, frame.scale
    atoms = _atoms(geometry, frame)
    full = atoms.dimension >= 0
    scalars = np.column_stack(
        [
            *(atoms.dimension == dimension for dimension in range(3)),
            shapely.get_type_id(geometry) == _COLLECTION,
            log_size(sides),
            sides.min(axis=1) / (2 * scale),
            np.clip(atoms.area * scale**2 / np.maximum(sides.prod(axis=1), 1e-18), 0, 1),
            log_size(atoms.length * scale),
            np.log1p(atoms.pieces),
            np.log1p(atoms.holes),
        ]
    )
    transform = _transform(atoms)
    return np.column_stack([transform.real, transform.imag, scalars]) * full[:, None]


def log_size(tiles: NDArray[np.float64]) -> NDArray[np.float64]:
    """Lengths on a logarithmic scale from 0 to 1, which is a whole tile."""
    return np.log1p(tiles / _UNIT) / np.log1p(1 / _UNIT)


def _transform(atoms: Atoms) -> NDArray[np.complex128]:
    """(N, F) mean of `exp(-i w . p)` over each geometry; an area's by Gauss's theorem."""
    wx, wy = FREQUENCIES.T

    def along(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
        return vectors[:, :1] * wx + vectors[:, 1:] * wy

    # np.sinc(x) is sin(pi x) / (pi x), exact at and near zero: an edge may lie across w
    size = (atoms.weight[:, None] + along(atoms.normal)) * np.sinc(along(atoms.step) / (2 * np.pi))
    phase = along(atoms.middle)
    count, number = len(atoms.dimension), len(atoms.owner)
    gather = csr_array((np.ones(number), (atoms.owner, np.arange(number))), shape=(count, number))
    total = gather @ (size * np.cos(phase)) - 1j * (gather @ (size * np.sin(phase)))
    solid = atoms.area > 0
    mass = np.bincount(atoms.owner, atoms.weight, minlength=count)
    mass = np.where(solid, atoms.area, np.where(mass > 0, mass, 1))
    factor = np.where(solid[:, None], 1j / (wx**2 + wy**2), 1)
    return factor * total / mass[:, None]


def _atoms(geometry: NDArray[np.object_], frame: Frame) -> Atoms:
    """Take the geometries apart."""
    count = len(geometry)
    parts, owner, dimension = _simple_parts(geometry)
    pieces = np.bincount(owner, minlength=count)
    kind = dimension[owner]
    point_owner = owner[kind == 0]
    points = frame.local(shapely.get_coordinates(parts[kind == 0]), point_owner)
    rings, ring_polygon = shapely.get_rings(parts[kind == 2], return_index=True)
    # of each polygon the exterior ring comes first
    is_exterior = np.diff(ring_polygon, prepend=-1) > 0
    ring_owner = owner[kind == 2][ring_polygon]
    holes = np.bincount(ring_owner[~is_exterior], minlength=count)

    paths = np.concatenate([parts[kind == 1], rings])
    path_owner = np.concatenate([owner[kind == 1], ring_owner])
    role = np.concatenate([np.zeros((kind == 1).sum()), np.where(is_exterior, 1.0, -1.0)])
    xy, path = shapely.get_coordinates(paths, return_index=True)
    xy = frame.local(xy, path_owner[path])
    is_edge = path[1:] == path[:-1]
    start, end, path = xy[:-1][is_edge], xy[1:][is_edge], path[1:][is_edge]
    step, edge_owner = end - start, path_owner[path]
    cross = start[:, 0] * end[:, 1] - start[:, 1] * end[:, 0]
    ring_area = np.bincount(path, cross, minlength=len(paths)) / 2
    area = np.bincount(path_owner, role * np.abs(ring_area), minlength=count)
    area = np.where(area > _NEGLIGIBLE, area, 0.0)
    edge_length = np.linalg.norm(step, axis=1)
    length = np.bincount(edge_owner, edge_length, minlength=count)

    is_solid = area[edge_owner] > 0
    is_long = length[edge_owner] > _NEGLIGIBLE
    turn = np.where(is_solid, (role * np.sign(ring_area))[path], 0.0)
    return Atoms(
        owner=np.concatenate([point_owner, edge_owner]),
        middle=np.concatenate([points, (start + end) / 2]),
        step=np.concatenate([np.zeros_like(points), step]),
        weight=np.concatenate(
            [np.ones(len(points)), np.where(is_solid, 0.0, np.where(is_long, edge_length, 1.0))]
        ),
        normal=np.concatenate(
            [np.zeros_like(points), turn[:, None] * np.stack([step[:, 1], -step[:, 0]], axis=1)]
        ),
        dimension=dimension,
        area=area.astype(np.float64),
        length=length.astype(np.float64),
        pieces=pieces,
        holes=holes,
    )


def _simple_parts(
    geometry: NDArray[np.object_],
) -> tuple[NDArray[np.object_], NDArray[np.intp], NDArray[np.intp]]:
    """Simple parts of the highest dimension, each one's owner, and the dimension of all owners."""
    parts, owner = primitive_parts(geometry)
    there = ~(shapely.is_empty(parts) | shapely.is_missing(parts))
    parts, owner = parts[there], owner[there]
    part_dimension = shapely.get_dimensions(parts).astype(np.intp)
    dimension = np.full(len(geometry), -1, dtype=np.intp)
    np.maximum.at(dimension, owner, part_dimension)
    is_highest = part_dimension == dimension[owner]
    return parts[is_highest], owner[is_highest], dimension
