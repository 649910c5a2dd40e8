"""Revoking messages, those yet to be submitted included."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any

from raycelery.scheduler.executors import Executors
from raycelery.scheduler.messages import Messages
from raycelery.scheduler.model import Message
from raycelery.scheduler.phases import MessagePhase
from raycelery.scheduler.waiting import Waiting

#: Revoked ids that are remembered for messages yet to come, as many as Celery's worker remembers.
_REVOKED = 50_000


class Revocation:
    """Remembers what was revoked, and has it recorded.

    Arguments:
        messages: all.
        waiting: where those that wait are.
        executors: where the others are.
    """

    def __init__(self, messages: Messages, waiting: Waiting, executors: Executors) -> None:
        self._messages = messages
        self._waiting = waiting
        self._executors = executors
        self._ids: OrderedDict[str, None] = OrderedDict()
        self._stamps: dict[str, list[Any]] = {}

    def revoke(self, ids: Iterable[str], terminate: bool) -> None:
        """Revoke messages by task id.

        Arguments:
            terminate: also kill the executors that are running them.
        """
        for task_id in ids:
            self._ids[task_id] = None
            self._ids.move_to_end(task_id)
            if len(self._ids) > _REVOKED:
                self._ids.popitem(last=False)
            for message in self._messages.find_all(task_id):
                self._revoke(message, terminate)

    def revoke_stamps(self, stamps: Mapping[str, Any], terminate: bool) -> None:
        """Revoke messages by stamped headers; ``terminate`` as of :meth:`revoke`."""
        for name, value in stamps.items():
            known = self._stamps.setdefault(name, [])
            known.extend(one for one in _as_list(value) if one not in known)
            del known[:-_REVOKED]
        for message in self._messages.stamped():
            if self._has_revoked_stamp(message):
                self._revoke(message, terminate)

    def remembered(self) -> tuple[list[str], dict[str, list[Any]]]:
        """Return the revoked ids and stamps that are remembered."""
        return list(self._ids), dict(self._stamps)

    def is_revoked(self, message: Message) -> bool:
        """Return whether a message was revoked by its id or a stamp."""
        return message.id in self._ids or self._has_revoked_stamp(message)

    def _has_revoked_stamp(self, message: Message) -> bool:
        if not message.stamps or not self._stamps:
            return False
        for name, revoked in self._stamps.items():
            value = message.stamps.get(name)
            if value is not None and (value in revoked or any(one in revoked for one in _as_list(value))):
                return True
        return False

    def _revoke(self, message: Message, terminate: bool) -> None:
        if message.phase in (MessagePhase.WAITING, MessagePhase.SCHEDULED):
            self._waiting.withdraw(message)
            message.settle_reason = "revoked"
            self._waiting.enqueue(message)
        elif message.phase is MessagePhase.ASSIGNED:
            self._revoke_assigned(message, terminate)

    def _revoke_assigned(self, message: Message, terminate: bool) -> None:
        state = self._executors.all[message.executor_id]
        if state.running() is message:
            if terminate:
                self._executors.kill(state, message.seq, "terminated", f"task {message.id} was terminated")
            return
        # It has not begun it, as far as is known.
        message.settle_reason = "revoked"
        if terminate:
            state.doomed.add(message.seq)
        self._executors.recall(state)


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple, set)) else [value]
