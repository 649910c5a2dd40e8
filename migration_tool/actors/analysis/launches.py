"""Finds tasks that only create an object and call one of its methods: these start a Ray actor instead."""

from __future__ import annotations

from dataclasses import dataclass

import libcst as cst

from ...project.project import Project, Task
from ...project.values import Value
from ...project.view import View
from .canvas import arguments

Key = tuple[str, str]


@dataclass(frozen=True)
class Launch:
    """A task that creates an object and calls one of its methods.

    Arguments:
        owner: module and name of the class.
        constructor: the class's name as written in the task.
        made: arguments of the constructor, as written.
        method: name of the method.
        called: arguments of the method, as written.
        variable: name of the variable that holds the object.
    """

    owner: Key
    constructor: str
    made: str
    method: str
    called: str
    variable: str

    def render(self, name: str, parameters: str, options: str) -> str:
        """Return the code of the function that starts the actor.

        Arguments:
            name: the task's name.
            parameters: the task's parameters, as written.
            options: the task's resource requests as keyword arguments, or an empty string.
        """
        actor = f"{self.constructor}Actor" + (f".options({options})" if options else "")
        return (
            f"@launcher\ndef {name}_remote({parameters}):\n"
            f'    """Start {name} on an actor of its own, which ends with it."""\n'
            f"    {self.variable} = {actor}.remote({self.made})\n"
            f"    return {self.variable}.{self.method}.remote({self.called})"
        )


def is_stateful(project: Project, owner: Key) -> bool:
    """Return whether a class of the project has no base class or decorator, and its methods set attributes."""
    module = project.modules.get(owner[0])
    found = module.classes.get(owner[1]) if module is not None else None
    if found is None or found.bases or found.decorators or module is None or "." in owner[1]:
        return False
    if module.bindings.get(owner[1]) != ("class", owner[1]) or f"{owner[1]}Actor" in module.bindings:
        return False
    functions = [module.functions.get(f"{owner[1]}.{name}") for name in found.methods]
    return any(one is not None and one.sets_self for one in functions)


def launch(view: View, node: cst.FunctionDef, task: Task) -> Launch | None:
    """Return how a task creates an object and calls one method; None if it does anything else."""
    if task.bind or {"autoretry_for", "max_retries"} & set(task.decorator.keywords):
        return None
    statements = list(node.body.body) if isinstance(node.body, cst.IndentedBlock) else []
    if statements and _is_docstring(statements[0]):
        statements = statements[1:]
    lines = [_single(one) for one in statements]
    call: cst.BaseExpression | None = None
    made: cst.BaseExpression | None = None
    variable = ""
    if len(lines) == 1 and isinstance(lines[0], cst.Return):
        call = lines[0].value
        if isinstance(call, cst.Call) and isinstance(call.func, cst.Attribute):
            made = call.func.value
    elif len(lines) == 2 and isinstance(lines[0], cst.Assign) and isinstance(lines[1], cst.Return):
        target = lines[0].targets[0].target
        call = lines[1].value
        if (
            len(lines[0].targets) == 1
            and isinstance(target, cst.Name)
            and isinstance(call, cst.Call)
            and isinstance(call.func, cst.Attribute)
            and isinstance(call.func.value, cst.Name)
            and call.func.value.value == target.value
        ):
            made, variable = lines[0].value, target.value
    if not isinstance(call, cst.Call) or not isinstance(call.func, cst.Attribute) or not isinstance(made, cst.Call):
        return None
    if not (_passed_on(node, call) and _passed_on(node, made)):
        return None
    return _of(view, made, call, variable)


def _of(view: View, made: cst.Call, call: cst.Call, variable: str) -> Launch | None:
    assert isinstance(call.func, cst.Attribute)
    owner = view.value(made.func)
    if owner is None or owner.kind != "class" or not is_stateful(view.project, (owner.module, owner.name)):
        return None
    method = view.project.attribute(Value("instance", owner.name, owner.module, owner), call.func.attr.value)
    function = view.project.modules[method.module].functions.get(method.name) if method is not None else None
    if function is None or function.is_async or function.yields or function.decorators:
        return None
    name = owner.name
    snake = "".join(f"_{one.lower()}" if one.isupper() and at else one.lower() for at, one in enumerate(name))
    return Launch(
        (owner.module, name),
        view.source(made.func),
        arguments(view, made),
        call.func.attr.value,
        arguments(view, call),
        variable or snake,
    )


def _is_docstring(node: cst.BaseStatement) -> bool:
    line = _single(node)
    return isinstance(line, cst.Expr) and isinstance(line.value, cst.SimpleString | cst.ConcatenatedString)


def _single(node: cst.BaseStatement | cst.BaseSmallStatement) -> cst.BaseSmallStatement | None:
    if isinstance(node, cst.SimpleStatementLine) and len(node.body) == 1:
        return node.body[0]
    return None


def _passed_on(node: cst.FunctionDef, call: cst.Call) -> bool:
    """Return whether a call's arguments are only parameters and constants: a parameter may be a Ray reference still."""
    named = [*node.params.posonly_params, *node.params.params, *node.params.kwonly_params]
    parameters = {one.name.value for one in named}
    for argument in call.args:
        value = argument.value
        if argument.star:
            return False
        if isinstance(value, cst.Name) and (value.value in parameters or value.value in ("True", "False", "None")):
            continue
        if not isinstance(value, cst.SimpleString | cst.Integer | cst.Float):
            return False
    return True
