"""Labels and masked views against the rules of the benchmark, written out once more."""

import itertools
import subprocess
import sys

import numpy as np
import pytest
import shapely
from handmade import node, relation, way, write_osm

from geojepa.data.corpus import Corpus
from geojepa.data.grid import to_degrees
from geojepa.data.inspect import summary, summary_text
from geojepa.data.meaning import CAR_CLASSES, TASKS, paper_speed, speed_kmh
from geojepa.data.prepare import prepare
from geojepa.data.splits import split
from geojepa.errors import GeoJEPAError

# tile 16_33000_30500 and its eastern neighbour, with room for a hand-made town
U, V = 33000, 2**16 - 1 - 30500
WEST, EAST = "16_33000_30500", "16_33001_30500"


class Town:
    """Objects placed in the two tiles, at coordinates in tile units."""

    def __init__(self):
        self.nodes, self.ways, self.relations = [], [], []
        # enough entities for both tiles to be kept
        for x in (0.05, 1.05):
            for k in range(5):
                self.node(x, 0.01 + k / 100, natural="tree")

    def node(self, x, y, **tags):
        lon, lat = to_degrees(np.array([[U + x, V + y]]))[0]
        self.nodes.append(node(len(self.nodes) + 1, lon, lat, **tags))
        return len(self.nodes)

    def line(self, *places, **tags):
        return self.way([self.node(*place) for place in places], **tags)

    def box(self, x, y, w=0.1, h=0.1, **tags):
        corners = [self.node(*c) for c in ((x, y), (x + w, y), (x + w, y + h), (x, y + h))]
        return self.way([*corners, corners[0]], **tags)

    def way(self, nodes, **tags):
        self.ways.append(way(len(self.ways) + 1, nodes, **tags))
        return len(self.ways)

    def relation(self, *members, **tags):
        members = [(*m, "") if len(m) == 2 else m for m in members]
        self.relations.append(relation(len(self.relations) + 1, members, **tags))
        return len(self.relations)

    def corpus(self, folder) -> Corpus:
        path = write_osm(folder / "town.osm.pbf", [*self.nodes, *self.ways, *self.relations])
        return Corpus.open(prepare([path], folder / "corpus"))


def label(town, task, folder) -> list[float]:
    """Of the western and the eastern tile."""
    tiles = town.corpus(folder).tiles.set_index("tile_id")
    return tiles.loc[[WEST, EAST], task].tolist()


@pytest.mark.parametrize(
    ("value", "speed"),
    [
        ("50", 50),
        ("25 mph", 40.2336),
        ("25mph", 40.2336),
        ("35 MPH", 56.32704),
        ("50;30", 50),
        ("30;50 mph", 80.4672),
        ("30 mph; 25 mph", 48.28032),
        ("5 knots", 9.26),
        ("60 km/h", 60),
        ("none", None),
        ("RO:urban", None),
        ("signals;50", 50),
        ("1000", 1000),
        ("1001", None),
        ("700 mph", None),
        ("9" * 60, None),
        ("9" * 5000 + ";50", 50),
        ("", None),
    ],
)
def test_speeds(value, speed):
    found = speed_kmh(value)
    assert np.isnan(found) if speed is None else found == pytest.approx(speed)


@pytest.mark.parametrize(
    ("value", "speed"),
    [("50", 50), ("25 mph", 40), ("600 mph", 960), ("700 mph", 0), ("9" * 60, 0), ("9" * 5000, 0)],
)
def test_speeds_of_rule_paper(value, speed):
    assert paper_speed("maxspeed:forward", value) == pytest.approx(speed)


def test_max_speed_is_the_highest_on_a_highway_that_meets_the_tile(tmp_path):
    town = Town()
    town.line((0.2, 0.5), (0.8, 0.5), highway="residential", maxspeed="50")
    town.line((0.2, 0.6), (1.2, 0.6), highway="primary", maxspeed="45 mph")
    town.line((0.2, 0.7), (0.8, 0.7), highway="path", maxspeed="none")
    town.line((1.2, 0.7), (1.8, 0.7), railway="rail", maxspeed="120")
    town.line((0.2, 0.8), (0.8, 0.8), highway="primary", maxspeed__forward="100")
    assert label(town, "max_speed", tmp_path) == pytest.approx([72.42048] * 2, rel=1e-6)


def test_tiles_without_a_speed_have_no_label(tmp_path):
    town = Town()
    town.line((0.2, 0.5), (0.8, 0.5), highway="residential", maxspeed="walk")
    town.line((1.2, 0.5), (1.8, 0.5), highway="residential")
    assert np.isnan(label(town, "max_speed", tmp_path)).all()


