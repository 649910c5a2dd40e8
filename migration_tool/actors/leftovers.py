"""What remains of Celery in a file whose tasks are plain Ray: loggers, time-outs, settings, control, applications.

Settings and commands that have no effect on remote functions, and applications without tasks, get a comment saying so.
"""

from __future__ import annotations

import re

import libcst as cst

from ..check import catalogue, settings
from ..examples import Example
from ..model import Finding, Verdict
from ..project import tables
from ..project.view import Edit, View, dotted_name
from ..rewriting import finding
from ..workspace import Source
from .functions import MARK

#: Settings that a remote function does not see, and what there is instead.
LOST = {
    "task_time_limit": "no time limit holds for remote functions; ray.cancel what takes too long",
    "task_soft_time_limit": "no time limit holds for remote functions; ray.cancel what takes too long",
    "task_default_rate_limit": "no rate limit holds for remote functions",
    "task_annotations": "they do not reach remote functions; write the options there",
    "task_routes": "remote functions have no queues; give them resources instead",
    "task_always_eager": "remote functions run on Ray always; call the plain functions in tests",
    "task_compression": "it does not reach remote functions",
    "worker_max_tasks_per_child": "max_calls= of ray.remote is its like",
    "worker_max_memory_per_child": "it does not reach remote functions",
    "worker_concurrency": "num_cpus= of each remote function decides how many run at once",
}


def loggers(view: View) -> tuple[list[Edit], set[str]]:
    """Task loggers become plain ones."""
    found: list[Edit] = []
    if "get_task_logger" not in view.text:
        return found, set()
    for node in view.nodes:
        if isinstance(node, cst.Call) and view.dotted(node.func) == "celery.utils.log.get_task_logger":
            found.append(Edit(*view.span(node.func), "logging.getLogger"))
    return found, {"logging"} if found else set()


def timeouts(view: View, kept: bool, submits: bool) -> list[Edit]:
    """Celery's time-out error becomes Ray's, where nothing else is imported with it.

    Arguments:
        kept: some tasks stay on raycelery, so both may come.
        submits: the file waits for remote functions.
    """
    found = []
    for node in view.nodes:
        if isinstance(node, cst.ImportFrom) and not node.relative and dotted_name(node.module) == "celery.exceptions":
            names = [] if isinstance(node.names, cst.ImportStar) else list(node.names)
            if all(one.evaluated_name != "TimeoutError" for one in names):
                continue
            if kept or len(names) > 1 or node.lpar:
                at = view.span(node)[0]
                if submits and not has_comment(view, at):
                    found.append(comment(view, at, "remote functions raise ray.exceptions.GetTimeoutError instead"))
            else:
                local = names[0].evaluated_alias or "TimeoutError"
                found.append(Edit(*view.span(node), f"from ray.exceptions import GetTimeoutError as {local}"))
    return found


def settings_of(view: View, source: Source, namespace: str | None) -> list[Finding]:
    """The settings that a file makes."""
    return settings.uses(view, source, namespace) if "conf" in view.text or namespace is not None else []


def is_on(view: View, one: Finding) -> bool:
    """Whether a setting is the constant True."""
    line = view.text.split("\n")[one.line - 1]
    return re.search(rf"{re.escape(one.name)}[\"']?\]?\s*[=:]\s*True\b", line) is not None


def comments(view: View, source: Source, namespace: str | None, findings: list[Finding]) -> list[Edit]:
    """Comments at settings that do not reach remote functions."""
    found = []
    lines = view.text.split("\n")
    seen = set()
    for one in settings_of(view, source, namespace):
        name = catalogue.setting_name(one.name, "CELERY") or ""
        if name not in LOST or one.line in seen or source.notebook is not None:
            continue
        seen.add(one.line)
        above = lines[one.line - 2] if one.line > 1 else ""
        if MARK in above:
            continue
        findings.append(
            Finding(
                one.path,
                one.line,
                one.column,
                "setting",
                one.name,
                Verdict.MANUAL,
                "it does not reach plain Ray",
                LOST[name],
            )
        )
        if not above.rstrip().endswith("\\"):
            found.append(comment(view, view.offset(one.line), LOST[name]))
    return found


def comment(view: View, at: int, text: str) -> Edit:
    """A comment on a line of its own above the one of a byte."""
    start = view.line_start(at)
    return Edit(start, start, f"{view.indentation(at)}{MARK} {text}{view.newline}")


def has_comment(view: View, at: int) -> bool:
    """Whether such a comment stands above the line of a byte."""
    start = view.line_start(at)
    previous = view.raw[view.line_start(max(start - 1, 0)) : start]
    return MARK.encode() in previous


def controls(view: View) -> list[Edit]:
    """Comments where an application's control or events are used, which know nothing of remote functions."""
    found = []
    for node in view.nodes:
        if not isinstance(node, cst.Attribute) or node.attr.value not in ("control", "events"):
            continue
        value = view.value(node)
        at = view.span(view.statement(node))[0]
        if value is None or value.kind != "app.attribute" or value.name not in ("control", "events"):
            continue
        if not has_comment(view, at) and isinstance(view.statement(node), cst.SimpleStatementLine):
            text = "remote functions do not appear here; ray.util.state lists them, ray.cancel ends them"
            found.append(comment(view, at, text))
    return list({edit.start: edit for edit in found}.values())


def applications(view: View, source: Source, findings: list[Finding]) -> list[Edit]:
    """Comments at applications that no task is left on."""
    found = []
    for node in view.nodes:
        if not isinstance(node, cst.Call) or view.dotted(node.func) not in tables.EXTERNAL_APPS:
            continue
        at = view.span(view.statement(node))[0]
        if has_comment(view, at) or not isinstance(view.statement(node), cst.SimpleStatementLine):
            continue
        text = "no task is left on this application; take it away once nothing reads its settings"
        found.append(comment(view, at, text))
        findings.append(
            finding(view, source, node, "app", "Celery", Verdict.MANUAL, "no task is left on it", "take it away")
        )
    return found


EXAMPLES = (
    Example(
        """\
from celery import Celery
from celery.exceptions import TimeoutError
from celery.utils.log import get_task_logger

app = Celery("shop", broker="redis://")
app.conf.task_time_limit = 60
logger = get_task_logger(__name__)


@app.task
def train(zone):
    logger.info(zone)


def main(zone):
    try:
        train.delay(zone).get(timeout=1)
    except TimeoutError:
        logger.error("too late")
    app.control.purge()
""",
        """\
from raycelery import Celery
from ray.exceptions import GetTimeoutError as TimeoutError
import logging
import ray

# raycelery-migrate: no task is left on this application; take it away once nothing reads its settings
app = Celery("shop", broker="redis://")
# raycelery-migrate: no time limit holds for remote functions; ray.cancel what takes too long
app.conf.task_time_limit = 60
logger = logging.getLogger(__name__)


def train(zone):
    logger.info(zone)


train_remote = ray.remote(num_cpus=1, max_retries=0)(train)


def main(zone):
    try:
        ray.get(train_remote.remote(zone), timeout=1)
    except TimeoutError:
        logger.error("too late")
    # raycelery-migrate: remote functions do not appear here; ray.util.state lists them, ray.cancel ends them
    app.control.purge()
""",
    ),
)
