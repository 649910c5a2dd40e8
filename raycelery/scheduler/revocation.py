"""Messages by their ids: revoking them, and telling where they are."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any

from raycelery.scheduler.assigning import Scheduling
from raycelery.scheduler.model import Message, Policy, Stats, in_words

#: Revoked ids that are remembered for messages yet to come, as many as Celery's worker remembers.
_REVOKED = 50_000


class Revocation(Scheduling):
    """Knows all messages that are not finished by their ids and stamps."""

    def __init__(self, policy: Policy) -> None:
        super().__init__(policy)
        #: Messages that are not finished; those of them that wait for their time.
        self.pending = 0
        self.scheduled = 0
        #: A list where there are several of one id, as during a retry.
        self._ids: dict[str, Message | list[Message]] = {}
        self._stamped: dict[int, Message] = {}
        self._revoked: OrderedDict[str, None] = OrderedDict()
        self._revoked_stamps: dict[str, list[Any]] = {}

    # -- which messages there are -------------------------------------------------------------------------------

    def remember(self, message: Message) -> None:
        """Note a new message."""
        known = self._ids.get(message.id)
        if known is None:
            self._ids[message.id] = message
        elif isinstance(known, list):
            known.append(message)
        else:
            self._ids[message.id] = [known, message]
        if message.stamps:
            self._stamped[message.seq] = message

    def renumber(self, message: Message, seq: int) -> None:
        """Give a message another number."""
        if self._stamped.pop(message.seq, None) is not None:
            self._stamped[seq] = message
        message.seq = seq

    def gone(self, message: Message) -> None:
        """Forget a message."""
        message.place = ""
        self.pending -= 1
        known = self._ids.pop(message.id, None)
        if isinstance(known, list):
            known.remove(message)
            self._ids[message.id] = known if len(known) > 1 else known[0]
        self._stamped.pop(message.seq, None)

    def find(self, task_id: str) -> Message | None:
        """Return the latest message of a task id that is not finished."""
        known = self._ids.get(task_id)
        return known[-1] if isinstance(known, list) else known

    def find_all(self, task_id: str) -> list[Message]:
        """Return all messages of a task id that are not finished."""
        known = self._ids.get(task_id, [])
        return list(known) if isinstance(known, list) else [known]

    def scheduled_messages(self) -> list[Message]:
        """Return the messages that wait for their time."""
        return self.timers.subjects("eta")

    # -- revoking -----------------------------------------------------------------------------------------------

    def revoke(self, ids: Iterable[str], now: float, terminate: bool = False) -> None:
        """Revoke messages by task id, those yet to be submitted included.

        Arguments:
            terminate: also kill the executors that are running them.
        """
        self.now = now
        for task_id in ids:
            self._revoked[task_id] = None
            self._revoked.move_to_end(task_id)
            if len(self._revoked) > _REVOKED:
                self._revoked.popitem(last=False)
            for message in self.find_all(task_id):
                self._revoke(message, terminate)

    def revoke_stamps(self, stamps: Mapping[str, Any], now: float, terminate: bool = False) -> None:
        """Revoke messages by stamped headers, those yet to be submitted included."""
        self.now = now
        for name, value in stamps.items():
            known = self._revoked_stamps.setdefault(name, [])
            known.extend(one for one in _as_list(value) if one not in known)
            del known[:-_REVOKED]
        for message in list(self._stamped.values()):
            if self._stamp_revoked(message):
                self._revoke(message, terminate)

    def revocations(self) -> tuple[list[str], dict[str, list[Any]]]:
        """Return the revoked ids and stamps that are remembered."""
        return list(self._revoked), dict(self._revoked_stamps)

    def is_revoked(self, message: Message) -> bool:
        """Return whether a message was revoked by its id or a stamp."""
        return message.id in self._revoked or self._stamp_revoked(message)

    def _stamp_revoked(self, message: Message) -> bool:
        if not message.stamps or not self._revoked_stamps:
            return False
        for name, revoked in self._revoked_stamps.items():
            value = message.stamps.get(name)
            if value is not None and (value in revoked or any(one in revoked for one in _as_list(value))):
                return True
        return False

    def _revoke(self, message: Message, terminate: bool) -> None:
        if message.place == "executor":
            self._revoke_given(message, terminate)
        elif message.settle_reason is None:
            if message.place == "stream":
                self.withdraw(message)
            else:
                message.place = ""
                self.scheduled -= 1
                self.timers.cancelled()
            message.settle_reason = "revoked"
            self.enqueue(message)

    def _revoke_given(self, message: Message, terminate: bool) -> None:
        state = self.executors[message.executor]
        if message.settling:
            return
        if state.running() is message:
            if terminate:
                self.kill(state, message.seq, "terminated", f"task {message.id} was terminated")
            return
        # It has not begun it, as far as is known.
        message.settle_reason = "revoked"
        if terminate:
            state.doomed.add(message.seq)
        self.recall(state)

    # -- for observers ------------------------------------------------------------------------------------------

    def stats(self) -> Stats:
        """Return counts of what waits and runs."""
        kinds = Counter(
            "starting" if not e.ready else "blocked" if e.blocked else "busy" if e.outstanding else "idle"
            for e in self.executors.values()
        )
        running = sum(1 for e in self.executors.values() if e.outstanding)
        return Stats(dict(self.waiting_by_queue), self.scheduled, running, dict(kinds))

    def why(self, task_id: str) -> str:
        """Say in one sentence why the message of that task id is where it is."""
        message = self.find(task_id)
        if message is None:
            return "it is not here: it has ended, or was never submitted"
        if message.place == "eta":
            return f"it waits for its time, {(message.eta or 0) - self.now:.1f} s from now"
        if message.place == "settle_reason":
            return f"it is {message.settle_reason} and waits for an executor to record that"
        if message.place == "executor":
            state = self.executors[message.executor]
            where = f"executor {message.executor} on node {state.node}"
            if state.running() is message:
                return f"it runs on {where}{', waiting for its subtasks' if state.blocked else ''}"
            return f"it is next on {where}"
        return self._why_waiting(message)

    def _why_waiting(self, message: Message) -> str:
        stream = self.streams[message.lane, message.queue, message.task]
        for limit in stream.limits:
            if limit.room <= 0:
                return f"limit {limit.name!r} is reached: {limit.used} of {limit.maximum} run"
        rate = self.rates.get(message.task)
        if rate is not None and rate.next > self.now:
            return f"the rate limit of {message.task} has no token before {rate.next - self.now:.1f} s"
        lane = self.lanes[message.lane]
        request = in_words(lane.lane.request)
        if lane.infeasible_since is not None:
            return f"no node is large enough for {request}"
        if self.now < lane.not_before:
            return f"executors for {request} did not start; the next try is in {lane.not_before - self.now:.1f} s"
        if lane.starting:
            return f"{len(lane.starting)} executors for {request} are starting"
        return f"no free resources for {request}; {stream.size} messages are in its stream"


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple, set)) else [value]
