"""Buildings, areas, points and trees of the sample city, cell by cell, tagged by quarter."""

import numpy as np
import shapely

from geojepa.data.city import rates
from geojepa.data.city.blocks import Shapes, blob, drop_overlaps, ell, houses_along, slots, squared
from geojepa.data.city.plan import QUARTERS, Plan, Points
from geojepa.data.city.streets import Road, draw, street_name
from geojepa.data.city.uses import BUILDINGS, LANDUSE, POI, POI_COUNT, SLOTS, TREES, USES
from geojepa.data.city.world import Tags, World

Plot = tuple[shapely.Geometry, str]


def fill_ground(plan: Plan, world: World, i: int, j: int) -> None:
    """The bare ground of a cell, and its land use in four parts, mapped or not."""
    rng = np.random.default_rng([plan.seed, 11, i, j])
    quarter = QUARTERS[plan.quarters[i, j]]
    t = np.arange(25) / 24
    zero, one = np.zeros(24), np.ones(24)
    ring = np.concatenate([np.stack(p, 1) for p in (
        (t[:-1], zero), (one, t[:-1]), (t[:0:-1], one), (zero, t[:0:-1]))])  # fmt: skip
    world.add(shapely.Polygon(plan.cell(i, j, ring)), None, f"ground:{quarter}")
    whole = rng.random() < 0.4
    parts = [(0.02, 0.02, 0.96)] if whole else [
        (a, b, 0.46) for a in (0.02, 0.52) for b in (0.02, 0.52)]  # fmt: skip
    for a, b, width in parts:
        if quarter == "farmland" or rng.random() > rates.LANDUSE_MAPPED[quarter]:
            continue
        use = draw(LANDUSE[quarter if rng.random() > 0.04 else "residential"], rng)
        key, _, value = use.rpartition("=")
        tags = {key or "landuse": value}
        if quarter in ("park", "campus") and rng.random() < 0.5:
            tags["name"] = f"{street_name('path', rng).split()[0]} {value.title()}"
        world.add(shapely.Polygon(plan.cell(i, j, np.array([a, b]) + ring * width)), tags)


def plots(plan: Plan, i: int, j: int, corners: Points, roads: list[Road]) -> list[Plot]:
    """Everything that may stand in a cell, as (polygon, use), before overlaps are dropped."""
    rng = np.random.default_rng([plan.seed, 12, i, j])
    quarter = QUARTERS[plan.quarters[i, j]]
    grid, margin, shrink, uses = SLOTS[quarter]
    quads = slots(plan, i, j, corners, grid, margin, shrink, rng)
    names = np.array(list(uses))
    share = np.array(list(uses.values()))
    drawn = names[rng.choice(len(names), len(quads), p=share / share.sum())]
    found: list[Plot] = []
    if quarter == "old_town":
        # some blocks are one building around a yard
        blocks = len(quads) // (grid[0] * grid[1])
        for k in np.flatnonzero(rng.random(blocks) < 0.14):
            mine = slice(k * 6, k * 6 + 6)
            block = shapely.MultiPoint(quads[mine].reshape(-1, 2)).convex_hull
            found.append((block.difference(block.buffer(-13, join_style="mitre")), "building"))
            drawn[mine] = "empty"
    for use in names[names != "empty"]:
        mine = quads[drawn == use]
        if not len(mine):
            continue
        if use in ("building", "flats"):
            mine = squared(mine)
            is_ell = rng.random(len(mine)) < (0.15 if quarter == "industrial" else 0.35)
            shapes = np.concatenate([shapely.polygons(mine[~is_ell]), ell(mine[is_ell], rng)])
            if use == "flats":
                shapes = shapely.buffer(shapes, -22, join_style="mitre")
                found += [(s, "building") for s in shapes if not s.is_empty]
                continue
        elif use in ("wood", "pond") and quarter != "farmland":
            size = 0.75 if use == "wood" else 0.45
            middle, reach = mine.mean(axis=1), np.hypot(*(mine[:, 2] - mine[:, 0]).T) / 2.8
            shapes = shapely.polygons([blob(c, r * size, rng) for c, r in zip(middle, reach,
                                                                              strict=True)])  # fmt: skip
        elif use in ("pitch", "playground"):
            mine = squared(mine)
            size = np.minimum(1, (55 if use == "pitch" else 22) / np.hypot(
                *(mine[:, 2] - mine[:, 0]).T) * 2)[:, None, None]  # fmt: skip
            centre = mine.mean(axis=1)[:, None]
            shapes = shapely.polygons(centre + (mine - centre) * size)
        else:
            shapes = shapely.polygons(mine)
        if use == "school":
            inner = mine.mean(axis=1)[:, None] + (squared(mine) - mine.mean(axis=1)[:, None]) * 0.45
            found += [(s, "building") for s in ell(inner, rng)]
        found += [(s, str(use)) for s in shapes]
    for road in roads:
        if quarter == "residential" and road.kind in ("residential", "unclassified"):
            found += [(s, "building") for s in houses_along(road.line, 27, 9, rng)]
        elif quarter == "farmland" and road.kind != "path" and rng.random() < 0.35:
            start = road.line.interpolate(rng.uniform(0.2, 0.8), normalized=True)
            piece = road.line.intersection(start.buffer(75))
            if piece.geom_type == "LineString":
                found += [(s, "building") for s in houses_along(piece, 34, 8, rng)]
    return found


