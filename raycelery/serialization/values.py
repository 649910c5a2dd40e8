"""Pickling of arguments and results: anything Ray can carry, with big frames and arrays kept in its object store.

Big values are found by their content (:mod:`raycelery.serialization.large_values`), so changing one between two calls
is safe. A task gets a copy of its own, as with Celery; what :func:`raycelery.put` returns is shared and read-only.
"""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable
from typing import Any

from celery import Celery

from raycelery.serialization.large_values import INLINE, LargeValues, are_own, reading_from

logger = logging.getLogger(__name__)

_ATOMS = frozenset({int, float, bool, type(None), str, bytes})


def dumps(
    value: Any, inline_bytes: int = INLINE, large_values: LargeValues | None = None, own: Celery | None = None
) -> tuple[bytes, tuple[str, ...]]:
    """Pickle a value.

    Arguments:
        value: anything cloudpickle can carry; code defined in ``__main__`` travels by value.
        inline_bytes: size in bytes from which arrays, frames, ``bytes`` and ``str`` go to the object store.
        large_values: the application's.
        own: the application.

    Returns:
        the pickle and the keys of the large values that it refers to; ``large_values.done`` is to be called with these
        when what is made of it has been handed to the client.

    Raises:
        ArgumentError: part of it cannot be pickled.
    """
    from raycelery.serialization import pickling

    return pickling.dumps(value, inline_bytes, large_values, own)


def dumps_inline(value: Any) -> bytes:
    """Pickle a value as :func:`dumps` does, with all that is large in it."""
    return dumps(value)[0]


def dumps_code(value: Any, own: Celery | None = None) -> bytes:
    """Pickle what an application or a task is made of.

    Arguments:
        value: the code.
        own: the application.

    Raises:
        ArgumentError: part of it cannot be pickled.
    """
    from raycelery.serialization import pickling

    return pickling.dumps_code(value, own)


def dumps_body(
    body: Any, inline_bytes: int, large_values: LargeValues | None, own: Celery | None = None
) -> tuple[bytes, tuple[str, ...]]:
    """Pickle the body of a message; the plain ones, which are most, without cloudpickle's cost.

    What follows the task (callbacks, errbacks, chain, chord) is pickled apart from the arguments, so that it hears of
    arguments that cannot be loaded.
    """
    args, kwargs, embed = body
    keys: tuple[str, ...] = ()
    follows = any(embed.values())
    if not kwargs and all(
        type(arg) in _ATOMS and (type(arg) not in (str, bytes) or len(arg) < inline_bytes) for arg in args
    ):
        if not follows:
            return pickle.dumps((args, kwargs, embed), 5), ()
        arguments = pickle.dumps((args, kwargs), 5)
    elif not follows:
        return dumps((args, kwargs, embed), inline_bytes, large_values, own)
    else:
        arguments, keys = dumps((args, kwargs), inline_bytes, large_values, own)
    try:
        following, more = dumps(embed, inline_bytes, large_values, own)
    except BaseException:
        if large_values is not None:
            large_values.done(keys)
        raise
    return pickle.dumps((arguments, following), 5), (*keys, *more)


def open_body(data: bytes) -> tuple[dict[str, Any], Callable[[], tuple[Any, Any]]]:
    """Undo :func:`dumps_body`: return what follows the task, and a function that loads its arguments."""
    try:
        body = pickle.loads(data)
    except Exception as exc:  # the arguments' own code; nothing follows where they are not apart
        error = exc

        def fail() -> Any:
            raise error

        return {}, fail
    if len(body) == 3:
        args, kwargs, embed = body
        return embed, lambda: (args, kwargs)
    return loads(body[1]), lambda: loads(body[0])


def dumps_embed(embed: dict[str, Any], own: Celery | None = None) -> bytes:
    """Pickle what follows a task whose body a serializer has encoded; b"" if nothing does."""
    return dumps(embed, own=own)[0] if any(embed.values()) else b""


def dumps_meta(
    meta: dict[str, Any], inline_bytes: int, large_values: LargeValues | None
) -> tuple[bytes, tuple[str, ...]]:
    """Pickle the meta of a task; those of plain results, which are most, without cloudpickle's cost."""
    result = meta["result"]
    if type(result) in _ATOMS and len(meta) <= 8 and (type(result) not in (str, bytes) or len(result) < inline_bytes):
        return pickle.dumps(meta, 5), ()
    return dumps(meta, inline_bytes, large_values)


def loads(data: bytes, large_values: LargeValues | None = None) -> Any:
    """Undo :func:`dumps`; large values are read from ``large_values``, by default the executor's own."""
    if are_own(large_values):
        return pickle.loads(data)
    with reading_from(large_values):
        return pickle.loads(data)
