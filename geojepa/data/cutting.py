"""Cut features to tiles: true intersections, pieces kept apart, holes kept; in tile units."""

from dataclasses import dataclass

import numpy as np
import shapely

from geojepa.data.grid import TILES, Grid, code_of_cells, squares, to_units

# in tiles: a line that passes a corner of four tiles this closely goes through it
_CORNER = 1e-10
# area that rounding may lose a length of outline, in tile units
_LOST = 1e-10


@dataclass
class Pieces:
    """What of each feature lies in each tile.

    `feature` and `tile` (P,) number the feature and the tile: a row of the footprints, or the
    number that `code_of_cells` gives a tile of the grid; `geometry` (P,)
    is in the tile's own frame, x east and y north in [0, 1].
    """

    feature: np.ndarray
    tile: np.ndarray
    geometry: np.ndarray


def cut_to_grid(parts: np.ndarray, owner: np.ndarray) -> Pieces:
    """Cut parts (in tile units) to every zoom-16 tile that they meet; see `code_of_cells`."""
    low, high = _span(shapely.bounds(parts))
    is_whole = (low == high).all(axis=1)
    is_line = ~is_whole & (shapely.get_dimensions(parts) == 1)
    is_area = ~is_whole & ~is_line
    found = [
        (parts[is_whole], owner[is_whole], low[is_whole]),
        _split_lines(parts[is_line], owner[is_line]),
        _quarter(parts[is_area], owner[is_area], low[is_area], high[is_area]),
    ]
    pieces, owner, cell = (np.concatenate(column) for column in zip(*found, strict=True))
    frame = np.column_stack([cell, np.ones(len(cell))])
    return _local(pieces, owner, code_of_cells(cell), frame)


def cut_to_footprints(parts: np.ndarray, owner: np.ndarray, grid: Grid) -> Pieces:
    """Cut parts (in tile units) to the footprints of `grid`, which may overlap."""
    shapes = shapely.transform(grid.footprint, to_units)
    part, tile = shapely.STRtree(parts).query(shapes, predicate="intersects")[::-1]
    pieces = parts[part]
    is_cut = ~shapely.covers(shapes[tile], pieces)
    pieces[is_cut] = shapely.intersection(pieces[is_cut], shapes[tile[is_cut]])
    pieces, index = _same_dimension(pieces, shapely.get_dimensions(parts[part]))
    tile = tile[index]
    return _local(pieces, owner[part[index]], tile, grid.frame[tile])


