"""What a single tag says, for the labels, for their masked views and for an entity's kind.

Two label rules (`data/labels.py`) read tags: `exact` reads cleaned tags by key and value; `paper`
follows the published generator, which looks for words anywhere in raw tags.
"""

import re
from enum import IntFlag, auto
from functools import cache, lru_cache, reduce
from operator import or_

from geojepa.data.keys import MAIN_KEYS, makes_area

TASKS = ("traffic_signals", "building_count", "max_speed", "bridge", "car_bridge")
AREA_RELATIONS = ("multipolygon", "boundary")
_LINKED = ("motorway", "trunk", "primary", "secondary", "tertiary")
CAR_CLASSES = (
    frozenset(_LINKED)
    | {f"{name}_link" for name in _LINKED}
    | {"unclassified", "residential", "service", "living_street"}
)
_SPEED = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(mph|knots|km/h|kmh|kph)?\s*$", re.IGNORECASE)
# km/h; a larger number is no speed
_FASTEST = 1000.0
_KMH = {"mph": 1.609344, "knots": 1.852}


class Says(IntFlag):
    """One bit a fact that a tag can state."""

    SIGNAL = auto()
    BUILDING = auto()
    BRIDGE = auto()
    CARS = auto()
    HIGHWAY = auto()
    # the keys that carry a label, whatever their value
    HAS_MAXSPEED = auto()
    HAS_BRIDGE = auto()
    HAS_BUILDING = auto()
    # a thing that is itself a bridge, not a way over one
    IS_BRIDGE = auto()
    BOUNDARY = auto()
    MAIN = auto()
    TYPE = auto()
    TYPE_AREA = auto()
    AREA = auto()
    AREA_YES = auto()
    AREA_NO = auto()
    # removed from the masked view of a task
    HIDDEN_SIGNALS = auto()
    HIDDEN_SPEED = auto()
    HIDDEN_BRIDGE = auto()
    # says more than how a relation is built, also in that view
    TELLS = auto()
    TELLS_WITHOUT_SIGNALS = auto()
    TELLS_WITHOUT_SPEED = auto()
    TELLS_WITHOUT_BRIDGE = auto()
    # a main key, also in that view; the masked view of speed hides none
    MAIN_WITHOUT_SIGNALS = auto()
    MAIN_WITHOUT_BRIDGE = auto()
    # rule paper
    PAPER_SIGNAL = auto()
    PAPER_BUILDING = auto()
    PAPER_BRIDGE = auto()
    PAPER_CARS = auto()
    PAPER_HIGHWAY = auto()
    PAPER_SPEED = auto()


PAPER = (
    Says.PAPER_SIGNAL
    | Says.PAPER_BUILDING
    | Says.PAPER_BRIDGE
    | Says.PAPER_HIGHWAY
    | Says.PAPER_SPEED
)
HIDDEN = {
    "traffic_signals": Says.HIDDEN_SIGNALS,
    "max_speed": Says.HIDDEN_SPEED,
    "bridge": Says.HIDDEN_BRIDGE,
    "car_bridge": Says.HIDDEN_BRIDGE,
}
# what makes an entity in the masked view of a task: that any tag tells, and a main key
LEFT = {
    "traffic_signals": (Says.TELLS_WITHOUT_SIGNALS, Says.MAIN_WITHOUT_SIGNALS),
    "max_speed": (Says.TELLS_WITHOUT_SPEED, Says.MAIN),
    "bridge": (Says.TELLS_WITHOUT_BRIDGE, Says.MAIN_WITHOUT_BRIDGE),
    "car_bridge": (Says.TELLS_WITHOUT_BRIDGE, Says.MAIN_WITHOUT_BRIDGE),
}
# as plain numbers, for raw tags are many
_SIGNAL, _BRIDGE = Says.PAPER_SIGNAL.value, Says.PAPER_BRIDGE.value
_HIGHWAY, _CARS = Says.PAPER_HIGHWAY.value, Says.PAPER_CARS.value
# keys that the published generator never sees
_PAPER_UNSEEN = ("tiger:", "source", "import", "yh:", "created_by")
_PAPER_CARS = ("primary", "secondary", "tertiary", "motorway", "unclassified", "service")


