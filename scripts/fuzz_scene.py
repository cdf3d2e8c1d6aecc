"""A small made town as plain objects, and ways to spoil it before it is written."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field

SIDE = 0.004
HUGE = 10_000_000
_DEGREES = [0, -0.0, 90, -90, 85.06, -85.06, 180, -180, 179.9999999, 181, 214.7483647, -300, 1e9,
            1e300, "NaN", "inf", "-inf", "", "abc", "1e400", "0x10", None]  # fmt: skip
_IDS = [0, 1, -1, -17, 2**31, 2**32, 2**60 - 1, 2**60, 2**62, 2**63 - 1, -(2**63), 2**63, 2**70]
_TEXTS = ["", " ", "%", "%0a%", "%zz%", "%110000%", "%d800%", "a,b", "a=b", "a@b", "x\ny", "\t",
          "\x00", "\x1b[31mred", "\x7f", "\u202e", "\ufffe", "\U0010ffff", "\udcff",
          "\udced\udca0\udc80", "é" * 300, "../../etc/passwd", "<b>&amp;</b>", "-rf", '"', "'",
          "\\", "|;$(x)", "nan", "1e999", "-1", "yes;no", "100 mph", "9" * 400, "type",
          "multipolygon", "site", "boundary"]  # fmt: skip
_KEYS = ["building", "highway", "maxspeed", "type", "boundary", "area", "natural", "bridge", "name"]


@dataclass
class Item:
    """An object of OpenStreetMap: text may hold surrogates, which stand for invalid bytes."""

    kind: str
    id: int
    tags: list[tuple[str, str]] = field(default_factory=list)
    lon: float | str | None = None
    lat: float | str | None = None
    refs: list[int] = field(default_factory=list)
    members: list[tuple[str, int, str]] = field(default_factory=list)


def town(rng: random.Random) -> list[Item]:
    """Points, streets, buildings and relations in one or two tiles, somewhere."""
    west, south = rng.choice([(11.2, 55.7), (-74.0, 40.7), (0.0, 0.0), (179.993, -16.5), (25, 84)])
    items: list[Item] = []

    def node(*tags: tuple[str, str]) -> int:
        x, y = west + rng.random() * SIDE, south + rng.random() * SIDE
        items.append(Item("node", len(items) + 1, list(tags), round(x, 7), round(y, 7)))
        return len(items)

    for shop in ("bakery", "books", "kiosk", "bank", "pub", "toys", "tea", "wine"):
        node(("shop", shop), ("name", shop.title()))
    streets = [[node() for _ in range(rng.randint(2, 9))] for _ in range(6)]
    squares = []
    for _ in range(9):
        first, size = node(), rng.choice([1e-4, 3e-4])
        corner = items[first - 1]
        ring = [first]
        for dx, dy in ((size, 0), (size, size), (0, size)):
            ring.append(node())
            items[-1].lon, items[-1].lat = round(corner.lon + dx, 7), round(corner.lat + dy, 7)
        squares.append([*ring, first])
    ways = [Item("way", i + 1, [("highway", "service"), ("maxspeed", str(10 * i))], refs=refs)
            for i, refs in enumerate(streets)]  # fmt: skip
    ways += [Item("way", 11 + i, [("building", "yes"), ("height", str(i))], refs=refs)
             for i, refs in enumerate(squares)]  # fmt: skip
    ways[-1].tags = ways[-2].tags = []
    relations = [
        Item("relation", 1, [("type", "multipolygon"), ("landuse", "farm")], members=[
            ("way", 19, "outer"), ("way", 18, "inner")]),
        Item("relation", 2, [("type", "route"), ("route", "bus")], members=[
            ("way", 1, ""), ("node", 1, "stop"), ("way", 2, "")]),
        Item("relation", 3, [("type", "site"), ("amenity", "school")], members=[
            ("way", 12, ""), ("relation", 1, "")]),
    ]  # fmt: skip
    return items + ways + relations


def _fresh(items: list[Item]) -> int:
    return max((abs(item.id) for item in items if abs(item.id) < 2**50), default=0) + 1


def _line(items: list[Item], places: list[tuple[float, float]], *tags: tuple[str, str]) -> Item:
    """A way along new nodes, put at the end of the nodes and of all."""
    first = _fresh(items)
    at = next((i for i, item in enumerate(items) if item.kind != "node"), len(items))
    items[at:at] = [Item("node", first + i, [], *place) for i, place in enumerate(places)]
    way = Item("way", first, list(tags), refs=list(range(first, first + len(places))))
    after = next((i for i, item in enumerate(items) if item.kind == "relation"), len(items))
    items.insert(after, way)
    return way


def wild_coordinates(items: list[Item], rng: random.Random) -> None:
    nodes = [item for item in items if item.kind == "node"]
    for item in rng.sample(nodes, min(len(nodes), rng.choice([1, 5, 60]))):
        item.lon = rng.choice([item.lon, rng.choice(_DEGREES)])
        item.lat = rng.choice([item.lat, rng.choice(_DEGREES)])


def around_the_world(items: list[Item], rng: random.Random) -> None:
    turns, reach = rng.choice([(2, 179.9), (2, 80), (3, 179.9), (2000, 170), (2000, 60)])
    for _ in range(1 if turns > 3 else rng.choice([1, 3])):
        places = [((-reach, reach)[i % 2], rng.uniform(-80, 80)) for i in range(turns)]
        _line(items, places, ("route", "ferry"))


def thousands_of_long_lines(items: list[Item], rng: random.Random) -> None:
    first, reach = _fresh(items), rng.choice([179, 80, 0.4])
    south = rng.uniform(-70, 70)
    places = [((-reach, reach)[k % 2], south + rng.random()) for k in range(6000)]
    items += [Item("node", first + k, [], *place) for k, place in enumerate(places)]
    items += [Item("way", first + k, [("power", "line")], refs=[first + k, first + k + 1])
              for k in range(0, 6000, 2)]  # fmt: skip
    items.sort(key=lambda item: ("node", "way", "relation").index(item.kind))


def areas_of_the_world(items: list[Item], rng: random.Random) -> None:
    x, y = rng.choice([(180, 90), (179, 85), (80, 60), (20, 10), (1, 1), (0.3, 0.2)])
    way = _line(items, [(-x, -y), (x, -y), (x, y), (-x, y)], rng.choice(
        [("natural", "water"), ("building", "yes"), ("boundary", "x")]))  # fmt: skip
    way.refs.append(way.refs[0])
    if rng.random() < 0.5:
        tags = [("type", "multipolygon"), *way.tags]
        items.append(Item("relation", _fresh(items), tags, members=[("way", way.id, "outer")]))
        way.tags = []


def spiral(items: list[Item], rng: random.Random) -> None:
    west, south = items[0].lon, items[0].lat
    step = rng.choice([1e-7, 1e-6, 1e-4])
    places = [(0.0, 0.0)]
    for i in range(2000):
        dx, dy = ((1, 0), (0, 1), (-1, 0), (0, -1))[i % 4]
        places.append((places[-1][0] + dx * i * step, places[-1][1] + dy * i * step))
    if isinstance(west, float) and isinstance(south, float):
        way = _line(items, [(round(west + x, 7), round(south + y, 7)) for x, y in places],
                    rng.choice([("highway", "path"), ("building", "yes")]))  # fmt: skip
        if rng.random() < 0.5:
            way.refs[-1] = way.refs[0]


def odd_ways(items: list[Item], rng: random.Random) -> None:
    for item in [item for item in items if item.kind == "way"]:
        refs = item.refs
        item.refs = rng.choice([refs, [], refs[:1], refs[:2] * 3, refs + refs, refs[::-1],
                                [r + 10**6 for r in refs], [0, *refs], refs[:3] + refs[:1],
                                [rng.choice(_IDS) for _ in refs]])  # fmt: skip


def odd_members(items: list[Item], rng: random.Random) -> None:
    ids = {k: [i.id for i in items if i.kind == k] or [1] for k in ("node", "way", "relation")}
    for item in [item for item in items if item.kind == "relation"]:
        kinds = rng.choices(("node", "way", "relation"), k=rng.choice([0, 1, 4, 500]))
        item.members = [(kind, rng.choice(ids[kind]), rng.choice(_TEXTS)) for kind in kinds]
        if rng.random() < 0.5:
            item.members.append(("relation", item.id, "self"))
        if rng.random() < 0.3:
            item.members += [(kind, rng.choice(_IDS), "") for kind in ("node", "way", "relation")]
        if rng.random() < 0.5:
            item.tags = [("type", rng.choice(["multipolygon", "boundary", "site"])), ("site", "x")]


def huge_relation(items: list[Item], rng: random.Random) -> None:
    ways = [i.id for i in items if i.kind == "way"] or [1]
    members = [("way", rng.choice([*ways, k]), "outer") for k in range(32_000)]
    tags = [("type", rng.choice(["multipolygon", "site"])), ("landuse", "forest")]
    items.append(Item("relation", _fresh(items), tags, members=members))


def cycle_of_relations(items: list[Item], rng: random.Random) -> None:
    first, count = _fresh(items), rng.choice([2, 50])
    for k in range(count):
        members = [("relation", first + (k + 1) % count, ""), ("way", 12, "")]
        tags = [("type", "site"), ("site", "x")]
        items.append(Item("relation", first + k, tags, members=members))


def odd_ids(items: list[Item], rng: random.Random) -> None:
    for item in rng.sample(items, min(len(items), rng.choice([1, 3, 20]))):
        item.id = rng.choice([*_IDS, item.id, 1])


def negative_ids(items: list[Item], rng: random.Random) -> None:
    for item in items:
        item.id, item.refs = -item.id, [-ref for ref in item.refs]
        item.members = [(kind, -ref, role) for kind, ref, role in item.members]


def duplicates(items: list[Item], rng: random.Random) -> None:
    for item in rng.sample(items, len(items) // 3):
        twin = Item(**vars(item))
        twin.tags = [*twin.tags, ("twin", "yes")]
        items.insert(rng.choice([items.index(item), len(items)]), twin)


def any_order(items: list[Item], rng: random.Random) -> None:
    rng.shuffle(items)


def some_missing(items: list[Item], rng: random.Random) -> None:
    for _ in range(len(items) // rng.choice([2, 10])):
        items.pop(rng.randrange(len(items)))


def odd_tags(items: list[Item], rng: random.Random) -> None:
    for item in rng.sample(items, min(len(items), 30)):
        for _ in range(rng.randint(1, 4)):
            key = rng.choice([rng.choice(_TEXTS), rng.choice(_KEYS)])
            item.tags = [*item.tags, (key, rng.choice(_TEXTS))]


def huge_tags(items: list[Item], rng: random.Random) -> None:
    item = rng.choice(items)
    text = rng.choice(["x", "%", ",", "é", "\n", "=", " "])
    long = text * (rng.choice([256, 66_000, HUGE]) // len(text.encode()))
    item.tags = [*item.tags, rng.choice([("building", long), (long, "yes"), ("name", long)])]


def thousands_of_tags(items: list[Item], rng: random.Random) -> None:
    item = rng.choice(items)
    item.tags = item.tags + [(f"key{k}", f"{k % 7}") for k in range(rng.choice([300, 70_000]))]


MUTATIONS: list[Callable[[list[Item], random.Random], None]] = [
    wild_coordinates, around_the_world, thousands_of_long_lines, areas_of_the_world, spiral,
    odd_ways, odd_members, huge_relation, cycle_of_relations, odd_ids, negative_ids, duplicates,
    any_order, some_missing, odd_tags, huge_tags, thousands_of_tags,
]  # fmt: skip
