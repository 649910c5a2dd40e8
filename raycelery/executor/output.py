"""What tasks of this process print and log: written to a file on the node, and sent to whoever submitted them.

An executor runs one message at a time, so whatever is written meanwhile, from whichever thread, is that task's.
``sys.stdout``, ``sys.stderr`` and the handlers that Celery makes for loggers lead here. What subprocesses and C
libraries write goes to the files that Ray gave this process, and is picked up there when the task has ended.

The file is ``raycelery-<application>-<pid>.log`` in Ray's folder for logs, see
https://docs.ray.io/en/latest/ray-observability/user-guides/configure-logging.html.
:mod:`raycelery.logs.files` reads it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any, TextIO

from raycelery.client.connection import Client
from raycelery.errors import DispatcherUnreachable
from raycelery.logs import files
from raycelery.logs.lines import TASKS, Line, packed, plain
from raycelery.protocol.frames import BridgeTask, TaskLines

#: Seconds that lines wait for others to be sent with, and how many are sent at once; of more than that, the rest is
#: only in the file.
SEND_SECONDS = 0.05
MOST_LINES = 1000
#: Characters of a line that are sent, and that may be written without an end of line.
LINE_CHARACTERS = 16_384
#: Bytes of what was not written by way of Python that are picked up after a task.
RAW_BYTES = 1_000_000
#: Loggers whose handlers Celery makes.
_LOGGERS = ("", TASKS, "multiprocessing")


class Output:
    """Takes what is printed and logged in this process; there is one, :data:`OUTPUT`."""

    def __init__(self) -> None:
        self._client: Client | None = None
        self._name = ""
        self._pid = os.getpid()
        #: Who submitted what runs: a client's id, "" for nobody who looks; or the message of a bridge that it is.
        self._to = ""
        self._of_bridge: BridgeTask | None = None
        self._task = self._task_id = ""
        #: Whether somebody follows what this application's tasks say; the dispatcher tells.
        self.followed = False
        #: Guards what is noted and the file; held while nothing but the file is waited for.
        self._lock = threading.RLock()
        #: Held while lines are sent, so that they leave in order, and before the report of their task.
        self._sending = threading.RLock()
        self._lines: list[Line] = []
        self._left_out = 0
        self._partial: dict[tuple[str, int], str] = {}
        self._file: Any = None
        self._path: Path | None = None
        self._size = 0
        self._wake: threading.Event | None = None
        self._streams: tuple[Any, Any] | None = None
        self._raw = [0, 0]
        os.register_at_fork(after_in_child=self._after_fork)

    # -- of the process -----------------------------------------------------------------------------------------

    def start(self, client: Client, name: str) -> None:
        """Take over what this process writes, for the application ``name``, and send it by way of ``client``."""
        self._client, self._name = client, name
        with self._lock:
            self._close_file()
        if self._streams is None:
            self._streams = (sys.stdout, sys.stderr)
            sys.stdout, sys.stderr = Stream(self, "out", sys.stdout), Stream(self, "err", sys.stderr)
            self._raw = [_size(1), _size(2)]

    def stop(self) -> None:
        """Send what is left; the process may be given to somebody else by Ray."""
        self.end()
        self._client, self.followed = None, False
        if self._streams is not None:
            sys.stdout, sys.stderr = self._streams
            self._streams = None
        with self._lock:
            self._close_file()

    def handle_loggers(self) -> None:
        """Take what loggers are given by way of the handlers that Celery has made for this output's streams."""
        for name in _LOGGERS:
            logger = logging.getLogger(name)
            for handler in list(logger.handlers):
                if isinstance(getattr(handler, "stream", None), Stream) and type(handler) is logging.StreamHandler:
                    logger.removeHandler(handler)
                    logger.addHandler(Handler(self, handler, name))

    def _after_fork(self) -> None:
        # What children write goes to Ray's files, as that of other subprocesses.
        self._lock, self._sending = threading.RLock(), threading.RLock()
        self._wake = None
        if self._streams is not None:
            sys.stdout, sys.stderr = self._streams

    # -- of a message -------------------------------------------------------------------------------------------

    def begin(self, to: str | None, task_id: str, task: str, of_bridge: BridgeTask | None = None) -> None:
        """Note which task runs now, and who is to see what it says.

        Arguments:
            to: id of a client; None or "": nobody.
            task_id: Celery's.
            task: its name.
            of_bridge: the message of a bridge that it is, whose bridge is to see it.
        """
        with self._lock:
            self._task_id, self._task, self._to, self._of_bridge = task_id, task, to or "", of_bridge
        if self._client is not None:
            self._client.log_to = self._to

    def end(self) -> None:
        """Note that it has ended; what it said leaves before the report of that."""
        if self._streams is None:
            return
        if self._lines or self._partial or [_size(1), _size(2)] != self._raw:
            self._collect()
            self.send()
        with self._lock:
            self._task_id = self._task = ""

    def _collect(self) -> None:
        with self._lock:
            for text in self._partial.values():
                self._add(0, "", text, None)
            self._partial.clear()
            for number in (1, 2):
                for text in _written(number, self._raw[number - 1]):
                    self._add(0, "", text, None)
                self._raw[number - 1] = _size(number)

    # -- what is said -------------------------------------------------------------------------------------------

    def write(self, kind: str, text: str) -> None:
        """Take what was written to a stream; it is a line once its end is there, or its task's."""
        with self._lock:
            key = (kind, threading.get_ident())
            *whole, rest = (self._partial.pop(key, "") + text).split("\n")
            for one in whole:
                self._add(0, "", _last(one), None)
            if len(rest) > LINE_CHARACTERS:
                self._add(0, "", _last(rest), None)
            elif rest:
                # Progress bars write over themselves: what counts is what is seen in the end.
                self._partial[key] = _last(rest)

    def log(self, level: int, logger: str, text: str, shown: str) -> None:
        """Take what a logger was given.

        Arguments:
            text: the message, with the traceback.
            shown: the same in the project's log format.
        """
        with self._lock:
            self._add(level, logger, text, shown)

    def _add(self, level: int, logger: str, text: str, shown: str | None) -> None:
        now = time.time()
        task, task_id = (self._task, self._task_id) if self._task_id else ("executor", "")
        self._keep(files.written(now, level, task, task_id or str(self._pid), plain(text)))
        if self._of_bridge is not None and logger == "celery.app.trace":
            return  # how a message ended is logged by the bridge, which hears of it anyway
        if not (self._to or self._of_bridge or self.followed or not task_id):
            return
        if len(self._lines) >= MOST_LINES:
            self._left_out += 1
            return
        if len(text) > LINE_CHARACTERS:
            text = f"{text[:LINE_CHARACTERS]}…"
        if shown is not None and (self._of_bridge is not None or len(shown) > LINE_CHARACTERS):
            shown = None
        self._lines.append(Line(task_id, task, now, level, logger, text, shown, self._size))
        self._send_soon()

    def _keep(self, data: bytes) -> None:
        if self._file is None:
            self._path = files.folder() / files.name(self._name, os.getpid())
            self._file = files.opened(self._path)
            self._size = self._file.tell()
        elif self._size > files.MOST_BYTES:
            assert self._path is not None
            self._file.close()
            self._path.replace(f"{self._path}.1")
            self._file, self._size = files.opened(self._path), 0
        with contextlib.suppress(OSError):  # a disk that is full ends no task
            self._file.write(data)
        self._size += len(data)
        self._send_soon()

    def _close_file(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
            self._file = None

    # -- to whoever looks ---------------------------------------------------------------------------------------

    def _send_soon(self) -> None:
        if self._wake is None:
            self._wake = threading.Event()
            threading.Thread(target=self._send_later, args=(self._wake,), name="raycelery-output", daemon=True).start()
        self._wake.set()

    def _send_later(self, wake: threading.Event) -> None:
        while True:
            wake.wait()
            time.sleep(SEND_SECONDS)
            wake.clear()
            self.send()

    def send(self) -> None:
        """Send what is whole, and see that it is in the file."""
        with self._sending:
            with self._lock:
                if self._file is not None:
                    with contextlib.suppress(OSError):
                        self._file.flush()
                if not (self._task or self._to or self._of_bridge or self.followed):
                    return  # what is written while an application is loaded is for whoever submitted the first message
                lines, self._lines = self._lines, []
                left_out, self._left_out = self._left_out, 0
                to, of_bridge, client = self._to, self._of_bridge, self._client
            if not lines or client is None or not (to or of_bridge or self.followed):
                return
            ids = list({line.task_id for line in lines})
            file = "" if self._path is None else self._path.name
            try:
                client.post(TaskLines(to, of_bridge, file, packed(lines), left_out, ids), first=True)
            except DispatcherUnreachable as exc:
                # The executor ends with its dispatcher; the file has the lines.
                logging.getLogger(__name__).debug("lines of tasks cannot be sent: %s", exc)


class Stream:
    """Stands for a standard stream; what is written to it goes to the output of the task that runs.

    Arguments:
        output: where it goes.
        kind: tells the streams apart.
        raw: the stream itself; whatever else is asked of this one is its.
    """

    encoding = "utf-8"

    def __init__(self, output: Output, kind: str, raw: TextIO) -> None:
        self._output = output
        self._kind = kind
        self._raw = raw

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)

    def write(self, text: str) -> int:
        """Write a text."""
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        self._output.write(self._kind, text)
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Write several texts."""
        for line in lines:
            self.write(line)

    def isatty(self) -> bool:
        """Return False: nobody sits there."""
        return False

    def flush(self) -> None:
        """See that what was written past this stream, to its buffer, is written."""
        self._raw.flush()


class Handler(logging.Handler):
    """Takes what loggers are given, in the place of a handler that Celery has made.

    Arguments:
        output: where it goes.
        made: the handler, for its level, format and filters.
        logger: name of the logger that it is of.
    """

    def __init__(self, output: Output, made: logging.Handler, logger: str) -> None:
        super().__init__(made.level)
        self._logger = logger
        self._output = output
        self.setFormatter(made.formatter)
        for one in made.filters:
            self.addFilter(one)

    def emit(self, record: logging.LogRecord) -> None:
        """Take one record."""
        try:
            shown = self.format(record)
            parts = (record.getMessage(), record.exc_text, record.stack_info)
            # Task loggers are made in executors only: whoever logs it once more may know none of that name.
            name = f"{TASKS}.{record.name}" if self._logger == TASKS else record.name
            self._output.log(record.levelno, name, "\n".join(part for part in parts if part), shown)
        except Exception:  # as all handlers do: what cannot be logged ends no task
            self.handleError(record)


def _last(line: str) -> str:
    """Return what is seen of a line that was written over."""
    return line.rstrip("\r").rpartition("\r")[2]


def _size(number: int) -> int:
    """Return the size in bytes of the file that a descriptor leads to."""
    try:
        return os.fstat(number).st_size
    except OSError:  # it was closed
        return 0


def _written(number: int, start: int) -> list[str]:
    """Return the lines that were written to a descriptor's file since it had ``start`` bytes."""
    end = _size(number)
    if end <= start:
        return []
    try:
        # The descriptor is for writing only; Linux opens what it leads to.
        with open(f"/proc/self/fd/{number}", "rb") as file:
            file.seek(max(start, end - RAW_BYTES))
            data = file.read(min(end - start, RAW_BYTES))
    except OSError:
        return []
    return [_last(line) for line in data.decode(errors="replace").splitlines()]


#: This process's.
OUTPUT = Output()
