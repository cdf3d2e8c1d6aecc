"""A corpus on disk: content, hash, joining, replacement, refusal."""

import json
import os
import signal
import subprocess
import sys

import datasets
import geopandas
import numpy as np
import pandas as pd
import pytest
import rasterio
import shapely
from handmade import node, relation, way, write_osm

from geojepa.data import table
from geojepa.data.corpus import Corpus
from geojepa.data.grid import to_degrees
from geojepa.data.meaning import TASKS
from geojepa.data.prepare import prepare
from geojepa.data.writing import SCHEMA, CorpusWriter
from geojepa.errors import GeoJEPAError
from geojepa.files import whole

U, V = 33000, 2**16 - 1 - 30500


def objects(seed=0, shift=0, shop="bakery"):
    """Twelve nodes, six ways and a relation in two tiles."""
    rng = np.random.default_rng(seed)
    places = to_degrees(rng.uniform((U + shift, V), (U + shift + 2, V + 1), (12, 2)))
    nodes = [node(k + 1, *place, shop=shop) for k, place in enumerate(places)]
    ways = [way(k + 1, [2 * k + 1, 2 * k + 2], highway="path", lanes=str(k)) for k in range(6)]
    return [*nodes, *ways, relation(1, [("w", 1, ""), ("n", 5, "")], type="site", site="x")]


def contents(corpus) -> list:
    data = corpus.read(np.arange(len(corpus)))
    shapes = shapely.to_wkb(data.geometry).tolist()
    return [
        *zip(data.feature_id, data.tags(), data.kind, map(bytes, data.box), shapes, strict=True)
    ]


def test_hash_tells_content_and_nothing_else(tmp_path):
    def hash_of(items, name="a", suffix=".osm.pbf"):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        path = write_osm(folder / f"{name}{suffix}", items)
        return Corpus.open(prepare([path], folder / "c")).hash

    first = hash_of(objects())
    mixed = [objects()[i] for i in np.random.default_rng(1).permutation(len(objects()))]
    assert hash_of(objects()) == hash_of(mixed) == hash_of(objects(), suffix=".osm.gz") == first
    changed = [hash_of(objects(shop="deli")), hash_of(objects(seed=1)), hash_of(objects()[:-1])]
    assert len({first, hash_of(objects(), name="b"), *changed}) == 5


def test_hash_is_the_same_on_any_processor(city, tmp_path, monkeypatch):
    def hash_of(name):
        return Corpus.open(prepare([city.extract], tmp_path / name, simplify=0.3, processes=1)).hash

    def inexact(function):
        # NumPy's last bit is another where a processor has other vector instructions
        def call(*values):
            found = np.asarray(function(*values), dtype=np.float64)
            return np.nextafter(found, rng.choice([-np.inf, np.inf], found.shape))

        return call

    rng, first = np.random.default_rng(0), hash_of("a")
    plain = ("sin", "cos", "tan", "sinh", "cosh", "hypot")
    for name in (*plain, "arcsin", "arctan", "arctan2", "arcsinh"):
        monkeypatch.setattr(np, name, inexact(getattr(np, name)))
    assert hash_of("b") == first


def test_hash_tells_images_too(city, tiny_corpus, tmp_path):
    bare = Corpus.open(prepare([city.extract], tmp_path / "bare"))
    assert bare.hash != tiny_corpus.hash
    assert not bare.has_images
    assert bare.read([0]).image is None
    assert contents(bare) == contents(tiny_corpus)


def test_tiles_say_what_they_are(tiny_corpus):
    tiles = tiny_corpus.tiles
    assert tiles.crs == 4326
    assert tiles.tile_id.tolist() == [f"16_{x}_{y}" for x, y in zip(tiles.x, tiles.y, strict=True)]
    assert tiles.index.tolist() == list(range(len(tiles)))
    assert (tiles.entities >= 5).all()
    assert set(TASKS) <= set(tiles.columns)
    assert len(tiny_corpus) == len(tiles) == len(tiny_corpus.usable)
    data = tiny_corpus.read(np.arange(len(tiles)))
    np.testing.assert_array_equal(np.diff(data.cu_entities), tiles.entities)
    bounds = shapely.bounds(data.geometry)
    assert bounds.min() >= -1e-9
    assert bounds.max() <= 1 + 1e-9
    assert data.box.dtype == np.float32
    assert data.kind.dtype == np.uint8