SIGNALS = [
    ({"highway": "traffic_signals"}, 1),
    ({"highway": "crossing", "crossing": "traffic_signals"}, 1),
    ({"highway": "crossing", "crossing__signals": "yes"}, 1),
    ({"highway": "traffic_signals", "crossing": "traffic_signals", "crossing__signals": "yes"}, 1),
    ({"highway": "crossing", "crossing__signals": "no"}, 0),
    ({"highway": "crossing", "crossing": "marked"}, 0),
    ({"traffic_signals": "ramp_meter"}, 0),
    ({"highway": "traffic_signals;crossing"}, 0),
]


@pytest.mark.parametrize(("tags", "count"), SIGNALS, ids=str)
def test_signals_are_nodes(tmp_path, tags, count):
    town = Town()
    town.node(0.5, 0.5, **tags)
    town.line((1.2, 0.5), (1.8, 0.5), **tags)
    assert label(town, "traffic_signals", tmp_path) == [count, 0]


@pytest.mark.parametrize(
    ("tags", "bridge", "car"),
    [
        ({"highway": "primary", "bridge": "yes"}, 1, 1),
        ({"highway": "motorway_link", "bridge": "viaduct"}, 1, 1),
        ({"highway": "living_street", "bridge": "yes"}, 1, 1),
        ({"highway": "footway", "bridge": "yes"}, 1, 0),
        ({"highway": "track", "bridge": "yes"}, 1, 0),
        ({"railway": "rail", "bridge": "yes"}, 1, 0),
        ({"highway": "primary", "bridge": "no"}, 0, 0),
        ({"man_made": "bridge"}, 1, 0),
        ({"highway": "service", "man_made": "bridge"}, 1, 1),
        ({"highway": "primary", "name": "Cambridge Street", "layer": "1"}, 0, 0),
        ({"highway": "primary", "bridge__name": "Old Bridge"}, 0, 0),
    ],
    ids=str,
)
def test_bridges(tmp_path, tags, bridge, car):
    town = Town()
    town.line((0.8, 0.5), (0.9, 0.6), **tags)
    town.line((1.2, 0.5), (1.8, 0.5), highway="primary")
    corpus = town.corpus(tmp_path)
    tiles = corpus.tiles.set_index("tile_id")
    assert tiles.loc[[WEST, EAST], "bridge"].tolist() == [bridge, 0]
    assert tiles.loc[[WEST, EAST], "car_bridge"].tolist() == [car, 0]


def test_car_classes_are_those_of_the_benchmark():
    linked = {"motorway", "trunk", "primary", "secondary", "tertiary"}
    others = {"unclassified", "residential", "service", "living_street"}
    assert linked | others | {f"{name}_link" for name in linked} == CAR_CLASSES


def test_buildings_count_once_where_their_representative_point_lies(tmp_path):
    town = Town()
    town.box(0.8, 0.1, w=0.3, building="house")  # across the border, mostly in the west
    town.node(1.5, 0.5, building="yes")
    town.box(0.2, 0.2, building="no")
    town.box(0.2, 0.4, building__part="yes")
    town.box(0.2, 0.6, building="yes", area="no")
    town.line((0.4, 0.8), (0.5, 0.8), building="yes")
    assert label(town, "building_count", tmp_path) == [1, 1]


def test_a_multipolygon_and_its_outer_way_are_one_building_but_one_in_its_court_is_another(
    tmp_path,
):
    town = Town()
    outer = town.box(0.1, 0.1, w=0.4, h=0.4, building="yes")
    court = town.box(0.2, 0.2, w=0.2, h=0.2, building="chapel")
    town.relation(("w", outer, "outer"), ("w", court, "inner"), type="multipolygon", building="yes")
    # two wings, neither tagged, of one building
    wings = [town.box(1.1, 0.1), town.box(1.4, 0.1, w=0.2)]
    town.relation(*[("w", w, "outer") for w in wings], type="multipolygon", building="yes")
    # a building relation repeats its outline and parts
    outline, part = town.box(1.1, 0.5, building="yes"), town.box(1.1, 0.5, building__part="yes")
    town.relation(("w", outline, "outline"), ("w", part, "part"), type="building", building="yes")
    assert label(town, "building_count", tmp_path) == [2, 2]


# --- masked views: the rule of the benchmark's table, in its own words ---


def removed_tag(task, key, value) -> bool:
    match task:
        case "traffic_signals":
            return key.startswith("traffic_signals") or (key, value) in {
                ("highway", "traffic_signals"),
                ("crossing", "traffic_signals"),
                ("crossing:signals", "yes"),
            }
        case "max_speed":
            return "maxspeed" in key
        case "bridge" | "car_bridge":
            return key in {"bridge", "layer"} or key.startswith("bridge:")
    return False


