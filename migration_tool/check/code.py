"""Finds uses of Celery in Python code: imports, applications, tasks, calls, canvas, signals, classes."""

from __future__ import annotations

import libcst as cst

from ..model import Finding, Verdict
from ..project import tables
from ..project.celery_names import gone, is_celery, modules
from ..project.project import Task
from ..project.values import Value
from ..project.view import View, dotted_name
from ..rewriting import finding
from ..workspace import Source
from . import catalogue, commands

#: Packages that use Celery's worker, broker or results.
_PACKAGES = {
    "django_celery_beat": catalogue.BEAT,
    "django_celery_results": catalogue.SETTINGS["result_backend"],
    "flower": catalogue.changes("it works as it is; its broker page does not"),
    "celery_batches": catalogue.manual("it works inside Celery's worker", 'keep it on ray_mode = "bridge"'),
    "redbeat": catalogue.REDBEAT,
    "flask_celery": catalogue.EXTENSION,
    "flask_celeryext": catalogue.EXTENSION,
    "celery_once": catalogue.changes("its lock stays in Redis, which must go on running"),
    "celery_singleton": catalogue.changes("its lock stays in Redis, which must go on running"),
    "djcelery": catalogue.manual("django-celery ended with Celery 3", "use Celery's own Django support first"),
    "celery_progress": catalogue.changes("it reads results by id, which works; its websockets do not"),
}  # fmt: skip

_COROUTINE = catalogue.manual("Celery does not run coroutines", "call asyncio.run in a plain function")


def uses(view: View, source: Source) -> list[Finding]:
    """Return a finding for each use of Celery in a file."""
    found: list[Finding] = []
    for node in view.nodes:
        match node:
            case cst.Import() | cst.ImportFrom():
                found += _import(view, source, node)
            case cst.FunctionDef():
                found += _function(view, source, node)
            case cst.ClassDef():
                found += _class(view, source, node)
            case cst.Call():
                found += _call(view, source, node)
            case cst.SimpleString() | cst.FormattedString() | cst.List() | cst.Tuple():
                text = _command(node)
                if text is not None and "celery" in text and not isinstance(view.parents.get(node), cst.Expr):
                    for one in commands.find(source, text):
                        found.append(
                            finding(view, source, node, one.kind, one.name, one.verdict, one.message, one.instead)
                        )
            case cst.Attribute():
                found += _attribute(view, source, node)
    return found


def _command(node: cst.SimpleString | cst.FormattedString | cst.List | cst.Tuple) -> str | None:
    """Return the text of what may be a command; ``?`` for what is only known when it runs."""
    match node:
        case cst.SimpleString():
            text = node.evaluated_value
            return text if isinstance(text, str) else None
        case cst.FormattedString():
            return "".join(part.value if isinstance(part, cst.FormattedStringText) else "?" for part in node.parts)
    words = []
    for element in node.elements:
        value = element.value
        text = value.evaluated_value if isinstance(value, cst.SimpleString) else "?"
        if not isinstance(text, str) or " " in text:
            return None
        words.append(text)
    return " ".join(words).removeprefix("? -m ") if words[:1] == ["celery"] or words[1:3] == ["-m", "celery"] else None


def _entry(view: View, source: Source, node: cst.CSTNode, kind: str, name: str, entry: catalogue.Entry) -> Finding:
    return finding(view, source, node, kind, name, *entry)


def _import(view: View, source: Source, node: cst.Import | cst.ImportFrom) -> list[Finding]:
    found = []
    for module in modules(node):
        top = module.partition(".")[0]
        if top in _PACKAGES and view.project.modules.find(module, view.key) is None:
            found.append(_entry(view, source, node, "import", module, _PACKAGES[top]))
        if not is_celery(module):
            continue
        if view.project.modules.shadows_celery(view.key):
            found.append(
                finding(view, source, node, "import", module, Verdict.MANUAL,
                        "a celery.py beside this file hides Celery", "rename that file")
            )  # fmt: skip
            continue
        names = [module]
        if isinstance(node, cst.ImportFrom) and not isinstance(node.names, cst.ImportStar):
            names = [f"{module}.{alias.evaluated_name}" for alias in node.names]
        for name in names:
            instead = gone(module) or gone(name)
            entry = catalogue.longest(catalogue.NAMES, name) or catalogue.WORKS
            if instead is not None:
                entry = catalogue.manual("Celery 5 does not have it", instead)
            elif entry == catalogue.WORKS:
                entry = (Verdict.WORKS, "swapped by shim", "")
            found.append(_entry(view, source, node, "import", name, entry))
    return found


def _function(view: View, source: Source, node: cst.FunctionDef) -> list[Finding]:
    qualname = view.qualname(node)
    task = view.project.task(view.key, qualname)
    if task is None:
        return []
    entry = catalogue.WORKS if node.asynchronous is None else _COROUTINE
    found = [_entry(view, source, node.name, "task", qualname, entry)]
    call = node.decorators[task.position].decorator if task.position < len(node.decorators) else None
    if isinstance(call, cst.Call):
        found += _options(view, source, call)
        for argument in call.args:
            if argument.star == "**":
                found.append(
                    finding(
                        view,
                        source,
                        argument,
                        "option",
                        "**",
                        Verdict.WORKS,
                        "options that are only known when it runs",
                    )
                )
    found += _task_decorators(view, source, node, task)
    return found


def _task_decorators(view: View, source: Source, node: cst.FunctionDef, task: Task) -> list[Finding]:
    target = view.value(_function_of(node.decorators[task.position].decorator))
    if target is not None and target.kind == "external" and target.name in ("celery.task", "celery.task.task"):
        return [
            finding(view, source, node.decorators[task.position], "task", target.name, Verdict.MANUAL,
                    "Celery 5 does not have it", "use shared_task")
        ]  # fmt: skip
    if target is not None and target.name.endswith("periodic_task"):
        return [
            _entry(
                view, source, node.decorators[task.position], "task", "periodic_task", catalogue.OPTIONS["run_every"]
            )
        ]
    return []


