"""The command line: what it writes, and one line for each mistake."""

import json
import re
import shutil
import sys
from pathlib import Path

import geopandas
import numpy as np
import pandas as pd
import pyarrow.parquet
import pytest
import rasterio
import shapely
from handmade import node, write_osm
from rasterio.transform import from_bounds

from geojepa.__main__ import main
from geojepa.data.labels import TASKS
from geojepa.model.embedding import embed_regions
from geojepa.training.checkpoint import load_run, load_tensors, save_tensors


@pytest.fixture
def geojepa(monkeypatch, capsys):
    """Run a command; returns its exit status, output and error text."""

    def run(*words) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["geojepa", *map(str, words)])
        try:
            main()
            status = 0
        except SystemExit as end:
            status = end.code or 0
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def refused(geojepa):
    """Run a command that must fail; returns the one line that it says."""

    def run(*words) -> str:
        status, out, err = geojepa(*words)
        lines = [line for line in err.splitlines() if "\r" not in line and "it/s" not in line]
        assert (status, out, len(lines)) == (2, "", 1), (status, out, err)
        assert lines[0].startswith("geojepa: ")
        return lines[0].removeprefix("geojepa: ")

    return run


@pytest.fixture(scope="module")
def run_folder(tiny_corpus, tmp_path_factory):
    """A short run by the command line, fold 0."""
    folder = tmp_path_factory.mktemp("runs") / "a"
    words = ["pretrain", str(tiny_corpus.paths[0]), "--out", str(folder), "--preset", "small-t"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["geojepa", *words, "--epochs", "1"])
        main()
    return folder


def names_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_city_prepare_and_inspect(geojepa, tmp_path):
    assert geojepa("city", "--out", tmp_path, "--size", 6)[0] == 0
    city = [tmp_path / f"lilliput.{suffix}" for suffix in ("osm.pbf", "tif")]
    corpus, labels = tmp_path / "corpus" / "lilliput", tmp_path / "labels.csv"
    status, told, _ = geojepa("prepare", city[0], "--out", corpus, "--imagery", city[1])
    assert status == 0
    status, again, _ = geojepa("inspect", corpus)
    assert status == 0
    assert told.startswith("lilliput: 34 tiles, 34 with image; ")
    assert re.search(r"\(hash \w+\)", told)[0] in again
    assert "tags in the table of embeddings: exact" in again
    for word in ("tiles", "entities", "tags", *TASKS, "fold 0", "lilliput"):
        assert word in again
    status, text, _ = geojepa("inspect", corpus, "--json", "--labels", labels)
    assert status == 0
    found = json.loads(text)
    table = pd.read_csv(labels)
    assert list(table.columns) == ["tile_id", "entities", *TASKS]
    assert len(table) == found["tiles"] == found["tiles_with_image"]
    assert table.entities.sum() == found["entities"] == sum(found["entities_by_kind"].values())
    for task in TASKS:
        assert found["labels"][task]["tiles"] == table[task].notna().sum()
        assert found["labels"][task]["positive"] == (table[task] > 0).sum()
        told = found["labels"][task]
        if task == "max_speed":
            # a sum of speeds would mean nothing
            assert told["mean"] == pytest.approx(table[task].mean(), abs=0.1)
            assert f"mean {told['mean']} km/h" in again
        else:
            assert told["total"] == table[task].sum()
        assert ("total" in told) != ("mean" in told)
    assert table.tile_id.str.fullmatch(r"16_\d+_\d+").all()
    # whole numbers are written so, and a missing label is nothing
    lines = labels.read_text().splitlines()
    assert lines[0] == f"tile_id,entities,{','.join(TASKS)}"
    assert not any(cell.endswith(".0") for line in lines for cell in line.split(",")[:4])
    assert any(line.split(",")[4] == "" for line in lines)


def test_inspect_of_several_corpora(geojepa, tiny_corpus, tmp_path):
    places = np.random.default_rng(0).uniform(0, 0.004, (8, 2))
    path = write_osm(
        tmp_path / "a.osm.pbf", [node(k + 1, *place, shop="x") for k, place in enumerate(places)]
    )
    assert geojepa("prepare", path, "--out", tmp_path / "c")[0] == 0
    status, text, _ = geojepa("inspect", tmp_path / "c", tiny_corpus.paths[0], "--json")
    assert status == 0
    assert json.loads(text)["tiles"] == len(tiny_corpus) + 1


