"""Errors on their way from the dispatcher to who asked: a class's name and a text, as nothing is unpickled."""

from __future__ import annotations

from raycelery import errors

#: Those of Python's own that a question may be answered with.
_BUILT_IN: dict[str, type[Exception]] = {kind.__name__: kind for kind in (KeyError, TypeError, ValueError)}


def named(exc: Exception) -> tuple[str, str]:
    """Return name and text of an error, for :class:`raycelery.protocol.frames.Refusal`."""
    text = exc.args[0] if isinstance(exc, KeyError) and exc.args else exc
    return type(exc).__name__, str(text)


def error_of(name: str, text: str) -> Exception:
    """Make the error anew; one that is neither raycelery's nor simple is told by its name in a ``RayCeleryError``."""
    kind = _BUILT_IN.get(name)
    if kind is None:
        found = getattr(errors, name, None)
        if (
            isinstance(found, type)
            and issubclass(found, errors.RayCeleryError)
            and found is not errors.TaskNotRegistered
        ):
            kind = found
    return errors.RayCeleryError(f"{name}: {text}") if kind is None else kind(text)
