"""Every marked example of README.md and docs/ runs as a reader would run it: in an empty folder, with no cluster.

`tests/docs/blocks.py` tells how examples are marked.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import support
from tests.docs.blocks import Block, marked_blocks

#: Seconds for one example, with the start and end of its Ray.
LIMIT = 100


def examples() -> Iterator[object]:
    for path in [support.ROOT / "README.md", *sorted(support.ROOT.glob("docs/**/*.md"))]:
        if path.exists():
            name = path.relative_to(support.ROOT)
            blocks = marked_blocks(path.read_text(encoding="utf-8"))
            files = {block.file: block.code for block in blocks if block.file is not None}
            for block in blocks:
                if block.file is None:
                    yield pytest.param(block, files, id=f"{name}:{block.line}")


@pytest.mark.parametrize(("block", "files"), list(examples()))
def test_example_runs(block: Block, files: dict[str, str], tmp_path: Path) -> None:
    run_example(block, files, tmp_path)


def test_an_example_that_fails_is_reported(tmp_path: Path) -> None:
    with pytest.raises(pytest.fail.Exception, match=r"(?s)exit status 3.*from a file"):
        run_example(
            Block(1, "bash", 'python -c "import helper"\necho not reached\n'),
            {"helper.py": "print('from a file')\nraise SystemExit(3)\n"},
            tmp_path,
        )
    assert (tmp_path / "helper.py").exists()


def run_example(block: Block, files: dict[str, str], directory: Path) -> None:
    for name, code in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code, encoding="utf-8")
    script = directory / ("example.py" if block.language == "python" else "example.sh")
    script.write_text(block.code, encoding="utf-8")
    command = [sys.executable, str(script)] if block.language == "python" else ["bash", "-euo", "pipefail", str(script)]
    with support.short_directory("rc-docs-") as ray_directory:
        environment = {
            # Ray's own defaults; a Ray that other tests run in this process has set some.
            **{key: value for key, value in os.environ.items() if not key.startswith("RAY_AUTH")},
            "HOME": str(ray_directory),
            "RAY_TMPDIR": str(ray_directory),
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "PYTHONPATH": str(support.ROOT),
            # For the examples that start a Redis.
            "REDIS_PORT": str(support.free_port()),
        }
        process = subprocess.Popen(
            command,
            cwd=directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            output, _ = process.communicate(timeout=LIMIT)
        except subprocess.TimeoutExpired:
            # Ctrl-C first, so that Ray is shut down.
            os.killpg(process.pid, signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(15)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
            pytest.fail(f"still running after {LIMIT} s:\n{output}")
    if process.returncode != 0:
        pytest.fail(f"exit status {process.returncode}:\n{output}")
