"""Dotted names in strings."""

from __future__ import annotations

from collections.abc import Iterator

import libcst as cst

from ...examples import Example
from ...project.celery_names import gone, is_celery
from ...project.edits import Edit
from ...project.view import View
from ...rule import TreeRule
from ..file import SHIM, File

#: Functions whose first argument is a dotted name that they import.
_IMPORTERS = frozenset(
    {"importlib.import_module", "unittest.mock.patch", "mock.patch", "mock.mock.patch", "unittest.mock.patch.dict",
     "unittest.mock.patch.multiple", "mock.patch.multiple", "mock.patch.dict", "pytest.importorskip",
     "django.utils.module_loading.import_string", "pydoc.locate"}
)  # fmt: skip
#: pytest's fixtures, which are parameters: what is called on them.
_FIXTURES = frozenset({("mocker", "patch"), ("monkeypatch", "setattr"), ("monkeypatch", "delattr")})


@SHIM.register
class Strings(TreeRule[File]):
    """Strings that name Celery's modules become raycelery's, if it is certain that they are imported by that name.

    Names of loggers, queues and settings stay: they are Celery's, whatever runs the tasks.
    """

    matches = (cst.Call, cst.Assign)
    examples = (
        Example(
            """\
from unittest.mock import patch
from celery import shared_task
import importlib

states = importlib.import_module("celery.states")


@shared_task(base="celery.Task")
def train(zone):
    return zone


@patch("celery.group")
def test_train(group):
    pass
""",
            """\
from unittest.mock import patch
from raycelery import shared_task
import importlib

states = importlib.import_module("raycelery.states")


@shared_task(base="raycelery.Task")
def train(zone):
    return zone


@patch("raycelery.group")
def test_train(group):
    pass
""",
        ),
        Example(
            """\
import logging

logging.getLogger("celery.worker").setLevel("INFO")
queue = "celery"
name = "celery.Task"
""",
        ),
    )

    def wanted(self, file: File) -> bool:
        return any(name in file.view.text for name in ("celery.", '"celery"', "'celery'"))

    def write(self, file: File, node: cst.Call | cst.Assign) -> Iterator[Edit]:
        view = file.view
        if isinstance(node, cst.Call):
            first = node.args[0] if node.args and not node.args[0].star else None
            if first is not None and (first.keyword is None or first.keyword.value == "name") and _imports(view, node):
                yield from _string(view, first.value)
            for argument in node.args:
                if argument.keyword is not None and argument.keyword.value == "base" and _makes_task(view, node):
                    yield from _string(view, argument.value)
        elif view.function(node) is None:
            names = [one.target.value for one in node.targets if isinstance(one.target, cst.Name)]
            if "pytest_plugins" in names:
                values = node.value
                elements = values.elements if isinstance(values, cst.List | cst.Tuple | cst.Set) else []
                for value in [values, *(element.value for element in elements)]:
                    yield from _string(view, value)


def _imports(view: View, node: cst.Call) -> bool:
    function = node.func
    if isinstance(function, cst.Name) and function.value == "__import__":
        return "__import__" not in view.project.modules[view.key].bindings
    if view.dotted(function) in _IMPORTERS:
        return True
    if not isinstance(function, cst.Attribute):
        return False
    names = []
    inner: cst.BaseExpression = function
    while isinstance(inner, cst.Attribute):
        names.append(inner.attr.value)
        inner = inner.value
    if not isinstance(inner, cst.Name) or view.value(inner) is not None:
        return False
    return (inner.value, names[-1]) in _FIXTURES


def _makes_task(view: View, node: cst.Call) -> bool:
    value = view.value(node)
    return value is not None and value.kind == "decorator"


def _string(view: View, node: cst.BaseExpression) -> list[Edit]:
    if not isinstance(node, cst.SimpleString) or "b" in node.prefix.lower():
        return []
    text = node.evaluated_value
    if not isinstance(text, str) or not is_celery(text) or gone(text) or node.raw_value != text:
        return []
    start, _ = view.span(node)
    start += len(node.prefix) + len(node.quote)
    return [Edit(start, start + len("celery"), "raycelery")]
