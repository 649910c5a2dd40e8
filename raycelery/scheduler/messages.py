"""All messages that are not finished, by their ids and stamps."""

from __future__ import annotations

from collections.abc import Iterable

from raycelery.scheduler.model import Message
from raycelery.scheduler.phases import MessagePhase


class Messages:
    """Numbers messages, and knows those that are not finished."""

    __slots__ = ("_by_id", "_stamped", "pending", "pending_bytes", "seq")

    def __init__(self) -> None:
        #: How many are not finished, and the bytes of what they carry; number of the latest.
        self.pending = self.pending_bytes = 0
        self.seq = 0
        #: A list where there are several of one id, as during a retry.
        self._by_id: dict[str, Message | list[Message]] = {}
        self._stamped: dict[int, Message] = {}

    def add(self, message: Message, now: float) -> None:
        """Take note of a new message, and give it a number."""
        self.seq += 1
        message.seq, message.submitted = self.seq, now
        self.pending += 1
        if type(message.payload) is bytes:
            self.pending_bytes += len(message.payload)
        known = self._by_id.get(message.id)
        if known is None:
            self._by_id[message.id] = message
        elif isinstance(known, list):
            known.append(message)
        else:
            self._by_id[message.id] = [known, message]
        if message.stamps:
            self._stamped[message.seq] = message

    def renumber(self, message: Message) -> None:
        """Give a message a new number, behind all others."""
        self.seq += 1
        if self._stamped.pop(message.seq, None) is not None:
            self._stamped[self.seq] = message
        message.seq = self.seq

    def done(self, message: Message) -> None:
        """Forget a message, which is finished."""
        message.move(MessagePhase.DONE)
        self.pending -= 1
        if type(message.payload) is bytes:
            self.pending_bytes -= len(message.payload)
        known = self._by_id.pop(message.id, None)
        if isinstance(known, list):
            known.remove(message)
            self._by_id[message.id] = known if len(known) > 1 else known[0]
        self._stamped.pop(message.seq, None)

    def find(self, task_id: str) -> Message | None:
        """Return the latest message of a task id."""
        known = self._by_id.get(task_id)
        return known[-1] if isinstance(known, list) else known

    def find_all(self, task_id: str) -> list[Message]:
        """Return all messages of a task id."""
        known = self._by_id.get(task_id, [])
        return list(known) if isinstance(known, list) else [known]

    def stamped(self) -> Iterable[Message]:
        """Return the messages that have stamps."""
        return list(self._stamped.values())

    def all(self) -> Iterable[Message]:
        """Return all messages."""
        for known in self._by_id.values():
            if isinstance(known, list):
                yield from known
            else:
                yield known
