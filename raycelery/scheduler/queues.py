"""Waiting messages: streams, and the order in which a lane's queues are served."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator
from itertools import islice

from raycelery.scheduler.gates import Bounds, Gate, Limit
from raycelery.scheduler.model import Message
from raycelery.scheduler.phases import MessagePhase

#: Priority of a message that a running task waits for: before all others.
AWAITED = -(1 << 30)
#: Rank of what has no message.
_LAST = (1 << 62, 0)
#: Entries of streams that are looked at in one queue when it is estimated what could run.
_LOOKS = 8
_WAITING = MessagePhase.WAITING


class Stream:
    """The waiting messages of one task in one queue of one lane, by priority, then age."""

    __slots__ = ("heap", "home", "limits", "parked", "queue", "size", "task")

    def __init__(self, home: Queue, task: str, limits: Bounds) -> None:
        self.home = home
        self.queue = home.name
        self.task = task
        #: Of the application, the queue, the task.
        self.limits = limits
        #: Messages that were withdrawn or promoted stay where they were until they come to the top, or are the most.
        self.heap: list[tuple[int, int, Message]] = []
        self.size = 0
        self.parked: Gate | None = None

    @property
    def lane(self) -> str:
        """Key of its lane."""
        return self.home.rotation.lane

    def push(self, message: Message) -> None:
        """Add a message."""
        message.move(_WAITING)
        heapq.heappush(self.heap, (message.priority, message.seq, message))
        self.size += 1
        if self.size == 1 or self.heap[0][2] is message:
            self.home.offer(self)

    def promote(self, message: Message) -> None:
        """Put a message of this stream before all that nobody waits for."""
        if message.priority > AWAITED:
            message.priority = AWAITED
            heapq.heappush(self.heap, (AWAITED, message.seq, message))
            self._sweep()
            self.home.offer(self)

    def messages(self) -> Iterator[Message]:
        """Yield the waiting messages in no order."""
        return (entry[2] for entry in self.heap if _valid(entry))

    def head(self) -> Message | None:
        """Return the first message."""
        heap = self.heap
        while heap and not _valid(heap[0]):
            heapq.heappop(heap)
        return heap[0][2] if heap else None

    def rank(self) -> tuple[int, int]:
        """Return priority and sequence number of the first message."""
        head = self.head()
        return _LAST if head is None else (head.priority, head.seq)

    def withdrawn(self) -> None:
        """Note that one of its messages is to be run no more; its phase says which."""
        self.size -= 1
        self._sweep()

    def _sweep(self) -> None:
        if len(self.heap) > 2 * self.size + 64:
            self.heap = list(filter(_valid, self.heap))
            heapq.heapify(self.heap)

    def drain(self) -> list[Message]:
        """Remove and return all messages, in order."""
        messages = sorted(self.messages(), key=lambda message: (message.priority, message.seq))
        self.heap.clear()
        self.size = 0
        return messages

    def unpark(self) -> None:
        """Be served again."""
        self.parked = None
        self.home.offer(self)


def _valid(entry: tuple[int, int, Message]) -> bool:
    message = entry[2]
    return message.phase is _WAITING and message.priority == entry[0]


class Queue:
    """The streams of one queue in one lane."""

    __slots__ = ("_heads", "limit", "name", "parked", "rotating", "rotation", "streams")

    def __init__(self, name: str, rotation: Rotation, limit: Limit) -> None:
        self.name = name
        self.rotation = rotation
        self.limit = limit
        self.streams: dict[str, Stream] = {}
        self.parked: Gate | None = None
        #: Whether it is among the rotation's ready ones.
        self.rotating = False
        #: Priority and sequence number of every head of a stream that is not parked, and of some that are no more.
        self._heads: list[tuple[int, int, Stream]] = []

    @property
    def lane(self) -> str:
        """Key of its lane."""
        return self.rotation.lane

    def offer(self, stream: Stream) -> None:
        """Take note of a stream's new head, or that the stream is parked no more."""
        head = stream.head()
        if stream.parked is None and head is not None:
            heapq.heappush(self._heads, (head.priority, head.seq, stream))
            if len(self._heads) > 4 * len(self.streams) + 16:
                self._heads = [(*s.rank(), s) for s in self.streams.values() if s.size and s.parked is None]
                heapq.heapify(self._heads)
            self.rotation.offer(self)

    def best(self) -> Stream | None:
        """Return the stream whose head comes first, among those that are not parked."""
        heads = self._heads
        while heads:
            priority, seq, stream = heads[0]
            head = stream.head() if stream.parked is None else None
            if head is None:
                heapq.heappop(heads)
            elif head.seq == seq and head.priority == priority:
                return stream
            else:
                heapq.heapreplace(heads, (head.priority, head.seq, stream))
        return None

    def take(self, stream: Stream) -> Message:
        """Remove and return the first message of ``stream``, which :meth:`best` returned."""
        message = heapq.heappop(stream.heap)[2]
        stream.size -= 1
        head = stream.head()
        if head is None:
            heapq.heappop(self._heads)
        else:
            heapq.heapreplace(self._heads, (head.priority, head.seq, stream))
        return message

    def rank(self) -> tuple[int, int]:
        """Return priority and sequence number of its first message."""
        best = self.best()
        return _LAST if best is None else best.rank()

    def unpark(self) -> None:
        """Be served again."""
        self.parked = None
        if self._heads:
            self.rotation.offer(self)

    def some(self) -> Iterator[Stream]:
        """Yield some of the streams that could be served."""
        seen: set[str] = set()
        for _, _, stream in islice(self._heads, _LOOKS):
            if stream.parked is None and stream.size and stream.task not in seen:
                seen.add(stream.task)
                yield stream


class Rotation:
    """A lane's queues, served in turn, one message each."""

    __slots__ = ("lane", "parked", "queues", "ready")

    def __init__(self, lane: str) -> None:
        self.lane = lane
        self.queues: dict[str, Queue] = {}
        self.ready: deque[Queue] = deque()
        self.parked: Gate | None = None

    def stream(self, limits: Bounds, queue: str, task: str) -> Stream:
        """Return a new stream."""
        found = self.queues.get(queue)
        if found is None:
            found = self.queues[queue] = Queue(queue, self, limits[1])
        stream = found.streams[task] = Stream(found, task, limits)
        return stream

    def offer(self, queue: Queue) -> None:
        """Serve a queue from now on: it has a message, or room."""
        if not queue.rotating and queue.parked is None:
            queue.rotating = True
            self.ready.append(queue)

    def front(self) -> Stream | None:
        """Return the stream whose turn it is, leaving it in place."""
        ready = self.ready
        while ready:
            stream = ready[0].best()
            if stream is not None:
                return stream
            self.drop()
        return None

    def drop(self) -> None:
        """Serve the queue in front no more."""
        self.ready.popleft().rotating = False

    def turn(self) -> None:
        """Let the next queue have its turn."""
        self.ready.rotate(-1)

    def rank(self) -> tuple[int, int]:
        """Return priority and sequence number of the message whose turn it is."""
        stream = self.front()
        return _LAST if stream is None else stream.rank()

    def unpark(self) -> None:
        """Be served again."""
        self.parked = None

    def some(self, most: int = 32) -> Iterator[Stream]:
        """Yield some of the streams that could be served now."""
        for queue in islice(self.ready, most):
            yield from queue.some()
