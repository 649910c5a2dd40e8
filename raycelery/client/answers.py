"""What a process has asked its dispatcher, and what was answered."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable

import msgspec

from raycelery.client.finding import left
from raycelery.errors import DispatcherUnreachable
from raycelery.protocol import refusals
from raycelery.protocol.codec import Tagged
from raycelery.protocol.frames import Answer, Refusal


class Answers:
    """The answers that come over one connection, each for the thread that has asked.

    Arguments:
        told: guards them; notified when one comes, and when the connection is lost.
        lost: says why the connection is lost; None: it is not.
    """

    def __init__(self, told: threading.Condition, lost: Callable[[], str | None]) -> None:
        self._told = told
        self._lost = lost
        self._question_ids = itertools.count(1)
        self._here: dict[int, Answer | Refusal] = {}

    def next_id(self) -> int:
        """Return the number of the next question."""
        return next(self._question_ids)

    def put(self, answer: Answer | Refusal) -> None:
        """Take an answer in."""
        with self._told:
            self._here[answer.question_id] = answer
            self._told.notify_all()

    def wait(
        self, question_id: int, asked: Tagged, timeout: float | None = None, deadline: float | None = None
    ) -> msgspec.Raw:
        """Return what was answered.

        Arguments:
            question_id: number of the question.
            asked: the question.
            timeout: seconds that it was given; None: as many as it takes.
            deadline: when they are over, by ``time.monotonic``.

        Raises:
            DispatcherUnreachable: the dispatcher went away, or did not answer in time.
            RayCeleryError: it cannot answer; or ``ValueError``, ``KeyError``, ``TypeError``.
        """
        with self._told:
            while question_id not in self._here:
                what, lost = type(asked).__name__, self._lost()
                if lost is not None:
                    raise DispatcherUnreachable(f"the dispatcher went away before it answered {what}: {lost}")
                seconds = left(deadline)
                if seconds == 0.0:
                    raise DispatcherUnreachable(f"the dispatcher did not answer {what} in {timeout} s")
                self._told.wait(seconds)
            answer = self._here.pop(question_id)
        if type(answer) is Refusal:
            raise refusals.error_of(answer.error, answer.text)
        assert type(answer) is Answer
        return answer.value
