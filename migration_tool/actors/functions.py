"""A task function becomes a plain function, with a Ray remote function beside it.

The plain function can be called, imported and tested as before, and Ray's processes import it as Celery's worker did. A
bound task that does not use ``self`` loses it; if it does, ``retrying`` of the helper module ``ray_tasks`` passes it.
"""

from __future__ import annotations

from dataclasses import dataclass

import libcst as cst

from ..examples import Example
from ..project.project import Task
from ..project.view import Edit, View

MARK = "# raycelery-migrate:"
#: Requests that Ray's remote functions take as they are.
_REQUESTS = ("num_cpus", "num_gpus", "memory", "resources", "runtime_env")
#: Options that the helper's ``retrying`` takes as they are.
_RETRIES = (
    "max_retries", "default_retry_delay", "autoretry_for", "dont_autoretry_for", "retry_kwargs", "retry_backoff",
    "retry_backoff_max", "retry_jitter",
)  # fmt: skip
#: Options that say nothing once there is neither broker nor result store.
_NOTHING = frozenset(
    {"bind", "name", "ignore_result", "track_started", "throws", "typing", "trail", "send_events", "acks_late",
     "reject_on_worker_lost", "shared", "store_errors_even_if_ignored", "acks_on_failure_or_timeout",
     "store_eager_result"}
)  # fmt: skip
#: Options that say nothing if they are what Ray does.
_SERIALIZERS = frozenset({"serializer", "result_serializer"})
_REQUEST = frozenset({"id", "retries", "args", "kwargs"})
_RETRY_ARGUMENTS = frozenset({"exc", "countdown", "max_retries", "args", "kwargs", "throw"})


@dataclass
class Definition:
    """How one task function is to be rewritten; plain data.

    Arguments:
        problem: why it is not; None if it is.
        self_name: its first parameter, if it is bound.
        self_used: its body reads it.
        base: the class of the project that it is an object of.
        tells_state: it calls ``update_state``, or reads its own id, by which somebody may ask for it.
    """

    problem: str | None = None
    self_name: str | None = None
    self_used: bool = False
    tells_state: bool = False
    base: tuple[str, str] | None = None


def define(view: View, node: cst.FunctionDef, task: Task) -> Definition:
    """Look at a task function."""
    found = Definition(base=_base(view, node, task))
    keywords = task.decorator.keywords
    found.problem = _shape(view, node, task) or _options(task, found.base is not None)
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
    if f"{name}_remote" in module.bindings:
        return f"the name {name}_remote is taken"
    target = view.value(_target(node.decorators[task.position].decorator))
    if target is None or target.kind == "function" or (target.kind == "external" and target.name == "celery.task"):
        return "its decorator is the project's own"
    return None


def _target(node: cst.BaseExpression) -> cst.BaseExpression:
    return node.func if isinstance(node, cst.Call) else node


def _base(view: View, node: cst.FunctionDef, task: Task) -> tuple[str, str] | None:
    """The class of the project that a task names as its base."""
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
        if name not in _NOTHING and name not in _REQUESTS and name not in _RETRIES:
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
    """Whether a class of the project has an attribute or method."""
    klass = view.project.modules[owner[0]].classes[owner[1]]
    return name in klass.attributes or name in klass.methods or name in klass.assigned


def _known(call: cst.Call) -> bool:
    return all(one.keyword is not None and one.keyword.value in _RETRY_ARGUMENTS and not one.star for one in call.args)


def edits(
    view: View, node: cst.FunctionDef, task: Task, found: Definition, redelivers: bool, launch: str | None
) -> tuple[list[Edit], set[str]]:
    """The changes of a task function, and the helper's names that they need ("ray" for the package itself).

    Arguments:
        redelivers: the application starts a message again whose worker died.
        launch: the function that starts an actor instead of the remote function.
    """
    name = node.name.value
    keywords = written(view, node, task)
    retries = {key: keywords[key] for key in _RETRIES if key in keywords}
    by_helper = (
        found.self_used
        or found.base is not None
        or ("autoretry_for" in retries and bool(set(retries) - {"autoretry_for", "max_retries", "default_retry_delay"}))
    )
    needed = {"ray"}
    if found.base is not None:
        retries = {"base": keywords["base"], **retries}
    changed = [_decorator(view, node, task, retries if by_helper else None, found)]
    if by_helper:
        needed.add("retrying")
    if found.self_name is not None and not found.self_used:
        changed.append(_without_self(view, node))
    late = keywords.get("acks_late") == "True" and keywords.get("reject_on_worker_lost") == "True"
    options = {"num_cpus": "1", **{key: keywords[key] for key in _REQUESTS if key in keywords}}
    options["max_retries"] = "3" if late or redelivers else "0"
    lines = []
    if "autoretry_for" in retries and not by_helper:
        limit = retries.get("max_retries", "3")
        options["max_retries"] = "-1" if limit == "None" else limit
        options["retry_exceptions"] = _as_list(retries["autoretry_for"])
        delay = retries.get("default_retry_delay", "180")
        if delay != "0":
            lines.append(f"{MARK} Celery waited {delay} s before it tried again, Ray does not wait")
    if launch is not None:
        lines.append(launch)
        needed.add("launcher")
    else:
        given = ", ".join(f"{key}={value}" for key, value in options.items())
        lines.append(f"{name}_remote = ray.remote({given})({name})")
    changed.append(after(view, node, lines))
    return changed, needed


