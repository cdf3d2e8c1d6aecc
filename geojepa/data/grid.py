"""The tiles of a corpus: squares of the web mercator grid, or footprints of any shape.

Their frames are in float64 "tile units" of one zoom level: u east and v north, one unit a tile,
exact web mercator. A tile is named 16_x_y with y counted from the north.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import asinh, atan, cosh, degrees, sinh, tan
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import shapely

from geojepa.errors import GeoJEPAError

if TYPE_CHECKING:
    import geopandas

ZOOM = 16
TILES = 2**ZOOM
EQUATOR_M = 40075016.685578488


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
        side = self.frame[:, 2]
        return side * metres_a_unit(self.frame[:, 1] + side / 2)


def save_grid(grid: Grid, path: Path) -> None:
    """Write a grid to an Arrow file, for `load_grid`."""
    table = pa.table(
        {
            "tile_id": grid.tile_id,
            "x": grid.xy[:, 0],
            "y": grid.xy[:, 1],
            **{name: grid.frame[:, i] for i, name in enumerate(("u", "v", "side"))},
            "footprint": shapely.to_wkb(grid.footprint),
            "group": grid.group,
            "image": grid.image,
        }
    )
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


def load_grid(path: Path) -> Grid | None:
    """The grid that `save_grid` wrote; None where there is no file."""
    if not path.exists():
        return None
    with pa.OSFile(str(path)) as file:
        table = pa.ipc.open_file(file).read_all().to_pydict()
    return Grid(
        table["tile_id"],
        np.stack([table["x"], table["y"]], axis=1),
        np.stack([table["u"], table["v"], table["side"]], axis=1),
        shapely.from_wkb(table["footprint"]),
        table["group"],
        table["image"],
    )


def take_tiles(grid: Grid, rows: np.ndarray) -> Grid:
    """Some tiles of a grid, in the order of `rows`."""
    return Grid(
        [grid.tile_id[i] for i in rows],
        grid.xy[rows],
        grid.frame[rows],
        grid.footprint[rows],
        [grid.group[i] for i in rows],
        [grid.image[i] for i in rows],
    )


def to_units(lonlat: np.ndarray) -> np.ndarray:
    """(n, 2) degrees to tile units, u east and v north."""
    lon, lat = lonlat[:, 0], np.clip(lonlat[:, 1], -85.0511287798066, 85.0511287798066)
    u = TILES * (lon + 180.0) / 360.0
    v = TILES * (0.5 + _each(lambda phi: asinh(tan(phi)), np.radians(lat)) / (2 * np.pi))
    return np.stack([u, v], axis=1)


def to_degrees(units: np.ndarray) -> np.ndarray:
    """Inverse of `to_units`."""
    lat = _each(lambda y: degrees(atan(sinh(y))), (2 * units[:, 1] / TILES - 1) * np.pi)
    return np.stack([units[:, 0] * 360.0 / TILES - 180.0, lat], axis=1)


def metres_a_unit(v: np.ndarray) -> np.ndarray:
    """Metres on the ground (n,) that a tile unit spans at `v`."""
    return EQUATOR_M / TILES / _each(cosh, (2 * v / TILES - 1) * np.pi)


def _each(function: Callable[[float], float], values: np.ndarray) -> np.ndarray:
    """Value by value with the C library's functions, (n,) float64.

    NumPy's own differ in the last bit from one processor to another, and the hash of a corpus with
    them.
    """
    return np.fromiter(map(function, values.tolist()), np.float64, len(values))


def code_of_cells(cell: np.ndarray) -> np.ndarray:
    """(n,) numbers of tiles given by u and v (n, 2), in the order of x, then y."""
    return cell[:, 0] * TILES + (TILES - 1 - cell[:, 1])


def grid_of_codes(code: np.ndarray) -> Grid:
    """The tiles of some numbers, in their order."""
    xy = np.stack(np.divmod(code, TILES), axis=1)
    frame = np.stack([xy[:, 0], TILES - 1 - xy[:, 1], np.ones(len(xy))], axis=1).astype(float)
    blank = [""] * len(xy)
    footprint = shapely.transform(squares(frame[:, :2]), to_degrees)
    return Grid([f"{ZOOM}_{x}_{y}" for x, y in xy], xy, frame, footprint, blank, blank)


def grid_of_footprints(footprints: "geopandas.GeoDataFrame") -> Grid:
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


def squares(cell: np.ndarray) -> np.ndarray:
    """Unit squares (n,) on cells (n, 2)."""
    return shapely.box(cell[:, 0], cell[:, 1], cell[:, 0] + 1, cell[:, 1] + 1)
