"""What a bridge's tasks print and log, and how they end, in the log of its worker: as a stock worker's has it."""

from __future__ import annotations

import logging
import sys
from typing import Any

from billiard.einfo import ExceptionInfo
from celery.app import trace
from celery.exceptions import Retry
from kombu.utils.encoding import safe_repr

from raycelery.logs.lines import TASKS, Line, opened, plain
from raycelery.masking import masked_text
from raycelery.protocol.frames import Lines

_TRACE = logging.getLogger("celery.app.trace")
#: Characters of what is logged of a message that cannot be read.
MOST_CHARACTERS = 8_000
_FORMATTER = logging.Formatter()
_OURS = ("raycelery.bridge.consumer_step", "raycelery.bridge.redis_transport")
#: Where Celery has what is written to standard output and error.
_PRINTED = "celery.redirected"


class Shortener(logging.Filter):
    """Cuts what is logged of a broker's messages, which may be large, and masks what looks like a credential in it."""

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        if len(text) > MOST_CHARACTERS:
            record.msg, record.args = cut(text), ()
        if record.exc_info and not record.exc_text:
            record.exc_text = cut(_FORMATTER.formatException(record.exc_info))
        return True


def cut(text: str) -> str:
    """Return a text that is no longer than a log may be, without what looks like a credential."""
    if len(text) > MOST_CHARACTERS:
        half = MOST_CHARACTERS // 2
        text = f"{text[:half]} ... ({len(text) - 2 * half:,} characters are left out) ... {text[-half:]}"
    return masked_text(text)


def shorten() -> None:
    """Have what is logged of messages that cannot be read cut, by Celery's consumer and by this package."""
    for name in ("celery.worker.consumer.consumer", *_OURS):
        logger = logging.getLogger(name)
        if not any(isinstance(one, Shortener) for one in logger.filters):
            logger.addFilter(Shortener())


def relog(frame: Lines, app: Any) -> None:
    """Log what executors have sent, once more: at its own level, and with this worker's handlers and format."""
    printed = logging.getLevelName(str(app.conf.worker_redirect_stdouts_level).upper())
    for line in opened(frame.lines):
        if not line.level and not app.conf.worker_redirect_stdouts:
            print(line.text, file=sys.stdout, flush=True)
            continue
        name, level = (line.logger, line.level) if line.level else (_PRINTED, printed)
        task = name.startswith(f"{TASKS}.")
        logger = logging.getLogger(TASKS if task else name)
        if logger.isEnabledFor(level):
            logger.handle(_record(line, name.removeprefix(f"{TASKS}."), level))
    if frame.left_out:
        logging.getLogger(__name__).warning(
            "tasks printed more than could be shown here; 'raycelery logs' shows all of it"
        )


def _record(line: Line, name: str, level: int) -> logging.LogRecord:
    record = logging.LogRecord(name, level, "", 0, "%s", (plain(line.text),), None)
    record.created, record.msecs = line.created, line.created % 1 * 1000
    # Read by Celery's TaskFormatter.
    record.task_id, record.task_name = line.task_id or "???", line.task
    return record


def succeeded(request: Any, returned: str, seconds: float) -> None:
    """Log that a task succeeded."""
    if _TRACE.isEnabledFor(logging.INFO):
        trace.info(trace.LOG_SUCCESS, {**_named(request), "return_value": returned, "runtime": seconds})


def failed(request: Any, einfo: ExceptionInfo) -> None:
    """Log that a task raised: an error, or what has it run again, be ignored or rejected."""
    exc = einfo.exception
    exc = getattr(exc, "exc", exc) if type(exc).__name__ == "ExceptionWithTraceback" else exc
    if isinstance(exc, Retry):
        trace.info(trace.LOG_RETRY, {**_named(request), "exc": str(exc)})
        return
    policy = trace.get_log_policy(request.task, einfo, exc)
    if not _TRACE.isEnabledFor(policy.severity):
        return
    context = {
        **_named(request),
        "hostname": request.hostname,
        "exc": safe_repr(exc),
        "traceback": str(einfo.traceback),
        "description": policy.description,
        "internal": einfo.internal,
    }
    record = _TRACE.makeRecord(
        _TRACE.name, policy.severity, "", 0, policy.format.strip(), (context,), None, extra={"data": context}
    )
    if policy.traceback:
        record.exc_text = str(einfo.traceback).rstrip()
    _TRACE.handle(record)


def _named(request: Any) -> dict[str, Any]:
    headers = request.request_dict
    return {
        "id": request.id,
        "name": request.name,
        "args": headers.get("argsrepr"),
        "kwargs": headers.get("kwargsrepr"),
    }
