"""Notebooks: code cells change, all else stays byte by byte."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from migration_tool.cli import main

CELLS: list[dict[str, Any]] = [
    {"cell_type": "markdown", "metadata": {}, "source": ["from celery import x\n", "ü"]},
    {"cell_type": "code", "metadata": {}, "execution_count": 1, "outputs": [{"text": ["from celery import x"]}],
     "source": ["%load_ext autoreload\n", "!pip install celery\n", "files = !ls ü\n",
                "from celery import Celery\n", "app = Celery('ü')"]},
    {"cell_type": "code", "metadata": {}, "execution_count": None, "outputs": [],
     "source": "%%bash\ncelery worker\nfrom celery import x"},
    {"cell_type": "code", "metadata": {}, "execution_count": None, "outputs": [],
     "source": ["@app.task\n", "def f(x):\n", "    return x\n", "f?"]},
    {"cell_type": "code", "metadata": {}, "execution_count": None, "outputs": [], "source": []},
    {"cell_type": "code", "metadata": {}, "execution_count": None, "outputs": [], "source": ["f.delay(1).get()"]},
]  # fmt: skip


def write(path: Path, ascii_only: bool = False, indent: int | None = 1, end: str = "\n") -> str:
    document = {"cells": CELLS, "metadata": {"a": 1.0}, "nbformat": 4, "nbformat_minor": 5}
    text = json.dumps(document, indent=indent, ensure_ascii=ascii_only) + end
    path.write_bytes(text.encode())
    return text


@pytest.mark.parametrize(
    ("ascii_only", "indent", "end"), [(False, 1, "\n"), (True, 1, ""), (False, 2, "\n"), (False, None, "")]
)
def test_only_the_import_changes(tmp_path: Path, ascii_only: bool, indent: int | None, end: str) -> None:
    path = tmp_path / "a.ipynb"
    before = write(path, ascii_only, indent, end)
    done = CliRunner().invoke(main, ["shim", "--write", str(path)])
    assert done.exit_code == 0, done.output
    after = path.read_bytes().decode()
    assert after == before.replace("from celery import Celery", "from raycelery import Celery")
    assert CliRunner().invoke(main, ["shim", "--check", str(path)]).exit_code == 0


def test_tasks_of_one_cell_are_known_in_the_next(tmp_path: Path) -> None:
    path = tmp_path / "a.ipynb"
    write(path)
    CliRunner().invoke(main, ["actors", "--write", str(path)])
    sources = ["".join(cell["source"]) for cell in json.loads(path.read_text())["cells"]]
    assert sources[3] == "def f(x):\n    return x\n\n\nf_remote = ray.remote(num_cpus=1, max_retries=0)(f)\nf?"
    assert sources[5] == "ray.get(f_remote.remote(1))"
    assert "import ray" in sources[1]


def test_findings_name_the_cell(tmp_path: Path) -> None:
    path = tmp_path / "a.ipynb"
    write(path)
    done = CliRunner().invoke(main, ["check", "--format", "json", str(path)])
    found = {(one["cell"], one["line"], one["kind"]) for one in json.loads(done.stdout)["findings"]}
    assert {(1, 4, "import"), (1, 5, "app"), (3, 2, "task"), (5, 1, "call")} <= found


def test_what_is_no_notebook_is_reported(tmp_path: Path) -> None:
    (tmp_path / "a.ipynb").write_text('{"celery": []}')
    (tmp_path / "b.ipynb").write_text('{"cells":\n [ {"cell_type": "code", "source": "import celery"} ]}')
    done = CliRunner().invoke(main, ["shim", "--write", str(tmp_path)])
    assert done.exit_code == 2
    assert "a.ipynb: it is not a notebook" in done.output
    assert "b.ipynb: its JSON is not laid out as notebooks are" in done.output


@pytest.mark.parametrize("magic", ["%time f.delay(3)", "%%time\nf.delay(3)", "x = %timeit -o f.delay(3)"])
def test_a_task_that_a_magic_may_use_stays(tmp_path: Path, magic: str) -> None:
    cells = [*CELLS, {"cell_type": "code", "metadata": {}, "execution_count": None, "outputs": [], "source": magic}]
    document = {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    path = tmp_path / "a.ipynb"
    path.write_text(json.dumps(document, indent=1))
    done = CliRunner().invoke(main, ["actors", "--write", str(path)])
    assert "it stays on raycelery; a magic of a notebook may use it" in done.output
    sources = ["".join(cell["source"]) for cell in json.loads(path.read_text())["cells"]]
    assert sources[5:] == ["f.delay(1).get()", magic]
