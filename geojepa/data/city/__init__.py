"""Lilliput, the sample city: made, not mapped, written as real data is.

A procedural city in the open Atlantic with a river, bridges, motorways, an arterial grid and seven
kinds of quarter. What stands there, what the map says and what the picture shows differ, as
they do in life: the map omits and errs, the picture has no tags.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import shapely

from geojepa.data.city.corridors import corridor_roads, ramps
from geojepa.data.city.crossings import (
    corridors,
    find_bridges,
    place_road_nodes,
    place_roads,
    place_signals,
    stop_at_corridors,
)
from geojepa.data.city.fill import fill_ground, fill_points, map_plots
from geojepa.data.city.nature import lakes, place_power, place_relations, place_water
from geojepa.data.city.paint import write_imagery
from geojepa.data.city.plan import Plan, make_plan
from geojepa.data.city.plots import plots, settle
from geojepa.data.city.streets import arterials, lattice, local_streets, sidewalks
from geojepa.data.city.world import World
from geojepa.data.city.write import write_extract, write_quarters
from geojepa.errors import GeoJEPAError

__all__ = ["CityFiles", "build_city"]


@dataclass(frozen=True)
class CityFiles:
    """The three files of the sample city."""

    extract: Path
    imagery: Path
    quarters: Path


def build_city(folder: str | Path, seed: int = 0, size: int = 28) -> CityFiles:
    """Write the sample city; the same seed and size give the same bytes.

    Args:
        folder: Where the files go; made if it is not there.
        seed: Draws another city of the same kind.
        size: Side of the city in zoom-16 tiles (about 470 m each), at least 6.

    Returns:
        Paths of the extract (.osm.pbf), the picture (GeoTIFF, EPSG:3857) and the table of the
        true quarter of each tile (.csv: tile_id, quarter).

    Raises:
        GeoJEPAError: If `size` is less than 6.
    """
    if size < 6:
        raise GeoJEPAError(f"sample city: size {size} holds too few quarters; use 6 or more")
    folder = Path(folder)
    files = CityFiles(
        folder / "lilliput.osm.pbf", folder / "lilliput.tif", folder / "lilliput_quarters.csv"
    )
    plan = make_plan(size, seed)
    world = build_world(plan)
    write_extract(files.extract, world, plan.frame)
    write_imagery(files.imagery, plan, world)
    write_quarters(files.quarters, plan)
    return files


def build_world(plan: Plan) -> World:
    """Everything that stands in the city of a plan."""
    world = World(plan.frame.side)
    cells = [(i, j) for i in range(plan.cells) for j in range(plan.cells)]
    for i, j in cells:
        fill_ground(plan, world, i, j)
    ponds = lakes(plan)
    place_water(plan, world, ponds)

    corners = {cell: lattice(plan, *cell) for cell in cells}
    main = arterials(plan)
    links, exits, ramp_ends = ramps(plan, main)
    closed = corridors(plan, ponds)
    shapely.prepare(closed)
    local = {
        cell: stop_at_corridors(closed, local_streets(plan, *cell, corners[cell])) for cell in cells
    }
    roads = [
        *corridor_roads(plan),
        *links,
        *main,
        *sidewalks(plan, main),
        *(r for some in local.values() for r in some),
    ]
    level = find_bridges(plan, roads, ponds)
    ways = place_roads(plan, world, roads)
    world.add_points(level, {"railway": "level_crossing"})
    place_signals(plan, world, ramp_ends)
    place_road_nodes(plan, world, roads, exits)

    found = {cell: plots(plan, *cell, corners[cell], local[cell]) for cell in cells}
    closed = shapely.union_all([closed, *(stream.buffer(7) for stream in plan.streams)])
    shapely.prepare(closed)
    lines = np.array([road.line for road in roads], object)
    stands = iter(settle([plot for some in found.values() for plot in some], lines, closed))
    for cell, some in found.items():
        map_plots(plan, world, *cell, [plot for plot in some if next(stands)])
        fill_points(plan, world, *cell, closed)
    place_relations(plan, world, ways)
    place_power(plan, world)
    world.clip()
    return world
