"""Maps of a corpus: tiles filled with a colour over the ground they stand on."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import contextily
import geopandas
import numpy as np
import shapely
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from sklearn.cluster import DBSCAN

from geojepa.data.corpus import Corpus, TileData
from geojepa.data.imagery.raster import Raster
from geojepa.errors import GeoJEPAError
from geojepa.figures.shapes import draw_shapes
from geojepa.figures.style import GREY, plain

MERCATOR = "EPSG:3857"
# of a place's entities, the lines and areas that let a reader find the way
GROUND = {
    "water": "#A9C9DD",
    "waterway": "#A9C9DD",
    "building": "#BDBDBD",
    "railway": "#9A9A9A",
    "highway": "#B5A995",
}
# a tile is drawn at least this large, as a share of the map's side
LEAST = 1 / 150
# width of a raster below a map
PIXELS = 900


def largest_place(tiles: geopandas.GeoDataFrame) -> np.ndarray:
    """Rows of the place with most tiles: places far apart do not fit one map."""
    counts = tiles["place"].value_counts()
    return np.flatnonzero((tiles["place"] == counts.index[0]).to_numpy())


def mapped_rows(tiles: geopandas.GeoDataFrame) -> np.ndarray:
    """Rows that fit one map: the largest place or, where it is scattered, its largest cluster.

    A place is scattered if its tiles fill less than a hundredth of the map; a cluster holds tiles
    that are less than twenty sides apart.
    """
    rows = largest_place(tiles)
    shapes = tiles.geometry.iloc[rows].to_crs(MERCATOR).to_numpy()
    left, bottom, right, top = bulk(shapes)
    if shapely.area(shapes).sum() >= 0.01 * (right - left) * (top - bottom):
        return rows
    centres = shapely.get_coordinates(shapely.centroid(shapes))
    reach = 20 * np.sqrt(np.median(shapely.area(shapes)))
    cluster = DBSCAN(reach, min_samples=1).fit_predict(centres)
    return rows[cluster == np.bincount(cluster).argmax()]


def map_title(tiles: geopandas.GeoDataFrame, rows: np.ndarray) -> str:
    """Name of the place on a map, with the number of its tiles if it shows only some."""
    place = tiles["place"].iloc[rows[0]]
    every = int((tiles["place"] == place).sum())
    return plain(place) + (f", {len(rows):,} of {every:,} tiles" if len(rows) < every else "")


def footprints(tiles: geopandas.GeoDataFrame) -> np.ndarray:
    """(T,) polygons in web-mercator metres; tiny ones are enlarged so that the map shows them."""
    shapes = tiles.geometry.to_crs(MERCATOR).to_numpy()
    bounds = shapely.bounds(shapes)
    side = (bounds[:, 2:] - bounds[:, :2]).max(axis=1)
    frame_ = bulk(shapes)
    extent = (frame_[2:] - frame_[:2]).max()
    grow = np.maximum(0, LEAST * extent - side) / 2
    return shapely.buffer(shapes, grow, join_style="mitre")


def bulk(shapes: np.ndarray) -> np.ndarray:
    """Bounds (4,) of a map that shows the shapes: all, or all but a few strays.

    If the middle 98 % take less than two thirds of a side, strays beyond them are left out.
    """
    bounds = shapely.bounds(shapes)
    every = np.concatenate([bounds[:, :2].min(axis=0), bounds[:, 2:].max(axis=0)])
    middle = np.concatenate(
        [np.percentile(bounds[:, :2], 1, axis=0), np.percentile(bounds[:, 2:], 99, axis=0)]
    )
    is_compact = (middle[2:] - middle[:2]) >= (every[2:] - every[:2]) * 2 / 3
    return np.where(np.tile(is_compact, 2), every, middle)


def map_size(shapes: np.ndarray, width: float, height: float) -> tuple[float, float]:
    """Width and height in inches of the map of these shapes that just fits a frame."""
    left, bottom, right, top = bulk(shapes)
    scale = min(width / (right - left), height / (top - bottom))
    return scale * (right - left), scale * (top - bottom)


def frame(axes: Axes, shapes: np.ndarray, note: bool = True) -> None:
    """Show the bulk of these shapes, with a small margin, at true proportions, without axes.

    With `note`, the shapes that lie beyond are counted below the map.
    """
    left, bottom, right, top = bulk(shapes)
    margin = 0.02 * max(right - left, top - bottom)
    axes.set(xlim=(left - margin, right + margin), ylim=(bottom - margin, top + margin))
    axes.set_aspect("equal")
    axes.set_axis_off()
    x, y = shapely.get_coordinates(shapely.centroid(shapes)).T
    beyond = ((x < left) | (x > right) | (y < bottom) | (y > top)).sum()
    if note and beyond:
        text = f"{beyond} tiles beyond the map"
        at = axes.transAxes
        axes.text(1, 0, text, transform=at, ha="right", va="top", fontsize=7, color=GREY)


def fill(
    axes: Axes, shapes: np.ndarray, colours: Sequence | np.ndarray, alpha: float = 0.6
) -> PolyCollection:
    """Fill (T,) polygons with T colours."""
    rings = [shapely.get_coordinates(shapely.get_exterior_ring(s)) for s in shapes]
    drawn = PolyCollection(
        rings, facecolors=colours, alpha=alpha, linewidths=0, rasterized=True, zorder=2
    )
    axes.add_collection(drawn)
    return drawn


def draw_ground(axes: Axes, corpus: Corpus, rows: np.ndarray, imagery: str = "") -> None:
    """Draw the ground below a framed map: a GeoTIFF, web tiles, or the corpus's roads and waters.

    Args:
        axes: framed in web-mercator metres.
        corpus: the tiles.
        rows: tiles of the map.
        imagery: a GeoTIFF, or the address of web tiles with {z}, {x} and {y}, which is fetched;
            "" or a folder of images draws the entities.

    Raises:
        GeoJEPAError: if the imagery is a file that cannot be read, or tiles that do not come.
    """
    if "{z}" in imagery:
        try:
            contextily.add_basemap(axes, source=imagery, crs=MERCATOR, attribution=False)
        except OSError as error:
            raise GeoJEPAError(f"{imagery}: no web tiles came; draw without them") from error
        return
    if imagery and Path(imagery).is_file():
        _draw_raster(axes, imagery)
        return
    data = corpus.read(rows)
    shapes = to_plane(data, corpus.tiles.geometry.iloc[rows])
    keys = np.array([key for key, _ in corpus.vocabulary], dtype=object)
    water = np.array([pair == ("natural", "water") for pair in corpus.vocabulary], dtype=bool)
    for name, colour in GROUND.items():
        has = with_tags(data, water if name == "water" else keys == name)
        draw_shapes(
            axes,
            shapes[has],
            colour,
            areas={"linewidths": 0, "rasterized": True},
            lines={"linewidths": 0.4, "rasterized": True},
        )


def _draw_raster(axes: Axes, path: str) -> None:
    """Draw what a GeoTIFF shows of the framed map, read at the resolution of the page."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    height = max(1, round(PIXELS * (top - bottom) / (right - left)))
    with closing(Raster(path)) as raster:
        rgb, covered = raster.read((left, bottom, right, top), PIXELS, height)
    # what the raster does not cover stays paper
    pixels = np.dstack([rgb, np.where(covered, 255, 0).astype(np.uint8)])
    axes.imshow(pixels, extent=(left, right, bottom, top), zorder=0)


def with_tags(data: TileData, wanted: np.ndarray) -> np.ndarray:
    """Whether each entity has one of the wanted tags; wanted (V,) bool, result (N,) bool."""
    owner = np.repeat(np.arange(len(data.kind)), np.diff(data.cu_tags))
    return np.bincount(owner[wanted[data.tag_ids]], minlength=len(data.kind)) > 0


def to_plane(data: TileData, tiles: geopandas.GeoSeries) -> np.ndarray:
    """(N,) geometries of entities in web-mercator metres, from tile units."""
    bounds = shapely.bounds(tiles.to_crs(MERCATOR).to_numpy())
    side = (bounds[:, 2:] - bounds[:, :2]).max(axis=1)
    tile = np.repeat(np.arange(len(data.rows)), np.diff(data.cu_entities))
    coordinates, owner = shapely.get_coordinates(data.geometry, return_index=True)
    metres = coordinates * side[tile[owner], None] + bounds[tile[owner], :2]
    return shapely.set_coordinates(data.geometry.copy(), metres)
