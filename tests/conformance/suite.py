"""Fetches Celery's integration suite: its source distribution, by hash, unpacked next to the test environments."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from tests.support import ROOT

PIN = Path(__file__).with_name("suite.txt")
#: Only what the tests need: `celery/` beside them would be imported instead of the installed Celery.
_PARTS = ("t/", "pyproject.toml", "LICENSE")


def version() -> str:
    """The version of Celery whose suite is run."""
    pins = [line for line in PIN.read_text(encoding="utf-8").splitlines() if line.startswith("celery==")]
    return pins[0].split()[0].partition("==")[2]


def unpacked() -> Path:
    """Return the folder that has the suite's `t/integration`, downloading it the first time."""
    target = ROOT / ".tox" / f"celery-{version()}-suite"
    if target.is_dir():
        return target
    target.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as temporary:
        archive = _download(Path(temporary))
        tree = Path(temporary) / "suite"
        with tarfile.open(archive) as tar:
            top = f"celery-{version()}/"
            for member in tar.getmembers():
                name = member.name.removeprefix(top)
                if member.isfile() and name.startswith(_PARTS):
                    path = tree / name
                    path.parent.mkdir(parents=True, exist_ok=True)
                    content = tar.extractfile(member)
                    assert content is not None
                    path.write_bytes(content.read())
        # In one step, so that a run that is cut off leaves no half of it.
        shutil.move(tree, target)
    return target


def _download(directory: Path) -> Path:
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "celery", "--require-hashes",
         "--dest", str(directory), "-r", str(PIN)],
        check=True,
    )  # fmt: skip
    [archive] = directory.glob("celery-*.tar.gz")
    return archive