def removed_whole(task, name, tags) -> bool:
    match task:
        case "traffic_signals":
            signals = {
                "highway=traffic_signals",
                "crossing=traffic_signals",
                "crossing:signals=yes",
            }
            return name.startswith("node/") and not signals.isdisjoint(
                f"{k}={v}" for k, v in tags.items()
            )
        case "building_count":
            return any(key.split(":")[0] == "building" for key in tags)
        case "bridge" | "car_bridge":
            return tags.get("man_made") == "bridge" or tags.get("type") == "bridge"
    return False


def view(corpus, hide=None) -> list[dict[str, dict]]:
    """For each tile: feature -> everything that a reader of the view can know of it."""
    data = corpus.read(np.arange(len(corpus)), hide)
    bounds = data.cu_entities.tolist()
    assert len(data.kind) == len(data.box) == len(data.cu_tags) - 1 == bounds[-1]
    rows = list(zip(data.feature_id, data.tags(), data.kind, data.box, data.geometry, strict=True))
    return [
        {
            name: {"tags": tags, "kind": int(kind), "box": box.tobytes(), "geometry": shape.wkb}
            for name, tags, kind, box, shape in rows[a:b]
        }
        for a, b in itertools.pairwise(bounds)
    ]


def expected_view(corpus, task, members) -> list[dict[str, dict]]:
    """The unmasked view less what the rule removes."""
    tags_of = {name: e["tags"] for tile in view(corpus) for name, e in tile.items()}
    gone = {
        name
        for name, tags in tags_of.items()
        if removed_whole(task, name, tags) or all(removed_tag(task, *tag) for tag in tags.items())
    }
    shaping = {m for name in gone for m in members.get(name, ()) if m not in tags_of}
    gone |= {name for name, its in members.items() if not (gone | shaping).isdisjoint(its)}
    return [
        {
            name: e | {"tags": {k: v for k, v in e["tags"].items() if not removed_tag(task, k, v)}}
            for name, e in tile.items()
            if name not in gone
        }
        for tile in view(corpus)
    ]


def members_in(path) -> dict[str, list[str]]:
    import osmium

    long = {"n": "node", "w": "way", "r": "relation"}
    return {
        f"relation/{item.id}": [f"{long[m.type]}/{m.ref}" for m in item.members]
        for item in osmium.FileProcessor(str(path), osmium.osm.RELATION)
    }


@pytest.mark.parametrize("task", TASKS)
def test_masked_views_of_the_city_show_what_the_rule_leaves(task, city, tiny_corpus):
    expected = expected_view(tiny_corpus, task, members_in(city.extract))
    assert view(tiny_corpus, task) == expected
    assert expected != view(tiny_corpus)


@pytest.fixture(scope="module")
def evidence(tmp_path_factory):
    """A town with every kind of evidence, and relations that could give it away."""
    town = Town()
    signal = town.node(0.3, 0.3, highway="crossing", crossing="traffic_signals")
    road = town.way(
        [town.node(0.1, 0.3), signal, town.node(0.9, 0.3)],
        highway="primary",
        maxspeed="50",
        maxspeed__forward="40",
        traffic_signals__direction="both",
    )
    only = town.line((0.1, 0.4), (0.9, 0.4), zone__maxspeed="30")
    lone = town.line((0.1, 0.45), (0.9, 0.45), bridge="yes", layer="1")
    bridge = town.line((0.5, 0.5), (0.6, 0.5), highway="primary", bridge="yes", layer="1",
                       bridge__structure="arch", maxspeed="30 mph", name="Long Bridge")  # fmt: skip
    deck = town.box(0.5, 0.48, man_made="bridge", name="Long Bridge")
    house, part = town.box(0.1, 0.6, building="yes"), town.box(0.3, 0.6, building__part="yes")
    ring, court = town.box(1.1, 0.6, w=0.4, h=0.3), town.box(1.2, 0.7)
    ringed = town.relation(("w", ring), ("w", court), type="multipolygon", building="school")
    town.relation(("n", signal), ("w", road), type="restriction", restriction="no_u_turn")
    town.relation(("w", road), ("w", bridge), type="route", route="bus", ref="1")
    town.relation(("w", bridge), ("w", deck), type="bridge", name="Long Bridge")
    town.relation(("w", house), ("w", part), type="building")
    town.relation(("w", ring), ("n", town.node(1.9, 0.9)), type="site", amenity="school")
    town.relation(("r", ringed), ("w", road), type="site", site="campus")
    town.relation(("w", lone), ("w", road), type="route", route="hiking")
    town.relation(("w", only), ("w", road), type="route", route="mtb")
    forest = town.box(1.5, 0.1, w=0.4, h=0.4)
    hut = town.box(1.6, 0.2, building="hut")
    town.relation(("w", forest), ("w", hut, "inner"), type="multipolygon", landuse="forest")
    folder = tmp_path_factory.mktemp("evidence")
    return town.corpus(folder), members_in(folder / "town.osm.pbf")


