"""Results that cannot be loaded where they are read, because a package is missing there or a large value is gone.

State, traceback and children of such a task can be read all the same; its value raises when it is asked for.
"""

from __future__ import annotations

import io
import pickle
from typing import Any

from celery import states

from raycelery.errors import RayCeleryError, ResultLoadError
from raycelery.serialization import remote_errors, values

_PLAIN = frozenset({"set", "frozenset", "complex", "bytearray", "slice", "range"})


class _Blank:
    """Takes the place of whatever is not plain data."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    __call__ = __setstate__ = __setitem__ = append = extend = add = update = __init__

    def __repr__(self) -> str:
        return "<not loaded>"


class _Outline(pickle.Unpickler):
    """Loads plain data and errors, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if module == remote_errors.__name__ or (module == "builtins" and name in _PLAIN):
            return super().find_class(module, name)
        return _Blank


class UnreadMeta(dict[str, Any]):
    """The meta of a task without its value.

    Arguments:
        meta: all that could be loaded.
        error: raised when the value is asked for.
    """

    def __init__(self, meta: dict[str, Any], error: Exception) -> None:
        super().__init__(meta, result=None)
        self.error = error

    def __getitem__(self, key: str) -> Any:
        if key == "result":
            raise self.error
        return super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        """Return what is there."""
        return self[key] if key in self else default  # noqa: SIM401 - dict.get does not ask __getitem__


def meta_without_value(payload: bytes, exc: Exception) -> dict[str, Any]:
    """Return as much of a pickled meta as can be loaded anywhere.

    Arguments:
        payload: the meta, as :func:`raycelery.serialization.values.dumps_meta` pickles it.
        exc: why it cannot be loaded as a whole.
    """
    meta: dict[str, Any] = _Outline(io.BytesIO(payload)).load()
    error: Exception = exc
    if not isinstance(exc, RayCeleryError):
        error = ResultLoadError(
            f"the result of task {meta.get('task_id')} cannot be loaded in this process ({type(exc).__name__}: {exc}): "
            "install what is missing where results are read, or have the task return plain data"
        )
        error.__cause__ = exc
    if meta["status"] in states.EXCEPTION_STATES:
        return {**meta, "result": error}
    return UnreadMeta(meta, error)


class UnreadPart:
    """The value of a chord's part that cannot be loaded where the chord is put together, on its way to the body.

    Arguments:
        payload: the pickled part, whose last item the value is.
    """

    def __init__(self, payload: bytes) -> None:
        self._payload = payload

    def __repr__(self) -> str:
        return "<a value for the chord's body>"

    def __reduce__(self) -> tuple[Any, ...]:
        return _value_of, (self._payload,)


def _value_of(payload: bytes) -> Any:
    return values.loads(payload)[-1]


def part_without_value(payload: bytes) -> list[Any]:
    """Return a part that cannot be loaded here, with what stands for its value."""
    part: list[Any] = _Outline(io.BytesIO(payload)).load()
    if part[2] not in states.EXCEPTION_STATES:
        part[3] = UnreadPart(payload)
    return part
