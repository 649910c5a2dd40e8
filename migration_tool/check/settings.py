"""Finds Celery's settings: on an application, in its configuration module, in Django's settings."""

from __future__ import annotations

import re

import libcst as cst

from ..model import Finding, Verdict
from ..project.project import Project
from ..project.view import View
from ..rewriting import finding
from ..workspace import CELERY, Source
from . import catalogue

#: ``app.config_from_object("proj.celeryconfig", namespace="CELERY")``; whatever it is called on.
_NAMED = re.compile(
    r"config_from_object\(\s*[\"'](?P<module>[\w.]+)[\"'](?:[^()]*namespace\s*=\s*[\"'](?P<namespace>\w+)[\"'])?"
)


def configurations(project: Project, texts: dict[str, str]) -> dict[str, str]:
    """Return the modules that hold Celery's settings, with the prefix of the names in each.

    They are found by name (``celeryconfig``, Django's ``settings``) and by calls of ``config_from_object``.

    Arguments:
        texts: the source of each module.
    """
    found: dict[str, str] = {}
    for key in project.modules:
        parts = key.split(".")
        if parts[-1] in ("celeryconfig", "celery_config"):
            found[key] = ""
        elif "settings" in parts[-2:] and CELERY.search(texts.get(key, "")):
            found[key] = "CELERY"
    for key, text in texts.items():
        for match in _NAMED.finditer(text):
            named = project.modules.find(match["module"], key)
            if named is not None:
                found[named] = match["namespace"] or ""
    return found


#: Types of syntax nodes that can set a setting.
NODES = (cst.Assign, cst.AnnAssign, cst.Call, cst.ClassDef)


def uses(view: View, source: Source, namespace: str | None) -> list[Finding]:
    """Return a finding for each setting that a file sets.

    Arguments:
        namespace: the prefix of the names in a module of settings; None for any other module.
    """
    return [one for node in view.nodes if isinstance(node, NODES) for one in of_node(view, source, node, namespace)]


def of_node(view: View, source: Source, node: cst.CSTNode, namespace: str | None) -> list[Finding]:
    """Return a finding for each setting that one node sets, which is of a type in ``NODES``; see :func:`uses`."""
    match node:
        case cst.Assign():
            return [one for each in node.targets for one in _target(view, source, each.target, namespace)]
        case cst.AnnAssign():
            return _target(view, source, node.target, namespace)
        case cst.Call():
            return _call(view, source, node)
        case cst.ClassDef():
            return _class(view, source, node)
    return []


def _report(view: View, source: Source, node: cst.CSTNode, written: str, namespace: str = "") -> list[Finding]:
    name = catalogue.setting_name(written, namespace)
    if name is None:
        if namespace and written.startswith(f"{namespace}_") and written.isupper():
            return [finding(view, source, node, "setting", written, Verdict.WORKS, "not one of Celery's own; it stays")]
        return []
    if name.startswith("ray_"):
        return []
    return [finding(view, source, node, "setting", written, *catalogue.setting(name))]


def _target(view: View, source: Source, target: cst.BaseExpression, namespace: str | None) -> list[Finding]:
    match target:
        case cst.Name() if namespace is not None:
            top = view.function(target) is None
            return _report(view, source, target, target.value, namespace) if top else []
        case cst.Attribute():
            value = view.value(target)
            if value is not None and value.kind == "app.attribute" and value.name.startswith("conf."):
                return _report(view, source, target, value.name.removeprefix("conf."), "CELERY")
        case cst.Subscript():
            value = view.value(target.value)
            key = target.slice[0].slice
            is_conf = value is not None and value.kind == "app.attribute" and value.name == "conf"
            if is_conf and isinstance(key, cst.Index) and isinstance(key.value, cst.SimpleString):
                return _report(view, source, target, str(key.value.evaluated_value), "CELERY")
    return []


def _call(view: View, source: Source, node: cst.Call) -> list[Finding]:
    value = view.value(node.func)
    if value is None or value.kind != "app.attribute":
        return []
    found: list[Finding] = []
    if value.name == "conf.update":
        for argument in node.args:
            if argument.keyword is not None:
                found += _report(view, source, argument, argument.keyword.value, "CELERY")
            elif isinstance(argument.value, cst.Dict):
                for element in argument.value.elements:
                    if isinstance(element, cst.DictElement) and isinstance(element.key, cst.SimpleString):
                        found += _report(view, source, element, str(element.key.evaluated_value), "CELERY")
    elif value.name in ("config_from_object", "config_from_envvar", "autodiscover_tasks"):
        found.append(finding(view, source, node, "app call", value.name, Verdict.WORKS))
    return found


def _class(view: View, source: Source, node: cst.ClassDef) -> list[Finding]:
    """Return the settings of a class that is passed to ``config_from_object``."""
    qualname = view.qualname(node)
    if qualname not in _configured(view):
        return []
    found: list[Finding] = []
    for statement in node.body.body:
        for small in statement.body if isinstance(statement, cst.SimpleStatementLine) else ():
            if isinstance(small, cst.Assign) and isinstance(small.targets[0].target, cst.Name):
                found += _report(view, source, small, small.targets[0].target.value)
    return found


def _configured(view: View) -> set[str]:
    names = set()
    for node in view.nodes:
        if isinstance(node, cst.Call) and node.args:
            value = (
                view.value(node.func)
                if isinstance(node.func, cst.Attribute) and node.func.attr.value == "config_from_object"
                else None
            )
            if value is not None and value.kind == "app.attribute":
                argument = view.value(node.args[0].value)
                if argument is not None and argument.kind in ("class", "instance"):
                    names.add(argument.name)
    return names
