"""No column of a masked view knows what it hides: two ways to make it, and two towns that differ.

The benchmark's table says what is removed. Here it is removed from the file itself, by pyosmium,
and the view of the full corpus is compared with what a corpus of the rest shows.
"""

from itertools import pairwise
from pathlib import Path

import numpy as np
import oracle
import pytest
import shapely
import torch
from evidence import LONG, Extract, is_removed, left, town_of_evidence, without_evidence
from test_real_extracts import ROOT

from geojepa.data import prepare as preparing
from geojepa.data.corpus import Corpus
from geojepa.data.grid import to_degrees
from geojepa.data.meaning import TASKS
from geojepa.data.prepare import prepare
from geojepa.model.batch import Batches
from geojepa.model.config import ModelConfig

REAL = ROOT / "osm" / "harrisburg_pa.osm.pbf"


def relations_shaped_by(gone: set[str], entities: set[str], path: Path) -> set[str]:
    """Relations with a member that is gone, or that is nothing but a part of what is gone."""
    members = {
        f"relation/{ref}": {f"{LONG[m[0]]}/{m[1]}" for m in its}
        for (kind, ref), (_, its) in Extract(path).objects.items()
        if kind == "relation"
    }
    parts = set().union(*(members.get(name, set()) for name in gone)) - entities
    return {name for name, its in members.items() if its & (gone | parts)}


def shown(corpus: Corpus, hide: str | None = None) -> dict[str, dict[str, tuple]]:
    """All that a view tells of each entity, by tile and name."""
    data = corpus.read(np.arange(len(corpus)), hide)
    rows = zip(
        data.feature_id,
        data.kind.tolist(),
        [tuple(tags.items()) for tags in data.tags()],
        [box.tobytes() for box in data.box],
        shapely.to_wkb(data.geometry).tolist(),
        data.share.tolist(),
        strict=True,
    )
    of_all = [(name, rest) for name, *rest in rows]
    spans = pairwise(data.cu_entities.tolist())
    return {
        tile: dict(of_all[a:b]) for tile, (a, b) in zip(corpus.tiles.tile_id, spans, strict=True)
    }


@pytest.fixture(scope="module")
def places(city, tmp_path_factory) -> dict[str, tuple[Path, Corpus]]:
    """Extracts and their corpora, by name."""
    folder = tmp_path_factory.mktemp("places")
    paths = {"town": town_of_evidence(folder), "city": city.extract}
    if REAL.is_file():
        paths["real"] = REAL
    return {
        name: (path, Corpus.open(prepare([path], folder / name))) for name, path in paths.items()
    }


def cases() -> list:
    """Places and tasks; the real one without car_bridge, whose view is that of bridge."""
    real = pytest.mark.skipif(not REAL.is_file(), reason=f"no extracts in {ROOT}")
    return [
        *((name, task) for name in ("town", "city") for task in TASKS),
        *(pytest.param("real", task, marks=real) for task in TASKS if task != "car_bridge"),
    ]


@pytest.mark.parametrize(("place", "task"), cases())
def test_a_view_shows_what_a_corpus_without_the_evidence_shows(
    place, task, places, tmp_path, monkeypatch
):
    """Equal but for relations whose shape the evidence was a part of: the view drops them."""
    path, corpus = places[place]
    # also tiles that the evidence alone makes rich enough
    monkeypatch.setattr(preparing, "MIN_ENTITIES", 1)
    view, full = shown(corpus, task), shown(corpus)
    rest = shown(without_evidence(task, path).corpus(tmp_path / "rest"))
    entities = set().union(*full.values())
    gone = entities - set().union(*rest.values())
    shaped = relations_shaped_by(gone, entities, path)
    assert view != full
    assert sum(map(len, view.values())) > 0
    for tile, found in view.items():
        expected = {name: e for name, e in rest.get(tile, {}).items() if name not in shaped}
        assert found == expected, tile


# --- the same ground with other evidence ---


