"""Subclasses of Celery's ``Task``: can a class derive from the helper module's ``Task`` instead?"""

from __future__ import annotations

import libcst as cst
from celery.app.task import Task as CeleryTask

from ...project.values import Value
from ...project.view import View

Key = tuple[str, str]

#: Attributes of Celery's Task: a class that overrides one of them changes how Celery runs the task.
_OF_CELERY = frozenset(dir(CeleryTask)) | {"app", "backend", "request_stack"}
_REDEFINED = frozenset({"__init__", "__call__", "__doc__", "__module__"})
#: Attributes that have no effect without a broker and a result backend.
_NOTHING = frozenset({"abstract", "ignore_result", "track_started", "acks_late", "typing", "trail", "send_events"})
_REQUEST = frozenset({"id", "retries", "args", "kwargs"})
_OF_SELF = frozenset({"run", "update_state", "name", "max_retries", "default_retry_delay"}) | _REDEFINED


def found(view: View) -> dict[Key, str | None]:
    """Return the task classes of a file, each with the reason why it must stay on raycelery, or None."""
    return {
        (view.key, view.qualname(node)): _problem(view, node)
        for node in view.nodes
        if isinstance(node, cst.ClassDef)
        and "celery.Task" in view.project.bases(Value("class", view.qualname(node), view.key))
    }


def is_celerys(view: View, node: cst.BaseExpression) -> bool:
    """Return whether an expression is ``celery.Task`` or an application's ``app.Task``."""
    value = view.value(node)
    return value is not None and (
        (value.kind == "external" and value.name == "celery.Task")
        or (value.kind == "app.attribute" and value.name == "Task")
    )


def _problem(view: View, node: cst.ClassDef) -> str | None:
    if not isinstance(view.parents[node], cst.Module) or node.decorators or node.keywords or len(node.bases) != 1:
        return "it is not a plain class at the top of its module"
    if not is_celerys(view, node.bases[0].value):
        return "it comes from another class"
    if not isinstance(node.body, cst.IndentedBlock):
        return None
    bound = view.project.modules[view.key].bindings.get("Task")
    if bound is not None and view.dotted(node.bases[0].value) != "celery.Task":
        return "the name Task is taken"
    if any(_other_use(view, one, node) for one in view.nodes):
        return "Celery's Task is used beside it"
    for statement in node.body.body:
        why = _of_statement(view, statement)
        if why is not None:
            return why
    return None


def _other_use(view: View, node: cst.CSTNode, owner: cst.ClassDef) -> bool:
    """Return whether a node uses ``celery.Task`` other than as a base class."""
    if not isinstance(node, cst.Name | cst.Attribute):
        return False
    parent = view.parents.get(node)
    if isinstance(parent, cst.ImportAlias | cst.ImportFrom | cst.AsName | cst.Attribute):
        return False
    is_base = isinstance(parent, cst.Arg) and isinstance(view.parents.get(parent), cst.ClassDef)
    return not is_base and is_celerys(view, node)


def _of_statement(view: View, statement: cst.BaseStatement) -> str | None:
    match statement:
        case cst.FunctionDef(name=cst.Name(value=name)):
            if name in _OF_CELERY and name not in _REDEFINED:
                return f"it defines {name}"
            return _of_method(view, statement)
        case cst.SimpleStatementLine(body=body):
            for small in body:
                targets: list[cst.BaseExpression] = []
                if isinstance(small, cst.Assign):
                    targets = [one.target for one in small.targets]
                elif isinstance(small, cst.AnnAssign):
                    targets = [small.target]
                elif not isinstance(small, cst.Expr | cst.Pass):
                    return "it holds more than attributes and methods"
                for target in targets:
                    if not isinstance(target, cst.Name):
                        return "it holds more than attributes and methods"
                    if target.value in _OF_CELERY and target.value not in _NOTHING:
                        return f"it sets {target.value}"
            return None
    return "it holds more than attributes and methods"


def _of_method(view: View, method: cst.FunctionDef) -> str | None:
    positional = [*method.params.posonly_params, *method.params.params]
    own = positional[0].name.value if positional else None
    for node in view.nodes_in(method.body):
        if isinstance(node, cst.Call) and isinstance(node.func, cst.Name) and node.func.value == "super":
            outer = view.parents[node]
            if not isinstance(outer, cst.Attribute) or outer.attr.value not in ("__init__", "__call__"):
                return "it uses what its base class has"
        if not isinstance(node, cst.Name) or node.value != own:
            continue
        parent = view.parents[node]
        if isinstance(parent, cst.Attribute) and parent.attr is node:
            continue
        if isinstance(parent, cst.Arg):
            call = view.parents.get(parent)
            if isinstance(call, cst.Call) and isinstance(call.func, cst.Name) and call.func.value == "super":
                continue
        if not isinstance(parent, cst.Attribute):
            return f"{own} is passed on"
        name, further = parent.attr.value, view.parents[parent]
        if name == "request" and isinstance(further, cst.Attribute) and further.attr.value in _REQUEST:
            continue
        if name in _OF_CELERY and name not in _OF_SELF:
            return f"it uses {own}.{name}"
    return None


def uses(view: View, classes: set[Key]) -> list[tuple[Key, cst.CSTNode]]:
    """Return uses of task classes other than as ``base=`` of a task: the class, and the node."""
    odd: list[tuple[Key, cst.CSTNode]] = []
    for node in view.nodes:
        if not isinstance(node, cst.Name | cst.Attribute):
            continue
        parent = view.parents.get(node)
        if isinstance(parent, cst.ImportAlias | cst.ImportFrom | cst.AsName | cst.ClassDef):
            continue
        if isinstance(parent, cst.Attribute) and parent.attr is node:
            continue
        if isinstance(parent, cst.Call) and isinstance(parent.func, cst.Name) and parent.func.value == "super":
            continue
        value = view.value(node)
        if value is None or value.kind != "class" or (value.module, value.name) not in classes:
            continue
        if isinstance(parent, cst.Arg):
            call = view.parents.get(parent)
            if isinstance(call, cst.Call) and isinstance(call.func, cst.Name) and call.func.value == "super":
                continue
            if parent.keyword is not None and parent.keyword.value == "base" and isinstance(call, cst.Call):
                made = view.value(call)
                decorates = isinstance(view.parents.get(call), cst.Decorator)
                if decorates and (made is None or made.kind in ("decorator", "task")):
                    continue
        odd.append(((value.module, value.name), node))
    return odd
