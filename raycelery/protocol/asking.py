"""What all questions to the dispatcher are: the type in brackets is the answer's."""

from __future__ import annotations

from typing import Any, Generic, TypeVar, get_args

import msgspec

from raycelery.protocol.codec import Decoder, Tagged

A = TypeVar("A")


class Question(Tagged, Generic[A], frozen=True):
    """Something asked of the dispatcher."""


class Change(Question[A], Generic[A], frozen=True):
    """A question that changes something which outlives the dispatcher's process."""


_decoders: dict[Any, Decoder[Any]] = {}


def answer_to(question: Question[A], value: msgspec.Raw) -> A:
    """Decode the answer to a question.

    Raises:
        ProtocolError: it is not what that question is answered with.
    """
    kind = type(question)
    decoder = _decoders.get(kind)
    if decoder is None:
        [base] = kind.__orig_bases__  # type: ignore[attr-defined]
        decoder = _decoders[kind] = Decoder(get_args(base)[0])
    return decoder.decode(value)  # type: ignore[no-any-return]
