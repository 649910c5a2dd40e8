"""The wheel has what an installation needs."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests import support

PACKAGES = ("raycelery", "migration_tool", "bench")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    # From a copy, so that no build/ and no egg-info is left beside the sources.
    source = tmp_path_factory.mktemp("source")
    for name in ("setup.py", "pyproject.toml", "MANIFEST.in", "README.md", *PACKAGES, "legacy_examples"):
        path = support.ROOT / name
        if path.is_dir():
            shutil.copytree(path, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif path.exists():
            shutil.copy(path, source / name)
    target = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "-q",
            "--no-deps",
            "--no-build-isolation",
            "-w",
            str(target),
            str(source),
        ],
        check=True,
    )
    [built] = target.glob("raycelery-*.whl")
    return zipfile.ZipFile(built)


@pytest.mark.parametrize("package", PACKAGES)
def test_every_module_is_in_it(wheel: zipfile.ZipFile, package: str) -> None:
    modules = {path.relative_to(support.ROOT).as_posix() for path in (support.ROOT / package).rglob("*.py")}
    assert modules <= set(wheel.namelist()), "a folder lacks its __init__.py"


def test_the_legacy_examples_are_inside_the_package(wheel: zipfile.ZipFile) -> None:
    source = support.ROOT / "legacy_examples"
    files = {
        f"raycelery/{path.relative_to(support.ROOT).as_posix()}"
        for path in source.rglob("*")
        if path.is_file() and not any(part.startswith((".", "__pycache__")) for part in path.relative_to(source).parts)
    }
    assert files <= set(wheel.namelist())


def test_nothing_else_is_installed(wheel: zipfile.ZipFile) -> None:
    assert {Path(name).parts[0].partition("-")[0] for name in wheel.namelist()} <= set(PACKAGES)