def settle(found: list[Plot], roads: Shapes, closed: shapely.Geometry) -> list[bool]:
    """Which plots stand: clear of roads, river, corridors and each other."""
    shapes = np.array([shape for shape, _ in found], object)
    uses = np.array([use for _, use in found])
    solid = uses == "building"
    keep = ~shapely.intersects(closed, shapes) & shapely.is_valid(shapes)
    index = np.flatnonzero(solid & keep)
    keep[index] = drop_overlaps(shapes[index], roads, 4.5)
    blocking = np.flatnonzero(~solid & keep & ~np.isin(uses, ("field", "school", "green")))
    tree = shapely.STRtree(shapes[index][keep[index]])
    keep[blocking[tree.query(shapes[blocking], predicate="intersects")[0]]] = False
    return keep.tolist()


def building_tags(quarter: str, street: str, addressed: bool, rng: np.random.Generator) -> Tags:
    """Tags of a mapped building: mostly building=yes, else a kind by quarter, rarely another's."""
    tags = {"building": "yes"}
    if rng.random() > rates.BUILDING_YES:
        where = quarter if rng.random() > 0.06 else str(rng.choice(QUARTERS))
        tags["building"] = draw(BUILDINGS[where], rng)
    if addressed and rng.random() < 0.8:
        tags["addr:housenumber"] = str(rng.integers(1, 180))
        tags["addr:street"] = street
    if rng.random() < (0.1 if quarter in ("old_town", "campus") else 0.03):
        tall = {"old_town": 5, "commercial": 6, "campus": 6, "residential": 3}.get(quarter, 2)
        tags["building:levels"] = str(rng.integers(1, tall + 1))
    if tags["building"] not in ("yes", "garage", "shed", "house", "detached", "roof"):
        if rng.random() < 0.18:
            tags["name"] = f"{street_name('path', rng).split()[0]} {tags['building'].title()}"
    return tags


def map_plots(plan: Plan, world: World, i: int, j: int, found: list[Plot]) -> None:
    """Add the plots of a cell to the picture, and those that are mapped to the map."""
    rng = np.random.default_rng([plan.seed, 13, i, j])
    quarter = QUARTERS[plan.quarters[i, j]]
    levels, shares = rates.BUILDINGS_MAPPED
    mapped = levels[int(rng.choice(len(levels), p=shares))]
    addressed, street = rng.random() < 0.33, street_name("residential", rng)
    for shape, use in found:
        tags: Tags | None = None
        if use == "building":
            if rng.random() < mapped:
                tags = building_tags(quarter, street, addressed, rng)
            world.add(shape, tags, f"roof:{quarter}")
            continue
        if rng.random() < rates.LANDUSE_MAPPED[quarter]:
            tags = dict(USES[use])
            if use == "field" and rng.random() < 0.35:
                tags["landuse"] = str(rng.choice(("meadow", "grass", "orchard", "farmland")))
            if use == "wood" and rng.random() < 0.4:
                tags = {"landuse": "forest"}
            if use == "pitch" and rng.random() < 0.6:
                tags["sport"] = str(rng.choice(("soccer", "tennis", "baseball", "basketball")))
            if use == "parking" and rng.random() < 0.15:
                tags["access"] = str(rng.choice(("private", "customers", "permissive")))
        world.add(shape, tags, use)
        if use == "parking" and quarter != "old_town" and rng.random() < 0.45:
            box = shapely.get_coordinates(shape)
            middle = np.stack([box[:2].mean(axis=0), box[2:4].mean(axis=0)])
            tags = {"highway": "service", "service": "parking_aisle"}
            world.add(shapely.LineString(middle), tags)


def fill_points(plan: Plan, world: World, i: int, j: int) -> None:
    """Points of interest and trees of a cell."""
    rng = np.random.default_rng([plan.seed, 14, i, j])
    quarter = QUARTERS[plan.quarters[i, j]]
    span = (plan.columns[i + 1] - plan.columns[i]) * (plan.rows[j + 1] - plan.rows[j])
    tiles = float(span) / plan.frame.tile**2
    for point in plan.cell(i, j, rng.random((rng.poisson(POI_COUNT[quarter] * tiles), 2))):
        where = quarter if rng.random() > 0.08 else str(rng.choice(QUARTERS))
        key, _, value = draw(POI[where], rng).partition("=")
        tags = {key: value}
        if key in ("shop", "tourism", "office") or value in ("restaurant", "cafe", "bar", "bank"):
            if rng.random() < 0.75:
                tags["name"] = street_name("path", rng).split()[0] + f" {value.title()}"
            if value == "restaurant" and rng.random() < 0.4:
                tags["cuisine"] = str(rng.choice(("pizza", "italian", "chinese", "burger")))
        world.add(shapely.Point(point), tags)
    stand, share = TREES[quarter]
    trees = plan.cell(i, j, rng.random((rng.poisson(stand * tiles), 2)))
    mapped = rng.random(len(trees)) < rng.uniform(0.05, 0.5) * (rng.random() < share)
    for point, is_mapped in zip(trees, mapped, strict=True):
        tags = {"natural": "tree"} if is_mapped else None
        world.add(shapely.Point(point), tags, "tree")
