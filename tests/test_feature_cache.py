"""Cached token features: equal to direct computation, whatever happens to the files."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from geojepa.data.corpus import Corpus
from geojepa.data.prepare import prepare
from geojepa.model import frozen
from geojepa.model.feature_cache import Rows
from geojepa.model.frozen import geometry_features, patch_features
from geojepa.model.geometry import encode_geometries

# a process that computes the same features
SCRIPT = """
import sys
from geojepa.data.corpus import Corpus
from geojepa.model.frozen import geometry_features
geometry_features(Corpus.open(sys.argv[1]))
"""


class MeanColour:
    """The mean colour of each quarter of an image."""

    name = "mean colour 1"
    shape = (4, 3)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        n = len(images)
        quarters = images.reshape(n, 2, 112, 2, 112, 3).astype(np.float32)
        return quarters.mean(axis=(2, 4)).reshape(n, 4, 3) / 255


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path) -> Path:
    """The user's cache, empty."""
    monkeypatch.setenv("GEOJEPA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def corpus(tiny_corpus, tmp_path) -> Corpus:
    """A copy without features."""
    ignored = shutil.ignore_patterns("features")
    return Corpus.open(shutil.copytree(tiny_corpus.paths[0], tmp_path / "one", ignore=ignored))


@pytest.fixture(scope="module")
def twin(city, tmp_path_factory) -> Path:
    """Another corpus, of simpler geometries and without images."""
    folder = tmp_path_factory.mktemp("twin")
    extract = Path(shutil.copy(city.extract, folder / "twin.osm.pbf"))
    return prepare([extract], folder / "twin", simplify=10.0)


@pytest.fixture
def counted(monkeypatch) -> list[int]:
    """How many geometries each call of the encoder is given."""
    calls: list[int] = []

    def encode(geometry, box):
        calls.append(len(geometry))
        return encode_geometries(geometry, box)

    monkeypatch.setattr(frozen, "encode_geometries", encode)
    return calls


def everything(rows: Rows) -> np.ndarray:
    return rows[np.arange(len(rows))]


def direct_geometry(corpus: Corpus, rows: np.ndarray) -> np.ndarray:
    data = corpus.read(rows)
    return encode_geometries(data.geometry, data.box)


def files(corpus: Corpus) -> list[Path]:
    return sorted((corpus.paths[0] / "features").iterdir())


def shuffled(corpus: Corpus) -> np.ndarray:
    return np.random.default_rng(0).permutation(len(corpus))


def test_features_equal_direct_computation(corpus, monkeypatch):
    monkeypatch.setattr(frozen, "LOT_IMAGES", 5)
    rows = shuffled(corpus)
    entity = corpus.read(rows).entity
    for _ in range(2):
        geometry = geometry_features(corpus)
        assert geometry.dtype == np.float32
        assert len(geometry) == corpus.entities
        np.testing.assert_allclose(geometry[entity], direct_geometry(corpus, rows), atol=1e-6)


def test_features_are_mapped_and_never_written(corpus):
    geometry_features(corpus)
    npy = next(path for path in files(corpus) if path.suffix == ".npy")
    assert [path.suffix for path in files(corpus)] == [".json", ".npy"]
    # an ordinary array file to anybody else
    plain = np.load(npy)
    (part,) = geometry_features(corpus)._parts
    assert isinstance(part.base, np.memmap)
    assert not part.flags.writeable
    np.testing.assert_array_equal(plain, part)
    assert json.loads(npy.with_suffix(".json").read_text()) == {
        "kind": "geometry",
        "corpus": corpus.hash,
        "encoder": f"fourier {frozen.ENCODER_VERSION}",
        "dtype": "float32",
        "shape": list(plain.shape),
    }


def test_patches_lie_where_their_images_do(corpus):
    corpus.has_image[[0, 3]] = False
    found = patch_features(corpus, MeanColour())
    tiles = np.flatnonzero(corpus.has_image)
    assert found.shape == (4 * len(tiles), 3)
    image = len(tiles) - 1
    north_east = corpus.images(tiles[-1:])[0, :112, 112:].mean(axis=(0, 1)) / 255
    np.testing.assert_allclose(found[4 * image + np.array([1])][0], north_east, atol=1e-3)


def test_a_corpus_without_images_has_no_patches(twin):
    found = patch_features(Corpus.open(twin), MeanColour())
    assert found.shape == (0, 3)
    assert found[np.empty(0, int)].shape == (0, 3)


def test_an_encoder_that_breaks_its_word_is_told(corpus):
    encoder = MeanColour()
    encoder.shape = (2, 3)
    with pytest.raises(ValueError, match=r"features of mean colour 1, not \d+"):
        patch_features(corpus, encoder)
    assert not (corpus.paths[0] / "features").exists()


def cut_short(npy: Path) -> None:
    npy.write_bytes(npy.read_bytes()[:-5])


def lengthen(npy: Path) -> None:
    npy.write_bytes(npy.read_bytes() + b"more")


def empty(npy: Path) -> None:
    npy.write_bytes(b"")


def of_another_shape(npy: Path) -> None:
    np.save(npy, np.load(npy)[:, :3])


def transpose(npy: Path) -> None:
    np.save(npy, np.asfortranarray(np.load(npy)))


def forget(npy: Path) -> None:
    npy.with_suffix(".json").unlink()


def confuse(npy: Path) -> None:
    npy.with_suffix(".json").write_text("{")


def say_another_corpus(npy: Path) -> None:
    path = npy.with_suffix(".json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"corpus": "0123456789abcdef"}))


DAMAGES = [cut_short, lengthen, empty, of_another_shape, transpose]


@pytest.mark.parametrize(
    "damage", [*DAMAGES, forget, confuse, say_another_corpus, Path.unlink], ids=lambda f: f.__name__
)
def test_damaged_files_are_computed_again(corpus, counted, damage):
    before = everything(geometry_features(corpus))
    names = files(corpus)
    damage(next(path for path in names if path.suffix == ".npy"))
    np.testing.assert_array_equal(everything(geometry_features(corpus)), before)
    assert counted == [len(before)] * 2
    geometry_features(corpus)
    assert len(counted) == 2
    assert files(corpus) == names


def test_another_encoder_and_another_corpus_have_files_of_their_own(corpus, twin, monkeypatch):
    geometry_features(corpus)
    monkeypatch.setattr(frozen, "ENCODER_VERSION", 1000)
    geometry_features(corpus)
    first = {path.name for path in files(corpus)}
    assert len(first) == 4
    geometry_features(Corpus.open(twin))
    assert not first & {path.name for path in files(Corpus.open(twin))}


def test_joined_corpora_read_the_files_of_each(corpus, twin, counted):
    joined = Corpus.open([corpus.paths[0], twin])
    both = [len(everything(geometry_features(Corpus.open(path)))) for path in joined.paths]
    assert min(both) > 0
    computed = len(counted)
    rows = shuffled(joined)
    entity = joined.read(rows).entity
    found = geometry_features(joined)
    assert found.shape == (sum(both), frozen.GEOMETRY_DIM)
    np.testing.assert_allclose(found[entity], direct_geometry(joined, rows), atol=1e-6)
    assert found[np.empty(0, int)].shape == (0, frozen.GEOMETRY_DIM)
    assert len(counted) == computed
    assert len(patch_features(joined, MeanColour())) == 4 * int(joined.has_image.sum())


def test_rows_are_gathered_from_parts_in_any_order():
    parts = [np.arange(8.0).reshape(4, 2), np.empty((0, 2)), np.arange(8.0, 14.0).reshape(3, 2)]
    rows = np.random.default_rng(0).integers(0, 7, 50)
    np.testing.assert_array_equal(Rows(parts)[rows], np.concatenate(parts)[rows])


def test_a_folder_that_cannot_be_written_to(corpus, counted, cache, capsys):
    """A file in the way of the folder stops everybody, also those whom no permission stops."""
    in_the_way = corpus.paths[0] / "features"
    in_the_way.write_text("")
    direct = direct_geometry(corpus, np.arange(len(corpus)))
    np.testing.assert_allclose(everything(geometry_features(corpus)), direct, atol=1e-6)
    assert len(list((cache / "features").glob("geometry-*.npy"))) == 1
    geometry_features(corpus)
    assert len(counted) == 1
    assert "memory" not in capsys.readouterr().err

    shutil.rmtree(cache)
    cache.write_text("")
    np.testing.assert_allclose(everything(geometry_features(corpus)), direct, atol=1e-6)
    notes = [line for line in capsys.readouterr().err.splitlines() if "memory" in line]
    assert len(notes) == 1
    assert notes[0].startswith("one: geometry features are held in memory")
    assert "GEOJEPA_CACHE" in notes[0]


def test_features_beside_a_corpus_that_became_read_only_are_used(corpus, counted, cache):
    geometry_features(corpus)
    (corpus.paths[0] / "features").chmod(0o555)
    geometry_features(corpus)
    assert len(counted) == 1
    assert not cache.exists()


def test_two_processes_at_once_leave_one_whole_file(corpus, monkeypatch):
    """Another process starts and ends while this one is at its first lot."""
    folder = corpus.paths[0] / "features"
    theirs = []

    def encode(geometry, box):
        assert [path.suffix for path in folder.iterdir()] == [".part"]
        subprocess.run([sys.executable, "-c", SCRIPT, str(corpus.paths[0])], check=True)
        theirs.append(geometry_features(corpus))
        return encode_geometries(geometry, box)

    monkeypatch.setattr(frozen, "encode_geometries", encode)
    ours = everything(geometry_features(corpus))
    assert len(theirs) == 1
    np.testing.assert_array_equal(ours, everything(theirs[0]))
    assert [path.suffix for path in files(corpus)] == [".json", ".npy"]
