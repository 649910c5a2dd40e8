"""Finds Celery's commands in Procfiles, Dockerfiles, compose files, systemd units and scripts."""

from __future__ import annotations

import re

from ..model import Finding
from ..workspace import Source
from .catalogue import Entry, changes, manual

#: ``celery -A proj worker -c 4``, ``["celery", "-A", "proj", "worker"]``, ``manage.py celery worker``
_COMMAND = re.compile(
    r"(?<![\w./-])(?P<program>(?:[\w./$\{\}~-]*/)?celery|(?:python[\d.]*\s+)?\S*manage\.py\s+celery)(?=[\s\"',]|$)"
    # An option with a value, which may be called as a command is, or anything else that is no command.
    r"(?P<options>(?:[\s\"',\[\]\\]+(?:(?:-A|--app|-b|--broker|--result-backend|--config|--loader|--workdir)"
    r"[\s\"',=]+[^\s\"',;&|\\]{1,200}|(?!-A[\s\"',]|--app[\s\"',=]|worker\b|beat\b|flower\b|multi\b|events\b|inspect\b|control\b|call\b|purge\b|shell\b|status\b"
    r"|graph\b|result\b|migrate\b|amqp\b|upgrade\b|report\b|logtool\b|list\b)[^\s\"',;&|\\]{1,200})){0,16})"
    r"[\s\"',\[\]\\]+(?P<command>worker|beat|flower|multi|events|inspect|control|call|purge|shell|status|graph|result|migrate|amqp"
    r"|upgrade|report|logtool|list)\b(?P<tail>(?:\\\r?\n|[^\n;&|])*)"
)
_OLD = re.compile(
    r"(?<![\w./-])(?P<command>celeryd|celerybeat|celeryev|celeryctl|celeryd-multi|celerycam|watchmedo\b.*\bcelery)(?![\w./-])"
)
#: What may come before a command in a string that is one.
_BEFORE = re.compile(r"(?:^|[;&|(]|\b(?:exec|sudo|nohup|env|run|-m)\b|\w+=\S*)\s*$")
_FLOWER = re.compile(r"(?<![\w./-])flower\s+(?=-A|--broker|--port)")
_CONCURRENCY = re.compile(r"(?:-c[\s=\"',]*|--concurrency[\s=\"',]*)(\d+)")
_POOL = re.compile(r"(?:-P[\s=\"',]*|--pool[\s=\"',]*)(\w+)")
_WORKER_FLAGS = {
    "-B": "beat runs inside this worker: start `celery beat` or `raycelery beat` instead",
    "--beat": "beat runs inside this worker: start `celery beat` or `raycelery beat` instead",
}
_BRIDGE = 'or set ray_mode = "bridge" and keep it'

#: Kinds of files that may hold commands.
KINDS = frozenset({"procfile", "dockerfile", "compose", "systemd", "shell"})
COMMANDS: dict[str, Entry] = {
    "worker": manual("direct mode runs no Celery worker", f"stop it once its producers use raycelery, {_BRIDGE}"),
    "multi": manual("direct mode runs no Celery workers", f"remove it, {_BRIDGE}"),
    "beat": changes("works unchanged and sends to Ray; `raycelery beat` runs the schedule in the cluster"),
    "flower": changes("works once RAY_ADDRESS names the cluster, except for its broker page"),
    "events": changes("works once RAY_ADDRESS names the cluster"),
    "inspect": changes("answered once per Ray node instead of once per worker"),
    "status": changes("answered once per Ray node instead of once per worker"),
    "control": changes("holds for the whole cluster; direct mode has no custom commands"),
    "purge": changes("drops the tasks that wait on Ray"),
    "amqp": manual("direct mode has no broker", "leave it out"),
    "migrate": manual("direct mode has no broker", "leave it out"),
}  # fmt: skip
_ELSE = changes("works on the application that it is given")


def find(source: Source, text: str, offset_line: int = 0) -> list[Finding]:
    """Return a finding for each of Celery's commands in a text.

    Arguments:
        source: the file that the text is from.
        text: the whole file, or a string literal of it.
        offset_line: number of lines in the file before the text.
    """
    found = []
    comments = _comment_lines(text) if source.kind != "python" else set()
    runs = source.kind not in ("python", "notebook")
    matches = [match for match in _COMMAND.finditer(text) if runs or _is_command(text, match)]
    for match in matches:
        line, column = _place(text, match.start("program"))
        if line in comments:
            continue
        command = match["command"]
        verdict, message, instead = COMMANDS.get(command, _ELSE)
        if command == "worker":
            message += _worker(match["options"] + match["tail"])
        found.append(
            Finding(
                str(source.path), line + offset_line, column, "worker", f"celery {command}", verdict, message, instead
            )
        )
    for match in [*_OLD.finditer(text), *_FLOWER.finditer(text)]:
        line, column = _place(text, match.start())
        if line in comments or any(one.start() <= match.start() < one.end() for one in matches):
            continue
        if source.kind == "compose" and text[match.end() : match.end() + 1] == ":":
            continue  # the name of a service
        name = "flower" if match.re is _FLOWER else match["command"].partition(" ")[0]
        command = {"celerybeat": "beat", "celeryev": "events", "flower": "flower"}.get(name, "worker")
        found.append(Finding(str(source.path), line + offset_line, column, "worker", name, *COMMANDS[command]))
    return found


def _is_command(text: str, match: re.Match[str]) -> bool:
    """Return whether a string of a program is to be run, and does not only speak of a worker."""
    if match["options"].strip():
        return True
    tail = match["tail"].strip()
    return bool(_BEFORE.search(text[: match.start()])) and (not tail or tail.startswith(("-", "&", "|", ";", ">")))


def _worker(arguments: str) -> str:
    """Return what becomes of a worker's options, to be appended to a message."""
    said = ""
    concurrency = _CONCURRENCY.search(arguments)
    if concurrency:
        said += f"; -c {concurrency[1]} becomes worker_concurrency, or nothing: tasks state what they need"
    pool = _POOL.search(arguments)
    if pool and pool[1] in ("gevent", "eventlet", "threads"):
        said += f"; pool {pool[1]}: each message has a process, give its tasks a small num_cpus"
    for flag, why in _WORKER_FLAGS.items():
        if re.search(rf"(?<![\w-]){flag}(?![\w-])", arguments):
            said += f"; {why}"
    return said


def _place(text: str, offset: int) -> tuple[int, int]:
    return text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset)


def _comment_lines(text: str) -> set[int]:
    return {number for number, line in enumerate(text.split("\n"), 1) if line.lstrip().startswith(("#", "//", ";"))}
