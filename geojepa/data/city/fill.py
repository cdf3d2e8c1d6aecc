"""Ground, tags of what stands, points and trees of the sample city, cell by cell."""

import numpy as np
import shapely

from geojepa.data.city import rates
from geojepa.data.city.plan import QUARTERS, Plan
from geojepa.data.city.plots import Plot
from geojepa.data.city.streets import draw, street_name
from geojepa.data.city.uses import BARRIER, BUILDINGS, LANDUSE, POI, POI_COUNT, TREES, USES
from geojepa.data.city.world import Tags, World


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


def building_tags(quarter: str, street: str, addressed: bool, rng: np.random.Generator) -> Tags:
    """Tags of a mapped building: mostly building=yes, else a kind by quarter, rarely another's."""
    tags = {"building": "yes"}
    if rng.random() > rates.BUILDING_YES:
        where = quarter if rng.random() > 0.06 else str(rng.choice(QUARTERS))
        tags["building"] = draw(BUILDINGS[where], rng)
    if addressed and rng.random() < 0.8:
        tags["addr:housenumber"] = str(rng.integers(1, 180))
        tags["addr:street"] = street
        if rng.random() < 0.5:
            tags["addr:city"] = "Lilliput"
        if rng.random() < 0.5:
            tags["addr:postcode"] = "10000"
    if rng.random() < 0.05:
        tags["source"] = "imagery"
    if rng.random() < (0.1 if quarter in ("old_town", "campus") else 0.03):
        tall = {"old_town": 5, "commercial": 6, "campus": 6, "residential": 3}.get(quarter, 2)
        tags["building:levels"] = str(rng.integers(1, tall + 1))
    plain = tags["building"] in ("yes", "garage", "shed", "house", "detached", "roof")
    if not plain and rng.random() < 0.18:
        tags["name"] = f"{street_name('path', rng).split()[0]} {tags['building'].title()}"
    return tags


def map_plots(plan: Plan, world: World, i: int, j: int, found: list[Plot]) -> None:
    """Add the plots of a cell to the picture, and those that are mapped to the map."""
    rng = np.random.default_rng([plan.seed, 13, i, j])
    quarter = QUARTERS[plan.quarters[i, j]]
    central = quarter in ("old_town", "campus")
    levels, shares = rates.BUILDINGS_MAPPED_CENTRE if central else rates.BUILDINGS_MAPPED
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
        share, kinds = BARRIER.get(use, (0.0, ("fence",)))
        if rng.random() < share:
            ring = shapely.LineString(shape.exterior.coords)
            world.add(ring, {"barrier": str(rng.choice(kinds))})
        if use == "parking" and quarter != "old_town" and rng.random() < 0.45:
            box = shapely.get_coordinates(shape)
            middle = np.stack([box[:2].mean(axis=0), box[2:4].mean(axis=0)])
            tags = {"highway": "service", "service": "parking_aisle"}
            world.add(shapely.LineString(middle), tags)


def fill_points(plan: Plan, world: World, i: int, j: int, closed: shapely.Geometry) -> None:
    """Points of interest and trees of a cell, none of them on closed ground."""
    rng = np.random.default_rng([plan.seed, 14, i, j])
    quarter = QUARTERS[plan.quarters[i, j]]
    span = (plan.columns[i + 1] - plan.columns[i]) * (plan.rows[j + 1] - plan.rows[j])
    tiles = float(span) / plan.frame.tile**2

    def scatter(mean: float) -> list[shapely.Point]:
        points = shapely.points(plan.cell(i, j, rng.random((rng.poisson(mean * tiles), 2))))
        return points[~shapely.intersects(closed, points)].tolist()

    for point in scatter(POI_COUNT[quarter]):
        where = quarter if rng.random() > 0.08 else str(rng.choice(QUARTERS))
        key, _, value = draw(POI[where], rng).partition("=")
        tags = {key: value}
        named = key in ("shop", "tourism", "office") or value in ("restaurant", "cafe", "bar")
        if named and rng.random() < 0.75:
            tags["name"] = street_name("path", rng).split()[0] + f" {value.title()}"
        if value == "restaurant" and rng.random() < 0.4:
            tags["cuisine"] = str(rng.choice(("pizza", "italian", "chinese", "burger")))
        world.add(point, tags)
    stand, share = TREES[quarter]
    trees = scatter(stand)
    mapped = rng.random(len(trees)) < rng.uniform(0.05, 0.5) * (rng.random() < share)
    for point, is_mapped in zip(trees, mapped, strict=True):
        world.add(point, {"natural": "tree"} if is_mapped else None, "tree")
