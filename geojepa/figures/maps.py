"""Maps of a corpus: tiles filled with a colour over the ground they stand on."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import contextily
import geopandas
import numpy as np
import pandas as pd
import shapely
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.patches import Patch

from geojepa.data.corpus import Corpus, TileData
from geojepa.errors import GeoJEPAError
from geojepa.figures.style import plain

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


def largest_place(tiles: geopandas.GeoDataFrame) -> np.ndarray:
    """Rows of the place with most tiles: places far apart do not fit one map."""
    counts = tiles["place"].value_counts()
    return np.flatnonzero((tiles["place"] == counts.index[0]).to_numpy())


def footprints(tiles: geopandas.GeoDataFrame) -> np.ndarray:
    """(T,) polygons in web-mercator metres; tiny ones are enlarged so that the map shows them."""
    shapes = tiles.geometry.to_crs(MERCATOR).to_numpy()
    bounds = shapely.bounds(shapes)
    side = (bounds[:, 2:] - bounds[:, :2]).max(axis=1)
    extent = (bounds[:, 2:].max(axis=0) - bounds[:, :2].min(axis=0)).max()
    grow = np.maximum(0, LEAST * extent - side) / 2
    return shapely.buffer(shapes, grow, join_style="mitre")


def frame(axes: Axes, shapes: np.ndarray) -> None:
    """Show these shapes, with a small margin, at true proportions and without axes."""
    left, bottom, right, top = shapely.total_bounds(shapes)
    margin = 0.02 * max(right - left, top - bottom)
    axes.set(xlim=(left - margin, right + margin), ylim=(bottom - margin, top + margin))
    axes.set_aspect("equal")
    axes.set_axis_off()


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


def legend(axes: Axes, colours: Mapping[str, str], counts: pd.Series | None = None) -> None:
    """Name the colours beside the map, with how many tiles have each."""
    marks = []
    for name, colour in colours.items():
        count = "" if counts is None else f" ({counts.get(name, 0):,})"
        marks.append(Patch(color=colour, label=plain(name) + count))
    axes.legend(handles=marks, loc="upper left", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.2)


def draw_ground(axes: Axes, corpus: Corpus, rows: np.ndarray, imagery: str = "") -> None:
    """Draw the ground below a framed map: the corpus's own GeoTIFF, or its roads and waters.

    Args:
        axes: framed in web-mercator metres.
        corpus: the tiles.
        rows: tiles of the map.
        imagery: a GeoTIFF; "" or a folder of images draws the entities.

    Raises:
        GeoJEPAError: if the imagery is a file that contextily cannot read.
    """
    if imagery and Path(imagery).is_file():
        try:
            contextily.add_basemap(
                axes, source=str(imagery), crs=MERCATOR, attribution=False, reset_extent=True
            )
        except Exception as error:
            raise GeoJEPAError(f"{imagery}: not a readable raster; give a GeoTIFF") from error
        return
    data = corpus.read(rows)
    shapes = to_plane(data, corpus.tiles.geometry.iloc[rows])
    keys = np.array([key for key, _ in corpus.vocabulary], dtype=object)
    water = np.array([pair == ("natural", "water") for pair in corpus.vocabulary], dtype=bool)
    for name, colour in GROUND.items():
        has = with_tags(data, water if name == "water" else keys == name)
        draw_shapes(axes, shapes[has], colour, zorder=1)


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


def draw_shapes(axes: Axes, shapes: np.ndarray, colour: str, zorder: float) -> None:
    """Fill the areas and stroke the lines among some geometries; points are left out."""
    simple = shapely.get_parts(shapes)
    dimension = shapely.get_dimensions(simple)
    rings = [shapely.get_coordinates(shapely.get_exterior_ring(s)) for s in simple[dimension == 2]]
    lines = [shapely.get_coordinates(s) for s in simple[dimension == 1]]
    axes.add_collection(
        PolyCollection(rings, facecolors=colour, linewidths=0, zorder=zorder, rasterized=True)
    )
    axes.add_collection(
        LineCollection(lines, colors=colour, linewidths=0.4, zorder=zorder, rasterized=True)
    )