HIDDEN = {
    "traffic_signals": {"node/13", "relation/2"},
    "building_count": {"way/6", "way/7", "way/11", "relation/1", "relation/5", "relation/6",
                       "relation/7", "relation/10"},
    "max_speed": {"way/2", "relation/9"},
    "bridge": {"way/3", "way/5", "relation/4", "relation/8"},
    "car_bridge": {"way/3", "way/5", "relation/4", "relation/8"},
}  # fmt: skip


@pytest.mark.parametrize("task", TASKS)
def test_no_evidence_and_nothing_shaped_by_it_is_left(task, evidence):
    corpus, members = evidence
    found = view(corpus, task)
    assert found == expected_view(corpus, task, members)
    names = [set().union(*tiles) for tiles in (view(corpus), found)]
    signal = next(n for n, e in view(corpus)[0].items() if e["tags"].get("highway") == "crossing")
    hidden = {signal if name.startswith("node/") else name for name in HIDDEN[task]}
    assert names[0] - names[1] == hidden


def test_a_view_of_some_rows_is_that_part_of_the_whole(tiny_corpus):
    rows = np.array([5, 0, 5])
    for hide in (None, *TASKS):
        whole = view(tiny_corpus, hide)
        data = tiny_corpus.read(rows, hide)
        assert data.feature_id == [name for row in rows for name in whole[row]]
        assert data.tags() == [e["tags"] for row in rows for e in whole[row].values()]
        assert shapely.to_wkb(data.geometry).tolist() == [
            e["geometry"] for row in rows for e in whole[row].values()
        ]


def test_a_tile_may_be_empty_in_a_masked_view(tmp_path):
    town = Town()
    town.nodes.clear()
    for k in range(5):
        town.node(0.1, k / 10 + 0.1, building="yes")
    corpus = town.corpus(tmp_path)
    data = corpus.read([0], "building_count")
    assert data.cu_entities.tolist() == [0, 0]
    assert data.box.shape == (0, 8)
    assert data.cu_tags.tolist() == [0]
    assert len(data.geometry) == 0


def test_a_summary_names_every_fold_and_why_there_is_none(tmp_path):
    """Two tiles in two blocks: not every fold has a tile to test on, and none to train on."""
    town = Town()
    town.line((0.2, 0.5), (0.8, 0.5), highway="residential", maxspeed="50")
    town.line((1.2, 0.5), (1.8, 0.5), highway="residential", maxspeed="30")
    found = summary(town.corpus(tmp_path))
    assert len(found["splits"]["folds"]) == 5
    assert all("tiles are left" in fold["error"] for fold in found["splits"]["folds"])
    assert found["labels"]["max_speed"] == {"tiles": 2, "positive": 2, "mean": 40.0}
    text = summary_text(found)
    assert all(f"\nfold {i} of 5: no " in text for i in range(5))
    assert "mean 40.0 km/h" in text


def test_a_fold_that_cannot_be_made_does_not_hide_the_next(tiny_corpus, monkeypatch):
    def all_but_the_first(tiles, fold):
        if fold == 0:
            raise GeoJEPAError("fold 0 of 5: no test tiles are left")
        return split(tiles, fold)

    expected = summary(tiny_corpus)["splits"]["folds"]
    monkeypatch.setattr("geojepa.data.inspect.split", all_but_the_first)
    found = summary(tiny_corpus)["splits"]["folds"]
    assert found == [{"error": "fold 0 of 5: no test tiles are left"}, *expected[1:]]


def test_the_mean_speed_of_rule_paper_leaves_out_tiles_without_a_road(tmp_path):
    town = Town()
    town.line((0.2, 0.5), (0.8, 0.5), highway="residential", maxspeed="50")
    corpus = town.corpus(tmp_path)
    assert corpus.tiles.paper_max_speed.tolist() == [50, -100]
    label = summary(corpus, "paper")["labels"]["paper_max_speed"]
    assert label == {"tiles": 2, "positive": 1, "mean": 50.0, "kept": 2}


def test_a_corpus_is_read_without_what_prepares_one():
    code = "import sys, geojepa.data.corpus; print('osmium' in sys.modules, *sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.startswith("False ")
    assert "geojepa.data.prepare" not in told.stdout.split()
