"""Cut features to tiles: true intersections, pieces kept apart, holes kept.

Everything happens in float64 "tile units" of one zoom level: u east and v north, one unit a
tile, exact web mercator. A tile is named 16_x_y with y counted from the north.
"""

from dataclasses import dataclass

import geopandas
import numpy as np
import shapely

from geojepa.errors import GeoJEPAError

ZOOM = 16
TILES = 2**ZOOM
EQUATOR_M = 40075016.685578488


@dataclass
class Pieces:
    """What of each feature lies in each tile.

    `feature` and `tile` (P,) number the feature and the tile (a row of `Grid`); `geometry` (P,)
    is in the tile's own frame, x east and y north in [0, 1].
    """

    feature: np.ndarray
    tile: np.ndarray
    geometry: np.ndarray


@dataclass
class Grid:
    """The tiles of a corpus: `frame` (T, 3) holds u, v of the lower left corner and the side."""

    tile_id: list[str]
    xy: np.ndarray
    frame: np.ndarray
    footprint: np.ndarray
    group: list[str]
    image: list[str]

    def ground_m(self) -> np.ndarray:
        """Side in metres on the ground (T,), at the middle of the tile."""
        v = self.frame[:, 1] + self.frame[:, 2] / 2
        latitude = np.arctan(np.sinh((2 * v / TILES - 1) * np.pi))
        return self.frame[:, 2] * EQUATOR_M / TILES * np.cos(latitude)


def to_units(lonlat: np.ndarray) -> np.ndarray:
    """(n, 2) degrees to tile units, u east and v north."""
    lon, lat = lonlat[:, 0], np.clip(lonlat[:, 1], -85.0511287798066, 85.0511287798066)
    u = TILES * (lon + 180.0) / 360.0
    v = TILES * (0.5 + np.arcsinh(np.tan(np.radians(lat))) / (2 * np.pi))
    return np.stack([u, v], axis=1)


def to_degrees(units: np.ndarray) -> np.ndarray:
    """Inverse of `to_units`."""
    lat = np.degrees(np.arctan(np.sinh((2 * units[:, 1] / TILES - 1) * np.pi)))
    return np.stack([units[:, 0] * 360.0 / TILES - 180.0, lat], axis=1)


def cut_to_grid(parts: np.ndarray, owner: np.ndarray) -> tuple[Pieces, Grid]:
    """Cut parts (in tile units) to every zoom-16 tile that they meet."""
    pieces, owner, u, v = _quarter(parts, owner)
    xy, tile = np.unique(np.stack([u, TILES - 1 - v], axis=1), axis=0, return_inverse=True)
    frame = np.stack([xy[:, 0], TILES - 1 - xy[:, 1], np.ones(len(xy))], axis=1).astype(float)
    grid = Grid(
        [f"{ZOOM}_{x}_{y}" for x, y in xy],
        xy,
        frame,
        shapely.transform(_squares(frame[:, :2]), to_degrees),
        [""] * len(xy),
        [""] * len(xy),
    )
    return _local(pieces, owner, tile.reshape(-1), frame), grid


def grid_of_footprints(footprints: geopandas.GeoDataFrame) -> Grid:
    """Tiles from a table of polygons; `tile_id`, `group` and `image` are used where present.

    The frame of a footprint is its bounding square in web mercator.
    """
    if footprints.crs is None:
        raise GeoJEPAError("no coordinate reference system; set one and write again")
    shapes = footprints.to_crs(4326).geometry.to_numpy()
    if not (np.isin(shapely.get_type_id(shapes), (3, 6)) & (shapely.area(shapes) > 0)).all():
        raise GeoJEPAError("every footprint must be a polygon with an area; drop the others")
    if not shapely.is_valid(shapes).all():
        raise GeoJEPAError("a footprint crosses itself; repair it with make_valid and write again")
    if not len(shapes):
        raise GeoJEPAError("holds no footprint; give at least one polygon")
    bounds = shapely.bounds(shapely.transform(shapes, to_units))
    side = (bounds[:, 2:] - bounds[:, :2]).max(axis=1)
    names = footprints.get("tile_id", footprints.index.to_series()).astype(str).tolist()
    if len(set(names)) < len(names):
        raise GeoJEPAError("tile_id is not unique; name each footprint once")
    near = np.rint(bounds[:, :2])
    is_tile = (np.abs(bounds[:, :2] - near) < 1e-3).all(axis=1) & (np.abs(side - 1) < 1e-3)
    xy = np.where(is_tile[:, None], np.stack([near[:, 0], TILES - 1 - near[:, 1]], axis=1), -1)
    frame = np.column_stack([bounds[:, :2], side])
    frame[is_tile] = np.column_stack([near[is_tile], np.ones(is_tile.sum())])
    blank = [""] * len(footprints)
    group = footprints["group"].fillna("").astype(str).tolist() if "group" in footprints else blank
    image = footprints["image"].fillna("").astype(str).tolist() if "image" in footprints else blank
    return Grid(names, xy.astype(int), frame, shapes, group, image)


