"""Which OSM tags describe an entity, which only name it, and which closed ways are areas.

The area rules follow the OSM community's list of polygon features
(https://wiki.openstreetmap.org/wiki/Overpass_turbo/Polygon_Features), made stricter for barriers.
"""

import re
from collections.abc import Mapping
from functools import cache

# OSM's own limit for a key and for a value, in characters
MAX_LENGTH = 255

# the top-level keys that say what an entity is
_MAIN = """
advertising aerialway aeroway amenity area:highway attraction barrier bridge building building:part
club craft emergency entrance golf healthcare highway historic indoor junction landcover landuse
leisure man_made military natural office piste:type place playground power public_transport railway
route seamark:type shop sport telecom tourism traffic_calming tunnel water waterway
"""
MAIN_KEYS = frozenset(_MAIN.split())

# what an importer or a mapper noted for other mappers
_BOOKKEEPING = re.compile(
    r"""^(source|note|fixme|import|attribution|comment|todo)([:_\d].*)?$
    | ^(created_by|converted_by|edited_by|odbl|history|_.*_)(:.*)?$
    | ^(tiger|yh|kms|ksj2|geobase|statscan|canvec|osak|naptan|dcgis|massgis|mvdgis):.*$
    | :(source|note|fixme)$
    """,
    re.VERBOSE,
)
# keys that look like the ones below, yet describe: `generator:source=solar`
_DESCRIBING = frozenset(
    {"communication:mobile_phone", "crossing_ref", "generator:source", "plant:source"}
)

_IDENTIFYING = re.compile(
    r"""(^|[:_])name(s|[:_\d].*)?$
    | (^|[:_])(ref|reference|refs)([:_\d].*)?$
    | (^|[:_])(wikidata|wikipedia|wikimedia_commons|commons|mapillary|panoramax)([:_\d].*)?$
    | (^|[:_])(website|url|phone|fax|email|mobile|facebook|twitter|instagram|image)([:_\d].*)?$
    | (^|[:_])(addr|address|contact|is_in|description|inscription|destination)([:_\d].*)?$
    | ^(capital_|country_code_)?iso3166.*$
    | (^|[:_])(date|dates|timestamp|lastcheck|last_check|year|uuid|guid|id|bin|code)$
    | ^(check_date|start_date|end_date|survey|(.*:)?year_(built|of_construction))([:_].*)?$
    | ^(gnis|nhd|nycdoitt|lacounty|opengeodb|bfs|gtfs|osmc|swisstopo|tmc|teryt):.*$
    | ^(housenumber|postcode|postal_code.*|zip.*|iata|icao|faa|callsign)$
    | ^(from|to|via|exit_to|symbol)(:.*)?$
    | (^|[:_])(time|objectid|ain|rackid|created|edited)$
    """,
    re.VERBOSE,
)

_AREA = """
amenity area:highway boundary building building:part craft healthcare landcover landuse office place
public_transport ruins shop tourism
"""
# closed ways with these keys are areas, save for the values listed
_AREA_UNLESS: dict[str, frozenset[str]] = {
    "aeroway": frozenset({"runway", "taxiway", "taxilane", "jet_bridge", "parking_position"}),
    "golf": frozenset({"cartpath", "hole", "path"}),
    "historic": frozenset({"citywalls", "city_wall"}),
    "indoor": frozenset({"wall", "yes"}),
    "leisure": frozenset({"track", "slipway"}),
    "man_made": frozenset({"cutline", "embankment", "pipeline", "breakwater", "groyne", "dyke"}),
    "military": frozenset({"trench"}),
    "natural": frozenset({"coastline", "cliff", "ridge", "arete", "tree_row", "valley"}),
    **dict.fromkeys(_AREA.split(), frozenset()),
}
# closed ways with these keys are lines, save for the values listed
_AREA_IF: dict[str, frozenset[str]] = {
    "highway": frozenset({"services", "rest_area"}),
    "power": frozenset({"plant", "substation", "generator", "transformer"}),
    "railway": frozenset({"station", "turntable", "roundhouse", "platform"}),
    "waterway": frozenset({"riverbank", "dock", "boatyard", "dam"}),
}


@cache
def is_bookkeeping(key: str) -> bool:
    """True for a key that speaks of the mapping, not of the ground: `source`, `tiger:*`, ..."""
    return key not in _DESCRIBING and _BOOKKEEPING.search(key.lower()) is not None


@cache
def is_identifying(key: str) -> bool:
    """True for a key whose value only tells one entity from another: `name`, `addr:*`, ids, dates.

    Such a tag counts by its key alone.
    """
    return key not in _DESCRIBING and _IDENTIFYING.search(key.lower()) is not None


def clean(tags: Mapping[str, str]) -> dict[str, str]:
    """The tags that describe, stripped: bookkeeping dropped, identifying values blanked.

    Keys and values over 255 characters, OSM's own limit, are cut there. Of keys that become equal
    the first counts.
    """
    kept: dict[str, str] = {}
    for raw_key, raw_value in tags.items():
        key = raw_key.strip()[:MAX_LENGTH]
        if key and not is_bookkeeping(key):
            value = "" if is_identifying(key) else raw_value.strip()[:MAX_LENGTH]
            kept.setdefault(key, value)
    return kept


def is_area(tags: Mapping[str, str]) -> bool:
    """True when a CLOSED way with these tags is an area, False when it is a line.

    `area=yes` and `area=no` decide; else any one tag of an area does. A closed highway, barrier or
    railway is therefore a line unless another tag makes it an area.
    """
    area = tags.get("area")
    if area in ("yes", "no"):
        return area == "yes"
    return any(makes_area(key, value) for key, value in tags.items())


def makes_area(key: str, value: str) -> bool:
    """True of a tag that makes a closed way an area, where `area` says nothing."""
    return (key in _AREA_UNLESS and value != "no" and value not in _AREA_UNLESS[key]) or (
        key in _AREA_IF and value in _AREA_IF[key]
    )
