"""How a message ended: as the executor tells the dispatcher, with a report, where it did not succeed."""

from __future__ import annotations

import re
from typing import Any

from billiard.einfo import ExceptionInfo, ExceptionWithTraceback
from celery.exceptions import Ignore, Reject, Retry

from raycelery.protocol.reports import Outcome, TaskError

#: Of an error's words and of its traceback, at most so many characters are told: the end of the latter.
TEXT, TRACEBACK = 1_000, 8_000
_FRAME = re.compile(r'^ *File "(?P<file>[^"]*)", line (?P<line>\d+), in (?P<function>.*)$', re.MULTILINE)

#: Outcome, and why it failed.
Ending = tuple[Outcome, "TaskError | None"]


def failed(exc: BaseException, traceback: str | None = None) -> Ending:
    """Return the ending of a message that failed with an error."""
    told = sound((traceback or "")[-TRACEBACK:])
    return "failed", TaskError(_name(exc), _words(exc), sound(_place(traceback or "")), told)


def of(einfo: Any, exc: BaseException | None = None) -> Ending:
    """Return the ending of a message for which Celery's tracer returned this ``ExceptionInfo``.

    Arguments:
        exc: the error itself; what the other holds of it may have been made fit to travel.
    """
    exc = einfo.exception if exc is None else exc
    if isinstance(exc, ExceptionWithTraceback):
        exc = exc.exc
    if isinstance(exc, Retry):
        return "retried", None
    if isinstance(exc, Reject):
        return "rejected", None
    if isinstance(exc, Ignore):
        return "ignored", None
    return failed(exc, str(einfo.traceback or ""))


def einfo_of(exc: BaseException) -> ExceptionInfo:
    """Return an error in the form in which Celery passes errors on."""
    if exc.__traceback__ is not None:
        return ExceptionInfo((type(exc), exc, exc.__traceback__))
    try:
        raise exc
    except BaseException:  # it is the one above
        return ExceptionInfo()


def _name(exc: BaseException) -> str:
    kind = type(exc)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _words(exc: BaseException) -> str:
    try:
        text = str(exc)
    except Exception as error:  # an error's own words may fail, too
        text = f"its text cannot be shown: {error!r}"
    return sound(text if len(text) <= TEXT else f"{text[:TEXT]}…")


def sound(text: str) -> str:
    """Return a text without characters that stand for bytes which are none, as in names of files."""
    return text if text.isascii() else text.encode(errors="backslashreplace").decode()


def _place(traceback: str) -> str:
    frames = list(_FRAME.finditer(traceback))
    return f"{frames[-1]['file']}:{frames[-1]['line']} in {frames[-1]['function']}" if frames else ""
