"""The five labels of a tile, by two rules, and the evidence that their masked versions hide.

Rule `exact`, the default; what the masked version of a task removes stands in brackets:

- traffic_signals: nodes with highway=traffic_signals, crossing=traffic_signals or
  crossing:signals=yes (those; elsewhere these tags, and keys that start with traffic_signals);
- building_count: buildings, each in the tile of its representative point (every entity with a key
  building or building:*);
- max_speed: the highest maxspeed of a highway that meets the tile, km/h; tiles with none are left
  out (tags whose key contains maxspeed);
- bridge: 1 where an entity that meets the tile has bridge=*, not no, or man_made=bridge (bridge,
  bridge:*, layer; entities with man_made=bridge or type=bridge);
- car_bridge: 1 where such a bridge is a highway for cars (as bridge).

Rule `paper` follows the published generator so that numbers can be set side by side: it looks for
words anywhere in the raw tags of clipped pieces, relations ignored, and keeps a share of the tiles
of label 0. A road named Cambridge Street is a bridge there.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import shapely

from geojepa.data.cutting import Pieces
from geojepa.data.features import GROUP, LINE, POINT, Features, is_entity
from geojepa.data.grid import Grid, code_of_cells, to_units
from geojepa.data.meaning import HIDDEN, LEFT, TASKS, Says, says
from geojepa.data.vocabulary import Tagging

# of the headline: in the mean of skills; in that of precisions, which a tile can lack
HEADLINE_SKILL = ("traffic_signals", "max_speed", "bridge", "car_bridge")
HEADLINE_PRECISION = ("traffic_signals", "bridge", "car_bridge")
# the task whose masked version is the same
SAME_VIEW: dict[str | None, str] = {"car_bridge": "bridge"}
RULES = ("exact", "paper")
# share of label-0 tiles that rule paper keeps
PAPER_ZEROS = {"building_count": 0.10, "traffic_signals": 0.05, "bridge": 0.25, "car_bridge": 0.10}
LABELS = (*TASKS, *(f"paper_{task}" for task in TASKS))


def column_of(task: str, rule: str) -> str:
    """The column of a corpus's tiles that holds a task's label by rule `exact` or `paper`."""
    return task if rule == "exact" else f"{rule}_{task}"


def hides_tag(task: str, key: str, value: str) -> bool:
    """Whether the masked version of `task` removes the tag key=value."""
    return task in HIDDEN and bool(says(key, value) & HIDDEN[task])


def own_evidence(tags: Tagging, kind: np.ndarray) -> np.ndarray:
    """Which features vanish from which masked view by their own tags: bit i is TASKS[i].

    Those that are evidence themselves, and those that the tags which are left make no entity.
    """
    bits = np.zeros(len(kind), dtype=np.uint8)
    shown = is_entity(tags, kind)
    whole = {
        "traffic_signals": (kind == POINT) & tags.say(Says.SIGNAL),
        "building_count": tags.say(Says.HAS_BUILDING),
        "bridge": tags.say(Says.IS_BRIDGE),
        "car_bridge": tags.say(Says.IS_BRIDGE),
    }
    for bit, task in enumerate(TASKS):
        gone = whole.get(task, np.zeros(len(kind), dtype=bool))
        if task in LEFT:
            gone |= shown & ~is_entity(tags, kind, *LEFT[task])
        bits |= gone.astype(np.uint8) << bit
    return bits


def counts_as_building(features: Features) -> np.ndarray:
    """(n,) bool: nodes, areas and multipolygons that are buildings."""
    is_solid = (features.kind != LINE) & (features.kind != GROUP)
    return is_solid & features.tags.say(Says.BUILDING) & features.is_entity


def carried_tasks(said: int) -> list[str]:
    """Tasks whose keys a table of features shows; `said` is what any of its tags says."""
    shown = {
        "traffic_signals": Says.SIGNAL,
        "building_count": Says.BUILDING,
        "max_speed": Says.HAS_MAXSPEED,
        "bridge": Says.HAS_BRIDGE,
        "car_bridge": Says.HAS_BRIDGE,
    }
    return [task for task in TASKS if said & shown[task]]


def piece_facts(features: Features, pieces: Pieces, footprints: Grid | None) -> dict[str, Any]:
    """What each piece adds to the labels of its tile: (P,) columns by the names of `LABELS`."""
    tags, of = features.tags, pieces.feature
    shown, is_point = features.is_entity, features.kind == POINT
    speed = np.where(shown & tags.say(Says.HIGHWAY), tags.speed, np.float32(np.nan))
    # rule paper ignores relations
    is_read = ~pc.starts_with(features.name, "relation/").to_numpy(zero_copy_only=False)
    paper_bridge = is_read & tags.say(Says.PAPER_BRIDGE)
    columns = {
        "traffic_signals": shown & is_point & tags.say(Says.SIGNAL),
        "max_speed": speed,
        "bridge": shown & tags.say(Says.BRIDGE),
        "car_bridge": shown & tags.say(Says.BRIDGE) & tags.say(Says.CARS),
        "paper_traffic_signals": is_point & tags.say(Says.PAPER_SIGNAL),
        "paper_building_count": is_read & tags.say(Says.PAPER_BUILDING),
        "paper_max_speed": np.where(is_read, tags.paper_speed, np.float32(-1)),
        "paper_bridge": paper_bridge,
        "paper_car_bridge": paper_bridge & tags.say(Says.PAPER_CARS),
        "paper_highway": is_read & tags.say(Says.PAPER_HIGHWAY),
    }
    facts = {name: column[of] for name, column in columns.items()}
    facts["building_count"] = _is_building_here(features, pieces, footprints)
    return facts


def _is_building_here(features: Features, pieces: Pieces, footprints: Grid | None) -> np.ndarray:
    """(P,) whether a building's representative point lies in the piece's tile.

    The outer way of a building multipolygon does not count again, but a building in its courtyard
    does.
    """
    counted = counts_as_building(features) & ~features.repeated
    here = counted[pieces.feature]
    if footprints is None:
        # what lies in one tile alone needs no point
        is_cut = np.bincount(pieces.feature, minlength=len(features))[pieces.feature] > 1
        rows = np.flatnonzero(here & is_cut)
    else:
        rows = np.flatnonzero(here)
    if not len(rows):
        return here
    asked = np.unique(pieces.feature[rows])
    points = _representative_points(features, asked)[np.searchsorted(asked, pieces.feature[rows])]
    if footprints is None:
        cell = np.floor(shapely.get_coordinates(points)).astype(np.int64)
        here[rows] = pieces.tile[rows] == code_of_cells(cell)
    else:
        shapes = shapely.transform(footprints.footprint, to_units)
        here[rows] = shapely.intersects(shapes[pieces.tile[rows]], points)
    return here


def _representative_points(features: Features, rows: np.ndarray) -> np.ndarray:
    """A point on each of some features; a multipolygon is represented by its largest part."""
    chosen = np.isin(features.owner, rows)
    parts, owner = features.parts[chosen], features.owner[chosen]
    order = np.lexsort((-shapely.area(parts), owner))
    first = np.unique(owner[order], return_index=True)[1]
    return shapely.point_on_surface(parts[order][first])


def tile_labels(facts: pa.Table, tile: np.ndarray, tiles: int) -> dict[str, np.ndarray]:
    """Labels of each tile by both rules: name -> (T,) float32, NaN where a tile has none.

    Args:
        facts: columns of `piece_facts`; tile: (P,) the tile of each piece, a row.
        tiles: their number T.
    """

    def count(name: str) -> np.ndarray:
        return np.bincount(tile, facts[name].to_numpy(), minlength=tiles).astype(np.float32)

    labels = {}
    for rule in ("", "paper_"):
        speed = np.full(tiles, -1, dtype=np.float32)
        np.fmax.at(speed, tile, facts[f"{rule}max_speed"].to_numpy())
        labels[f"{rule}traffic_signals"] = count(f"{rule}traffic_signals")
        labels[f"{rule}building_count"] = count(f"{rule}building_count")
        labels[f"{rule}max_speed"] = speed
        for task in ("bridge", "car_bridge"):
            labels[f"{rule}{task}"] = (count(f"{rule}{task}") > 0).astype(np.float32)
    speed = labels["max_speed"]
    labels["max_speed"] = np.where(speed < 0, np.nan, speed).astype(np.float32)
    # the published generator: 0 with a road and no limit, -100 without a road, zeros dropped
    speed, has_road = labels["paper_max_speed"], count("paper_highway") > 0
    speed = np.where((speed < 0) & ~has_road, -100, speed)
    labels["paper_max_speed"] = np.where((speed == 0) | (speed == -1), np.nan, speed).astype(
        np.float32
    )
    return labels


def paper_kept(labels: npt.ArrayLike, task: str, seed: int = 0) -> np.ndarray:
    """(T,) whether rule paper keeps a tile: all with a label but 0, and a draw of the others."""
    labels = np.asarray(labels, dtype=float)
    kept = ~np.isnan(labels)
    drawn = np.random.default_rng(seed).random(len(labels)) < PAPER_ZEROS.get(task, 1.0)
    return kept & ((labels != 0) | drawn)