def test_images_are_those_of_the_picture(city, tiny_corpus):
    """Colours at the middle of tiles, read off the raster by coordinates."""
    row = np.arange(0, len(tiny_corpus), 5)
    images = tiny_corpus.read(row).image
    half = np.pi * 6378137
    with rasterio.open(city.imagery) as raster:
        for image, (x, y) in zip(
            images, tiny_corpus.tiles.loc[row, ["x", "y"]].to_numpy(), strict=True
        ):
            corner = [(k / 2**16 * 2 - 1) * half for k in (x, 2**16 - 1 - y)]
            side = 2 * half / 2**16
            window = raster.window(*corner, corner[0] + side, corner[1] + side)
            ground = raster.read(window=window).astype(float)
            for rows, columns in ((slice(0, 112), slice(0, 112)), (slice(112, 224), slice(0, 112))):
                scale = ground.shape[1] / 224
                there = ground[:, *(slice(int(s.start * scale), int(s.stop * scale))
                                    for s in (rows, columns))]  # fmt: skip
                found = image[rows, columns].astype(float).mean(axis=(0, 1))
                np.testing.assert_allclose(found, there.mean(axis=(1, 2)), atol=2.5)


def test_hugging_face_datasets_reads_the_same(tmp_path, tiny_corpus):
    path = write_osm(tmp_path / "a.osm.pbf", objects())
    joint = Corpus.open([prepare([path], tmp_path / "a"), tiny_corpus.paths[0]])
    rows = joint.dataset
    assert rows.features == datasets.Features.from_arrow_schema(SCHEMA)
    assert rows["tile_id"][:] == joint.tiles.tile_id.tolist()
    for row in (0, 3, len(joint) - 1):
        data, found = joint.read([row]), rows[row]
        assert found["feature_id"] == data.feature_id
        assert found["kind"] == data.kind.tolist()
        assert np.float32(found["box"]).tolist() == data.box.tolist()
        assert [len(tags) for tags in found["tags"]] == np.diff(data.cu_tags).tolist()
        assert found["share"] == data.share.tolist()
        assert shapely.from_wkb(found["geometry"]).tolist() == data.geometry.tolist()
        assert (found["image"] is not None) == data.has_image[0]


def test_joined_corpora_share_one_vocabulary(tmp_path, tiny_corpus):
    paths = []
    for name, shift, shop in (("a", 0, "bakery"), ("b", 7, "deli")):
        path = write_osm(tmp_path / f"{name}.osm.pbf", objects(shift=shift, shop=shop))
        paths.append(prepare([path], tmp_path / name))
    alone = [Corpus.open(path) for path in paths]
    joint = Corpus.open([*paths[::-1], tiny_corpus.paths[0]])
    assert len(set(joint.vocabulary)) == len(joint.vocabulary)
    assert contents(joint) == [*contents(alone[1]), *contents(alone[0]), *contents(tiny_corpus)]
    both = Corpus.open(prepare([tmp_path / f"{n}.osm.pbf" for n in "ba"], tmp_path / "both"))
    assert contents(both) == [*contents(alone[1]), *contents(alone[0])]
    assert joint.hash == "+".join(c.hash for c in (alone[1], alone[0], tiny_corpus))
    assert joint.tiles.place.unique().tolist() == ["b", "a", "lilliput"]
    # only the last has images
    rows = np.array([0, len(joint) - 1])
    data = joint.read(rows)
    assert data.has_image.tolist() == [False, True]
    assert not data.image[0].any()
    np.testing.assert_array_equal(data.image[1], tiny_corpus.images([len(tiny_corpus) - 1])[0])
    with pytest.raises(GeoJEPAError, match="a: in two of the corpora"):
        Corpus.open([paths[0], tmp_path / "both"])


