"""Why Ray says that something failed, in words for a log line or an error's text.

Ray's errors are written for a terminal: with colours, with the ids of actors, with tracebacks. See
https://docs.ray.io/en/latest/ray-core/fault_tolerance/actors.html.
"""

from __future__ import annotations

import re

from raycelery.masking import masked_text

#: The longest reason, in characters.
LONGEST = 1000
_ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
#: What Ray tells of an actor's identity, a line each.
_IDENTITY = re.compile(r"^\s*(class_name|actor_id|pid|name|namespace|ip): ")
_DETAIL = re.compile(r"Worker exit detail: (?P<detail>.*)", re.DOTALL)
_UNEXPECTED = "The actor died unexpectedly before finishing this task."


def cleaned(text: str) -> str:
    """Return a text of Ray's on one line, without colours and without the carets that point at code."""
    lines = [" ".join(line.split()) for line in _ANSI.sub("", text).splitlines() if not _IDENTITY.match(line)]
    whole = masked_text(" ".join(line for line in lines if line.strip("^~ ")))
    return whole if len(whole) <= LONGEST else f"{whole[:LONGEST]}…"


def reason_of(exc: BaseException) -> str:
    """Say in one sentence why a call of Ray's failed: the cause, where Ray knows it.

    Arguments:
        exc: any error; those of ``ray.exceptions`` are looked into.
    """
    import ray.exceptions as known

    if isinstance(exc, known.RayTaskError):
        cause = exc.cause
        if isinstance(cause, BaseException) and not isinstance(cause, known.RayTaskError):
            return _named(cause)
        return _last_line(str(exc))
    if isinstance(exc, known.RuntimeEnvSetupError):
        return f"its runtime environment cannot be set up: {cleaned(str(exc))}"
    if isinstance(exc, known.OutOfMemoryError):
        return f"its node ran out of memory: {cleaned(str(exc))}"
    if isinstance(exc, (known.ActorDiedError, known.WorkerCrashedError)):
        text = str(exc)
        if "raised in its creation task" in text:
            return _last_line(text)
        detail = _DETAIL.search(text)
        if detail is not None:
            return f"its process died: {cleaned(detail['detail'])}"
        return f"its process died: {cleaned(text.replace(_UNEXPECTED, ''))}".rstrip(": ")
    if isinstance(exc, known.RayError):
        return cleaned(str(exc)) or type(exc).__name__
    return _named(exc)


def _named(exc: BaseException) -> str:
    text = cleaned(str(exc))
    return f"{type(exc).__name__}: {text}" if text else type(exc).__name__


def _last_line(text: str) -> str:
    """Return what a traceback ends with: the error itself."""
    lines = [line for line in _ANSI.sub("", text).splitlines() if line.strip() and not line[0].isspace()]
    return cleaned(lines[-1]) if lines else "it gives no reason"
