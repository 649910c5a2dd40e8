"""Finds every use of the project's tasks in a file, and whether plain Ray has an equivalent."""

from __future__ import annotations

from dataclasses import dataclass, field

import libcst as cst

from ...project.view import View
from . import bases, environment, results
from .canvas import Canvas, applications
from .definitions import taken
from .lines import has_comments

Key = tuple[str, str]


@dataclass
class Use:
    """One use of a task.

    Arguments:
        task: module and qualified name of the task.
        node: the expression that is the task.
        form: "call" (``delay``, ``apply_async``), "direct", "run" (``T.run(...)``), "canvas", "lookup" (a result by its
            id), "other".
        place: file and line.
        problem: why plain Ray has no equivalent; None if it has.
        call: the call that submits it.
        wait: the ``.get()`` call around it, if the result is waited for immediately.
        canvas: the canvas that it is part of.
        discarded: the result is not used.
    """

    task: Key
    node: cst.BaseExpression
    form: str
    place: str
    problem: str | None = None
    call: cst.Call | None = None
    wait: cst.Call | None = None
    canvas: Canvas | None = None
    discarded: bool = False

    @property
    def needs(self) -> set[str]:
        """Names that must be imported for the code that replaces it."""
        if self.canvas is not None:
            return self.canvas.helpers | {"keep"}
        if self.form != "call":
            return set()
        return {"ray"} if self.wait is not None else {"submit"} if self.discarded else {"submit", "keep"}


@dataclass
class Facts:
    """Facts of one file about the project's tasks. Plain data, so that they can be sent between processes.

    Arguments:
        problems: reasons against converting a task.
        linked: tasks that can only be converted together.
        looked_up: tasks whose results are stored in a variable or passed on, so that they may be looked up later.
        lookups: places where results are read by id.
        unreadable: places where results are read by id in a way that the helper does not support.
        publishes: tasks that are submitted here.
        classes: task classes, and why each stays; None if nothing here speaks against converting it.
        class_problems: reasons against converting a task class.
        blockers: reasons against converting any task of the project.
    """

    problems: list[tuple[Key, str]] = field(default_factory=list)
    linked: list[set[Key]] = field(default_factory=list)
    looked_up: set[Key] = field(default_factory=set)
    lookups: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    publishes: set[Key] = field(default_factory=set)
    classes: dict[Key, str | None] = field(default_factory=dict)
    class_problems: list[tuple[Key, str]] = field(default_factory=list)
    blockers: list[str] = field(default_factory=list)


def is_loaded(view: View, node: cst.CSTNode) -> bool:
    """Return whether a name or attribute is read here, not assigned, imported, or part of a longer dotted name."""
    parent = view.parents.get(node)
    match parent:
        case cst.Attribute() if parent.attr is node:
            return False
        case cst.Arg() if parent.keyword is node:
            return False
        case cst.FunctionDef() | cst.ClassDef():
            return False
        case cst.Param():
            return parent.default is node
        case cst.AssignTarget() | cst.Del() | cst.AsName() | cst.ImportAlias() | cst.ImportFrom() | cst.NameItem():
            return False
        case cst.AnnAssign() if parent.target is node:
            return False
    return True


def find(view: View, where: str) -> list[Use]:
    """Return all uses of tasks that are functions of the project.

    Arguments:
        where: the file's path, for messages."""
    canvases = applications(view)
    signatures: dict[cst.CSTNode, Canvas] = {}
    for canvas in canvases:
        for signature in canvas.signatures:
            signatures[signature.node] = canvas
    found = []
    for node in view.nodes:
        if not isinstance(node, cst.Name | cst.Attribute) or not is_loaded(view, node):
            continue
        value = view.value(node)
        if value is None or value.kind != "task" or not value.module or value.name in ("made", "parameter"):
            continue
        use = Use((value.module, value.name), node, "other", f"{where}:{view.line(view.span(node)[0])}")
        _classify(view, use, signatures)
        found.append(use)
    return found


def _classify(view: View, use: Use, signatures: dict[cst.CSTNode, Canvas]) -> None:
    parent = view.parents.get(use.node)
    if isinstance(parent, cst.Call) and parent.func is use.node:
        use.form = "direct"
        return
    if not isinstance(parent, cst.Attribute):
        use.problem = "it is passed on as a value"
        return
    name = parent.attr.value
    call = view.parents.get(parent)
    if not isinstance(call, cst.Call) or call.func is not parent:
        use.problem = f"its attribute {name} is read"
        return
    if name in ("delay", "apply_async"):
        use.form, use.call = "call", call
        use.problem = _call_problem(view, call) if name == "apply_async" else None
        outer = view.parents.get(call)
        use.discarded = isinstance(outer, cst.Expr)
        if isinstance(outer, cst.Attribute) and outer.attr.value == "get":
            wait = view.parents.get(outer)
            if isinstance(wait, cst.Call) and _plain_get(view, wait):
                use.wait = wait
    elif name == "run":
        use.form, use.call = "run", call
    elif name == "AsyncResult" and results.lookup(view, call) is not None:
        use.form, use.call = "lookup", call
    elif name in ("s", "si") and call in signatures:
        use.form, use.canvas = "canvas", signatures[call]
    elif name in ("s", "si", "signature", "subtask"):
        use.problem = "its signature is used in a way that has no plain equivalent"
    else:
        use.problem = f"{name}() is called on it"


