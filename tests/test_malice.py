"""Names and tags made to do harm: on disk, on the terminal, in tables."""

import csv
import json
import os
import subprocess
import sys

import geopandas
import numpy as np
import pytest
import shapely
from handmade import node, write_osm
from osmium.osm import mutable

from geojepa.data.corpus import Corpus
from geojepa.data.inspect import summary, summary_text, write_labels
from geojepa.data.prepare import prepare
from geojepa.errors import GeoJEPAError

NAMES = [
    "two words",
    "line\nend",
    "quote'\"`",
    "$(touch pwned)",
    ";touch pwned;",
    "-rf",
    "--out",
    "..",
    "\\..\\..",
    "\x1b[31mred\x1b[2J",
    "\x9b31m",
    "\u202egnp",
    "<b>&amp;",
    "=cmd()",
    "%0a%",
    "*?[a]",
    "http:",
    "x" * 240,
]
TAGS = [
    ("shop", "\x1b[31mred"),
    ("shop", "a\nb\tc\x07\x7f\x9b"),
    ("shop", "<script>alert(1)</script>"),
    ("shop", "../../../etc/passwd"),
    ("shop", "=1+1"),
    ("../../key", "yes"),
    ("\x1b[2J", "yes"),
    ("key,with=all%signs@\n", "v,=%@\n "),
    ("\u202eyek", "\U0001f600"),
    ("x" * 255, "y" * 255),
]


def objects(tags=()) -> list:
    items = [node(i, 11 + i * 1e-5, 55, shop=f"{i}") for i in range(1, 10)]
    return items + [
        mutable.Node(id=100 + i, version=1, location=(11.0002, 55), tags=dict([tag]))
        for i, tag in enumerate(tags)
    ]


def is_plain(text: str) -> bool:
    return all(line.isprintable() for line in text.split("\n"))


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_name_is_only_a_name(name, tmp_path, monkeypatch):
    """A relative path, in a folder of its own, so that whatever appears is seen."""
    inputs, outputs = tmp_path / "in", tmp_path / "out"
    inputs.mkdir()
    outputs.mkdir()
    extract = f"{name}.osm.pbf"
    os.rename(write_osm(inputs / "a.osm.pbf", objects()), inputs / extract)
    monkeypatch.chdir(inputs)
    # a name of dots alone is no name for a folder
    out = outputs / (name if name.strip(".") else "dots")
    corpus = Corpus.open(prepare([extract], out))
    assert os.listdir(outputs) == [out.name]
    assert os.listdir(inputs) == [extract]
    info = json.loads((out / "corpus.json").read_text())
    assert info["places"][0]["place"] == name.split(".")[0]
    assert corpus.tiles.place.unique().tolist() == [name.split(".")[0]]
    assert is_plain(summary_text(summary(corpus)))
    # in place of the old, and as an error
    assert Corpus.open(prepare([extract], out)).hash == corpus.hash
    (inputs / extract).write_bytes(b"\x00" * 99)
    with pytest.raises(GeoJEPAError) as refused:
        prepare([extract], out)
    assert is_plain(str(refused.value))
    assert "\n" not in str(refused.value)
    assert Corpus.open(out).hash == corpus.hash


def test_a_name_that_is_no_text(tmp_path):
    made = write_osm(tmp_path / "a.osm.pbf", objects())
    path = os.fsencode(tmp_path) + b"/\xff\xfe.osm.pbf"
    os.rename(made, path)
    out = tmp_path / "c"
    corpus = Corpus.open(prepare([os.fsdecode(path)], out))
    assert is_plain(summary_text(summary(corpus)))
    assert corpus.tiles.place.unique().tolist() == ["\ufffd\ufffd"]


def test_names_too_long_for_a_part_are_refused(tmp_path):
    path = write_osm(tmp_path / "a.osm.pbf", objects())
    with pytest.raises(GeoJEPAError, match="name another place"):
        prepare([path], tmp_path / ("x" * 255))
    assert os.listdir(tmp_path) == ["a.osm.pbf"]


@pytest.mark.parametrize("suffix", [".osm.pbf", ".osm.gz"])
def test_tags_are_kept_as_they_are_and_shown_as_they_should(tmp_path, suffix):
    # XML holds no control characters
    is_xml = suffix == ".osm.gz"
    tags = [t for t in TAGS if not is_xml or is_plain("".join(t))]
    path = write_osm(tmp_path / f"a{suffix}", objects(tags))
    corpus = Corpus.open(prepare([path], tmp_path / "c"))
    assert sorted(os.listdir(tmp_path)) == sorted([path.name, "c"])
    assert {(k.strip(), v.strip()) for k, v in tags} <= set(corpus.vocabulary)
    read = {tuple(t.items()) for t in corpus.read(np.arange(len(corpus))).tags()}
    assert len(read) == 9 + len(tags)
    text = summary_text(summary(corpus))
    assert is_plain(text)
    command = [sys.executable, "-m", "geojepa", "inspect", str(tmp_path / "c")]
    for more in ([], ["--json"]):
        done = subprocess.run([*command, *more], capture_output=True, check=True)
        assert is_plain(done.stdout.decode())
    assert json.loads(done.stdout)["entities"] == 9 + len(tags)


def test_a_value_of_ten_megabytes_is_cut(tmp_path):
    frame = geopandas.GeoDataFrame(
        {"shop": ["<b>" + "é" * 5_000_000, *"abcdefgh"]},
        geometry=[shapely.Point(11 + i * 1e-5, 55) for i in range(9)],
        crs=4326,
    )
    frame.to_parquet(tmp_path / "a.parquet")
    corpus = Corpus.open(prepare([tmp_path / "a.parquet"], tmp_path / "c"))
    assert max(len(value) for _, value in corpus.vocabulary) == 255
    assert sum(path.stat().st_size for path in (tmp_path / "c").iterdir()) < 100_000


def test_labels_of_tiles_with_odd_names_read_back(tmp_path):
    names = ["=1+1", 'a"b', "a,b", "line\nend", "../x", "é"]
    boxes = [shapely.box(10.9 + i * 1e-9, 54.9, 11.1, 55.1) for i in range(len(names))]
    footprints = geopandas.GeoDataFrame({"tile_id": names}, geometry=boxes, crs=4326)
    footprints.to_parquet(tmp_path / "f.parquet")
    path = write_osm(tmp_path / "a.osm.pbf", objects())
    corpus = Corpus.open(prepare([path], tmp_path / "c", footprints=tmp_path / "f.parquet"))
    write_labels(corpus, tmp_path / "labels.csv")
    with open(tmp_path / "labels.csv", newline="") as file:
        assert [row["tile_id"] for row in csv.DictReader(file)] == names
    assert sorted(os.listdir(tmp_path)) == ["a.osm.pbf", "c", "f.parquet", "labels.csv"]
