"""What keeps an application from being loaded in an executor: in its own words, with the remedy."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator

from kombu.exceptions import SerializerNotInstalled

from raycelery.app.spec import TRAVELLING
from raycelery.errors import AppLoadError

#: Names that look like those of environment variables.
_VARIABLE = re.compile(r"\b[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+\b")
_TRAVEL = (
    f"executors get only those of the caller's environment variables that begin with {', '.join(TRAVELLING[:-1])} or "
    f"{TRAVELLING[-1]}, or that ray_env_vars names"
)


@contextlib.contextmanager
def told(what: str, cwd: str) -> Iterator[None]:
    """Have whatever the application raises while it is made ready become the failure of its messages.

    Arguments:
        what: is made ready, such as "the application 'shop'".
        cwd: the caller's working directory.

    Raises:
        AppLoadError: with the application's own words; also for ``sys.exit``, which must not end the executor: the
            next one would only do the same.
    """
    try:
        yield
    except AppLoadError:
        raise
    except BaseException as exc:
        if isinstance(exc, KeyboardInterrupt) or hasattr(exc, "ray_terminate_msg"):
            raise  # Ray ends this process
        raise AppLoadError(describe(what, cwd, exc)) from exc


def describe(what: str, cwd: str, exc: BaseException) -> str:
    """Return one sentence that says what cannot be loaded, why, and what helps."""
    said = f"{type(exc).__name__}: {exc}"
    if isinstance(exc, ImportError):
        return (
            f"executors cannot load {what} ({said}): they look in {cwd} and the caller's sys.path; start the program "
            "from the project's folder, install the project, or name its folder as working_dir in ray_runtime_env"
        )
    if isinstance(exc, SerializerNotInstalled):
        return (
            f"executors cannot load {what} ({said}): accept_content names a serializer that executors do not know; "
            "register it in the module that makes the application, not in the program that is run"
        )
    missing = _missing_variable(exc)
    if missing is not None:
        return (
            f"executors cannot load {what}: the environment variable {missing!r} is not set there: add {missing!r} "
            f"to ray_env_vars, or set it on the nodes; {_TRAVEL}"
        )
    return f"executors cannot load {what} ({said}){_variables_in(said)}"


def _missing_variable(exc: BaseException) -> str | None:
    """Return the name that was looked up in ``os.environ``, if that is what failed."""
    if not isinstance(exc, KeyError) or exc.__traceback__ is None:
        return None
    last = exc.__traceback__
    while last.tb_next is not None:
        last = last.tb_next
    name = exc.args[0] if exc.args else None
    return name if last.tb_frame.f_globals.get("__name__") == "os" and isinstance(name, str) else None


def _variables_in(text: str) -> str:
    """Return advice on the environment variables that a text seems to speak of, and which are not set."""
    names = sorted({name for name in _VARIABLE.findall(text) if name not in os.environ})
    if not names:
        return ""
    verb = "is" if len(names) == 1 else "are"
    return f"; {', '.join(names)} {verb} not set there: {_TRAVEL}"