def cut_to_footprints(parts: np.ndarray, owner: np.ndarray, grid: Grid) -> Pieces:
    """Cut parts (in tile units) to the footprints of `grid`, which may overlap."""
    shapes = shapely.transform(grid.footprint, to_units)
    part, tile = shapely.STRtree(parts).query(shapes, predicate="intersects")[::-1]
    pieces = parts[part]
    is_cut = ~shapely.covers(shapes[tile], pieces)
    pieces[is_cut] = shapely.intersection(pieces[is_cut], shapes[tile[is_cut]])
    pieces, index = _same_dimension(pieces, shapely.get_dimensions(parts[part]))
    return _local(pieces, owner[part[index]], tile[index], grid.frame)


def tiles_of_points(points: np.ndarray, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Which point (in tile units) lies in which tile: rows of both, a pair for each hit."""
    if (grid.xy[:, 0] >= 0).all():
        at = {(x, y): i for i, (x, y) in enumerate(grid.xy.tolist())}
        cells = np.floor(shapely.get_coordinates(points)).astype(int)
        tile = np.array([at.get((u, TILES - 1 - v), -1) for u, v in cells.tolist()], dtype=int)
        return np.flatnonzero(tile >= 0), tile[tile >= 0]
    shapes = shapely.transform(grid.footprint, to_units)
    point, tile = shapely.STRtree(points).query(shapes, predicate="intersects")[::-1]
    return point, tile


def _quarter(
    parts: np.ndarray, owner: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Halve what spans several tiles, along the longer side, until each piece lies in one.

    Cost grows with the logarithm of an entity's extent and not with tiles times vertices; what
    covers all of its tiles, such as the inside of an ocean, is not cut at all.
    """
    low, high = _span(shapely.bounds(parts))
    done = []
    while len(parts):
        whole = (low == high).all(axis=1)
        done.append((parts[whole], owner[whole], low[whole]))
        full = ~whole & (shapely.area(parts) == (high - low + 1).prod(axis=1))
        row, cell = _cells(low[full], high[full])
        done.append((_squares(cell), owner[full][row], cell))
        split = ~whole & ~full
        parts, owner, low, high = parts[split], owner[split], low[split], high[split]
        axis = np.argmax(high - low, axis=1)
        row = np.arange(len(parts))
        middle = (low[row, axis] + high[row, axis] + 1) // 2
        halves = []
        for side in (0, 1):
            box_low, box_high = low.astype(float), high + 1.0
            (box_high if side == 0 else box_low)[row, axis] = middle
            box = shapely.box(box_low[:, 0], box_low[:, 1], box_high[:, 0], box_high[:, 1])
            cut, index = _same_dimension(
                shapely.intersection(parts, box), shapely.get_dimensions(parts)
            )
            bound_low, bound_high = box_low.astype(int)[index], box_high.astype(int)[index] - 1
            new_low, new_high = _span(shapely.bounds(cut))
            halves.append(
                (
                    cut,
                    owner[index],
                    np.clip(new_low, bound_low, bound_high),
                    np.clip(new_high, bound_low, bound_high),
                )
            )
        parts, owner, low, high = (np.concatenate([a, b]) for a, b in zip(*halves, strict=True))
    if not done:
        return parts, owner, np.empty(0, int), np.empty(0, int)
    cell = np.concatenate([d[2] for d in done])
    return (
        np.concatenate([d[0] for d in done]),
        np.concatenate([d[1] for d in done]),
        cell[:, 0],
        cell[:, 1],
    )


def _cells(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Row of each cell (n,), and the cells (n, 2), from the first to the last of each row."""
    width, height = (high - low + 1).T
    count = width * height
    row = np.repeat(np.arange(len(low)), count)
    k = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    return row, low[row] + np.stack([k % width[row], k // width[row]], axis=1)


def _squares(cell: np.ndarray) -> np.ndarray:
    """Unit squares (n,) on cells (n, 2)."""
    return shapely.box(cell[:, 0], cell[:, 1], cell[:, 0] + 1, cell[:, 1] + 1)


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
    """Move pieces to their tile's frame and join those of one feature in one tile."""
    order = np.lexsort((owner, tile))
    pieces, owner, tile = pieces[order], owner[order], tile[order]
    coords, index = shapely.get_coordinates(pieces, return_index=True)
    local = (coords - frame[tile[index], :2]) / frame[tile[index], 2:]
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
