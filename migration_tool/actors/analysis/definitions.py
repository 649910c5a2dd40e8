"""Task functions: can one become a Ray remote function, and how?"""

from __future__ import annotations

from dataclasses import dataclass

import libcst as cst

from ...project.expressions import Expression
from ...project.project import Task
from ...project.view import View

#: Task options that ``ray.remote`` takes unchanged.
REQUESTS = ("num_cpus", "num_gpus", "memory", "resources", "runtime_env")
#: Task options that the helper's ``retrying`` takes unchanged.
RETRIES = (
    "max_retries", "default_retry_delay", "autoretry_for", "dont_autoretry_for", "retry_kwargs", "retry_backoff",
    "retry_backoff_max", "retry_jitter",
)  # fmt: skip
#: Task options that have no effect without a broker and a result backend.
_NOTHING = frozenset(
    {"bind", "name", "ignore_result", "track_started", "throws", "typing", "trail", "send_events", "acks_late",
     "reject_on_worker_lost", "shared", "store_errors_even_if_ignored", "acks_on_failure_or_timeout",
     "store_eager_result"}
)  # fmt: skip
#: Task options that can be dropped if they name pickle, which Ray uses.
_SERIALIZERS = frozenset({"serializer", "result_serializer"})
#: What gives the task that runs.
CURRENT = frozenset({"celery.current_task", "celery._state.current_task", "celery.get_current_worker_task"})
_REQUEST = frozenset({"id", "retries", "args", "kwargs"})
_RETRY_ARGUMENTS = frozenset({"exc", "countdown", "max_retries", "args", "kwargs", "throw"})


@dataclass
class Definition:
    """How one task function is rewritten. Plain data, so that it can be sent between processes.

    Arguments:
        problem: why it cannot be converted; None if it can.
        self_name: the name of its first parameter, if the task is bound.
        self_used: its body reads that parameter.
        base: module and name of the project's class that it names as ``base=``.
        tells_state: it calls ``update_state`` or reads its own id, so callers may look its result up by id.
    """

    problem: str | None = None
    self_name: str | None = None
    self_used: bool = False
    tells_state: bool = False
    base: tuple[str, str] | None = None


def define(view: View, node: cst.FunctionDef, task: Task) -> Definition:
    """Return how a task function is rewritten, or why it cannot be."""
    found = Definition(base=_base(view, node, task))
    keywords = task.decorator.keywords
    found.problem = _shape(view, node, task) or _options(task, found.base is not None) or _body(view, node)
    if task.bind and found.problem is None:
        positional = [*node.params.posonly_params, *node.params.params]
        if not positional:
            found.problem = "it is bound and has no parameter for itself"
        else:
            found.self_name = positional[0].name.value
            _look_at_self(view, node, found)
    if keywords.get("bind") not in (None, "True", "False"):
        found.problem = "bind= is not a constant"
    return found


def _shape(view: View, node: cst.FunctionDef, task: Task) -> str | None:
    name = node.name.value
    if not isinstance(view.parents[node], cst.Module):
        return "it is not defined at the top of its module"
    if node.asynchronous is not None:
        return "it is a coroutine"
    if task.function.yields:
        return "it is a generator"
    if task.position:
        return "another decorator stands above the one that makes it a task"
    module = view.project.modules[view.key]
    if module.bindings.get(name) != ("function", name):
        return "its name is bound more than once"
    if "__all__" in module.bindings and _is_starred(view):
        return "other modules import * from its module, which has an __all__"
    clash = sorted({"ray", "retrying", "launcher"} & taken(view))
    if clash:
        return f"the name {clash[0]}, which the new code needs, is taken"
    if f"{name}_remote" in module.bindings:
        return f"the name {name}_remote is taken"
    target = view.value(_target(node.decorators[task.position].decorator))
    if target is None or target.kind == "function" or (target.kind == "external" and target.name == "celery.task"):
        return "its decorator is the project's own"
    return None


