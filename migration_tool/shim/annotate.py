"""``--annotate``: what ``raycelery rightsize`` measured becomes each task's own request.

    @app.task                           @app.task(num_cpus=2, memory=1500000000)
    @app.task(bind=True)                @app.task(bind=True, num_cpus=2, memory=1500000000)

A request that the task already states is left alone.
"""

from __future__ import annotations

import json
from pathlib import Path

import libcst as cst

from ..errors import MigrationError
from ..model import Finding, Verdict
from ..project.project import Project, Task
from ..project.view import Edit, View
from ..rewriting import finding
from ..workspace import Source

#: Requests that are written, in this order.
_OPTIONS = ("num_cpus", "num_gpus", "memory")


def read_requests(path: Path) -> dict[str, dict[str, float]]:
    """Read a result of ``raycelery rightsize``: ``{"tasks.train": {"num_cpus": 2.0, "memory": 1500000000}}``.

    Raises:
        MigrationError: it is not such a file.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MigrationError(
            f"--annotate {path}: {error}; give the JSON that 'raycelery rightsize --json' writes"
        ) from error
    if isinstance(found, dict) and isinstance(found.get("tasks"), dict):
        found = found["tasks"]
    requests = {}
    for name, values in found.items() if isinstance(found, dict) else ():
        if isinstance(values, dict) and values.get("written") is False:
            continue  # too few of its runs were measured
        wanted = {key: values[key] for key in _OPTIONS if isinstance(values, dict) and values.get(key) is not None}
        if any(isinstance(value, bool) or not isinstance(value, int | float) or value < 0 for value in wanted.values()):
            raise MigrationError(f"--annotate {path}: the requests of {name} are not numbers: {wanted}")
        if wanted:
            requests[name] = wanted
    if not requests:
        raise MigrationError(f"--annotate {path}: it has no requests; it must map task names to num_cpus and memory")
    return requests


def names(task: Task, project: Project) -> set[str]:
    """The names that Celery may give a task, depending on the folder its worker starts in."""
    given = task.decorator.keywords.get("name", "")
    if len(given) > 2 and given[0] in "\"'":
        return {given[1:-1]}
    parts = task.module.split(".")
    function = task.function.qualname.rpartition(".")[2]
    return {".".join([*parts[start:], function]) for start in range(len(parts))}


def literal(value: float) -> str:
    """A number as a person would write it."""
    return str(int(value)) if float(value).is_integer() else repr(round(float(value), 3))


def edits(view: View, source: Source, requests: dict[str, dict[str, float]], findings: list[Finding]) -> list[Edit]:
    """The changes of one file's decorators."""
    found = []
    for node in view.nodes:
        if not isinstance(node, cst.FunctionDef):
            continue
        task = view.project.task(view.key, view.qualname(node))
        if task is None:
            continue
        wanted = next((requests[name] for name in sorted(names(task, view.project)) if name in requests), None)
        if wanted is None:
            continue
        missing = {key: value for key, value in wanted.items() if key not in task.decorator.keywords}
        decorator = node.decorators[task.position].decorator
        if len(missing) < len(wanted):
            kept = ", ".join(sorted(set(wanted) - set(missing)))
            findings.append(
                finding(view, source, node.name, "task", task.function.qualname, Verdict.WORKS,
                        f"{kept} is stated already and stays as it is")
            )  # fmt: skip
        if missing:
            text = ", ".join(f"{key}={literal(missing[key])}" for key in _OPTIONS if key in missing)
            found.append(_insert(view, decorator, text))
    return found


def _insert(view: View, decorator: cst.BaseExpression, text: str) -> Edit:
    if not isinstance(decorator, cst.Call):
        _, end = view.span(decorator)
        return Edit(end, end, f"({text})")
    if not decorator.args:
        _, end = view.span(decorator)
        return Edit(end - 1, end - 1, text)
    _, end = view.whole(decorator.args[-1].value)
    return Edit(end, end, f", {text}")