class Mutation:
    """Other evidence of one task, such that the same tiles are rich enough for a corpus."""

    def __init__(self, path: Path, task: str, corpus: Corpus, seed: int = 0):
        self.extract = Extract(path)
        self.objects = self.extract.objects
        self.task = task
        self.rng = np.random.default_rng(seed)
        tiles = list(zip(corpus.tiles.x.tolist(), corpus.tiles.y.tolist(), strict=True))
        left_over = np.diff(corpus.read(np.arange(len(corpus)), task).cu_entities)
        self.kept = set(tiles)
        self.rich = {tile for tile, count in zip(tiles, left_over, strict=True) if count >= 5}
        self.members = self.extract.in_relations()
        self.next = 1 + max(ref for _, ref in self.objects)
        getattr(self, task.removeprefix("car_"))()

    def tiles_of(self, name: tuple[str, int]) -> set:
        where = self.objects[name][1]
        refs = [("node", ref) for ref in where]
        places = [where] if name[0] == "node" else [self.objects[r][1] for r in refs]
        return {oracle.tile(*oracle.place(*place)) for place in places}

    def add(self, spread: float, **tags: str) -> None:
        """A square, or a node, that lies in one tile of the corpus."""
        x, y = list(self.kept)[self.rng.integers(len(self.kept))]
        corner = np.array([x, 2**16 - 1 - y]) + self.rng.uniform(0.1, 0.8, 2)
        corners = corner + spread * np.array([(0, 0), (1, 0), (1, 1), (0, 1)])
        refs = list(range(self.next, self.next + 4))
        self.next += 4
        for ref, place in zip(refs, to_degrees(corners).tolist(), strict=True):
            self.objects["node", ref] = {}, tuple(place)
        if spread:
            self.objects["way", refs[0]] = tags, [*refs, refs[0]]
        else:
            self.objects["node", refs[0]][0].update(tags)

    def ways_with_more(self) -> list:
        """Ways of which something is left, and that are no boundary."""
        return [
            tags
            for (kind, _), (tags, _) in self.objects.items()
            if kind == "way" and left(self.task, tags) and "boundary" not in tags
            and not is_removed(self.task, kind, tags)
        ]  # fmt: skip

    def max_speed(self) -> None:
        for tags in self.ways_with_more():
            for key in [key for key in tags if "maxspeed" in key]:
                del tags[key]
            if self.rng.random() < 0.3:
                tags["maxspeed"] = str(self.rng.choice(["10", "25 mph", "none", "130"]))
            if self.rng.random() < 0.1:
                tags["maxspeed:forward"] = tags["zone:maxspeed"] = "7"

    def traffic_signals(self) -> None:
        for name, (tags, _) in list(self.objects.items()):
            if name[0] != "node" or name in self.members:
                continue
            if is_removed(self.task, "node", tags) and self.tiles_of(name) <= self.rich:
                tags.clear()
            elif not tags and self.rng.random() < 0.02 and self.tiles_of(name) <= self.kept:
                tags["highway"] = "traffic_signals"
        for tags in self.ways_with_more():
            if self.rng.random() < 0.1:
                tags["traffic_signals"] = "x"
                tags.setdefault("crossing", "traffic_signals")
        for _ in range(20):
            self.add(0, crossing="traffic_signals")

    def building_count(self) -> None:
        for name, (tags, _) in list(self.objects.items()):
            if not is_removed(self.task, name[0], tags) or name[0] == "relation":
                continue
            if name in self.members or self.rng.random() < 0.5:
                tags["building"] = "barn"
            elif self.tiles_of(name) <= self.rich:
                tags.clear()
        for k in range(60):
            self.add(0.05 * (k % 3), building="yes", name="New")

    def bridge(self) -> None:
        for tags in self.ways_with_more():
            for key in [key for key in tags if key not in left("bridge", tags)]:
                del tags[key]
            if self.rng.random() < 0.2:
                tags |= {"bridge": "yes", "layer": str(self.rng.integers(-1, 3))}
            elif self.rng.random() < 0.1:
                tags["bridge:structure"] = "arch"
        for k in range(20):
            self.add(0.05 * (k % 2), man_made="bridge", name="New")


@pytest.mark.parametrize(("place", "task"), cases())
def test_other_evidence_changes_no_column_of_the_view(place, task, places, tmp_path):
    path, before = places[place]
    after = Mutation(path, task, before).extract.corpus(tmp_path / "after")
    assert before.tiles.tile_id.tolist() == after.tiles.tile_id.tolist()
    assert shown(before) != shown(after)
    assert shown(before, task) == shown(after, task)
    rows = np.arange(len(before))
    one, other = (corpus.read(rows, task) for corpus in (before, after))
    # `entity` and `tag_ids` are places in the corpus where features of what is shown are kept
    for name in ("cu_entities", "kind", "box", "cu_tags", "has_image", "share"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), name)
    config = ModelConfig(modalities="gt")
    one, other = (Batches(corpus, config)(rows, task) for corpus in (before, after))
    for a, b in zip(one.tensors(), other.tensors(), strict=True):
        assert torch.equal(a, b)
