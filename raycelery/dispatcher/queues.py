"""Waiting messages: streams, and the order in which a lane's queues are served."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator

from raycelery.dispatcher.limits import Limit
from raycelery.dispatcher.model import Message

#: Priority of a message that a running task waits for: before all others.
AWAITED = -(1 << 30)


class Stream:
    """The waiting messages of one task in one queue of one lane, by priority, then age.

    Limits and rates apply to a whole stream, so one that has no room is parked as a whole and costs nothing.
    """

    __slots__ = ("heap", "lane", "limits", "parked", "queue", "size", "task")

    def __init__(self, lane: str, queue: str, task: str, limits: tuple[Limit, ...]) -> None:
        self.lane = lane
        self.queue = queue
        self.task = task
        self.limits = limits
        self.heap: list[tuple[int, int, Message]] = []
        self.size = 0
        self.parked = False

    def push(self, message: Message) -> None:
        """Add a message."""
        message.place = "stream"
        heapq.heappush(self.heap, (message.priority, message.seq, message))
        self.size += 1

    def promote(self, message: Message) -> None:
        """Put a message of this stream before all that nobody waits for."""
        if message.priority > AWAITED:
            message.priority = AWAITED
            heapq.heappush(self.heap, (AWAITED, message.seq, message))

    def messages(self) -> Iterator[Message]:
        """Yield the waiting messages in no order."""
        return (
            message for priority, _, message in self.heap if message.place == "stream" and message.priority == priority
        )

    def head(self) -> tuple[int, int, Message] | None:
        """Return the first entry; messages that left by another way, or moved, are dropped here."""
        heap = self.heap
        while heap and (heap[0][2].place != "stream" or heap[0][2].priority != heap[0][0]):
            heapq.heappop(heap)
        return heap[0] if heap else None

    def pop(self) -> Message:
        """Remove and return the first message; :meth:`head` must have returned it."""
        message = heapq.heappop(self.heap)[2]
        self.size -= 1
        return message

    def drain(self) -> list[Message]:
        """Remove and return all messages, in order."""
        messages = sorted(self.messages(), key=lambda message: (message.priority, message.seq))
        self.heap.clear()
        self.size = 0
        return messages

    def room(self) -> int:
        """Return how many of its messages its limits let run now."""
        return min((limit.room for limit in self.limits), default=1 << 30)


class Queue:
    """The streams of one queue in one lane."""

    __slots__ = ("name", "rotating", "streams")

    def __init__(self, name: str) -> None:
        self.name = name
        self.streams: list[Stream] = []
        self.rotating = False

    def best(self) -> Stream | None:
        """Return the stream whose head comes first, among those that are not parked."""
        best, best_key = None, None
        for stream in self.streams:
            if stream.parked or not stream.size:
                continue
            head = stream.head()
            if head is not None and (best_key is None or head[:2] < best_key):
                best, best_key = stream, head[:2]
        return best


class Rotation:
    """A lane's queues, served in turn."""

    __slots__ = ("_ready", "queues")

    def __init__(self) -> None:
        self.queues: dict[str, Queue] = {}
        self._ready: deque[Queue] = deque()

    def stream_added(self, stream: Stream) -> None:
        """Take a new stream in."""
        self.queues.setdefault(stream.queue, Queue(stream.queue)).streams.append(stream)

    def wake(self, stream: Stream) -> None:
        """Serve the stream's queue again: it has a message, or room."""
        queue = self.queues[stream.queue]
        if not queue.rotating:
            queue.rotating = True
            self._ready.append(queue)

    def next(self) -> Stream | None:
        """Return the stream whose turn it is, leaving it in place."""
        ready = self._ready
        while ready:
            stream = ready[0].best()
            if stream is not None:
                return stream
            ready.popleft().rotating = False
        return None

    def turn(self) -> None:
        """Let the next queue have its turn."""
        self._ready.rotate(-1)

    def active(self, most: int = 32) -> list[Stream]:
        """Return some of the streams that could be served now."""
        found = []
        for index, queue in enumerate(self._ready):
            if index >= most:
                break
            found += [stream for stream in queue.streams if stream.size and not stream.parked]
        return found
