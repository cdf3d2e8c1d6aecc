"""Places that lie apart, moved next to each other on one sheet at one scale."""

from dataclasses import dataclass

import geopandas
import numpy as np
import shapely
from matplotlib.axes import Axes
from sklearn.cluster import DBSCAN

from geojepa.figures.maps import MERCATOR, bulk, footprints, frame, map_size
from geojepa.figures.style import GREY, plain

# the largest groups of tiles that a sheet shows; more would be dots
MOST = 24
# inches between two groups, of a line of text, and of one of its characters
GAP, LINE, LETTER = 0.12, 0.16, 0.065
# side of the cells that tell clusters of a scattered place apart, in sides of a tile
CELL = 12
# a tile is drawn at least this wide, in inches
LEAST = 0.02


@dataclass(frozen=True, eq=False)
class Sheet:
    """Where tiles are drawn.

    Attributes:
        rows: (R,) rows of the tiles shown.
        shapes: (R,) polygons, in web-mercator metres if `is_map`, else in inches of the sheet.
        names: x, y and text above each group; none on a map.
        size: width and height in inches.
        left_out: tiles that lie apart from their place, or in groups too small to be shown.
        is_map: whether tiles stand where they are, so that the ground can be drawn below.
    """

    rows: np.ndarray
    shapes: np.ndarray
    names: list[tuple[float, float, str]]
    size: tuple[float, float]
    left_out: int
    is_map: bool


def lay_out(tiles: geopandas.GeoDataFrame, width: float, height: float) -> Sheet:
    """Place all tiles on a sheet of at most `width` by `height` inches.

    One place that is not scattered is a map. Else each group of `groups` keeps its shape and
    orientation, a tile of the grid is as large in all of them, and they stand in lines, the
    tallest first.
    """
    members = groups(tiles)
    if len(members) == 1:
        shapes = footprints(tiles)
        size = map_size(shapes, width, height)
        return Sheet(np.arange(len(tiles)), shapes, [], size, 0, True)
    members = members[:MOST]
    plane = tiles.geometry.to_crs(MERCATOR).to_numpy()
    bounds = np.array([shapely.total_bounds(plane[rows]) for rows in members])
    extent = bounds[:, 2:] - bounds[:, :2]
    order = np.argsort(-extent[:, 1], kind="stable")
    members, bounds, extent = [members[i] for i in order], bounds[order], extent[order]
    texts = [_name(tiles, rows) for rows in members]
    wide = LETTER * np.array([len(text) for text in texts])
    for scale in np.geomspace(width / extent[:, 0].max(), 1e-9, 400):
        at, high = _lines(np.maximum(extent[:, 0] * scale, wide), extent[:, 1] * scale, width)
        if high <= height:
            break
    shapes = np.concatenate(
        [
            shapely.transform(plane[rows], lambda p, b=box, a=corner: (p - b[:2]) * scale + a)
            for rows, box, corner in zip(members, bounds, at, strict=True)
        ]
    )
    side = np.ptp(shapely.bounds(shapes).reshape(-1, 2, 2), axis=1).max(axis=1)
    shapes = shapely.buffer(shapes, np.maximum(0, LEAST - side) / 2, join_style="mitre")
    tops = at[:, 1] + extent[:, 1] * scale + 0.03
    names = list(zip(at[:, 0].tolist(), tops.tolist(), texts, strict=True))
    right = float((at[:, 0] + np.maximum(extent[:, 0] * scale, wide)).max())
    rows = np.concatenate(members)
    return Sheet(rows, shapes, names, (right, high), len(tiles) - len(rows), False)


def groups(tiles: geopandas.GeoDataFrame) -> list[np.ndarray]:
    """Rows of each place, of a scattered place those of each cluster; the largest first.

    Strays that `bulk` leaves out are in no group. A place is scattered if its tiles fill less than
    a hundredth of its map; clusters are made of cells of `CELL` tiles' sides that touch.
    """
    place = tiles["place"].astype(str).to_numpy(object)
    found = []
    for name in np.unique(place):
        rows = np.flatnonzero(place == name)
        shapes = tiles.geometry.iloc[rows].to_crs(MERCATOR).to_numpy()
        left, bottom, right, top = bulk(shapes)
        centres = shapely.get_coordinates(shapely.centroid(shapes))
        if shapely.area(shapes).sum() >= 0.01 * (right - left) * (top - bottom):
            inside = ((centres >= [left, bottom]) & (centres <= [right, top])).all(axis=1)
            found.append(rows[inside])
            continue
        cells = np.floor(centres / (CELL * np.sqrt(np.median(shapely.area(shapes))))).astype(int)
        cell, of = np.unique(cells, axis=0, return_inverse=True)
        cluster = DBSCAN(1.5, min_samples=1).fit_predict(cell)[of]
        found += [rows[cluster == c] for c in range(cluster.max() + 1)]
    return sorted(found, key=len, reverse=True)


def frame_sheet(axes: Axes, sheet: Sheet, named: bool = True) -> None:
    """Show a sheet on axes of its proportions; `named` writes its names and what is left out."""
    if sheet.is_map:
        frame(axes, sheet.shapes, note=named)
        return
    axes.set(xlim=(0, sheet.size[0]), ylim=(0, sheet.size[1]), aspect="equal")
    axes.set_axis_off()
    if not named:
        return
    for x, y, text in sheet.names:
        axes.text(x, y, text, fontsize=7, color=GREY, va="bottom", parse_math=False)
    if sheet.left_out:
        text = f"{sheet.left_out:,} tiles that lie apart are not shown"
        axes.text(1, 0, text, transform=axes.transAxes, ha="right", va="top", fontsize=7)


def _name(tiles: geopandas.GeoDataFrame, rows: np.ndarray) -> str:
    place = tiles["place"].iloc[rows[0]]
    count = f"{len(rows):,} tile{'s' * (len(rows) > 1)}"
    if tiles["place"].nunique() == 1:
        return count
    return f"{plain(place, 24)}, {count}"


def _lines(wide: np.ndarray, high: np.ndarray, width: float) -> tuple[np.ndarray, float]:
    """Lower left corners (G, 2) of boxes set in lines, as text is, and the height of it all."""
    at = np.zeros((len(wide), 2))
    x = top = line = 0.0
    for i, (w, h) in enumerate(zip(wide, high, strict=True)):
        if x and x + w > width:
            x, top, line = 0.0, top + line + GAP, 0.0
        line = max(line, h + LINE)
        at[i] = x, top + LINE + h
        x += w + GAP
    total = top + line
    at[:, 1] = total - at[:, 1]
    return at, total
