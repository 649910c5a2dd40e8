"""What an application's dispatcher knows, and what changes it: messages, results, definitions, and large values.

All of it can be made again from the journal, see :mod:`raycelery.dispatcher.recovery`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from raycelery.dispatcher.conversions import chord_message, settlement_lane
from raycelery.protocol import messages
from raycelery.protocol.operations import (
    ChordExtra,
    ChordInProgress,
    ChordPart,
    ChordSize,
    DropLargeValues,
    Operation,
    StoreResult,
    StoreValue,
    TaskEvent,
)
from raycelery.protocol.records import Came
from raycelery.scheduler import events
from raycelery.scheduler.phases import MessagePhase

if TYPE_CHECKING:
    from raycelery.dispatcher.definitions import Definitions
    from raycelery.dispatcher.large_values import LargeValues
    from raycelery.dispatcher.store import Store
    from raycelery.scheduler.model import Message
    from raycelery.scheduler.scheduler import Scheduler


@dataclass
class Core:
    """Messages, results, definitions and large values, which change together.

    Arguments:
        scheduler: has the messages.
        store: has states and results.
        definitions: applications, lanes, limits.
        large_values: what messages and results refer to.
        on_result: called with each final result.
        on_event: called with each event of Celery's that an executor or program sends.
    """

    scheduler: Scheduler
    store: Store
    definitions: Definitions
    large_values: LargeValues
    on_result: Callable[[StoreResult], None]
    on_event: Callable[[TaskEvent], None]
    #: Called with each message that has come, while somebody listens to task events.
    on_received: Callable[[Message], None] | None = None
    #: Keys of the large values that messages refer to.
    keys: dict[int, tuple[str, ...]] = field(default_factory=dict)
    #: Of each client's last frame.
    frame_ids: dict[str, int] = field(default_factory=dict)
    #: The executors that are connected: where they say what they have begun.
    came: dict[int, Came] = field(default_factory=dict)
    #: Name of the journal, by which clients tell whether it is the one that they have spoken to.
    epoch: str = ""

    def take(self, message: Message, keys: tuple[str, ...], now: float, executor: int | None = None) -> None:
        """Hand a message to the scheduler; it refers to the large values ``keys``, and may be an executor's already."""
        if message.settle_reason == "chord":
            self.scheduler.handle(events.AddLane(settlement_lane(message.lane.partition(":")[2])), now)
            keys = self.store.chord_keys(message.payload.completion.group)
        if self.definitions.set_time_limits:
            self.apply_time_limit(message)
        self.scheduler.handle(events.Submit(message, executor), now)
        if self.on_received is not None and message.settle_reason is None:
            self.on_received(message)
        if keys:
            self.keys[message.seq] = keys
            self.large_values.refer(keys)

    def apply_time_limit(self, message: Message) -> None:
        """Give a message the hard time limit that was set for its task, unless it brings its own."""
        limits = self.definitions.set_time_limits.get(message.task)
        if limits is None or message.settle_reason is not None:
            return
        if not messages.opened(message.payload).headers.time_limit:
            message.time_limit = limits[1]

    def write(self, operation: Operation, now: float) -> Message | None:
        """Write to the store; return the message to be run if that completes a chord."""
        complete = None
        match operation:
            case StoreResult():
                if operation.keys:
                    self.large_values.refer(operation.keys)
                if self.store.set_meta(operation, now) and operation.final:
                    self.on_result(operation)
            case ChordPart():
                self.large_values.refer(operation.keys)
                complete = self.store.chord_part(operation, now)
            case ChordSize(group, size):
                # All parts may have come before the size.
                complete = self.store.chord_size(group, size)
            case ChordExtra(group):
                self.store.chord_extra(group)
            case StoreValue():
                self.store.set(operation.key, operation.value, operation.expires, now)
            case ChordInProgress():
                self.large_values.refer(operation.keys)
                self.store.put_chord(operation)
            case DropLargeValues(holder, keys):
                for key in keys:
                    self.large_values.release(key, holder)
            case TaskEvent():
                self.on_event(operation)
        return None if complete is None else chord_message(*complete)

    def withdrawable(self, message: Message) -> bool:
        """Return whether a message waits and nothing of it is in this cluster only."""
        waits = message.phase in (MessagePhase.WAITING, MessagePhase.SCHEDULED)
        return waits and message.settle_reason is None and not message.bridged and message.seq not in self.keys

    def release(self, seq: int) -> None:
        """Let go of the large values of a message that has ended."""
        keys = self.keys.pop(seq, None)
        if keys:
            self.large_values.unrefer(keys)

    def sweep(self) -> None:
        """Let go of the large values that results no longer refer to."""
        if self.store.released:
            self.large_values.unrefer(self.store.released)
            self.store.released.clear()
        self.large_values.sweep()