def written(view: View, node: cst.FunctionDef, task: Task) -> dict[str, str]:
    """The keyword arguments of a task's decorator, as written."""
    call = node.decorators[task.position].decorator
    arguments = call.args if isinstance(call, cst.Call) else ()
    return {one.keyword.value: view.source(one.value) for one in arguments if one.keyword is not None}


def _as_list(text: str) -> str:
    inner = text.strip()
    if inner.startswith("(") and inner.endswith(")"):
        return f"[{inner[1:-1].strip().rstrip(',')}]"
    return inner if inner.startswith("[") else f"list({inner})"


def _decorator(
    view: View, node: cst.FunctionDef, task: Task, retries: dict[str, str] | None, found: Definition
) -> Edit:
    decorator = node.decorators[task.position]
    start, end = view.span(decorator.decorator)
    start = view.raw.rindex(b"@", 0, start + 1)
    _, end = view.whole(decorator.decorator)
    inside = [one for one in view.nodes_in(decorator) if isinstance(one, cst.Comment) and view.span(one)[0] > start]
    indent, newline = view.indentation(start), view.newline
    if retries is None:
        kept = "".join(f"{indent}{one.value}{newline}" for one in inside)
        return Edit(view.line_start(start), view.line_end(end), kept)
    above = "".join(f"{one.value}{newline}{indent}" for one in inside if view.span(one)[0] < end)
    options = ["bind=True"] if found.self_used else []
    options += [f"{key}={value}" for key, value in retries.items()]
    return Edit(start, end, f"{above}@retrying({', '.join(options)})")


def _without_self(view: View, node: cst.FunctionDef) -> Edit:
    positional = [*node.params.posonly_params, *node.params.params]
    first = positional[0]
    start, end = view.span(first)
    following = [*positional[1:], node.params.star_arg, *node.params.kwonly_params, node.params.star_kwarg]
    others = [one for one in following if isinstance(one, cst.Param | cst.ParamStar)]
    if others:
        following_start = view.span(others[0])[0]
        star = others[0]
        if isinstance(star, cst.Param) and star.star in ("*", "**"):
            following_start = view.raw.index(b"*", end)
        return Edit(start, following_start, "")
    rest = view.raw[end : view.raw.index(b")", end)]
    return Edit(start, end + len(rest) if rest.strip(b", /\t\r\n") == b"" else end, "")


def after(view: View, node: cst.FunctionDef | cst.ClassDef, lines: list[str]) -> Edit:
    """Put top-level lines after a definition."""
    last: cst.CSTNode = node
    while isinstance(last, cst.BaseCompoundStatement):
        last = _last(last)
    _, end = view.span(last)
    at = view.line_end(max(end - 1, 0))
    newline = view.newline
    text = newline * 2 + newline.join(line.replace("\n", newline) for line in lines) + newline
    return Edit(at, at, text if view.raw[:at].endswith((b"\n", b"\r")) else newline + text)


def _last(node: cst.BaseCompoundStatement) -> cst.CSTNode:
    suite: cst.BaseSuite = node.body
    match node:
        case cst.Try() | cst.TryStar():
            if node.finalbody is not None:
                suite = node.finalbody.body
            elif node.orelse is not None:
                suite = node.orelse.body
            elif node.handlers:
                suite = node.handlers[-1].body
        case cst.If():
            branch = node
            while isinstance(branch.orelse, cst.If):
                branch = branch.orelse
            suite = branch.orelse.body if branch.orelse is not None else branch.body
        case cst.For() | cst.While():
            suite = node.orelse.body if node.orelse is not None else node.body
        case cst.Match():
            suite = node.cases[-1].body
    return suite.body[-1]


EXAMPLES = (
    Example(
        """\
from celery import shared_task


@shared_task(num_cpus=2)
def train(zone):
    return zone


@shared_task(autoretry_for=(OSError,), max_retries=2)
def fetch(url):
    return url


@shared_task(bind=True)
def unused(self, x):
    return x
""",
        """\
import ray


def train(zone):
    return zone


train_remote = ray.remote(num_cpus=2, max_retries=0)(train)


def fetch(url):
    return url


# raycelery-migrate: Celery waited 180 s before it tried again, Ray does not wait
fetch_remote = ray.remote(num_cpus=1, max_retries=2, retry_exceptions=[OSError])(fetch)


def unused(x):
    return x


unused_remote = ray.remote(num_cpus=1, max_retries=0)(unused)
""",
        options=("--closed",),
    ),
    Example(
        """\
from celery import shared_task


@shared_task(bind=True, max_retries=5)
def load(self, url):
    try:
        return open(url)
    except OSError as error:
        raise self.retry(exc=error, countdown=2**self.request.retries)
""",
        """\
import ray
from ray_tasks import retrying


@retrying(bind=True, max_retries=5)
def load(self, url):
    try:
        return open(url)
    except OSError as error:
        raise self.retry(exc=error, countdown=2**self.request.retries)


load_remote = ray.remote(num_cpus=1, max_retries=0)(load)
""",
        options=("--closed",),
    ),
    Example(
        """\
from celery import shared_task


@shared_task(rate_limit="10/m")
def limited(x):
    return x


@shared_task(time_limit=60)
def timed(x):
    return x
""",
        """\
from raycelery import shared_task


# raycelery-migrate: stays on raycelery: it has rate_limit=, for which plain Ray has no equivalent
@shared_task(rate_limit="10/m")
def limited(x):
    return x


# raycelery-migrate: stays on raycelery: it has time_limit=, for which plain Ray has no equivalent
@shared_task(time_limit=60)
def timed(x):
    return x
""",
        options=("--closed",),
    ),
)
