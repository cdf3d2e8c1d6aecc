"""The five labels of a tile and the evidence that their masked versions hide (BENCHMARK.md)."""

import re
from collections.abc import Callable

import numpy as np
import shapely

from geojepa.data.cutting import Grid, Pieces, tiles_of_points
from geojepa.data.features import GROUP, LINE, POINT, Features

TASKS = ("traffic_signals", "building_count", "max_speed", "bridge", "car_bridge")
_LINKED = ("motorway", "trunk", "primary", "secondary", "tertiary")
CAR_CLASSES = (
    frozenset(_LINKED)
    | {f"{name}_link" for name in _LINKED}
    | {"unclassified", "residential", "service", "living_street"}
)
# the task whose masked version is the same
SAME_VIEW: dict[str | None, str] = {"car_bridge": "bridge"}
_SPEED = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(mph|knots|km/h|kmh|kph)?\s*$", re.IGNORECASE)
_KMH = {"mph": 1.609344, "knots": 1.852}

Tags = dict[str, str]


def speed_kmh(value: str) -> float:
    """Highest readable speed of a maxspeed value in km/h, NaN where there is none.

    `25 mph` is 40.2, a bare number is km/h, `50;30` is 50, `none` or `RO:urban` is unreadable.
    """
    found = [_SPEED.match(part) for part in value.split(";")]
    speeds = [float(m[1]) * _KMH.get((m[2] or "").lower(), 1.0) for m in found if m]
    return max(speeds, default=float("nan"))


def is_signal(tags: Tags) -> bool:
    """Whether a node with these tags is a traffic signal."""
    return (
        tags.get("highway") == "traffic_signals"
        or tags.get("crossing") == "traffic_signals"
        or tags.get("crossing:signals") == "yes"
    )


def is_building(tags: Tags) -> bool:
    """Whether these tags make a building."""
    return tags.get("building", "no") != "no"


def is_bridge(tags: Tags) -> bool:
    """Whether these tags make a bridge."""
    return tags.get("bridge", "no") != "no" or tags.get("man_made") == "bridge"


def is_car_bridge(tags: Tags) -> bool:
    """Whether these tags make a bridge that carries cars."""
    return is_bridge(tags) and tags.get("highway") in CAR_CLASSES


def hides_tag(task: str, key: str, value: str) -> bool:
    """Whether the masked version of `task` removes the tag key=value."""
    if task == "traffic_signals":
        return key.startswith("traffic_signals") or is_signal({key: value})
    if task == "max_speed":
        return "maxspeed" in key
    if task in ("bridge", "car_bridge"):
        return key in ("bridge", "layer") or key.startswith("bridge:")
    return False


def hides_entity(task: str, kind: int, tags: Tags) -> bool:
    """Whether the masked version of `task` removes an entity whole."""
    if task == "traffic_signals" and kind == POINT and is_signal(tags):
        return True
    if task == "building_count" and any(k == "building" or k.startswith("building:") for k in tags):
        return True
    if task in ("bridge", "car_bridge") and "bridge" in (tags.get("man_made"), tags.get("type")):
        return True
    return all(hides_tag(task, k, v) for k, v in tags.items())


def evidence_bits(features: Features) -> np.ndarray:
    """Which features vanish from which masked view: bit i of (n,) uint8 is TASKS[i].

    A relation goes with any of its members, for its geometry is made of theirs; an untagged way
    or node goes with the relation that it shapes.
    """
    tagged = set(features.feature_id)
    bits = np.zeros(len(features), dtype=np.uint8)
    for bit, task in enumerate(TASKS):
        gone = np.array(
            [
                hides_entity(task, kind, tags)
                for kind, tags in zip(features.kind.tolist(), features.tags, strict=True)
            ],
            dtype=bool,
        )
        rows = np.flatnonzero(gone).tolist()
        names = {features.feature_id[row] for row in rows}
        names |= {m for row in rows for m in features.members.get(row, ()) if m not in tagged}
        for row, members in features.members.items():
            gone[row] |= not names.isdisjoint(members)
        bits |= gone.astype(np.uint8) << bit
    return bits


