"""Tasks of the sample application that fail in ways of their own, and errors that are hard to carry."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from pathlib import Path
from typing import Any

from celery import Task

from tests import records
from tests.sample import app


class Interruption(BaseException):
    """A project's own error that is no ``Exception``."""


class TwoArguments(ValueError):
    """Its ``__init__`` wants more than ``args`` has."""

    def __init__(self, zone: str, code: int) -> None:
        super().__init__(f"{zone} failed with {code}")
        self.zone, self.code = zone, code


class KeywordOnly(Exception):
    """Its ``__init__`` takes keywords only."""

    def __init__(self, *, zone: str) -> None:
        super().__init__(f"no model for {zone}")
        self.zone = zone


class Locked(Exception):
    """It holds something that cannot be pickled, in its arguments too."""

    def __init__(self, text: str) -> None:
        self.lock = threading.Lock()
        self.text = text
        super().__init__(text, self.lock)


class Outer:
    class Nested(LookupError):
        """An error of a class in a class."""


def _made_here() -> type[Exception]:
    class Local(Exception):
        """An error of a class in a function."""

    return Local


Local = _made_here()


class NoFile(OSError):
    """It makes its own arguments of others."""

    def __init__(self, path: str) -> None:
        super().__init__(2, "no such model", path)


def hard_error(kind: str) -> Exception:
    """Return one of the errors above."""
    if kind == "two arguments":
        return TwoArguments("EWR", 7)
    if kind == "keyword only":
        return KeywordOnly(zone="EWR")
    if kind == "lock":
        return Locked("busy")
    if kind == "nested":
        return Outer.Nested("EWR")
    return NoFile("model.bin") if kind == "file" else Local("EWR")


class Handled(Task):
    """Its handlers record what they are told."""

    abstract = True

    def on_failure(self, exc: BaseException, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        records.write(kwargs["path"], handler="on_failure", error=type(exc).__name__)

    def after_return(self, status: str, retval: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        records.write(kwargs["path"], handler="after_return", status=status, error=type(retval).__name__)


@app.task(base=Handled)
def interrupted_and_handled(path: str) -> None:
    raise Interruption("stop")


@app.task
def interrupt(kind: str) -> None:
    """Raise what is no ``Exception``."""
    if kind == "cancelled":
        raise asyncio.CancelledError("by hand")
    if kind == "exit of a generator":
        raise GeneratorExit
    raise Interruption("stop", 3)


@app.task
def exit_code(code: Any) -> None:
    sys.exit(code)


@app.task
def fail_hard(kind: str) -> None:
    raise hard_error(kind)


@app.task
def hard_errors() -> list[Any]:
    return [hard_error("two arguments"), {"locked": hard_error("lock")}]


@app.task
def text_of(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


@app.task
def only_there(folder: str, how: str) -> Any:
    """Raise or return what the module ``only_there`` has, which is nowhere but in this task's environment."""
    if folder not in sys.path:
        sys.path.append(folder)
    import only_there as module  # type: ignore[import-not-found]

    if how == "raise":
        raise module.ModelError("EWR", code=7)
    return module.Model(folder)


@app.task
def names(models: list[Any], folder: str) -> list[str]:
    if folder not in sys.path:
        sys.path.append(folder)
    return [type(model).__name__ for model in models]


class Unloadable:
    """What a caller can pickle and nobody can load."""

    def __reduce__(self) -> Any:
        return _refuse, (os.getpid(),)


def _refuse(pid: int) -> Any:
    if pid != os.getpid():
        raise RuntimeError("not in this process")
    return Unloadable()


@app.task
def take(value: Any) -> Any:
    return value


@app.task
def note(results: Any, path: str) -> None:
    Path(path).write_text(repr(results))
