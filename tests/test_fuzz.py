"""Some of the fuzzer's cases, and the fuzzer itself."""

import gzip
import random
import sys
from pathlib import Path

import numpy as np
import osmium
import pytest

from geojepa.data.corpus import Corpus
from geojepa.data.prepare import prepare

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))

import fuzz
import fuzz_bytes
import fuzz_scene

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are Linux's")


def test_only_clean_errors_and_counted_skips(tmp_path):
    found = fuzz.fuzz(seed=7, numbers=list(range(25)), folder=tmp_path, is_loud=False)
    assert [told for _, verdict, told in found if verdict == "BUG"] == []
    verdicts = [verdict for _, verdict, _ in found]
    assert verdicts[:6] == ["ok"] * 6, "a file that is not spoilt"
    assert "refused" in verdicts


def test_a_case_is_told_by_its_seed_and_number():
    for number in (6, 7, 8):
        assert fuzz.make_case(3, number) == fuzz.make_case(3, number)
        assert fuzz.make_case(3, number) != fuzz.make_case(4, number)


def test_both_writers_write_the_same_town(tmp_path):
    items = fuzz_scene.town(random.Random(1))
    (tmp_path / "a.osm.pbf").write_bytes(fuzz_bytes.pbf(items, random.Random(2), False))
    (tmp_path / "a.osm.gz").write_bytes(gzip.compress(fuzz_bytes.xml(items, random.Random(2))))

    def read(path):
        objects = []
        for item in osmium.FileProcessor(str(path)):
            tags = {tag.k: tag.v for tag in item.tags}
            inside = item.location if item.is_node() else None
            inside = [node.ref for node in item.nodes] if item.is_way() else inside
            if item.is_relation():
                inside = [(member.type, member.ref, member.role) for member in item.members]
            objects.append((item.type_str(), item.id, tags, str(inside)))
        return objects

    assert len(read(tmp_path / "a.osm.pbf")) == len(items)
    assert read(tmp_path / "a.osm.pbf") == read(tmp_path / "a.osm.gz")


def test_the_judge_sees_what_is_wrong(tmp_path, monkeypatch):
    path = tmp_path / "town.osm.pbf"
    path.write_bytes(fuzz.make_case(0, 0)[2])
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(fuzz.tempfile, "gettempdir", lambda: str(scratch))

    def judged(name, value):
        place = tmp_path / f"place{len(list(tmp_path.iterdir()))}"
        place.mkdir()
        with monkeypatch.context() as patch:
            patch.setattr(name, value)
            return fuzz.judge(path, place / "c")

    def many_lines(*args):
        raise fuzz_error("a\nb")

    from geojepa.errors import GeoJEPAError as fuzz_error

    assert judged("geojepa.data.prepare.MIN_ENTITIES", 5)[0] == "ok"
    assert judged("geojepa.data.prepare.MIN_ENTITIES", 999)[0] == "refused"
    verdict, told = judged("geojepa.data.prepare.prepare", many_lines)
    assert verdict == "BUG"
    assert "not one line" in told
    verdict, told = judged("geojepa.data.prepare.prepare", lambda *args: 1 / 0)
    assert verdict == "BUG"
    assert "ZeroDivisionError" in told
    monkeypatch.setattr(Corpus, "has_images", property(lambda self: np.True_))
    verdict, told = judged("geojepa.data.prepare.MIN_ENTITIES", 5)
    assert verdict == "BUG"
    assert "an image out of nothing" in told


def test_what_spans_the_world_is_left_out_and_counted(tmp_path):
    for mutate, name in (
        (fuzz_scene.around_the_world, "features with a step over"),
        (fuzz_scene.thousands_of_long_lines, "features with a step over"),
        (fuzz_scene.areas_of_the_world, "features"),
    ):
        items = fuzz_scene.town(random.Random(0))
        mutate(items, random.Random(0))
        path = tmp_path / f"{mutate.__name__}.osm.pbf"
        path.write_bytes(fuzz_bytes.pbf(items, random.Random(0), False))
        corpus = Corpus.open(prepare([path], tmp_path / mutate.__name__))
        (place,) = corpus.infos[0]["places"]
        assert any(told.startswith(name) for told in place["skipped"]), mutate.__name__
        assert len(corpus) < 100