def _plain_get(view: View, call: cst.Call) -> bool:
    """Return whether a call of ``get`` has no argument but a timeout."""
    names = [argument.keyword.value if argument.keyword else None for argument in call.args]
    commented = any(isinstance(one, cst.Comment) for one in view.nodes_in(call))
    return names in ([], ["timeout"], [None]) and not commented and not any(one.star for one in call.args)


def _call_problem(view: View, call: cst.Call) -> str | None:
    if has_comments(view, call):
        return "its call holds comments that would be lost"
    position = 0
    for argument in call.args:
        if argument.star:
            return "it is called with options that are only known when it runs"
        if argument.keyword is None:
            position += 1
            if position > 2:
                return "it is called with positional options"
        elif argument.keyword.value not in ("args", "kwargs"):
            return f"it is called with {argument.keyword.value}="
    return None


def facts(view: View, where: str, uses: list[Use], task_names: dict[str, Key], task_classes: set[Key]) -> Facts:
    """Return what a file tells about the project's tasks.

    Arguments:
        where: the file's path, for messages.
        uses: the file's uses of tasks.
        task_names: all tasks by the names that Celery may know them by.
        task_classes: all subclasses of Celery's Task."""
    found = Facts(classes=bases.found(view))
    for key, node in bases.uses(view, task_classes) if task_classes else ():
        found.class_problems.append((key, f"it is used in another way ({where}:{view.line(view.span(node)[0])})"))
    names = taken(view)
    for use in uses:
        clash = sorted(use.needs & names)
        if clash:
            problem = f"the name {clash[0]}, which the new code needs, is taken ({use.place})"
            found.problems.append((use.task, problem))
        if use.problem is not None:
            found.problems.append((use.task, f"{use.problem} ({use.place})"))
        if use.form in ("call", "canvas"):
            found.publishes.add(use.task)
        if use.form == "call" and not use.discarded and use.wait is None:
            found.looked_up.add(use.task)
        if use.canvas is not None:
            found.linked.append({signature.task for signature in use.canvas.signatures})
            if is_kept(view, use.canvas.node):
                found.looked_up |= found.linked[-1]
    found.blockers = environment.blockers(view, where)
    module = view.project.modules[view.key]
    for dotted in sorted(module.imports | set(module.stars)):
        if view.project.modules.find(dotted, view.key) is None:
            for candidate in view.project.modules.candidates(dotted, view.key):
                for qualname in view.project.modules[candidate].functions:
                    problem = f"there are several modules {dotted} that may be meant ({where}:1)"
                    found.problems.append(((candidate, qualname), problem))
    found.lookups, found.unreadable = ([f"{where}:{view.line(view.span(one)[0])}" for one in places]
                                       for places in _places(view))  # fmt: skip
    in_canvas = {signature.task for use in uses if use.canvas is not None for signature in use.canvas.signatures}
    for attribute, value, why in results.unlike(view):
        of = value.of
        place = f"{where}:{view.line(view.span(attribute)[0])}"
        if value.name == "by id":
            found.unreadable.append(place)
        elif of is not None and of.kind == "task":
            found.problems.append(((of.module, of.name), f"{why} ({place})"))
        else:
            found.problems += [(key, f"{why} ({place})") for key in in_canvas]
    for node in view.nodes:
        if isinstance(node, cst.SimpleString):
            _named(view, node, where, task_names, found)
    return found


def _places(view: View) -> tuple[list[cst.CSTNode], list[cst.CSTNode]]:
    found, odd = results.lookups(view)
    return [one.node for one in found], odd


def is_kept(view: View, call: cst.Call) -> bool:
    """Return whether a call's result is stored or passed on, rather than dropped or waited for immediately."""
    outer = view.parents.get(call)
    return not isinstance(outer, cst.Expr) and not (
        isinstance(outer, cst.Attribute) and outer.attr.value in ("get", "join", "wait")
    )


def _named(view: View, node: cst.SimpleString, where: str, task_names: dict[str, Key], found: Facts) -> None:
    """Note a string that names a task: it may be called, scheduled or patched by that name."""
    text = node.raw_value
    if not task_names or len(text) > 200 or "." not in text:
        key = task_names.get(text)
    else:
        parts = text.split(".")
        key = next(
            (
                task_names[".".join(parts[:end])]
                for end in range(len(parts), 0, -1)
                if ".".join(parts[:end]) in task_names
            ),
            None,
        )
    if key is None or isinstance(view.parents.get(node), cst.Expr):
        return
    parent = view.parents.get(node)
    if isinstance(parent, cst.Arg) and parent.keyword is not None and parent.keyword.value == "name":
        call = view.parents.get(parent)
        value = view.value(call) if isinstance(call, cst.Call) else None
        if value is not None and value.kind == "decorator":
            return
    found.problems.append((key, f"it is named in a string ({where}:{view.line(view.span(node)[0])})"))