def test_bad_extracts_leave_nothing(refused, tmp_path, city):
    inputs = tmp_path / "in"
    inputs.mkdir()
    whole = city.extract.read_bytes()
    cases = {
        "missing.osm.pbf": (None, "no such file"),
        "empty.osm.pbf": (b"", "is empty"),
        "text.pbf": (b"this is no map\n" * 99, "cannot be read as OpenStreetMap data"),
        "third.osm.pbf": (whole[: len(whole) // 3], "cannot be read as OpenStreetMap data"),
        "almost.osm.pbf": (whole[:-1], "cannot be read as OpenStreetMap data"),
        "head.osm.pbf": (whole[:80], "cannot be read as OpenStreetMap data"),
        "text.parquet": (b"a,b\n1,2\n", "cannot be read as GeoParquet"),
    }
    for name, (content, cause) in cases.items():
        if content is not None:
            (inputs / name).write_bytes(content)
        told = refused("prepare", inputs / name, "--out", tmp_path / "out" / "c")
        assert told.startswith(str(inputs / name))
        assert cause in told
    sparse = [node(k, k / 10, 0, shop="x") for k in range(1, 9)]
    path = write_osm(inputs / "sparse.osm.pbf", sparse)
    told = refused("prepare", path, "--out", tmp_path / "out" / "c")
    assert told.startswith(str(path))
    assert "no tile holds 5 entities; give a larger or richer extract" in told
    assert names_below(tmp_path) == {"in", *(f"in/{p.name}" for p in inputs.iterdir())}


def test_imagery_and_footprints_of_another_place_leave_nothing(refused, tmp_path, city):
    out = tmp_path / "c"
    far = tmp_path / "far.tif"
    place = from_bounds(1e6, 6e6, 1.01e6, 6.01e6, 8, 8)
    about = {"driver": "GTiff", "count": 3, "dtype": "uint8", "crs": "EPSG:3857"}
    with rasterio.open(far, "w", width=8, height=8, transform=place, **about) as file:
        file.write(np.full((3, 8, 8), 9, np.uint8))
    told = refused("prepare", city.extract, "--out", out, "--imagery", far)
    assert told.startswith(f"{far}: the imagery covers no tile")
    told = refused("prepare", city.extract, "--out", out, "--imagery", tmp_path / "no.tif")
    assert told.startswith(f"{tmp_path / 'no.tif'}: no such imagery")

    def footprints(name, shape, crs=4326):
        path = tmp_path / name
        geopandas.GeoDataFrame(geometry=[shape], crs=crs).to_parquet(path)
        return path

    ground = shapely.box(9, 47, 9.1, 47.1)
    text = tmp_path / "text.parquet"
    text.write_text("no polygons")
    cases = [
        (
            footprints("sea.parquet", ground),
            "lies in any footprint; give footprints of the same place",
        ),
        (footprints("dot.parquet", shapely.Point(9, 47)), "must be a polygon"),
        (footprints("none.parquet", ground, None), "coordinate reference system"),
        (text, "not readable as polygons"),
        (tmp_path / "missing.parquet", "no such footprints"),
    ]
    for path, cause in cases:
        told = refused("prepare", city.extract, "--out", out, "--footprints", path)
        assert cause in told
        assert str(path) in told
    assert not out.exists()
    assert not list(tmp_path.glob("*.part"))


def test_places_that_cannot_be_written(refused, tmp_path, city, tiny_corpus):
    file = tmp_path / "file"
    file.write_text("mine")
    assert "cannot be written" in refused("prepare", city.extract, "--out", file / "c")
    assert "is not a corpus" in refused("prepare", city.extract, "--out", file)
    assert file.read_text() == "mine"


def test_what_is_no_corpus_or_no_run(refused, tmp_path, tiny_corpus, run_folder):
    corpus = tiny_corpus.paths[0]
    for words in (
        ["inspect", tmp_path],
        ["pretrain", tmp_path, "--out", tmp_path / "run"],
        ["embed", run_folder, tmp_path, "--out", tmp_path / "e.parquet"],
        ["benchmark", run_folder, tmp_path],
    ):
        assert refused(*words) == f"{tmp_path}: not a corpus; make one with geojepa prepare"
    for words in (
        ["embed", tmp_path, corpus, "--out", tmp_path / "e.parquet"],
        ["benchmark", tmp_path, corpus],
    ):
        told = refused(*words)
        assert told.startswith(str(tmp_path))
        assert "geojepa pretrain" in told
    assert names_below(tmp_path) == set()


def test_unknown_preset_and_task(refused, tmp_path, tiny_corpus, run_folder):
    corpus = tiny_corpus.paths[0]
    told = refused("pretrain", corpus, "--out", tmp_path / "run", "--preset", "small-x")
    assert "preset 'small-x' does not exist; choose one of small-t" in told
    told = refused("benchmark", run_folder, corpus, "--task", "rivers", "--out", tmp_path / "t.csv")
    assert "rivers" in told
    assert all(task in told for task in TASKS)
    assert names_below(tmp_path) == set()


def test_a_vision_model_for_a_preset_without_images(refused, tmp_path, tiny_corpus):
    words = ("--out", tmp_path / "run", "--preset", "smoke-t", "--image", "facebook/dinov2-base")
    told = refused("pretrain", tiny_corpus.paths[0], *words)
    assert "modalities t have no images" in told
    assert names_below(tmp_path) == set()


@pytest.mark.parametrize("weights", ["last", "best"])
def test_embeddings_are_of_the_weights_that_are_asked_for(
    weights, geojepa, tmp_path, tiny_corpus, run_folder
):
    out, run = tmp_path / "e.parquet", tmp_path / "run"
    shutil.copytree(run_folder, run)
    tensors, told = load_tensors(run / "best.safetensors")
    save_tensors(run / "best.safetensors", {k: v / 2 for k, v in tensors.items()}, told)
    words = ("embed", run, tiny_corpus.paths[0], "--out", out, "--weights", weights)
    assert geojepa(*words)[0] == 0
    found = geopandas.read_parquet(out)
    expected, other = (
        np.stack(embed_regions(load_run(run, which)[0], tiny_corpus)["embedding"])
        for which in (weights, {"last": "best", "best": "last"}[weights])
    )
    np.testing.assert_allclose(np.stack(found["embedding"]), expected, atol=1e-4)
    assert np.abs(expected - other).max() > 0.1
    told = json.loads(pyarrow.parquet.read_schema(out).metadata[b"geojepa"])
    assert told["run"]["weights"] == weights


def test_checkpoint_of_another_model(refused, tmp_path, tiny_corpus, run_folder):
    other = tmp_path / "run"
    other.mkdir()
    config = json.loads((run_folder / "config.json").read_text())
    config["train"]["model"]["width"] *= 2
    (other / "config.json").write_text(json.dumps(config))
    weights = (run_folder / "model.safetensors").read_bytes()
    out = tmp_path / "e.parquet"
    for content, cause in ((weights, "weights of another model"), (weights[:99], "not a readable")):
        (other / "model.safetensors").write_bytes(content)
        told = refused("embed", other, tiny_corpus.paths[0], "--out", out)
        assert told.startswith(str(other / "model.safetensors"))
        assert cause in told
    (other / "model.safetensors").unlink()
    assert "run geojepa pretrain again" in refused(
        "embed", other, tiny_corpus.paths[0], "--out", out
    )
    assert not out.exists()


def test_benchmark_on_tiles_that_the_run_was_trained_on(refused, tmp_path, tiny_corpus, run_folder):
    told = refused(
        *("benchmark", run_folder, tiny_corpus.paths[0]),
        *("--split", "fold 2 of 5", "--out", tmp_path / "t.csv"),
    )
    assert re.search(r"has seen \d+ of \d+ test tiles; .* --transductive", told)
    assert names_below(tmp_path) == set()


def test_a_wrong_word_is_refused(geojepa):
    for words in (["prepar"], ["prepare", "--ou", "x"], ["inspect", "a", "--jsn"]):
        status, _, _ = geojepa(*words)
        assert status == 2