def test_footprints_with_groups_and_images(tmp_path):
    path = write_osm(tmp_path / "a.osm.pbf", objects())
    corners = np.array(
        [[U, V], [U + 2, V + 1], [U, V], [U + 1, V + 1], [U + 9, V], [U + 10, V + 1]]
    )
    boxes = [shapely.box(*to_degrees(c).ravel()) for c in corners.reshape(3, 2, 2)]
    frame = geopandas.GeoDataFrame(
        {"tile_id": ["wide", "west", "far"], "group": ["g", None, "g"]}, geometry=boxes, crs=4326
    )
    for name, write in (("f.parquet", frame.to_parquet), ("f.gpkg", frame.to_file)):
        write(tmp_path / name)
        corpus = Corpus.open(prepare([path], tmp_path / "c", footprints=tmp_path / name))
        tiles = corpus.tiles.set_index("tile_id")
        assert tiles.index.tolist() == ["wide", "west"]
        assert tiles.group.tolist() == ["g", ""]
        assert tiles[["x", "y"]].to_numpy().tolist() == [[-1, -1], [33000, 30500]]
        assert tiles.loc["wide", "entities"] == 12 + 6 + 1
        assert tiles.ground_m["wide"] == pytest.approx(2 * tiles.ground_m["west"], rel=1e-4)
        # footprints of one size at a time
        assert len(corpus.usable) == 1
        assert corpus.infos[0]["footprints"]["without_a_feature"] == 1


def test_limits_of_entities(tmp_path):
    crowd = [
        node(k + 1, *place, shop="x")
        for k, place in enumerate(
            to_degrees(np.random.default_rng(0).uniform((U, V), (U + 1, V + 1), (1251, 2)))
        )
    ]
    few = [
        node(2000 + k, *to_degrees(np.array([[U + 3.5, V + 0.5]]))[0], shop="x") for k in range(4)
    ]
    corpus = Corpus.open(prepare([write_osm(tmp_path / "a.osm.pbf", crowd + few)], tmp_path / "c"))
    assert corpus.tiles.entities.tolist() == [1251]
    assert len(corpus.usable) == 0
    place = corpus.infos[0]["places"][0]
    assert (place["tiles_below_limit"], place["tiles_above_limit"]) == (1, 1)


def test_a_table_has_labels_only_for_the_keys_it_carries(tmp_path):
    boxes = shapely.transform(
        shapely.box(U + np.arange(6) / 10, V + 0.1, U + np.arange(6) / 10 + 0.05, V + 0.2),
        to_degrees,
    )
    frame = geopandas.GeoDataFrame({"building": ["yes"] * 6}, geometry=boxes, crs=4326)
    frame.to_parquet(tmp_path / "a.parquet")
    tiles = Corpus.open(prepare([tmp_path / "a.parquet"], tmp_path / "c")).tiles
    assert tiles.building_count.tolist() == [6]
    assert tiles[[t for t in TASKS if t != "building_count"]].isna().all(axis=None)


def test_a_table_is_read_in_parts_of_any_size(tmp_path, monkeypatch):
    corners = np.random.default_rng(0).uniform((U, V), (U + 2, V + 1), (60, 2))
    shapes = shapely.transform(shapely.box(*corners.T, *(corners + 0.1).T), to_degrees)
    frame = geopandas.GeoDataFrame({"building": ["yes", "house"] * 30}, geometry=shapes, crs=4326)
    found = set()
    for rows, batch in ((60, 60), (7, 60), (60, 8), (25, 4)):
        frame.to_parquet(tmp_path / "a.parquet", row_group_size=rows)
        monkeypatch.setattr(table, "BATCH_ROWS", batch)
        corpus = Corpus.open(prepare([tmp_path / "a.parquet"], tmp_path / "c"))
        found.add((corpus.hash, *sorted(set(corpus.read(np.arange(len(corpus))).feature_id))))
    assert len(found) == 1
    assert found.pop()[1:] == tuple(sorted(map(str, range(60))))


def test_prepare_replaces_a_corpus_whole_and_nothing_else(tmp_path):
    path = write_osm(tmp_path / "a.osm.pbf", objects())
    out = prepare([path], tmp_path / "c")
    (out / "stray").touch()
    first = Corpus.open(out).hash
    assert Corpus.open(prepare([path], out)).hash == first
    assert not (out / "stray").exists()
    (tmp_path / "empty").mkdir()
    prepare([path], tmp_path / "empty")
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    for target in (mine, mine / "thesis.txt"):
        with pytest.raises(GeoJEPAError, match="exists and is not a corpus"):
            prepare([path], target)
    assert (mine / "thesis.txt").read_text() == "years of work"
    assert not list(tmp_path.glob("*.part"))


