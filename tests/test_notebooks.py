"""The notebooks' form, and the whole workflow on a sample city of a hundred tiles."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from geojepa.errors import GeoJEPAError
from geojepa.figures.publish import NAMES, publish

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
# these train many runs: `make ablations`, `make study`; tests/test_ablation.py, tests/test_study.py
LONG = ("07_ablations", "10_study")
WORKFLOW = [path for path in NOTEBOOKS if path.stem not in LONG]
MADE = [name for name in NAMES if not name.startswith(("ablation", "study"))]
FILES = {"figure.png", "figure.pdf", "table.csv", "provenance.json"}
SETTINGS = {"city_size": 10, "epochs": 1, "run": "runs/trial"}

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code_cells(path: Path) -> list:
    return [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]


def test_there_are_ten_notebooks():
    assert [path.stem[:3] for path in NOTEBOOKS] == [f"{number:02}_" for number in range(1, 11)]


@each_notebook
def test_notebook_is_stored_without_outputs(path):
    for cell in code_cells(path):
        assert not cell.outputs
        assert cell.execution_count is None


@each_notebook
def test_parameters_are_one_cell_of_numbers_and_strings(path):
    tagged = [c for c in code_cells(path) if "parameters" in c.metadata.get("tags", [])]
    assert len(tagged) == 1
    for line in ast.parse(tagged[0].source).body:
        assert isinstance(line, ast.Assign)
        value = ast.literal_eval(line.value)
        assert type(value) in (int, float, str)


@each_notebook
def test_cells_are_few_and_short(path):
    cells = code_cells(path)
    assert len(cells) <= 15
    longest = max(len(cell.source.splitlines()) for cell in cells)
    assert longest <= 10


@each_notebook
def test_cell_ids_are_names(path):
    ids = [cell.id for cell in nbformat.read(path, as_version=4).cells]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[a-z][a-z0-9-]*", name) for name in ids)


def snakemake(folder: Path, *options: str, **settings: str | int) -> str:
    """Output of the workflow in a folder of its own."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "workflow/Snakefile")]
    command += ["--directory", str(folder), "--cores", "2", "--nolock", *options, "--config"]
    command += [f"{key}={value}" for key, value in (SETTINGS | settings).items()]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command,
        env=os.environ | {"PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return f"{done.stdout}\nexit {done.returncode}"


def planned(text: str) -> dict[str, int]:
    """Jobs by rule, as a dry run counts them."""
    table = text.split("Job stats:")[1].split("total")[0]
    return {name: int(n) for name, n in re.findall(r"^(\w+) +(\d+)$", table, re.MULTILINE)}


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder in which the workflow has run."""
    folder = tmp_path_factory.mktemp("workflow")
    text = snakemake(folder)
    assert text.endswith("exit 0"), text
    return folder


def test_workflow_runs_every_notebook(workplace):
    executed = workplace / "runs/trial/notebooks"
    assert sorted(path.name for path in executed.iterdir()) == [path.name for path in WORKFLOW]
    for path in executed.iterdir():
        for cell in code_cells(path):
            kinds = [(output.output_type, output.get("name")) for output in cell.outputs]
            assert ("error", None) not in kinds
            assert ("stream", "stderr") not in kinds, cell.outputs


def test_every_figure_has_picture_table_and_provenance(workplace):
    figures = list((workplace / "runs/trial/results").iterdir())
    assert {path.name for path in figures} == set(MADE)
    for figure in figures:
        assert {path.name for path in figure.iterdir()} == FILES
        facts = json.loads((figure / "provenance.json").read_text())
        assert facts["corpus"]["name"] == "lilliput"
        assert facts["threads"] == 1
        assert "made" in facts["attribution"]


def test_changed_settings_rerun_what_depends_on_them(workplace):
    assert planned(snakemake(workplace, "-n")) == {"all": 1}
    more_seeds = planned(snakemake(workplace, "-n", seeds=2))
    assert more_seeds == {"all": 1, "pretrain": 1, "notebook": 1}
    longer = planned(snakemake(workplace, "-n", epochs=2))
    assert longer == {"all": 1, "pretrain": 1, "notebook": 4}
    other = planned(snakemake(workplace, "-n", city_size=11))
    assert other == {"all": 1, "city": 1, "prepare": 1, "pretrain": 1, "notebook": 8}


def test_tokens_of_images_are_asked_where_there_are_images(workplace):
    text = snakemake(workplace, "-n", "-p", backbones="a b;c")
    assert "09_image_leak.ipynb" in text
    assert "-r backbones 'a b;c'" in text
    bare = snakemake(workplace, "-n", extract="data/lilliput.osm.pbf", run="runs/bare")
    assert planned(bare)["notebook"] == 7
    assert "09_image_leak" not in bare


def test_wrong_settings_stop_in_one_line(tmp_path):
    for settings, words in [
        ({"extract": "absent.osm.pbf"}, "EXTRACT=absent.osm.pbf: no such file"),
        ({"preset": "large"}, "PRESET=large: there is none; choose from small-t"),
        ({"folds": 9}, "FOLDS=9: give a whole number from 1 to 5"),
        ({"colour": "red"}, "setting 'colour' does not exist"),
    ]:
        text = snakemake(tmp_path, **settings)
        assert words in text
        assert "Traceback" not in text
        assert not text.endswith("exit 0")


def test_publishing_fills_the_gallery(workplace, tmp_path):
    copied = publish(workplace / "runs/trial", tmp_path / "results")
    assert {path.name for path in copied} == set(MADE)
    text = (tmp_path / "results/README.md").read_text()
    assert "lilliput (made, no real place)" in text
    links = re.findall(r"\]\((lilliput/[^)]+)\)", text)
    assert len(links) == 4 * len(MADE) + 1
    assert all((tmp_path / "results" / link).is_file() for link in links)


def test_publishing_refuses_a_run_without_figures(tmp_path):
    with pytest.raises(GeoJEPAError, match="has no figures"):
        publish(tmp_path, tmp_path / "results")
    assert not (tmp_path / "results").exists()