def carried_tasks(features: Features) -> set[str]:
    """Tasks whose keys the source carries: all for OSM data, for a table those it shows."""
    if not features.is_table:
        return set(TASKS)
    shown = {
        "traffic_signals": is_signal,
        "building_count": is_building,
        "max_speed": lambda tags: "maxspeed" in tags,
        "bridge": lambda tags: "bridge" in tags or tags.get("man_made") == "bridge",
    }
    found = {task for task, test in shown.items() if any(test(tags) for tags in features.tags)}
    return found | ({"car_bridge"} if "bridge" in found else set())


def tile_labels(features: Features, pieces: Pieces, grid: Grid) -> dict[str, np.ndarray]:
    """Exact labels of each tile: task -> (T,) float32, NaN where a tile has none."""
    tiles = len(grid.tile_id)

    def met(test: Callable[[Tags], bool], kinds: set[int] | None = None) -> np.ndarray:
        """(P,) whether the piece's feature passes `test`."""
        passes = np.array(
            [
                (kinds is None or kind in kinds) and test(tags)
                for kind, tags in zip(features.kind.tolist(), features.tags, strict=True)
            ],
            dtype=bool,
        )
        return passes[pieces.feature]

    signals = np.bincount(pieces.tile[met(is_signal, {POINT})], minlength=tiles)
    bridge = np.bincount(pieces.tile[met(is_bridge)], minlength=tiles) > 0
    car_bridge = np.bincount(pieces.tile[met(is_car_bridge)], minlength=tiles) > 0
    speed = np.full(tiles, -np.inf)
    speeds = np.array(
        [
            speed_kmh(tags["maxspeed"]) if "highway" in tags and "maxspeed" in tags else np.nan
            for tags in features.tags
        ]
    )[pieces.feature]
    known = ~np.isnan(speeds)
    np.maximum.at(speed, pieces.tile[known], speeds[known])
    labels = {
        "traffic_signals": signals.astype(np.float32),
        "building_count": count_buildings(features, grid).astype(np.float32),
        "max_speed": np.where(np.isfinite(speed), speed, np.nan).astype(np.float32),
        "bridge": bridge.astype(np.float32),
        "car_bridge": car_bridge.astype(np.float32),
    }
    for task in set(TASKS) - carried_tasks(features):
        labels[task] = np.full(tiles, np.nan, dtype=np.float32)
    return labels


def count_buildings(features: Features, grid: Grid) -> np.ndarray:
    """Buildings whose representative point lies in each tile (T,).

    Nodes, areas and multipolygons count; the outer way of a building multipolygon does not again,
    but a building in its courtyard does. `features.parts` must be in tile units.
    """
    counted = np.array(
        [
            kind not in (LINE, GROUP) and is_building(tags)
            for kind, tags in zip(features.kind.tolist(), features.tags, strict=True)
        ],
        dtype=bool,
    )
    counted[_repeated(features, counted)] = False
    chosen = counted[features.owner]
    if not chosen.any():
        return np.zeros(len(grid.tile_id), dtype=int)
    parts, owner = features.parts[chosen], features.owner[chosen]
    # A multipolygon is represented by its largest part.
    order = np.lexsort((-shapely.area(parts), owner))
    first = np.unique(owner[order], return_index=True)[1]
    points = shapely.point_on_surface(parts[order][first])
    _, tile = tiles_of_points(points, grid)
    return np.bincount(tile, minlength=len(grid.tile_id))


def _repeated(features: Features, counted: np.ndarray) -> list[int]:
    """Rows of counted areas that a counted multipolygon repeats: members with ground in common."""
    row_of = {name: row for row, name in enumerate(features.feature_id)}
    start = np.searchsorted(features.owner, np.arange(len(features) + 1))
    found = []
    for relation, members in features.members.items():
        if counted[relation]:
            whole = features.parts[start[relation] : start[relation + 1]]
            for row in {row_of[name] for name in members if name in row_of}:
                own = features.parts[start[row] : start[row + 1]]
                common = shapely.intersection(whole[:, None], own).ravel()
                if counted[row] and shapely.area(common).sum() > 0.01 * shapely.area(own).sum():
                    found.append(row)
    return found
