"""Task functions."""

from __future__ import annotations

from collections.abc import Iterator

import libcst as cst

from ...examples import Example
from ...project.edits import Edit
from ...project.project import Task
from ...project.view import View
from ...rule import TreeRule
from ..analysis.definitions import REQUESTS, RETRIES, Definition
from ..analysis.launches import Launch
from ..file import ACTORS, File
from ..insertions import MARK, after

#: Retry options that ``ray.remote`` covers; others need the helper's ``retrying``.
_RETRIED_BY_RAY = frozenset({"autoretry_for", "max_retries", "default_retry_delay"})


@ACTORS.register
class Functions(TreeRule[File]):
    """A task function becomes a plain function, with a Ray remote function beside it.

    The plain function can be called, imported and tested as before, and Ray's processes import it as Celery's worker
    did. A bound task that does not use ``self`` loses it; if it does, ``retrying`` of the helper module ``ray_tasks``
    passes it.
    """

    matches = (cst.FunctionDef,)
    examples = (
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

    def write(self, file: File, node: cst.FunctionDef) -> Iterator[Edit]:
        task = file.task(node)
        if task is None or not file.plan.converts(task.key):
            return
        file.needed.add("ray")
        definition, launch = file.plan.definitions[task.key], file.plan.launches.get(task.key)
        keywords = _written(file.view, node, task)
        retries = {key: keywords[key] for key in RETRIES if key in keywords}
        by_helper = _needs_helper(definition, retries)
        if by_helper:
            file.needed.add("retrying")
        if definition.base is not None:
            retries = {"base": keywords["base"], **retries}
        yield _decorator(file.view, node, task, retries if by_helper else None, definition)
        if definition.self_name is not None and not definition.self_used:
            yield _without_self(file.view, node)
        options, lines = _ray_options(keywords, {} if by_helper else retries, file.plan.redelivers)
        if launch is not None:
            file.needed.add("launcher")
            lines.append(_launch_text(file.view, node, launch, keywords))
        else:
            given = ", ".join(f"{key}={value}" for key, value in options.items())
            lines.append(f"{node.name.value}_remote = ray.remote({given})({node.name.value})")
        yield after(file.view, node, lines)


def _needs_helper(definition: Definition, retries: dict[str, str]) -> bool:
    """Return whether a function needs the helper's ``retrying``."""
    if definition.self_used or definition.base is not None:
        return True
    return "autoretry_for" in retries and not _RETRIED_BY_RAY.issuperset(retries)


def _ray_options(
    keywords: dict[str, str], retries: dict[str, str], redelivers: bool
) -> tuple[dict[str, str], list[str]]:
    """Return the options of ``ray.remote`` as code, and comments about differences.

    Arguments:
        keywords: the task's options as written.
        retries: its retry options; empty if the helper retries.
        redelivers: the application redelivers messages whose worker died.
    """
    late = keywords.get("acks_late") == "True" and keywords.get("reject_on_worker_lost") == "True"
    options = {"num_cpus": "1", **{key: keywords[key] for key in REQUESTS if key in keywords}}
    options["max_retries"] = "3" if late or redelivers else "0"
    lines = []
    if "autoretry_for" in retries:
        limit = retries.get("max_retries", "3")
        options["max_retries"] = "-1" if limit == "None" else limit
        options["retry_exceptions"] = _as_list(retries["autoretry_for"])
        delay = retries.get("default_retry_delay", "180")
        if delay != "0":
            lines.append(f"{MARK} Celery waited {delay} s before it tried again, Ray does not wait")
    return options, lines


def _launch_text(view: View, node: cst.FunctionDef, launch: Launch, keywords: dict[str, str]) -> str:
    """Return the code of the function that starts the actor."""
    requests = ", ".join(f"{key}={keywords[key]}" for key in REQUESTS if key in keywords)
    return launch.render(node.name.value, view.source(node.params), requests)


def _written(view: View, node: cst.FunctionDef, task: Task) -> dict[str, str]:
    """Return the keyword arguments of a task's decorator, as written."""
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
