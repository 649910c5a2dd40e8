"""Each legacy project is as such projects are, and its README tells how it runs before and after."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.legacy_examples import projects

NAMES = sorted(path.name for path in projects.SOURCES.iterdir() if (path / "README.md").exists())


def sources(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*.py")}


@pytest.mark.parametrize("name", NAMES)
def test_its_code_knows_of_celery_only(name: str) -> None:
    code = sources(projects.SOURCES / name)
    # But for what shows what comes after the switch.
    assert {path for path, text in code.items() if "raycelery" in text} <= {"on_ray_data.py"}
    assert any(projects.SWAP[0].search(text) for text in code.values())


@pytest.mark.parametrize("name", NAMES)
def test_its_readme_tells_both_ways(name: str) -> None:
    readme = (projects.SOURCES / name / "README.md").read_text()
    before, _, after = readme.partition("## On Ray")
    assert "## On Celery" in before
    assert re.search(r"^celery -A \S+ worker", before, re.M)
    assert "raycelery" not in before
    assert "from raycelery import" in after or "raycelery/" in after
    assert f"[`{name}`]({name}/README.md)" in (projects.SOURCES / "README.md").read_text()


BY_COMMAND = [name for name in NAMES if re.search(r"sed -i", (projects.SOURCES / name / "README.md").read_text())]


@pytest.mark.parametrize("name", BY_COMMAND)
def test_its_readmes_command_swaps_the_imports(name: str, tmp_path: Path) -> None:
    """The codemod, by which the other tests migrate, does the same."""
    (tmp_path / "readme").mkdir()
    project = projects.copy(name, tmp_path / "readme")
    command = re.search(r"^.*sed -i .*$", (project.folder / "README.md").read_text(), re.M)
    assert command is not None
    subprocess.run(["bash", "-c", command[0]], cwd=project.folder, check=True, timeout=60)
    (tmp_path / "helper").mkdir()
    assert sources(project.folder) == sources(projects.copy(name, tmp_path / "helper", "shim").folder)