def taken(view: View) -> set[str]:
    """Return the names that a file binds, in any scope, but for imports of Ray and of the helper module."""
    module = view.project.modules[view.key]
    scopes = [module.bindings, *module.local_names.values()]
    return {name for scope in scopes for name, found in scope.items() if not _is_ours(name, found)}


def _is_ours(name: str, found: Expression) -> bool:
    if found is None or found[0] != "import":
        return False
    _, module, member = found
    return (module, member) == ("ray", None) or (str(module).endswith("ray_tasks") and bool(member == name))


def _is_starred(view: View) -> bool:
    """Return whether another module of the project imports ``*`` from this one."""
    modules = view.project.modules
    return any(view.key in modules.candidates(star, key) for key, one in modules.items() for star in one.stars)


def _body(view: View, node: cst.FunctionDef) -> str | None:
    """Return why a task's body needs Celery's worker, if it does."""
    for one in view.nodes_in(node.body):
        if not isinstance(one, cst.Name | cst.Attribute):
            continue
        value = view.value(one)
        if value is None:
            continue
        name = value.name if value.kind == "external" else ""
        if name in CURRENT or (value.kind == "app.attribute" and value.name in ("current_task", "current_worker_task")):
            return f"it uses {view.source(one)}"
        # TimeoutError is what waiting raises, also outside tasks.
        if name.startswith("celery.exceptions.") and name != "celery.exceptions.TimeoutError":
            return f"it uses {view.source(one)}, which only Celery's worker handles"
    return None


def _target(node: cst.BaseExpression) -> cst.BaseExpression:
    return node.func if isinstance(node, cst.Call) else node


def _base(view: View, node: cst.FunctionDef, task: Task) -> tuple[str, str] | None:
    """Return the project's class that a task names as ``base=``, if any."""
    call = node.decorators[task.position].decorator
    for argument in call.args if isinstance(call, cst.Call) else ():
        if argument.keyword is not None and argument.keyword.value == "base":
            value = view.value(argument.value)
            return (value.module, value.name) if value is not None and value.kind == "class" else None
    return None


def _options(task: Task, has_base: bool) -> str | None:
    if task.decorator.starred:
        return "its options are only known when it runs"
    for name, text in task.decorator.keywords.items():
        if (name == "base" and has_base) or (name in _SERIALIZERS and text in ("'pickle'", '"pickle"')):
            continue
        if name not in _NOTHING and name not in REQUESTS and name not in RETRIES:
            return f"it has {name}=, for which plain Ray has no equivalent"
    return None


def _look_at_self(view: View, node: cst.FunctionDef, found: Definition) -> None:
    for name in view.nodes_in(node.body):
        if not isinstance(name, cst.Name) or name.value != found.self_name:
            continue
        parent = view.parents[name]
        if isinstance(parent, cst.Attribute) and parent.attr is name:
            continue
        if isinstance(parent, cst.Arg) and parent.keyword is name:
            continue
        found.self_used = True
        if not isinstance(parent, cst.Attribute):
            found.problem = f"{found.self_name} is passed on"
            return
        attribute, outer = parent.attr.value, view.parents[parent]
        if found.base is not None and _has(view, found.base, attribute):
            continue
        if attribute == "request" and isinstance(outer, cst.Attribute) and outer.attr.value in _REQUEST:
            found.tells_state |= outer.attr.value == "id"
            continue
        if attribute in ("max_retries", "default_retry_delay", "name"):
            continue
        if attribute == "retry" and isinstance(outer, cst.Call) and _known(outer):
            continue
        if attribute == "update_state" and isinstance(outer, cst.Call):
            found.tells_state = True
            continue
        what = view.source(outer) if attribute == "request" else f"{found.self_name}.{attribute}"
        found.problem = f"it uses {what}"
        return


def _has(view: View, owner: tuple[str, str], name: str) -> bool:
    """Return whether a class of the project defines an attribute or method."""
    klass = view.project.modules[owner[0]].classes[owner[1]]
    return name in klass.attributes or name in klass.methods or name in klass.assigned


def _known(call: cst.Call) -> bool:
    return all(one.keyword is not None and one.keyword.value in _RETRY_ARGUMENTS and not one.star for one in call.args)
