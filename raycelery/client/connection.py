"""A process's connection to its dispatcher: one socket, buffered submissions, results pushed as they come.

Submissions are buffered and leave when the buffer is full, about a millisecond after the first, before any wait and
at exit. Each frame of submissions is acknowledged; past a window of unacknowledged frames ``submit`` blocks, which is
how the dispatcher makes producers wait when its queue is full.

A forked child of a connected process opens a socket of its own with the endpoint it inherited: it needs no Ray.
"""

from __future__ import annotations

import itertools
import logging
import os
import socket
import threading
import time
import uuid
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from raycelery.client.inbox import Awaited, Inbox, Result
from raycelery.errors import DispatcherUnreachable, QueueFull
from raycelery.protocol import framing

logger = logging.getLogger(__name__)

#: Messages in a frame, bytes in a frame, and seconds that a message waits for others to share its frame.
BATCH_MESSAGES = 64
BATCH_BYTES = 256_000
LINGER_SECONDS = 0.001
#: Frames of submissions that may be unacknowledged before ``submit`` blocks.
WINDOW_FRAMES = 64
#: Seconds for which a full queue may hold up a call without a word.
SILENT_SECONDS = 5.0

_MORE: int = getattr(socket, "MSG_MORE", 0)
_clients: weakref.WeakSet[Client] = weakref.WeakSet()


