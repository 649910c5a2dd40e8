"""Messages that wait: for their time, for an executor, for bookkeeping; and which of a lane's is next."""

from __future__ import annotations

from collections import Counter

from raycelery.scheduler.gates import Gate, Parkable, Rate
from raycelery.scheduler.helpers import Helpers
from raycelery.scheduler.instructions import Return
from raycelery.scheduler.lanes import Lanes, LaneState
from raycelery.scheduler.limits import Limits
from raycelery.scheduler.messages import Messages
from raycelery.scheduler.model import Message
from raycelery.scheduler.phases import MessagePhase
from raycelery.scheduler.queues import Stream
from raycelery.scheduler.timers import Kind, Timers
from raycelery.scheduler.turn import Turn


class Waiting:
    """The streams of all lanes.

    Arguments:
        turn: told of lanes with new messages, and of messages that go back to bridges.
        timers: for messages that wait for their time.
        messages: all.
        lanes: in whose queues they wait.
        limits: that park streams.
        helpers: told of lanes with bookkeeping to be done.
    """

    def __init__(
        self, turn: Turn, timers: Timers, messages: Messages, lanes: Lanes, limits: Limits, helpers: Helpers
    ) -> None:
        self._turn = turn
        self._timers = timers
        self._messages = messages
        self._lanes = lanes
        self._limits = limits
        self._helpers = helpers
        self._time_has_come = Kind(
            self._on_time, lambda message, clock: message.phase is MessagePhase.SCHEDULED and clock == self._clock
        )
        #: By how much the time of day is ahead, and how often that was said.
        self._ahead, self._clock = 0.0, 0
        #: By lane, queue and task.
        self.streams: dict[tuple[str, str, str], Stream] = {}
        self.by_queue: Counter[str] = Counter()
        #: How many wait for their time.
        self.scheduled = 0

    # -- in -----------------------------------------------------------------------------------------------------

    def due(self, eta: float) -> float:
        """Return when a time of day has come, by the scheduler's clock."""
        return eta - self._ahead

    def schedule(self, message: Message, eta: float) -> None:
        """Have a message wait for its time of day."""
        message.move(MessagePhase.SCHEDULED)
        self.scheduled += 1
        self._timers.add(self.due(eta), self._time_has_come, message, self._clock)

    def set_wall_clock(self, ahead: float) -> None:
        """Have what waits for a time of day wait for it by a clock that was set."""
        waiting = self.scheduled_messages()
        self._ahead = ahead
        self._clock += 1
        for message in waiting:
            self._timers.add(self.due(message.eta or 0.0), self._time_has_come, message, self._clock)
        self._timers.cancelled(len(waiting))

    def _on_time(self, message: Message, clock: int) -> None:
        self.scheduled -= 1
        self.enqueue(message)

    def enqueue(self, message: Message) -> None:
        """Put a message where it waits for an executor: to run it, or for bookkeeping; a bridge's goes back to it."""
        if message.bridged and message.settle_reason is not None:
            self._messages.done(message)
            self._turn.instructions.append(Return(message))
            return
        lane = self._lanes.get(message.lane)
        message.lane = lane.key
        if message.settle_reason is not None:
            message.move(MessagePhase.UNSETTLED)
            lane.to_settle.append(message)
            self._helpers.lanes[lane.lane.app][lane.key] = None
        else:
            stream = self.streams.get((lane.key, message.queue, message.task))
            if stream is None:
                stream = self._new_stream(lane, message.queue, message.task)
            # Messages come with strings of their own: one of each is enough.
            message.queue, message.task = stream.queue, stream.task
            stream.push(message)
            lane.waiting += 1
            self.by_queue[message.queue] += 1
        self._turn.changed[lane.key] = None

    def _new_stream(self, lane: LaneState, queue: str, task: str) -> Stream:
        stream = lane.rotation.stream(self._limits.bounds(queue, task), queue, task)
        self.streams[lane.key, queue, task] = stream
        return stream

    # -- out ----------------------------------------------------------------------------------------------------

    def take(self, lane: LaneState, stream: Stream) -> Message:
        """Take the first message of the stream that :meth:`next_stream` returned, to be run."""
        message = stream.home.take(stream)
        self._left(message)
        self._limits.count(message, stream.limits)
        lane.rotation.turn()
        return message

    def withdraw(self, message: Message) -> None:
        """Take a message that waits, in a stream or for its time, from where it is."""
        if message.phase is MessagePhase.SCHEDULED:
            message.move(MessagePhase.TAKEN)
            self.scheduled -= 1
            self._timers.cancelled()
            return
        message.move(MessagePhase.TAKEN)
        self.stream_of(message).withdrawn()
        self._left(message)
        self._turn.changed[message.lane] = None

    def drain(self, stream: Stream) -> list[Message]:
        """Take all messages out of a stream."""
        messages = stream.drain()
        for message in messages:
            message.move(MessagePhase.TAKEN)
            self._left(message)
        self._turn.changed[stream.lane] = None
        return messages

    def drain_queue(self, queue: str | None) -> list[Message]:
        """Take all messages that wait, or wait for their time; all queues' or one's."""
        taken = []
        for stream in self.streams.values():
            if stream.size and (queue is None or stream.queue == queue):
                taken += self.drain(stream)
        for message in self.scheduled_messages():
            if queue is None or message.queue == queue:
                self.withdraw(message)
                taken.append(message)
        return taken

    def _left(self, message: Message) -> None:
        self._lanes.active[message.lane].waiting -= 1
        self.by_queue[message.queue] -= 1
        if not self.by_queue[message.queue]:
            del self.by_queue[message.queue]

    def forget(self, lane: LaneState) -> None:
        """Forget the streams of a lane, which are empty."""
        for queue in lane.rotation.queues.values():
            for task in queue.streams:
                del self.streams[lane.key, queue.name, task]

    # -- what counts against limits -----------------------------------------------------------------------------

    def stream_of(self, message: Message) -> Stream:
        """Return the stream that a message waits in, or waited in."""
        return self.streams[message.lane, message.queue, message.task]

    def promote(self, task_id: str) -> None:
        """Put messages that a running task waits for before all others."""
        for message in self._messages.find_all(task_id):
            if message.phase is MessagePhase.WAITING:
                self.stream_of(message).promote(message)

    # -- what is next -------------------------------------------------------------------------------------------

    def next_stream(self, lane: LaneState) -> Stream | None:
        """Return the stream to be served next, parking what has no room."""
        rotation = lane.rotation
        if rotation.parked is not None:
            return None
        rates = self._limits.rates
        while (stream := rotation.front()) is not None:
            app, queue, task = stream.limits
            if app.maximum is not None and app.used >= app.maximum:
                app.park(rotation)
                return None
            if queue.maximum is not None and queue.used >= queue.maximum:
                rotation.drop()
                queue.park(stream.home)
            elif task.maximum is not None and task.used >= task.maximum:
                task.park(stream)
            elif rates and (rate := rates.get(stream.task)) is not None and rate.next > self._turn.now:
                rate.park(stream)
                self._limits.await_token(rate)
            else:
                return stream
        return None

    def unpark_all(self, gate: Gate) -> None:
        """Let all that is parked be served again, in order."""
        for _ in range(len(gate.parked)):
            self._unpark(gate.first())

    def _unpark(self, parkable: Parkable) -> None:
        parkable.unpark()
        self._turn.changed[parkable.lane] = None

    def use_room(self) -> None:
        """Let as much be served again as limits and rates have room for.

        It is called until they are full or have nothing parked: what was woken may not be able to use the room, for
        want of an executor, and then others must have it.
        """
        now, roomy = self._turn.now, self._turn.roomy
        for gate in list(roomy):
            for _ in range(min(gate.room_at(now), len(gate.parked))):
                self._unpark(gate.first())
            if not gate.parked or gate.room_at(now) <= 0:
                del roomy[gate]
                if gate.parked and isinstance(gate, Rate):
                    self._limits.await_token(gate)

    # -- for observers ------------------------------------------------------------------------------------------

    def scheduled_messages(self) -> list[Message]:
        """Return the messages that wait for their time."""
        return self._timers.subjects(self._time_has_come)