def _function_of(node: cst.BaseExpression) -> cst.BaseExpression:
    return node.func if isinstance(node, cst.Call) else node


def _options(view: View, source: Source, call: cst.Call) -> list[Finding]:
    found = []
    for argument in call.args:
        name = argument.keyword.value if argument.keyword is not None else None
        if name is not None and name not in ("args", "kwargs"):
            entry = catalogue.OPTIONS.get(name, catalogue.WORKS)
            found.append(_entry(view, source, argument, "option", name, entry))
    return found


def _class(view: View, source: Source, node: cst.ClassDef) -> list[Finding]:
    qualname = view.qualname(node)
    bases = view.project.bases(Value("class", qualname, view.key))
    if "celery.Task" in bases:
        return [finding(view, source, node.name, "task class", qualname, Verdict.WORKS)]
    if "celery.Celery" in bases:
        return [finding(view, source, node.name, "app class", qualname, Verdict.WORKS)]
    for base in bases:
        if base.startswith("celery."):
            entry = catalogue.longest(catalogue.NAMES, base) or catalogue.WORKS
            return [_entry(view, source, node.name, "class", f"{qualname}({base})", entry)]
    return []


def _call(view: View, source: Source, node: cst.Call) -> list[Finding]:
    target = view.value(node.func)
    if target is None:
        return []
    match target:
        case Value("external", name) if name in tables.EXTERNAL_APPS:
            return [finding(view, source, node, "app", name, Verdict.WORKS), *_app_options(view, source, node)]
        case Value("class") if "celery.Celery" in view.project.bases(target):
            return [finding(view, source, node, "app", target.name, Verdict.WORKS), *_app_options(view, source, node)]
        case Value("external", name) if name in tables.CANVAS:
            return [finding(view, source, node, "canvas", name.removeprefix("celery."), Verdict.WORKS)]
        case Value("external", name) if name.startswith("celery.signals."):
            return [_signal(view, source, node, name)]
        case Value("external", name) if name.startswith("celery.") and name.rpartition(".")[2] != "get_task_logger":
            if name in tables.EXTERNAL_DECORATORS:
                return []
            entry = catalogue.longest(catalogue.NAMES, name) or catalogue.WORKS
            return [_entry(view, source, node, "call", name.removeprefix("celery."), entry)]
        case Value("task.attribute", name, _, task) if name in tables.SUBMIT | tables.SIGNATURES:
            kind = "canvas" if name in tables.SIGNATURES else "call"
            of = task.name if task is not None else "task"
            entry = catalogue.CHUNKS if name == "chunks" else catalogue.WORKS
            found = [_entry(view, source, node, kind, f"{of}.{name}", entry)]
            return found + (_options(view, source, node) if name == "apply_async" else [])
        case Value("signature.attribute", name) if name in tables.SUBMIT:
            return [finding(view, source, node, "call", f"signature.{name}", Verdict.WORKS)]
        case Value("result.attribute" | "results.attribute", name):
            return [finding(view, source, node, "result", name, Verdict.WORKS)]
        case Value("app.attribute", name) if name not in tables.TASK_DECORATORS:
            if name.startswith("conf") or name in ("config_from_object", "autodiscover_tasks", "set_default"):
                return []
            return [
                _entry(
                    view, source, node, "app call", name, catalogue.longest(catalogue.OF_APP, name) or catalogue.WORKS
                )
            ]
        case Value("decorator"):
            return []
    return []


def _signal(view: View, source: Source, node: cst.Call, name: str) -> Finding:
    signal = ".".join(name.split(".")[:3])
    return _entry(
        view,
        source,
        node,
        "signal",
        signal.rpartition(".")[2],
        catalogue.longest(catalogue.NAMES, signal) or catalogue.WORKS,
    )


def _attribute(view: View, source: Source, node: cst.Attribute) -> list[Finding]:
    """Return findings for ``@signal.connect``, and for attributes of an application that are read, not called."""
    parent = view.parents.get(node)
    if isinstance(parent, cst.Attribute) or (isinstance(parent, cst.Call) and parent.func is node):
        return []
    if dotted_name(node) is None:
        return []
    value = view.value(node)
    if value is None:
        return []
    if isinstance(parent, cst.Decorator) and value.kind == "external" and value.name.startswith("celery.signals."):
        signal = value.name.removesuffix(".connect")
        entry = catalogue.longest(catalogue.NAMES, signal) or catalogue.WORKS
        return [_entry(view, source, node, "signal", signal.rpartition(".")[2], entry)]
    if value.kind == "app.attribute" and value.name.startswith("backend."):
        return [_entry(view, source, node, "app", value.name, catalogue.SERVER)]
    if value.kind == "app.attribute" and value.name.partition(".")[0] in ("steps", "user_options", "events"):
        return [_entry(view, source, node, "app", value.name, catalogue.OF_APP[value.name.partition(".")[0]])]
    return []


def _app_options(view: View, source: Source, node: cst.Call) -> list[Finding]:
    found = []
    short = {"broker": "broker_url", "backend": "result_backend", "include": "include", "config_source": ""}
    for argument in node.args:
        name = argument.keyword.value if argument.keyword is not None else None
        if name is None or name in ("main", "namespace", "set_as_current", "config_source"):
            continue
        setting = short.get(name, name)
        if setting in ("broker_url", "result_backend") or catalogue.setting_name(setting):
            found.append(_entry(view, source, argument, "setting", setting, catalogue.setting(setting)))
    return found