class Client:
    """One process's side of the conversation with a dispatcher; safe to use from any thread.

    Arguments:
        find: returns the endpoint; called again when the dispatcher has moved.
        hello: what the process says of itself, a mapping with at least ``role`` ("client" or "executor").
        on_frame: called in the reading thread with each frame that is not for the client itself.
        submit_timeout: seconds that a submission may be held up by a full queue before it raises; None: no limit.
    """

    def __init__(
        self,
        find: Callable[[], framing.Endpoint],
        hello: Mapping[str, Any],
        on_frame: Callable[[tuple[Any, ...]], None] | None = None,
        submit_timeout: float | None = None,
    ) -> None:
        self._find = find
        self._hello = dict(hello)
        self._on_frame = on_frame
        self._submit_timeout = submit_timeout
        self._endpoint: framing.Endpoint | None = None
        #: An executor ends with its dispatcher; others wait for it to be restarted.
        self.may_return = self._hello["role"] != "executor"
        #: Called with True when a wait begins to block, with False when it ends (executors lend their CPUs meanwhile).
        self.on_block: Callable[[bool], None] | None = None
        #: Returns the keys of the large values that this process keeps.
        self.holds: Callable[[], list[str]] = list
        self.linger = LINGER_SECONDS
        #: States of which nobody hears before an executor's report of the message that it runs: they leave together.
        self.quiet: tuple[str, ...] = ()
        #: How many submissions this process has handed over, for the notice at exit.
        self.submitted = 0
        #: An executor's connections to other applications' dispatchers: what was sent by them goes before a report.
        self._companions: list[Client] = []
        self._reset()
        _clients.add(self)

    def _reset(self) -> None:
        #: Guards the socket's sending side, and everything that is buffered for it. Its holder may take the next one
        #: and the inbox's, never the other way round.
        self._lock = threading.RLock()
        #: Guards ``_unacked`` and ``_replies``; notified when they change, and when the connection is lost.
        self._told = threading.Condition(threading.Lock())
        self.inbox = Inbox()
        self._sock: socket.socket | None = None
        self._lost: str | None = None
        self._sending = self._uninterrupted = False
        self._messages: list[tuple[Any, ...]] = []
        self._bytes = 0
        self._definitions: list[tuple[Any, ...]] = []
        self._defined: set[Any] = set()
        self._ops: list[tuple[Any, ...]] = []
        self._reports: list[tuple[Any, ...]] = []
        self._frames = itertools.count(1)
        #: Frames of submissions that the dispatcher has not acknowledged: sent again if it is restarted meanwhile.
        self._unacked: dict[int, bytes] = {}
        self._requests = itertools.count(1)
        self._replies: dict[int, tuple[bool, Any]] = {}
        self.id = uuid.uuid4().hex
        #: Who is to see what tasks say that this process submits: itself, or "" for nobody; in executors whoever
        #: submitted what they run.
        self.log_to = self.id if self._hello.get("logs") else ""
        self._wake: threading.Event | None = None

    # -- connection ---------------------------------------------------------------------------------------------

    def ensure(self) -> None:
        """Connect if that has not been done, or again if the connection was lost.

        Raises:
            DispatcherUnreachable: no dispatcher answers.
        """
        with self._lock:
            if self._sock is not None and self._lost is None:
                return
            self._connect()

    @property
    def lost(self) -> bool:
        """Whether the connection was there and is no more."""
        return self._lost is not None

    @property
    def connected(self) -> bool:
        """Whether the connection stands, as far as is known."""
        return self._sock is not None and self._lost is None

    def _connect(self) -> None:
        sock = None
        if self._endpoint is not None:
            try:
                sock = framing.connect(self._endpoint)
            except DispatcherUnreachable:
                sock = None
        if sock is None:
            self._endpoint = self._find()
            sock = framing.connect(self._endpoint)
        again = self._lost is not None
        self._sock, self._lost = sock, None
        hello = {
            **self._hello,
            "holder": self.id,
            "holds": self.holds(),
            "pid": os.getpid(),
            "host": socket.gethostname(),
        }
        sock.sendall(framing.pack("hello", hello))
        if again:
            logger.warning("reconnected to the dispatcher; %d frames are sent again", len(self._unacked))
            for frame in list(self._unacked.values()):
                sock.sendall(frame)
            sock.sendall(framing.pack("watch", *self.inbox.outstanding()))
        threading.Thread(target=self._read, args=(sock,), name="raycelery-reader", daemon=True).start()

    @property
    def epoch(self) -> bytes | None:
        """Differs from one start of the dispatcher to the next."""
        return None if self._endpoint is None else self._endpoint.secret

    def close(self) -> None:
        """Send what is buffered and disconnect."""
        for companion in self._companions:
            companion.close()
        self._companions.clear()
        with self._lock:
            if self._sock is None:
                return
            if self._lost is None:
                self.flush()
            sock, self._sock = self._sock, None
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError as exc:
                logger.debug("closing the connection: %s", exc)
            sock.close()

    def _read(self, sock: socket.socket) -> None:
        unpacker = framing.Unpacker()
        reason = "it closed the connection"
        while True:
            try:
                data = sock.recv(1 << 18)
            except OSError as exc:
                reason = str(exc)
                break
            if not data:
                break
            frames = unpacker.feed(data)
            if frames:
                self._receive(frames)
        with self._told:
            if self._sock is sock:
                self._lost = reason
            self._told.notify_all()
        self.inbox.wake()
        if self._sock is sock and self._on_frame is not None:
            self._on_frame(("closed", reason))

    def _receive(self, frames: Iterable[tuple[Any, ...]]) -> None:
        frames, others = list(frames), []
        if self._on_frame is not None:
            # What a task said is there before its result is.
            for frame in frames:
                if frame[0] == "logs":
                    self._on_frame(frame)
        for frame in frames:
            kind = frame[0]
            if kind == "metas":
                self.inbox.put(frame[1])
            elif kind in ("ack", "reply"):
                with self._told:
                    if kind == "reply":
                        self._replies[frame[1]] = (frame[2], frame[3])
                    for number in frame[1] if kind == "ack" else ():
                        self._unacked.pop(number, None)
                    self._told.notify_all()
            elif kind != "logs":
                others.append(frame)
        if self._on_frame is not None:
            for frame in others:
                self._on_frame(frame)

    def _send(self, frame: bytes, flags: int = 0) -> None:
        self.ensure()
        assert self._sock is not None
        self._sending = True
        try:
            if flags:
                view = memoryview(frame)
                while view:
                    view = view[self._sock.send(view, flags) :]
            else:
                self._sock.sendall(frame)
        except OSError as exc:
            self._lost = str(exc)
            raise DispatcherUnreachable(f"the dispatcher went away while a message was sent ({exc})") from exc
        finally:
            self._sending = False

    @property
    def sending(self) -> bool:
        """Whether this is no moment to raise an exception from a signal handler: a frame is half sent, for one."""
        return self._sending or self._uninterrupted

    # -- submissions --------------------------------------------------------------------------------------------

    def define(self, key: Any, definition: tuple[Any, ...]) -> None:
        """Tell the dispatcher of a lane, an application or a limit, once per connection.

        Arguments:
            key: identifies the definition; hashable.
            definition: what to send.
        """
        if key not in self._defined:
            with self._lock:
                self.ensure()
                self._definitions.append(definition)
                self._defined.add(key)

    def submit(self, message: tuple[Any, ...], size: int, *, awaited: bool = True) -> None:
        """Buffer a message for the dispatcher.

        Arguments:
            message: the positional fields of a submission; its first is the task id.
            size: bytes of its payload.
            awaited: whether somebody may ask for its result.

        Raises:
            DispatcherUnreachable: there is no dispatcher to send it to.
            QueueFull: the dispatcher has held submissions up for ``submit_timeout`` seconds; the message is not taken.
        """
        if len(self._unacked) > WINDOW_FRAMES:
            self._hold()
        with self._lock:
            first = not self._messages
            self._messages.append(message)
            self._bytes += size
            self.submitted += 1
            if awaited:
                self.inbox.submitted(message[0])
            full = len(self._messages) >= BATCH_MESSAGES or self._bytes >= BATCH_BYTES
            if full or not self.linger:
                self.flush()
        if first and not full and self.linger:
            self._flush_soon()

    def _hold(self) -> None:
        if self._hello["role"] == "executor":
            return
        limit = self._submit_timeout
        silent = SILENT_SECONDS if limit is None else min(SILENT_SECONDS, limit)
        with self._told:
            if self._told.wait_for(self._has_room, silent):
                return
            if limit is None or limit > silent:
                logger.warning("the queue is full (ray_max_pending): calls wait until there is room")
                if self._told.wait_for(self._has_room, None if limit is None else limit - silent):
                    return
        raise QueueFull(
            f"the queue has been full for {limit} s: wait for results, raise ray_max_pending, or give the cluster more "
            "CPUs"
        )

    def _has_room(self) -> bool:
        return len(self._unacked) <= WINDOW_FRAMES or self._lost is not None

    def _flush_soon(self) -> None:
        if self._wake is None:
            self._wake = threading.Event()
            threading.Thread(target=self._linger, args=(self._wake,), name="raycelery-flush", daemon=True).start()
        self._wake.set()

    def _linger(self, wake: threading.Event) -> None:
        while True:
            wake.wait()
            wake.clear()
            time.sleep(self.linger)
            try:
                self.flush()
            except DispatcherUnreachable as exc:
                self._keep(exc)
                time.sleep(1.0)
                wake.set()

    def store(self, op: tuple[Any, ...], *, now: bool = True) -> None:
        """Write to the store: a state, a chord part; in order with what this process sent before.

        Arguments:
            op: ``(name, *arguments)``.
            now: whether to send it at once or with the next report.
        """
        with self._lock:
            self._ops.append(op)
            if now:
                self.flush()

    def store_and_wait(self, op: tuple[Any, ...]) -> Any:
        """Write to the store and return what the dispatcher answers.

        No time limit interrupts it: the dispatcher counts on its answer being taken.

        Arguments:
            op: as for :meth:`store`; the number of the question is added to it.

        Raises:
            DispatcherUnreachable: it went away before it answered.
        """
        self._uninterrupted = True
        try:
            with self._lock:
                number = next(self._requests)
                self._ops.append((*op, number))
                self.flush()
            return self._answer(number, op[0], None)
        finally:
            self._uninterrupted = False

    def report(self, *reports: tuple[Any, ...], more: bool = False) -> None:
        """Tell the dispatcher what became of messages this executor was given.

        With ``more`` the kernel may hold the bytes back until more follow. They are out of this process all the same:
        what an executor has reported is not lost when it is killed the next moment.
        """
        for companion in self._companions:
            companion.flush_if_possible()
        with self._lock:
            self._reports.extend(reports)
            self.flush(more=more)

    def flush(self, *, more: bool = False) -> None:
        """Send what is buffered."""
        with self._lock:
            if not (self._messages or self._ops or self._reports or self._definitions):
                return
            self.ensure()
            number = next(self._frames) if self._messages else 0
            frame = framing.pack("batch", number, self._definitions, self._messages, self._ops, self._reports)
            if number:
                with self._told:
                    self._unacked[number] = frame
            self._messages, self._bytes = [], 0
            self._definitions, self._ops, self._reports = [], [], []
            self._send(frame, _MORE if more else 0)

    def flush_if_possible(self) -> None:
        """Send what is buffered; where the dispatcher is out of reach it is kept, and sent when it is back."""
        try:
            self.flush()
        except DispatcherUnreachable as exc:
            self._keep(exc)

    def _keep(self, exc: DispatcherUnreachable) -> None:
        logger.error("%s; %d messages are kept and sent when it is back", exc, len(self._messages))

    def accompany(self, other: Client) -> None:
        """Take on another application's connection of this executor: its waits count, and it is flushed, as this one's.

        Arguments:
            other: the connection, not yet used.
        """
        self._companions.append(other)
        other.on_block = lambda blocked: None if self.on_block is None else self.on_block(blocked)

    def post(self, frame: bytes, *, first: bool = False) -> None:
        """Send a frame that nobody acknowledges, after what is buffered, or before it.

        Raises:
            DispatcherUnreachable: the connection is lost; nothing is sent again.
        """
        with self._lock:
            if self._lost is not None:
                raise DispatcherUnreachable(f"the dispatcher went away: {self._lost}")
            if not first:
                self.flush()
            self._send(frame)

    def renew(self) -> None:
        """Connect again, to whatever dispatcher there is now, which knows nothing of what was defined.

        Raises:
            DispatcherUnreachable: no dispatcher answers.
        """
        with self._lock:
            self._defined.clear()
            self.ensure()

    # -- questions ----------------------------------------------------------------------------------------------

    def call(self, method: str, *args: Any, timeout: float | None = 60.0) -> Any:
        """Ask the dispatcher and return its answer; ask once more if it was restarted meanwhile.

        Raises:
            DispatcherUnreachable: it went away, or did not answer in ``timeout`` seconds.
        """
        try:
            return self._ask(method, args, timeout)
        except DispatcherUnreachable:
            if self._lost is None or not self.may_return:
                raise
            return self._ask(method, args, timeout)

    def _ask(self, method: str, args: tuple[Any, ...], timeout: float | None) -> Any:
        with self._lock:
            self.flush()
            number = next(self._requests)
            self._send(framing.pack("call", number, method, args))
        return self._answer(number, method, timeout)

    def _answer(self, number: int, method: str, timeout: float | None) -> Any:
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._told:
            while number not in self._replies:
                if self._lost is not None:
                    raise DispatcherUnreachable(f"the dispatcher went away before it answered {method!r}: {self._lost}")
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    raise DispatcherUnreachable(f"the dispatcher did not answer {method!r} in {timeout} s")
                self._told.wait(left)
            ok, value = self._replies.pop(number)
        if not ok:
            raise value
        return value

    def watch(self, awaited: Awaited) -> None:
        """Ask the dispatcher for what a wait is to ask for; send what is buffered, and connect again, where that helps.

        Raises:
            DispatcherUnreachable: the dispatcher went away, and is not one that may be started again.
        """
        # Looked at without the inbox's lock: what is added later wakes the wait, which comes here again.
        if awaited.unasked:
            with self._lock:
                self.flush()
                self._send(framing.pack("watch", *self.inbox.to_ask(awaited)))
        elif self._messages:
            self.flush()
        if self.lost:
            if not self.may_return:
                raise DispatcherUnreachable(f"the dispatcher went away while results were awaited: {self._lost}")
            self.ensure()

    def take(self, task_id: str) -> Result | None:
        """Return the state and payload of a task if they have arrived and nobody waits for them."""
        return self.inbox.take(task_id)

    def forget(self, task_id: str) -> None:
        """Drop a result that arrived but was not read."""
        self.inbox.forget(task_id)

    def after_fork(self) -> None:
        """Begin anew in a forked child: the parent keeps its socket, its buffers and its results."""
        inherited = self._sock
        self._reset()
        if self._hello["role"] == "executor":
            # What the dispatcher sends the executor is for the parent.
            self._hello = {"role": "client"}
            self.may_return, self._on_frame, self.on_block, self.quiet = True, None, None, ()
        self.submitted = 0
        # A child may end without Python's exit hooks (os._exit), so it holds nothing back.
        self.linger = 0
        if inherited is not None:
            os.close(inherited.detach())


def _after_fork() -> None:
    for client in list(_clients):
        client.after_fork()


os.register_at_fork(after_in_child=_after_fork)
