"""Evidence of the benchmark's tasks in the words of its table, and extracts with other evidence."""

from pathlib import Path

import osmium
from handmade import write_osm
from test_labels import Town

from geojepa.data.corpus import Corpus
from geojepa.data.prepare import prepare

LONG = {"n": "node", "w": "way", "r": "relation"}
SIGNALS = {("highway", "traffic_signals"), ("crossing", "traffic_signals")}
SIGNALS |= {("crossing:signals", "yes")}
Tags = dict[str, str]


def is_removed(task: str, kind: str, tags: Tags) -> bool:
    """Whether the whole entity is evidence."""
    if task == "traffic_signals":
        return kind == "node" and not SIGNALS.isdisjoint(tags.items())
    if task == "building_count":
        return any(key == "building" or key.startswith("building:") for key in tags)
    if task in ("bridge", "car_bridge"):
        return "bridge" in (tags.get("man_made"), tags.get("type"))
    return False


def left(task: str, tags: Tags) -> Tags:
    """The tags that are no evidence."""

    def is_evidence(key: str, value: str) -> bool:
        if task == "traffic_signals":
            return (key, value) in SIGNALS or key.startswith("traffic_signals")
        if task == "max_speed":
            return "maxspeed" in key
        is_bridge = key in ("bridge", "layer") or key.startswith("bridge:")
        return task in ("bridge", "car_bridge") and is_bridge

    return {key: value for key, value in tags.items() if not is_evidence(key, value)}


class Extract:
    """The objects of a file, to be changed and written again."""

    def __init__(self, path: Path):
        self.path = path
        self.objects = {}
        for item in osmium.FileProcessor(str(path)):
            members = []
            if item.is_relation():
                members = [(m.type, m.ref, m.role) for m in item.members]
            elif item.is_way():
                members = [n.ref for n in item.nodes]
            else:
                members = (item.location.lon, item.location.lat)
            kind = LONG[item.type_str()]
            self.objects[kind, item.id] = {t.k: t.v for t in item.tags}, members

    def in_relations(self) -> set[tuple[str, int]]:
        return {
            (LONG[m[0]], m[1])
            for (kind, _), (_, members) in self.objects.items()
            if kind == "relation"
            for m in members
        }

    def items(self) -> list:
        """The objects, to be written."""
        made = {"node": osmium.osm.mutable.Node, "way": osmium.osm.mutable.Way}
        made["relation"] = osmium.osm.mutable.Relation
        place = {"node": "location", "way": "nodes", "relation": "members"}
        return [
            made[kind](id=ref, version=1, tags=tags, **{place[kind]: where})
            for (kind, ref), (tags, where) in self.objects.items()
        ]

    def corpus(self, folder: Path) -> Corpus:
        folder.mkdir()
        path = write_osm(folder / self.path.name, self.items())
        return Corpus.open(prepare([path], folder / "c"))


def without_evidence(task: str, path: Path) -> Extract:
    """An extract less the evidence, also as a member of relations."""
    extract = Extract(path)
    gone = set()
    for (kind, ref), (tags, members) in list(extract.objects.items()):
        is_whole = is_removed(task, kind, tags)
        kept = {} if is_whole else left(task, tags)
        if tags and not kept:
            gone.add((kind, ref))
        if is_whole and kind != "node":
            del extract.objects[kind, ref]
        else:
            # a node stays as a place of ways
            extract.objects[kind, ref] = kept, members
    for (kind, ref), (tags, members) in list(extract.objects.items()):
        if kind == "relation":
            kept = [m for m in members if (LONG[m[0]], m[1]) not in gone]
            extract.objects[kind, ref] = tags, kept
    return extract


def town_of_evidence(folder: Path) -> Path:
    """Every kind of evidence, alone, beside other tags, in relations, and in boundaries."""
    town = Town()
    signal = town.node(0.3, 0.3, highway="crossing", crossing="traffic_signals")
    road = town.way(
        [town.node(0.1, 0.3), signal, town.node(1.9, 0.3)],
        highway="primary", maxspeed="50", traffic_signals__direction="both",
    )  # fmt: skip
    only = [
        town.line((0.1, 0.4), (0.9, 0.4), zone__maxspeed="30"),
        town.line((0.1, 0.45), (0.9, 0.45), bridge="yes", layer="1"),
        town.line((0.1, 0.46), (0.9, 0.46), traffic_signals="signal"),
        town.line((0.1, 0.47), (0.9, 0.47), highway="traffic_signals"),
    ]
    bridge = town.line((0.5, 0.5), (1.6, 0.5), highway="primary", bridge="yes", layer="1",
                       bridge__structure="arch", maxspeed="30 mph", name="Long Bridge")  # fmt: skip
    deck = town.box(0.5, 0.48, man_made="bridge", name="Long Bridge")
    house, part = town.box(0.1, 0.6, building="yes"), town.box(0.3, 0.6, building__part="yes")
    ring, court = town.box(1.1, 0.6, w=0.4, h=0.3), town.box(1.2, 0.7)
    town.relation(("w", ring), ("w", court), type="multipolygon", building="school")
    town.relation(("n", signal), ("w", road), type="restriction", restriction="no_u_turn")
    town.relation(("w", road), ("w", bridge), type="route", route="bus")
    town.relation(("w", bridge), ("w", deck), type="bridge", name="Long Bridge")
    town.relation(("w", house), ("w", part), type="building")
    town.relation(("w", ring), ("n", town.node(1.9, 0.9)), type="site", amenity="school")
    for way_ in only:
        town.relation(("w", way_), ("w", road), type="route", route="hiking")
    forest = town.box(1.5, 0.1, w=0.4, h=0.4)
    hut = town.box(1.6, 0.2, building="hut")
    town.relation(("w", forest), ("w", hut, "inner"), type="multipolygon", landuse="forest")
    # entities for the sake of hidden tags alone
    for tags in ({"bridge": "yes"}, {"highway": "traffic_signals"}, {"building": "yes"}):
        town.line((0.6, 0.6), (1.4, 0.7), boundary="administrative", **tags)
        town.line((0.6, 0.7), (1.4, 0.8), boundary="administrative", railway="rail", **tags)
        town.relation(("w", forest), type="boundary", **tags)
    for tags in ({"layer": "1"}, {"maxspeed": "30"}, {"traffic_signals": "x"}, {"bridge": "no"}):
        town.relation(("w", town.box(0.7, 0.8)), type="multipolygon", **tags)
        town.line((0.6, 0.9), (1.4, 0.95), **tags)
    path = folder / "town.osm.pbf"
    return write_osm(path, [*town.nodes, *town.ways, *town.relations])
