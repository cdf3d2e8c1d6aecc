"""What the repository promises outside its code: versions, citation, commands, portable paths."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
# where a file of this kind would point outside the repository
ABSOLUTE = re.compile(r"(?<![\w./:~])/(?:home|work|Users|mnt|opt|srv|root|tmp|data)/\w")
TEXT = {".py", ".ipynb", ".md", ".toml", ".yml", ".cff", ".json", ".csv", ""}


def tracked() -> list[Path]:
    """Files of the repository as git lists them, and those not yet added."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    try:
        found = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git repository")
    return [ROOT / name for name in found.stdout.splitlines() if (ROOT / name).is_file()]


def pyproject() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_conda_environment_holds_the_same_versions():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    *conda, pip = environment["dependencies"]
    assert pip["pip"] == pyproject()["project"]["dependencies"]
    assert conda == ["python=3.11", "pip"]


def test_every_dependency_is_pinned():
    project = pyproject()["project"]
    asked = project["dependencies"] + project["optional-dependencies"]["test"]
    loose = [one for one in asked if "==" not in one]
    assert not loose


def test_citation_names_software_and_paper():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = pyproject()["project"]
    assert citation["cff-version"] == "1.2.0"
    assert citation["title"] == "GeoJEPA: a notebook-first companion"
    assert str(citation["version"]) == project["version"]
    assert citation["license"] == project["license"]
    assert citation["authors"] == [{"name": "GeoJEPA companion maintainers"}]
    paper = citation["preferred-citation"]
    assert [one["family-names"] for one in paper["authors"]] == ["Lundqvist", "Delvret"]
    assert "2503.05774" in paper["url"]
    assert paper["year"] == 2025


def test_no_file_points_outside_the_repository():
    found = {
        str(path.relative_to(ROOT)): match.group()
        for path in tracked()
        if path.suffix in TEXT and path != Path(__file__)
        for match in [ABSOLUTE.search(path.read_text(encoding="utf-8"))]
        if match
    }
    assert not found


def test_readme_names_only_commands_that_exist():
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8") if readme.is_file() else ""
    code = re.findall(r"```.*?```|`[^`\n]+`", text, re.DOTALL)
    named = {target for part in code for target in re.findall(r"\bmake ([a-z-]+)\b", part)}
    assert named <= make_targets()


def test_every_command_and_variable_is_told():
    """Subcommands stand in the README, variables of make in its help or there."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = re.search(r"for f in \((.*?)\)", (ROOT / "geojepa/__main__.py").read_text())
    assert {f"geojepa {name}" in readme for name in commands[1].split(", ")} == {True}
    makefile = (ROOT / "Makefile").read_text()
    told = readme + "".join(re.findall(r"^#.*\n", makefile, re.MULTILINE))
    variables = re.findall(r"^([A-Z_]+) \?=", makefile, re.MULTILINE)
    assert len(variables) > 10
    assert not [name for name in variables if f"{name}=" not in told]


def test_code_cites_no_page_that_a_reader_does_not_have():
    named = {
        name
        for path in tracked()
        if path.suffix == ".py"
        for name in re.findall(r"\b[A-Z]+\.md\b", path.read_text(encoding="utf-8"))
    }
    assert {name for name in named if not (ROOT / name).exists()} <= {"FINDINGS.md"}


def test_make_has_what_the_design_promises():
    assert {"reproduce", "test", "publish", "lab", "clean"} <= make_targets()


def test_continuous_integration_runs_the_same_checks():
    text = (ROOT / ".ci" / "run").read_text()
    assert "set -euo pipefail" in text
    assert "make test" in text


def test_readme_has_no_dead_link_and_no_placeholder():
    for page in (ROOT / "README.md", *(ROOT / "results").glob("*.md")):
        text = page.read_text(encoding="utf-8")
        links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text)
        dead = [one for one in links if "://" not in one and not (page.parent / one).exists()]
        assert not dead, dead
        assert not re.search(r"^(?:FIGURE|RESULTS|TODO)$|_TIME\b", text, re.MULTILINE)
