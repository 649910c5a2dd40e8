"""Imports of Celery become imports of raycelery, in every form that an import can have."""

from __future__ import annotations

import libcst as cst
from libcst.metadata import ImportAssignment, Scope
from libcst.metadata.scope_provider import BaseAssignment

from ..examples import Example
from ..model import Finding, Verdict
from ..project.view import Edit, View, dotted_name
from ..rewriting import finding
from ..workspace import Source

#: What Celery 5 no longer has; raycelery has what Celery 5 has.
GONE = {
    "celery.task.control": "use the application's control: app.control",
    "celery.task.schedules": "use celery.schedules",
    "celery.task.http": "write a task that makes the request",
    "celery.task.sets": "use celery.group",
    "celery.task": "import shared_task, or use the application's own task decorator",
    "celery.decorators": "import shared_task, or use the application's own task decorator",
    "celery.messaging": "use kombu",
    "celery.execute": "use app.send_task",
    "celery.log": "use celery.utils.log",
    "celery.registry": "use app.tasks",
    "celery.contrib.batches": "install celery-batches, and keep it on Celery's own worker",
    "celery.backends.amqp": "use the backend rpc://",
}
_GONE_NAMES = {"celery.task": "use shared_task"}


def is_celery(dotted: str | None) -> bool:
    """Whether a dotted name is Celery's."""
    return dotted is not None and (dotted == "celery" or dotted.startswith("celery."))


def gone(dotted: str) -> str | None:
    """What to use instead of a module that Celery 5 does not have; None for one that it has."""
    for name, instead in GONE.items():
        if dotted == name or dotted.startswith(f"{name}."):
            return instead
    return None


def edits(view: View, source: Source, findings: list[Finding]) -> list[Edit]:
    """The changes of one file's imports; what is left as it is and why goes to ``findings``."""
    found: list[Edit] = []
    if view.project.shadows_celery(view.key):
        for node in view.nodes:
            if isinstance(node, cst.Import | cst.ImportFrom) and any(is_celery(name) for name in modules(node)):
                findings.append(
                    finding(view, source, node, "import", "celery", Verdict.MANUAL,
                            "a celery.py beside this file hides Celery; it is not clear which of them is meant",
                            "rename that file, or write raycelery where Celery is meant")
                )  # fmt: skip
        return found
    for node in view.nodes:
        if isinstance(node, cst.ImportFrom):
            found += _import_from(view, source, node, findings)
        elif isinstance(node, cst.Import):
            found += _import(view, source, node, findings)
    return found


def modules(node: cst.Import | cst.ImportFrom) -> list[str]:
    """The dotted names of the modules that an import statement names."""
    if isinstance(node, cst.ImportFrom):
        name = dotted_name(node.module) if not node.relative else None
        return [name] if name else []
    return [alias.evaluated_name for alias in node.names]


def _head(view: View, node: cst.BaseExpression) -> Edit:
    """Replace the first name of a dotted one."""
    while isinstance(node, cst.Attribute):
        node = node.value
    start, end = view.span(node)
    return Edit(start, end, "raycelery")


def _import_from(view: View, source: Source, node: cst.ImportFrom, findings: list[Finding]) -> list[Edit]:
    name = dotted_name(node.module)
    if node.relative or name is None or node.module is None or not is_celery(name):
        return []
    instead = gone(name)
    if instead is None and name == "celery" and not isinstance(node.names, cst.ImportStar):
        instead = next((gone(f"celery.{alias.evaluated_name}") for alias in node.names
                        if gone(f"celery.{alias.evaluated_name}")), None)  # fmt: skip
    if instead is not None:
        findings.append(
            finding(view, source, node, "import", name, Verdict.MANUAL, "Celery 5 does not have it", instead)
        )
        return []
    return [_head(view, node.module)]


def _import(view: View, source: Source, node: cst.Import, findings: list[Finding]) -> list[Edit]:
    found: list[Edit] = []
    for alias in node.names:
        if not is_celery(alias.evaluated_name):
            continue
        instead = gone(alias.evaluated_name)
        if instead is not None:
            findings.append(
                finding(view, source, node, "import", alias.evaluated_name, Verdict.MANUAL,
                        "Celery 5 does not have it", instead)
            )  # fmt: skip
        elif alias.asname is not None:
            found.append(_head(view, alias.name))
        elif alias.evaluated_name == "celery":
            start, end = view.span(alias.name)
            found.append(Edit(start, end, "raycelery as celery"))
        else:
            found += _dotted_import(view, source, node, alias, findings)
    return found


def _dotted_import(
    view: View, source: Source, node: cst.Import, alias: cst.ImportAlias, findings: list[Finding]
) -> list[Edit]:
    """``import celery.utils.log`` binds ``celery``, so what is read through that name is renamed with it."""
    scope = _scope(view, node)
    assignments: list[BaseAssignment] = list(scope["celery"]) if scope is not None else []
    if any(_plain_import(one) for one in assignments):
        return [_head(view, alias.name)]  # another import still binds the name
    outside = [one for one in assignments if not isinstance(one, ImportAssignment)]
    if scope is None or outside or "raycelery" in scope:
        findings.append(
            finding(view, source, node, "import", alias.evaluated_name, Verdict.MANUAL,
                    "the name celery is bound by something else too", "write 'import raycelery' by hand")
        )  # fmt: skip
        return []
    return [_head(view, alias.name), *_renamed(view, assignments)]


def _renamed(view: View, assignments: list[BaseAssignment]) -> list[Edit]:
    """The name ``celery`` wherever it is read and means one of these imports."""
    found = []
    for node in view.nodes:
        if not isinstance(node, cst.Name) or node.value != "celery":
            continue
        parent = view.parents[node]
        if isinstance(parent, cst.Attribute) and parent.attr is node:
            continue
        if isinstance(parent, cst.Arg) and parent.keyword is node:
            continue
        if any(isinstance(outer, cst.ImportAlias | cst.ImportFrom) for outer in view.around(node)):
            continue
        scope = view.scopes.get(node)
        if scope is not None and set(scope["celery"]) & set(assignments):
            found.append(Edit(*view.span(node), "raycelery"))
    return found


def _plain_import(assignment: object) -> bool:
    node = assignment.node if isinstance(assignment, ImportAssignment) else None
    return isinstance(node, cst.Import) and any(
        alias.evaluated_name == "celery" and alias.asname is None for alias in node.names
    )


def _scope(view: View, node: cst.Import) -> Scope | None:
    return view.scopes.get(node) or view.scopes.get(node.names[0].name)


EXAMPLES = (
    Example(
        """\
from celery import Celery, group as g
from celery.app.task import Task
import celery
import celery as c, os
""",
        """\
from raycelery import Celery, group as g
from raycelery.app.task import Task
import raycelery as celery
import raycelery as c, os
""",
    ),
    Example(
        """\
import celery.utils.log

logger = celery.utils.log.get_task_logger(__name__)
""",
        """\
import raycelery.utils.log

logger = raycelery.utils.log.get_task_logger(__name__)
""",
    ),
    Example(
        """\
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from celery.result import AsyncResult


def start(result: "AsyncResult"):
    from celery import current_app

    return current_app
""",
        """\
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from raycelery.result import AsyncResult


def start(result: "AsyncResult"):
    from raycelery import current_app

    return current_app
""",
    ),
    Example(
        """\
from celery_app import app
from flask_celery import Celery
from celery.task import periodic_task  # Celery 5 does not have it: reported


def celery(group):
    return group.celery
""",
    ),
)
