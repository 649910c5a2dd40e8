"""Lines that tasks print and log, on their way from executors to whoever looks at them, and how they are shown."""

from __future__ import annotations

import logging
import os
import queue
import re
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any, NamedTuple, TextIO

from raycelery.protocol.codec import Decoder, encode
from raycelery.protocol.frames import Lines

#: Escape sequences by which terminals are told of colours and cursors.
_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
#: The parent of Celery's task loggers; their names stand behind it here.
TASKS = "celery.task"
#: Frames that may wait to be shown, and seconds that a process waits at its end for them to be.
_MOST_FRAMES = 1000
_LAST_SECONDS = 2.0


class Line(NamedTuple):
    """What a task, or its executor outside of tasks, printed or logged at once; a traceback has several text lines.

    ``created`` is in seconds since the epoch. ``level`` is that of the logging module, 0 for what was printed.
    ``shown`` is the text in the project's own log format, None where that is the text itself. ``end`` is the size in
    bytes that the executor's file has with this line.
    """

    task_id: str
    task: str
    created: float
    level: int
    logger: str
    text: str
    shown: str | None
    end: int


_lines: Decoder[list[Line]] = Decoder(list[Line])


def packed(lines: list[Line]) -> bytes:
    """Encode lines for :class:`raycelery.protocol.frames.TaskLines`."""
    try:
        return encode(lines)
    except TypeError:  # characters that stand for bytes which are none, as in names of files
        return encode(
            [line._replace(text=_sound(line.text), shown=line.shown and _sound(line.shown)) for line in lines]
        )


def opened(data: bytes) -> list[Line]:
    """Undo :func:`packed`."""
    return _lines.decode(data)


def _sound(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()


def plain(text: str) -> str:
    """Return a text without the escape sequences that are for terminals."""
    return _ANSI.sub("", text) if "\x1b" in text else text


def colourful(stream: Any) -> bool:
    """Return whether a stream is a terminal that colours are wanted on, see https://no-color.org."""
    try:
        return bool(stream.isatty()) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    except (AttributeError, ValueError):  # it is closed, or no real stream
        return False


def wanted(ray_init: Mapping[str, Any] | None) -> bool:
    """Return whether a process shows what its tasks print and log: Ray's ``log_to_driver``, in ``ray_init``."""
    chosen = (ray_init or {}).get("log_to_driver")
    if chosen is None:
        return os.environ.get("RAY_LOG_TO_DRIVER", "1") not in ("0", "false", "False")
    return bool(chosen)


def prefixed(line: Line, colour: bool) -> str:
    """Return the text of a line for a terminal, the task named before each line of it."""
    name = f"({line.task} {line.task_id[:8]})" if line.task_id else f"({line.task})"
    lead = f"\x1b[36m{name}\x1b[0m " if colour else f"{name} "
    text = line.text if line.shown is None else line.shown
    return "".join(f"{lead}{one}\n" for one in (text if colour else plain(text)).split("\n"))


class Shower:
    """Writes lines to standard error, in a thread of its own: a terminal that stands still holds up nothing else."""

    def __init__(self) -> None:
        self._frames: queue.Queue[tuple[bytes, int]] = queue.Queue(_MOST_FRAMES)
        #: Guards the start of the thread.
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._missed = 0
        os.register_at_fork(after_in_child=self._after_fork)

    def _after_fork(self) -> None:
        self._frames = queue.Queue(_MOST_FRAMES)
        self._starting = threading.Lock()
        self._thread = None

    def on_frame(self, frame: Any) -> None:
        """Take what a client was sent."""
        if type(frame) is not Lines:
            return
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="raycelery-lines", daemon=True)
                self._thread.start()
        try:
            self._frames.put_nowait((frame.lines, frame.left_out + self._missed))
            self._missed = 0
        except queue.Full:
            self._missed += frame.left_out + 1

    def _run(self) -> None:
        while True:
            lines, left_out = self._frames.get()
            try:
                show(opened(lines), left_out, sys.stderr)
            finally:
                self._frames.task_done()

    def finish(self) -> None:
        """Wait until what has come was shown, but not for ever."""
        deadline = time.monotonic() + _LAST_SECONDS
        with self._frames.all_tasks_done:
            while self._frames.unfinished_tasks:
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                self._frames.all_tasks_done.wait(left)


def show(lines: list[Line], left_out: int, stream: TextIO | None) -> None:
    """Write lines to a stream, which may be closed."""
    colour = colourful(stream)
    text = "".join(prefixed(line, colour) for line in lines)
    if left_out:
        text = f"(raycelery) tasks printed more than could be shown here; 'raycelery logs' shows all of it\n{text}"
    if stream is None:
        return
    try:
        stream.write(text)
        stream.flush()
    except (OSError, ValueError) as exc:  # it is closed
        logging.getLogger(__name__).debug("lines of tasks cannot be shown: %s", exc)
