"""Geometries of mixed kinds drawn fast: areas with their holes, lines, points."""

from typing import Any

import numpy as np
import shapely
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.path import Path

from geojepa.data.features import primitive_parts


def draw_shapes(
    axes: Axes,
    geometry: np.ndarray,
    colours: np.ndarray | str,
    *,
    areas: dict[str, Any] | None = None,
    lines: dict[str, Any] | None = None,
    points: dict[str, Any] | None = None,
) -> None:
    """Draw geometries and the parts of collections: large areas lowest, points on top.

    Args:
        axes: to draw on.
        geometry: (N,).
        colours: one, or N.
        areas, lines, points: style of each kind, as matplotlib's collections take it; None leaves
            the kind out.
    """
    every = np.broadcast_to(np.asarray(colours, dtype=object), len(geometry))
    simple, owner = primitive_parts(geometry)
    colour, dimension = every[owner], shapely.get_dimensions(simple)
    if areas is not None:
        chosen = np.flatnonzero(dimension == 2)
        chosen = chosen[np.argsort(-shapely.area(simple[chosen]), kind="stable")]
        paths = [area_path(shape) for shape in shapely.orient_polygons(simple[chosen])]
        axes.add_collection(
            PathCollection(paths, facecolors=list(colour[chosen]), zorder=1, **areas)
        )
    if lines is not None:
        chosen = np.flatnonzero(dimension == 1)
        strokes = [shapely.get_coordinates(shape) for shape in simple[chosen]]
        axes.add_collection(
            LineCollection(strokes, colors=list(colour[chosen]), zorder=1.1, **lines)
        )
    if points is not None:
        chosen = np.flatnonzero(dimension == 0)
        places = shapely.get_coordinates(simple[chosen])
        axes.scatter(places[:, 0], places[:, 1], c=list(colour[chosen]), zorder=1.2, **points)


def area_path(polygon: shapely.Polygon) -> Path:
    """The rings of an oriented polygon as one path, so that its holes stay empty."""
    rings = [polygon.exterior, *polygon.interiors]
    return Path.make_compound_path(*(Path(shapely.get_coordinates(r), closed=True) for r in rings))