def _split_lines(lines: np.ndarray, owner: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lines split where they cross from tile to tile: pieces, their owner and cell (P, 2).

    What runs along a border belongs to the tile east or north of it, as a point on it does.
    """
    coords, line = shapely.get_coordinates(lines, return_index=True)
    if not len(coords):
        return lines, owner, np.empty((0, 2), dtype=int)
    start = np.flatnonzero(line[1:] == line[:-1])
    a, step = coords[start], coords[start + 1] - coords[start]
    all_points, segment, along = [coords], [np.arange(len(coords))], [np.zeros(len(coords))]
    for axis in (0, 1):
        ends = np.sort(np.stack([coords[start, axis], coords[start + 1, axis]]), axis=0)
        first = np.floor(ends[0]) + 1
        count = np.maximum(np.ceil(ends[1]) - first, 0).astype(int)
        row = np.repeat(np.arange(len(start)), count)
        border = first[row] + np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        share = (border - a[row, axis]) / step[row, axis]
        crossing = a[row] + share[:, None] * step[row]
        # through a corner of four tiles, not past it by a rounding
        corner = np.rint(crossing)
        crossing = np.where(np.abs(crossing - corner) < _CORNER, corner, crossing)
        crossing[:, axis] = border
        all_points.append(crossing)
        segment.append(start[row])
        along.append(share)
    order = np.lexsort((np.concatenate(along), np.concatenate(segment)))
    points, line = np.concatenate(all_points)[order], line[np.concatenate(segment)[order]]
    is_new = np.ones(len(points), dtype=bool)
    is_new[1:] = (line[1:] != line[:-1]) | (points[1:] != points[:-1]).any(axis=1)
    points, line = points[is_new], line[is_new]
    step_of = np.flatnonzero(line[1:] == line[:-1])
    middle = (points[step_of] + points[step_of + 1]) / 2
    cell = np.clip(np.floor(middle), 0, TILES - 1).astype(int)
    begins = np.ones(len(step_of), dtype=bool)
    begins[1:] = (line[step_of[1:]] != line[step_of[:-1]]) | (cell[1:] != cell[:-1]).any(axis=1)
    piece = np.cumsum(begins) - 1
    # a piece is the first point of each of its steps, and the last point of the last
    is_last = np.append(begins[1:], True)
    at = np.concatenate([step_of, step_of[is_last] + 1])
    index = np.concatenate([piece, piece[is_last]])
    order = np.lexsort((at, index))
    pieces = shapely.linestrings(points[at[order]], indices=index[order])
    return pieces, owner[line[step_of[begins]]], cell[begins]


def _quarter(
    parts: np.ndarray, owner: np.ndarray, low: np.ndarray, high: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Halve areas that span several tiles, along the longer side, until each piece lies in one.

    Cost grows with the logarithm of an entity's extent and not with tiles times vertices; what
    covers all of its tiles, such as the inside of an ocean, is not cut at all.
    """
    done = []
    while len(parts):
        whole = (low == high).all(axis=1)
        done.append((parts[whole], owner[whole], low[whole]))
        full = ~whole & (shapely.area(parts) == (high - low + 1).prod(axis=1))
        row, cell = _cells(low[full], high[full])
        done.append((squares(cell), owner[full][row], cell))
        split = ~whole & ~full
        parts, owner, low, high = parts[split], owner[split], low[split], high[split]
        axis = np.argmax(high - low, axis=1)
        row = np.arange(len(parts))
        middle = (low[row, axis] + high[row, axis] + 1) // 2
        halves = []
        for side, half in enumerate(_halves(parts, axis, middle)):
            bound_low, bound_high = low.copy(), high.copy()
            if side == 0:
                bound_high[row, axis] = middle - 1
            else:
                bound_low[row, axis] = middle
            cut, index = _same_dimension(half, shapely.get_dimensions(parts))
            spans = (
                np.clip(span, bound_low[index], bound_high[index])
                for span in _span(shapely.bounds(cut))
            )
            halves.append((cut, owner[index], *spans))
        parts, owner, low, high = (np.concatenate([a, b]) for a, b in zip(*halves, strict=True))
    if not done:
        return parts, owner, low
    pieces, owners, cells = (np.concatenate(column) for column in zip(*done, strict=True))
    return pieces, owners, cells


def _halves(areas: np.ndarray, axis: np.ndarray, middle: np.ndarray) -> np.ndarray:
    """(2, n) what of areas lies below and above `middle` along an axis.

    Clipping by rectangle takes half the time of an intersection but promises no valid result, so
    it counts only where the result is valid and both sides together have the whole area.
    """
    halves = np.empty((2, len(areas)), dtype=object)
    end = TILES + 1
    for cut in np.unique(np.stack([axis, middle]), axis=1).T:
        rows = np.flatnonzero((axis == cut[0]) & (middle == cut[1]))
        limits = np.array([[[-1, -1], [end, end]], [[-1, -1], [end, end]]], dtype=float)
        limits[0, 1, cut[0]] = limits[1, 0, cut[0]] = cut[1]
        for side in (0, 1):
            halves[side, rows] = _clip(areas[rows], limits[side].ravel())
    lost = np.abs(shapely.area(halves).sum(axis=0) - shapely.area(areas))
    is_exact = shapely.is_valid(halves).all(axis=0) & (lost <= _LOST * shapely.length(areas))
    doubtful = np.flatnonzero(~is_exact)
    low = np.full((2, len(doubtful), 2), -1.0)
    high = np.full((2, len(doubtful), 2), float(end))
    row = np.arange(len(doubtful))
    high[0, row, axis[doubtful]] = low[1, row, axis[doubtful]] = middle[doubtful]
    boxes = shapely.box(low[..., 0], low[..., 1], high[..., 0], high[..., 1])
    halves[:, doubtful] = shapely.intersection(areas[doubtful], boxes)
    return halves


def _clip(areas: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """Areas within (west, south, east, north); None where GEOS fails, as on some slivers."""
    try:
        return shapely.clip_by_rect(areas, *limits)
    except shapely.errors.GEOSException:
        if len(areas) == 1:
            return np.array([None], dtype=object)
        half = len(areas) // 2
        return np.concatenate([_clip(areas[:half], limits), _clip(areas[half:], limits)])


def _cells(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Row of each cell (n,), and the cells (n, 2), from the first to the last of each row."""
    width, height = (high - low + 1).T
    count = width * height
    row = np.repeat(np.arange(len(low)), count)
    k = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    return row, low[row] + np.stack([k % width[row], k // width[row]], axis=1)


def _span(bounds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First and last tile (n, 2) of bounds; an upper edge on a tile's border is not beyond it."""
    low = np.floor(bounds[:, :2])
    high = np.maximum(np.ceil(bounds[:, 2:]) - 1, low)
    return np.clip(low, 0, TILES - 1).astype(int), np.clip(high, 0, TILES - 1).astype(int)


def _same_dimension(pieces: np.ndarray, dimension: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Primitive parts that kept the dimension of their whole: a touch is no meeting."""
    flat, index = shapely.get_parts(pieces, return_index=True)
    flat, deeper = shapely.get_parts(flat, return_index=True)
    index = index[deeper]
    kept = (shapely.get_dimensions(flat) == dimension[index]) & ~shapely.is_empty(flat)
    return flat[kept], index[kept]


def _local(pieces: np.ndarray, owner: np.ndarray, tile: np.ndarray, frame: np.ndarray) -> Pieces:
    """Move pieces to their tile's `frame` (P, 3) and join those of one feature in one tile."""
    order = np.lexsort((owner, tile))
    pieces, owner, tile = pieces[order], owner[order], tile[order]
    coords, index = shapely.get_coordinates(pieces, return_index=True)
    frame = frame[order][index]
    local = (coords - frame[:, :2]) / frame[:, 2:]
    pieces = shapely.set_coordinates(pieces.copy(), local)
    first = np.ones(len(pieces), dtype=bool)
    first[1:] = (owner[1:] != owner[:-1]) | (tile[1:] != tile[:-1])
    number = np.cumsum(first) - 1
    joined = pieces[first]
    several = np.bincount(number)[number] > 1 if len(number) else first
    if several.any():
        joined[np.unique(number[several])] = _join(pieces[several], number[several])
    return Pieces(owner[first], tile[first], joined)


def _join(pieces: np.ndarray, number: np.ndarray) -> np.ndarray:
    """Multi-geometries, one for each distinct number; a collection where dimensions differ."""
    _, row = np.unique(number, return_inverse=True)
    dimension = shapely.get_dimensions(pieces)
    low = np.full(row.max() + 1, 9)
    high = np.full(row.max() + 1, -1)
    np.minimum.at(low, row, dimension)
    np.maximum.at(high, row, dimension)
    joined = np.empty(len(low), dtype=object)
    makers = (shapely.multipoints, shapely.multilinestrings, shapely.multipolygons)
    for d, make in enumerate(makers):
        of_kind = (low == d) & (high == d)
        if of_kind.any():
            chosen = of_kind[row]
            joined[of_kind] = make(
                pieces[chosen], indices=np.unique(row[chosen], return_inverse=True)[1]
            )
    mixed = low != high
    if mixed.any():
        chosen = mixed[row]
        joined[mixed] = shapely.geometrycollections(
            pieces[chosen], indices=np.unique(row[chosen], return_inverse=True)[1]
        )
    return joined