def test_a_failing_write_leaves_the_old(tmp_path, monkeypatch):
    path = write_osm(tmp_path / "a.osm.pbf", objects())
    out = prepare([path], tmp_path / "c")
    before = Corpus.open(out).hash

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(CorpusWriter, "finish", full)
    with pytest.raises(GeoJEPAError, match=r"c: cannot be written .*No space left"):
        prepare([write_osm(tmp_path / "b.osm.pbf", objects(seed=3))], out)
    assert Corpus.open(out).hash == before
    assert not list(tmp_path.glob("*.part"))


KILLED = """
import os, signal, sys
from geojepa.data.prepare import prepare
from geojepa.data.writing import SCHEMA, CorpusWriter
finish = CorpusWriter.finish
def die(self):
    finish(self)
    os.kill(os.getpid(), signal.SIGKILL)
CorpusWriter.finish = die
prepare([sys.argv[1]], sys.argv[2])
"""


def test_a_killed_prepare_leaves_the_old(tmp_path):
    out = prepare([write_osm(tmp_path / "a.osm.pbf", objects())], tmp_path / "c")
    before = Corpus.open(out).hash
    other = write_osm(tmp_path / "b.osm.pbf", objects(seed=3))
    done = subprocess.run([sys.executable, "-c", KILLED, str(other), str(out)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert Corpus.open(out).hash == before
    assert Corpus.open(prepare([other], out)).hash != before


def test_whole_replaces_files_and_folders_only_on_success(tmp_path):
    file, folder = tmp_path / "file", tmp_path / "deep" / "folder"
    for k in range(2):
        with whole(file) as part:
            part.write_text(str(k))
        with whole(folder) as part:
            part.mkdir()
            (part / str(k)).touch()
    for target in (file, folder):
        with pytest.raises(ZeroDivisionError), whole(target) as part:
            part.write_text(f"half {1 / 0}")
    assert file.read_text() == "1"
    assert os.listdir(folder) == ["1"]
    assert sorted(os.listdir(tmp_path)) == ["deep", "file"]
    with pytest.raises(GeoJEPAError, match="cannot be written"), whole(file / "below") as part:
        pass
    with pytest.raises(GeoJEPAError, match="cannot be written"), whole(folder) as part:
        part.write_text("a file in place of a folder")
    assert os.listdir(folder) == ["1"]


def test_what_is_no_corpus_is_refused(tmp_path, tiny_corpus):
    with pytest.raises(GeoJEPAError, match="not a corpus; make one"):
        Corpus.open(tmp_path)
    with pytest.raises(GeoJEPAError, match="no corpus given"):
        Corpus.open([])
    info = json.loads((tiny_corpus.paths[0] / "corpus.json").read_text())
    for text, cause in (
        ("{", "damaged"),
        ("{}", "damaged"),
        (json.dumps(info), "damaged"),
        (json.dumps(info | {"schema": 0}), "damaged"),
    ):
        (tmp_path / "corpus.json").write_text(text)
        with pytest.raises(GeoJEPAError, match=cause):
            Corpus.open(tmp_path)


def test_a_cut_off_or_foreign_table_is_refused(tmp_path):
    path = write_osm(tmp_path / "a.osm.pbf", objects())
    out = prepare([path], tmp_path / "c")
    table = next(out.glob("*.arrow"))
    table.write_bytes(table.read_bytes()[:500])
    with pytest.raises(GeoJEPAError, match="damaged"):
        Corpus.open(out)
    out = prepare([path], out)
    info = json.loads((out / "corpus.json").read_text())
    (out / "corpus.json").write_text(json.dumps(info | {"schema": 99}))
    with pytest.raises(GeoJEPAError, match="schema 99 is not 2; prepare it again"):
        Corpus.open(out)


def test_labels_are_missing_and_not_zero(tiny_corpus):
    speed = tiny_corpus.tiles.max_speed
    assert speed.isna().any()
    assert (speed.dropna() > 0).all()
    assert pd.api.types.is_float_dtype(speed)