@lru_cache(1 << 16)
def says(key: str, value: str) -> Says:
    """Facts that a cleaned tag states under rule `exact`."""
    stated = {
        Says.SIGNAL: (key, value)
        in {
            ("highway", "traffic_signals"),
            ("crossing", "traffic_signals"),
            ("crossing:signals", "yes"),
        },
        Says.BUILDING: key == "building" and value != "no",
        Says.BRIDGE: (key == "bridge" and value != "no") or (key, value) == ("man_made", "bridge"),
        Says.CARS: key == "highway" and value in CAR_CLASSES,
        Says.HIGHWAY: key == "highway",
        Says.HAS_MAXSPEED: key == "maxspeed",
        Says.HAS_BRIDGE: key == "bridge" or (key, value) == ("man_made", "bridge"),
        Says.HAS_BUILDING: key == "building" or key.startswith("building:"),
        Says.IS_BRIDGE: value == "bridge" and key in ("man_made", "type"),
        Says.BOUNDARY: key == "boundary" or (key, value) == ("type", "boundary"),
        Says.MAIN: key in MAIN_KEYS and key != "place",
        Says.TYPE: key == "type",
        Says.TYPE_AREA: key == "type" and value in AREA_RELATIONS,
        Says.AREA: makes_area(key, value),
        Says.AREA_YES: (key, value) == ("area", "yes"),
        Says.AREA_NO: (key, value) == ("area", "no"),
        Says.HIDDEN_SIGNALS: key.startswith("traffic_signals"),
        Says.HIDDEN_SPEED: "maxspeed" in key,
        Says.HIDDEN_BRIDGE: key in ("bridge", "layer") or key.startswith("bridge:"),
    }
    found = Says(sum(fact.value for fact, is_stated in stated.items() if is_stated))
    if found & Says.SIGNAL:
        found |= Says.HIDDEN_SIGNALS
    if not found & Says.TYPE_AREA:
        found |= Says.TELLS
    for task, (tells, main) in LEFT.items():
        if not found & HIDDEN[task]:
            found |= tells if found & Says.TELLS else 0
            found |= main if found & Says.MAIN else 0
    return found


def says_raw(key: str, value: str) -> int:
    """Facts that a raw tag states under rule `paper`: words anywhere, case-sensitive."""
    found = _says_raw_key(key)
    if found < 0:
        return 0
    if "bridge" in value:
        found |= _BRIDGE
    if "traffic_signals" in value:
        found |= _SIGNAL
    if found & _HIGHWAY and any(word in value for word in _PAPER_CARS):
        found |= _CARS
    return found


@cache
def _says_raw_key(key: str) -> int:
    """Facts of the key alone; -1 where the generator does not see the tag."""
    if key.startswith(_PAPER_UNSEEN):
        return -1
    words = {
        "traffic_signals": Says.PAPER_SIGNAL,
        "crossing:signals": Says.PAPER_SIGNAL,
        "building": Says.PAPER_BUILDING,
        "bridge": Says.PAPER_BRIDGE,
        "highway": Says.PAPER_HIGHWAY,
        "maxspeed": Says.PAPER_SPEED,
    }
    return int(reduce(or_, (fact for word, fact in words.items() if word in key), Says(0)))


def paper_speed(key: str, value: str) -> float:
    """Speed of a raw tag as the published generator reads it; -1 for a tag of another key.

    The number of the first word, times 1.6 before the word mph; `US:urban` is 40. It is 0 where
    there is none, or one over 1,000 km/h.
    """
    if "maxspeed" not in key or key.startswith(_PAPER_UNSEEN):
        return -1.0
    if value == "US:urban":
        return 40.0
    words = value.split()
    number = re.match(r"\d+(?:\.\d+)?", words[0]) if words else None
    if number is None:
        return 0.0
    speed = float(number[0]) * (1.6 if "mph" in words[1:] else 1.0)
    return speed if speed <= _FASTEST else 0.0


def speed_kmh(value: str) -> float:
    """Highest readable speed of a maxspeed value in km/h, NaN where there is none.

    `25 mph` is 40.2, a bare number is km/h, `50;30` is 50; `none`, `RO:urban` and what is over
    1,000 km/h are unreadable.
    """
    found = [_SPEED.match(part) for part in value.split(";")]
    speeds = [float(m[1]) * _KMH.get((m[2] or "").lower(), 1.0) for m in found if m]
    return max((speed for speed in speeds if speed <= _FASTEST), default=float("nan"))
