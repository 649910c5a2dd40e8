"""Import statements."""

from __future__ import annotations

from collections.abc import Iterable

import libcst as cst
from libcst.metadata import ImportAssignment, Scope
from libcst.metadata.scope_provider import BaseAssignment

from ...examples import Example
from ...model import Verdict
from ...project.celery_names import gone, is_celery, modules
from ...project.edits import Edit
from ...project.view import View, dotted_name
from ...rule import TreeRule
from ..file import SHIM, File


@SHIM.register
class Imports(TreeRule[File]):
    """Imports of Celery become imports of raycelery, in every form that an import can have."""

    matches = (cst.Import, cst.ImportFrom)
    examples = (
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

    def write(self, file: File, node: cst.Import | cst.ImportFrom) -> Iterable[Edit]:
        if file.view.project.modules.shadows_celery(file.view.key):
            if any(is_celery(name) for name in modules(node)):
                file.report(
                    node, "import", "celery", Verdict.MANUAL,
                    "a celery.py beside this file hides Celery; it is not clear which of them is meant",
                    "rename that file, or write raycelery where Celery is meant",
                )  # fmt: skip
            return []
        return _import_from(file, node) if isinstance(node, cst.ImportFrom) else _import(file, node)


def _head(view: View, node: cst.BaseExpression) -> Edit:
    """Replace the first name of a dotted one."""
    while isinstance(node, cst.Attribute):
        node = node.value
    start, end = view.span(node)
    return Edit(start, end, "raycelery")


def _import_from(file: File, node: cst.ImportFrom) -> list[Edit]:
    name = dotted_name(node.module)
    if node.relative or name is None or node.module is None or not is_celery(name):
        return []
    instead = gone(name)
    if instead is None and name == "celery" and not isinstance(node.names, cst.ImportStar):
        instead = next((gone(f"celery.{alias.evaluated_name}") for alias in node.names
                        if gone(f"celery.{alias.evaluated_name}")), None)  # fmt: skip
    if instead is not None:
        file.report(node, "import", name, Verdict.MANUAL, "Celery 5 does not have it", instead)
        return []
    return [_head(file.view, node.module)]


def _import(file: File, node: cst.Import) -> list[Edit]:
    found: list[Edit] = []
    for alias in node.names:
        if not is_celery(alias.evaluated_name):
            continue
        instead = gone(alias.evaluated_name)
        if instead is not None:
            file.report(node, "import", alias.evaluated_name, Verdict.MANUAL,
                        "Celery 5 does not have it", instead)  # fmt: skip
        elif alias.asname is not None:
            found.append(_head(file.view, alias.name))
        elif alias.evaluated_name == "celery":
            start, end = file.view.span(alias.name)
            found.append(Edit(start, end, "raycelery as celery"))
        else:
            found += _dotted_import(file, node, alias)
    return found


def _dotted_import(file: File, node: cst.Import, alias: cst.ImportAlias) -> list[Edit]:
    """``import celery.utils.log`` binds ``celery``, so what is read through that name is renamed with it."""
    scope = _scope(file.view, node)
    assignments: list[BaseAssignment] = list(scope["celery"]) if scope is not None else []
    if any(_plain_import(one) for one in assignments):
        return [_head(file.view, alias.name)]  # another import still binds the name
    outside = [one for one in assignments if not isinstance(one, ImportAssignment)]
    if scope is None or outside or "raycelery" in scope:
        file.report(node, "import", alias.evaluated_name, Verdict.MANUAL,
                    "the name celery is bound by something else too", "write 'import raycelery' by hand")  # fmt: skip
        return []
    return [_head(file.view, alias.name), *_renamed(file.view, assignments)]


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
