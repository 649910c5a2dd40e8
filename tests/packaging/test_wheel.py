"""The wheel has what an installation needs, takes one name in site-packages, and its commands run."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from tests import support

#: Folders of the repository, and where their files are in the wheel.
FOLDERS = {
    "raycelery": "raycelery",
    "bench": "raycelery/bench",
    "migration_tool": "raycelery/migrate",
    "legacy_examples": "raycelery/legacy_examples",
}
PROJECT = """
from celery import Celery

app = Celery("shop")


@app.task(autoretry_for=(OSError,))
def sell(item):
    return item


def main():
    sell.delay(1)
"""
PAGES = [support.ROOT / "README.md", *sorted(support.ROOT.glob("docs/*.md"))]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # From a copy, so that no build/ and no egg-info is left beside the sources.
    source = tmp_path_factory.mktemp("source")
    for name in ("setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", *FOLDERS):
        path = support.ROOT / name
        if path.is_dir():
            shutil.copytree(path, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif path.exists():
            shutil.copy(path, source / name)
    target = tmp_path_factory.mktemp("wheel")
    build = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, str(target)], cwd=source, check=True, capture_output=True)
    [built] = target.glob("raycelery-*.whl")
    return built


@pytest.fixture(scope="module")
def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def installation(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the commands of an environment that has the wheel, and this environment's dependencies."""
    folder = tmp_path_factory.mktemp("installation")
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", "--no-deps", "--no-index", wheel], check=True)
    # As a further entry of the path, so that this environment's own raycelery, which is a .pth file, stays out of it.
    [packages] = folder.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin"


def run(installation: Path, folder: Path, *command: str, timeout: float = 60, code: int = 0) -> str:
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    environment["PATH"] = os.pathsep.join([str(installation), environment["PATH"]])
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_file_is_in_it(names: set[str], folder: str) -> None:
    files = (path.relative_to(support.ROOT / folder) for path in (support.ROOT / folder).rglob("*") if path.is_file())
    kept = (file for file in files if not any(part.startswith((".", "__pycache__")) for part in file.parts))
    assert {f"{FOLDERS[folder]}/{file.as_posix()}" for file in kept} <= names, "a folder lacks its __init__.py"


def test_its_license_is_in_it(wheel: Path, names: set[str]) -> None:
    with zipfile.ZipFile(wheel) as archive:
        [metadata] = (name for name in names if name.endswith(".dist-info/METADATA"))
        text = archive.read(metadata).decode()
    assert re.search(r"^License(-Expression)?: Apache-2.0$", text, re.MULTILINE)
    assert any(name.endswith("LICENSE") for name in names)


def test_it_takes_one_name(names: set[str]) -> None:
    assert {name.partition("/")[0] for name in names if ".dist-info/" not in name} == {"raycelery"}


@pytest.mark.parametrize("folder", ["bench", "migration_tool"])
def test_packages_that_are_named_differently_once_installed_import_themselves_relatively(folder: str) -> None:
    wrong = []
    for path in (support.ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_bytes())):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if any(module.partition(".")[0] in ("bench", "migration_tool") for module in modules):
                wrong.append(f"{path.relative_to(support.ROOT)}:{node.lineno}")  # type: ignore[attr-defined]
    assert not wrong


def test_the_environment_has_no_other_raycelery(installation: Path, tmp_path: Path) -> None:
    where = "import raycelery.bench, raycelery.migrate; print(raycelery.bench.__file__, raycelery.migrate.__file__)"
    assert all(
        path.startswith(str(installation.parent)) for path in run(installation, tmp_path, "python", "-c", where).split()
    )


def test_a_project_is_checked_and_rewritten(installation: Path, tmp_path: Path) -> None:
    tasks = tmp_path / "tasks.py"
    tasks.write_text(PROJECT)
    assert "tasks.py" in run(installation, tmp_path, "raycelery-migrate", "check", ".")
    run(installation, tmp_path, "raycelery-migrate", "shim", "--write", ".")
    assert "from raycelery import Celery" in tasks.read_text()
    # 1: the application, which has no tasks any more, is left to be taken away by hand.
    run(installation, tmp_path, "raycelery-migrate", "actors", "--write", ".", code=1)
    assert "from ray_tasks import" in tasks.read_text()
    assert (tmp_path / "ray_tasks.py").exists()


def test_raycelery_is_measured(installation: Path, tmp_path: Path) -> None:
    command = "raycelery bench --workload noop --system raycelery --quick --repeat 1"
    assert "noop" in run(installation, tmp_path, *command.split(), timeout=110)


def test_the_examples_are_found(installation: Path, tmp_path: Path) -> None:
    found = "from raycelery.bench.workloads import zones; print(zones.folder())"
    examples = run(installation, tmp_path, "python", "-c", found).strip()
    assert examples.startswith(str(installation.parent))
    assert examples.endswith("/raycelery/legacy_examples/zone_forecast")


def test_commands_of_the_documentation_are_there(installation: Path, tmp_path: Path) -> None:
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    blocks = "\n".join(re.findall(r"```bash\n(.*?)```", text, re.DOTALL))
    commands = {*re.findall(r"`raycelery ([a-z]+)", text), *re.findall(r"(?m)(?:^|&& )raycelery ([a-z]+)", blocks)}
    assert {"bench", "demo"} <= commands
    for command in sorted(commands):
        assert run(installation, tmp_path, "raycelery", command, "--help").startswith(f"Usage: raycelery {command}")
    modules = sorted(set(re.findall(r"python -m ((?:raycelery|bench|migration_tool)[\w.]*)", text)))
    find = "import importlib.util as u, sys; print([name for name in sys.argv[1:] if u.find_spec(name) is None])"
    assert run(installation, tmp_path, "python", "-c", find, *modules) == "[]\n"
