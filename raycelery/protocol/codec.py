"""The one place that encodes and decodes: msgpack, fields by position, types checked on arrival.

A field that is ``bytes`` is either opaque here (something pickled that only its consumer opens; its docstring says so)
or another dataclass of this package, encoded for whoever opens it. See https://jcristharif.com/msgspec/structs.html.
"""

from __future__ import annotations

import numbers
from typing import Any, Generic, TypeVar

import msgspec

#: Version of the protocol: of the dataclasses of this package and what they hold. Both sides of a connection must have
#: the same, and so must the journal that a dispatcher finds. To be raised with every change of such a dataclass.
VERSION = 7

T = TypeVar("T")
#: Time limits stay what the project wrote: Celery's errors show them.
Seconds = int | float


class Plain(msgspec.Struct, array_like=True, frozen=True, gc=False, forbid_unknown_fields=True):
    """A dataclass that is encoded by position. It holds no object that refers back to it."""


class Tagged(Plain, tag=True, frozen=True):
    """A dataclass that is told apart from others by its name, which is encoded along with it."""


class ProtocolError(ValueError):
    """Bytes that are not what they should be; the text says where and why."""


def _plain(value: Any) -> Any:
    """Return a value in place of one that msgpack has no form for: callers bring classes of their own."""
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value)
    raise TypeError(f"{type(value).__name__} {value!r} is no plain data")


_encoder = msgspec.msgpack.Encoder(enc_hook=_plain)


def encode(value: Any) -> bytes:
    """Encode a dataclass, or plain data.

    Raises:
        TypeError: it holds something that is neither.
    """
    try:
        return _encoder.encode(value)
    except (OverflowError, RecursionError, UnicodeEncodeError) as exc:
        raise TypeError(f"{type(value).__name__} cannot be encoded: {exc}") from exc


class Decoder(Generic[T]):
    """Decodes one type.

    Arguments:
        kind: a dataclass, a union of :class:`Tagged` ones, or a type of plain data.
    """

    __slots__ = ("_decode",)

    def __init__(self, kind: Any) -> None:
        self._decode = msgspec.msgpack.Decoder(kind).decode

    def decode(self, data: bytes | memoryview | msgspec.Raw) -> T:
        """Undo :func:`encode`.

        Raises:
            ProtocolError: the data is not of that type.
        """
        try:
            return self._decode(data)  # type: ignore[no-any-return]
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            raise ProtocolError(str(exc)) from exc
