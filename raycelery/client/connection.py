"""A process's connection to its dispatcher: one socket, buffered submissions, results pushed as they come.

Submissions are buffered and leave when the buffer is full, about a millisecond after the first, before any wait and
at exit. Each frame of submissions is acknowledged; past a window of unacknowledged frames ``submit`` blocks, which is
how the dispatcher makes producers wait when its queue is full.

A forked child of a connected process opens a socket of its own with the endpoint it inherited: it needs no Ray.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import socket
import threading
import time
import uuid
import weakref
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from raycelery.client.finding import Finder, NotInTime, left
from raycelery.client.forgotten import Epochs
from raycelery.client.inbox import Awaited, Inbox
from raycelery.client.reconnecting import Reconnecting
from raycelery.errors import DispatcherGone, DispatcherUnreachable, JournalFull, QueueFull
from raycelery.protocol import asking, framing, operations, questions, refusals
from raycelery.protocol.asking import Question
from raycelery.protocol.codec import ProtocolError, Tagged, encode
from raycelery.protocol.definitions import Definition
from raycelery.protocol.frames import (
    Acknowledged,
    Answer,
    Ask,
    Changes,
    FromDispatcher,
    Full,
    Hello,
    LargeValuesLost,
    Lines,
    Refusal,
    Result,
    Results,
    Watch,
    Welcome,
    from_dispatcher,
    to_dispatcher,
)
from raycelery.protocol.messages import Submission
from raycelery.protocol.operations import ChordPart, LastPart, Operation
from raycelery.protocol.reports import Report

logger = logging.getLogger(__name__)
A = TypeVar("A")

#: Messages in a frame, bytes in a frame, and seconds that a message waits for others to share its frame.
BATCH_MESSAGES = 64
BATCH_BYTES = 256_000
LINGER_SECONDS = 0.001
#: Frames of submissions that may be unacknowledged before ``submit`` blocks.
WINDOW_FRAMES = 64
#: Seconds for which a full queue may hold up a call without a word.
SILENT_SECONDS = 5.0
#: Seconds that an endpoint has to answer.
CONNECT_SECONDS = 10.0
#: Seconds that a wait takes at least where there is something to be sent first.
LEAST_SECONDS = 0.05
#: Connections in a row over which came what cannot be read, before none is opened any more.
UNREADABLE_TIMES = 3
#: Seconds for which a dispatcher that went away is looked for, where nobody says otherwise.
RECONNECT_SECONDS = 60.0

_MORE: int = getattr(socket, "MSG_MORE", 0)
_clients: weakref.WeakSet[Client] = weakref.WeakSet()


@dataclass(frozen=True)
class Closed:
    """The connection is gone; what the process's own reading thread says after the last frame.

    Arguments:
        reason: why.
    """

    reason: str


#: What :class:`Client` hands on.
OnFrame = Callable[["FromDispatcher | Closed"], None]


class Client:
    """One process's side of the conversation with a dispatcher; safe to use from any thread.

    Arguments:
        find: returns the endpoint; called again when the dispatcher has moved.
        hello: what the process says of itself; the client fills in what it knows itself.
        on_frame: called in the reading thread with each frame that is not for the client itself.
        submit_timeout: seconds that a submission may be held up by a full queue before it raises; None: no limit.
        reconnect_seconds: how long a dispatcher that went away is looked for, and how long one that has lost its
            journal may not know a task before that fails.
        max_pending: so many messages may wait at the dispatcher.
        max_pending_bytes: so many bytes of what they carry.
    """

    def __init__(
        self,
        find: Callable[[], framing.Endpoint],
        hello: Hello,
        on_frame: OnFrame | None = None,
        submit_timeout: float | None = None,
        reconnect_seconds: float = RECONNECT_SECONDS,
        max_pending: float = 1e18,
        max_pending_bytes: float = 1e18,
    ) -> None:
        #: Messages in a frame, and frames that need not be acknowledged: a small queue is not to be overrun by them.
        self._batch = int(max(1, min(BATCH_MESSAGES, max_pending // 4)))
        quarter = min(max_pending // (4 * self._batch), max_pending_bytes // (4 * BATCH_BYTES))
        self._window = int(max(0, min(WINDOW_FRAMES, quarter - 1)))
        self._find = find
        self._finder = Finder(find)
        self._hello = hello
        self._on_frame = on_frame
        self._submit_timeout = submit_timeout
        self._reconnect_seconds = reconnect_seconds
        self._endpoint: framing.Endpoint | None = None
        self._forked = False
        #: An executor ends with its dispatcher; others wait for it to be restarted.
        self.may_return = hello.role != "executor"
        #: Called with True when a wait begins to block, with False when it ends (executors lend their CPUs meanwhile).
        self.on_block: Callable[[bool], None] | None = None
        #: Returns the keys of the large values that this process keeps.
        self.holds: Callable[[], list[str]] = list
        self.linger = LINGER_SECONDS
        #: Called when all that it keeps is lost.
        self.lose_large_values: Callable[[], None] = lambda: None
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
        #: Guards ``_unacked`` and ``_answers``; notified when they change, and when the connection is lost.
        self._told = threading.Condition(threading.Lock())
        self.inbox = Inbox()
        self._sock: framing.Socket | None = None
        self._lost: str | None = None
        self._sending = self._uninterrupted = False
        #: Connections in a row that ended as what came over them could not be read.
        self._unreadable, self._unread = 0, ""
        #: The next frame's parts, each encoded when it is handed in: what is wrong with it is its caller's error.
        self._submissions: list[Any] = []
        self._bytes = 0
        #: Whether what is buffered leaves only along with the next report; see :meth:`hold`.
        self._held = False
        self._definitions: list[Any] = []
        #: All that was defined, for a dispatcher that does not know it.
        self._defined: dict[Hashable, Any] = {}
        self._reconnecting = Reconnecting(self._reconnect_seconds)
        self._epochs = Epochs(self.call, self.inbox, self._reconnect_seconds)
        #: Path of the journal whose disk is full; "": none is.
        self._full = ""
        self._operations: list[Any] = []
        self._reports: list[Any] = []
        self._frame_ids = itertools.count(1)
        #: Frames of submissions that the dispatcher has not acknowledged: sent again if it is restarted meanwhile.
        self._unacked: dict[int, bytes] = {}
        self._question_ids = itertools.count(1)
        self._answers: dict[int, Answer | Refusal] = {}
        self.id = uuid.uuid4().hex
        #: Who is to see what tasks say that this process submits: itself, or "" for nobody; in executors whoever
        #: submitted what they run.
        self.log_to = self.id if self._hello.logs else ""
        self._wake: threading.Event | None = None

    # -- connection ---------------------------------------------------------------------------------------------

    def ensure(self, deadline: float | None = None) -> None:
        """Connect if that has not been done, or again if the connection was lost.

        Arguments:
            deadline: by ``time.monotonic``; None: as long as it takes.

        Raises:
            DispatcherUnreachable: no dispatcher answers.
            NotInTime: none has answered by then.
        """
        if self.connected:
            return
        with self._locked(deadline):
            if self.connected:
                return
            if self._lost is None or not self.may_return:
                self._connect(deadline)
            else:
                self._reconnecting.run(self._connect, deadline)

    @contextlib.contextmanager
    def _locked(self, deadline: float | None) -> Iterator[None]:
        """Hold the lock; another thread, which has more time, may just be connecting.

        Raises:
            NotInTime: the lock was not free by then.
        """
        seconds = left(deadline)
        if not self._lock.acquire(timeout=-1 if seconds is None else seconds):
            raise NotInTime("another thread is connecting to the dispatcher, which took too long")
        try:
            yield
        finally:
            self._lock.release()

    @property
    def lost(self) -> bool:
        """Whether the connection was there and is no more."""
        return self._lost is not None

    @property
    def connected(self) -> bool:
        """Whether the connection stands, as far as is known."""
        return self._sock is not None and self._lost is None

    def _connect(self, deadline: float | None) -> None:
        if self._unreadable >= UNREADABLE_TIMES:
            raise DispatcherGone(f"the dispatcher was given up, as {self._unread}")
        again = self._lost is not None
        sock = None
        if self._endpoint is not None and (self._forked or not again):
            # A forked child has inherited it, and cannot ask Ray.
            try:
                sock = self._open(self._endpoint, deadline)
            except DispatcherUnreachable:
                sock = None
        if sock is None:
            # Ray is asked, and not the old endpoint tried: another process may listen there by now.
            self._endpoint = self._finder.find(deadline)
            sock = self._open(self._endpoint, deadline)
        self._sock, self._lost, self._full = sock, None, ""
        hello = msgspec.structs.replace(
            self._hello, holder=self.id, holds=self.holds(), pid=os.getpid(), host=socket.gethostname()
        )
        try:
            sock.sendall(framing.pack(hello))
            if again:
                self._tell_again(sock)
        except OSError as exc:
            self._lost = str(exc)
            raise DispatcherUnreachable(f"the dispatcher went away again ({exc})") from exc
        threading.Thread(target=self._read, args=(sock,), name="raycelery-reader", daemon=True).start()

    def _open(self, endpoint: framing.Endpoint, deadline: float | None) -> framing.Socket:
        # An executor whose connection is lost ends, with the task that it runs.
        impatient = self._hello.role != "executor"
        seconds = left(deadline)
        if seconds is None:
            return framing.connect(endpoint, impatient=impatient)
        try:
            return framing.connect(endpoint, min(CONNECT_SECONDS, seconds + 0.001), impatient=impatient)
        except DispatcherUnreachable as exc:
            if left(deadline) == 0.0:
                raise NotInTime(str(exc)) from exc
            raise

    def _tell_again(self, sock: framing.Socket) -> None:
        """Tell a dispatcher what it may not know: it was restarted, and its journal may be lost."""
        logger.warning("reconnected to the dispatcher; %d frames are sent again", len(self._unacked))
        if self._defined:
            sock.sendall(framing.pack(Changes(definitions=list(self._defined.values()))))
        for frame in list(self._unacked.values()):
            sock.sendall(frame)
        sock.sendall(framing.pack(Watch(*self.inbox.outstanding())))

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

    def abandon(self) -> None:
        """Disconnect; what is buffered is not sent."""
        sock = self._sock
        if sock is not None:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError as exc:
                logger.debug("abandoning the connection: %s", exc)

    def _read(self, sock: framing.Socket) -> None:
        unpacker = framing.Unpacker(from_dispatcher)
        reason = "it closed the connection"
        try:
            while data := sock.recv(1 << 18):
                frames = unpacker.feed(data)
                if frames:
                    self._receive(frames)
                    self._unreadable = 0
        except OSError as exc:
            reason = str(exc)
        except ProtocolError as exc:
            reason = self._unread = f"what it sent cannot be read: {exc}"
            self._unreadable += 1
            logger.error("the connection to the dispatcher is closed, as %s", reason)
        except Exception as exc:  # whatever it is, nothing more is read
            reason = f"this process could not take what it sent: {exc!r}"
            logger.exception("the connection to the dispatcher is closed, as %s", reason)
        with contextlib.suppress(OSError):  # it is closed already
            sock.shutdown(socket.SHUT_RDWR)
        with self._told:
            if self._sock is sock:
                self._lost = reason
            self._told.notify_all()
        self.inbox.wake()
        if self._sock is sock and self._on_frame is not None:
            self._on_frame(Closed(reason))

    def _receive(self, frames: list[FromDispatcher]) -> None:
        others = []
        if self._on_frame is not None:
            # What a task said is there before its result is.
            for frame in frames:
                if type(frame) is Lines:
                    self._on_frame(frame)
        for frame in frames:
            if type(frame) is Results:
                self.inbox.put(frame.results)
            elif type(frame) is Acknowledged:
                with self._told:
                    for frame_id in frame.frame_ids:
                        self._unacked.pop(frame_id, None)
                    self._told.notify_all()
            elif type(frame) is Answer or type(frame) is Refusal:
                with self._told:
                    self._answers[frame.question_id] = frame
                    self._told.notify_all()
            elif type(frame) is LargeValuesLost:
                self.lose_large_values()
            elif type(frame) is Welcome:
                self._epochs.welcome(frame.epoch)
            elif type(frame) is Full:
                self._full = frame.where
            elif type(frame) is not Lines:
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

    def define(self, key: Hashable, definition: Definition) -> None:
        """Tell the dispatcher of a lane, an application or a limit, once per connection.

        Arguments:
            key: identifies the definition.
            definition: what to send.
        """
        if key not in self._defined:
            with self._lock:
                self.ensure()
                encoded = self._defined[key] = _encoded(definition)
                self._definitions.append(encoded)

    def submit(self, submission: Submission, *, awaited: bool = True) -> None:
        """Buffer a message for the dispatcher.

        Arguments:
            submission: the message.
            awaited: whether somebody may ask for its result.

        Raises:
            DispatcherUnreachable: there is no dispatcher to send it to.
            QueueFull: the dispatcher has held submissions up for ``submit_timeout`` seconds; the message is not taken.
            JournalFull: the disk that has the dispatcher's journal is full; the message is not taken.
            TypeError: it holds something that is no plain data.
        """
        encoded = encode(submission)
        if self._full and self._hello.role != "executor":
            raise JournalFull(
                f"the disk of the dispatcher's journal {self._full} is full: free some room there, or have ray_journal "
                "name a folder on another disk; what was taken before runs"
            )
        if len(self._unacked) > self._window:
            self._hold()
        with self._lock:
            first = not self._submissions
            self._submissions.append(msgspec.Raw(encoded))
            self._bytes += len(encoded)
            self.submitted += 1
            if awaited:
                self.inbox.submitted(submission.task_id)
            full = len(self._submissions) >= self._batch or self._bytes >= BATCH_BYTES
            if (full or not self.linger) and not self._held:
                self.flush()
        if first and not full and self.linger:
            self._flush_soon()

    def _hold(self) -> None:
        if self._hello.role == "executor":
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
            f"the queue has been full for {limit} s: wait for results, raise ray_max_pending or "
            "ray_max_pending_bytes, or give the cluster more CPUs"
        )

    def _has_room(self) -> bool:
        return len(self._unacked) <= self._window or self._lost is not None

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
            if self._held:
                continue
            try:
                self.flush()
            except DispatcherUnreachable as exc:
                self._keep(exc)
                time.sleep(1.0)
                wake.set()

    def store(self, operation: Operation, *, now: bool = True) -> None:
        """Write to the store: a state, a chord part; in order with what this process sent before.

        Arguments:
            operation: what to write.
            now: whether to send it at once or with the next report.

        Raises:
            TypeError: it holds something that is no plain data.
        """
        encoded = _encoded(operation)
        with self._lock:
            self._operations.append(encoded)
            if now and not self._held:
                self.flush()

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Have what is submitted and stored in here by this thread leave in one frame: all of it is taken, or none."""
        with self._lock:
            self.flush()
            yield
            self.flush()

    def store_part(self, part: ChordPart) -> LastPart | None:
        """Write a chord's part to the store and return the others, if it was the last.

        No time limit interrupts it: the dispatcher counts on its answer being taken.

        Raises:
            DispatcherUnreachable: it went away before it answered.
        """
        self._uninterrupted = True
        try:
            with self._lock:
                question_id = next(self._question_ids)
                self._operations.append(_encoded(msgspec.structs.replace(part, question_id=question_id)))
                self.flush()
            return operations.last_part.decode(self._answer(question_id, part, None, None))
        finally:
            self._uninterrupted = False

    def hold(self) -> None:
        """Have what is submitted and stored leave in one frame with the next report: all of it is done, or none."""
        with self._lock:
            self.flush()
            self._held = True

    def report(self, *reports: Report, more: bool = False) -> None:
        """Tell the dispatcher what became of messages this executor was given.

        With ``more`` the kernel may hold the bytes back until more follow. They are out of this process all the same:
        what an executor has reported is not lost when it is killed the next moment.
        """
        for companion in self._companions:
            companion.flush_if_possible()
        encoded = [_encoded(report) for report in reports]
        with self._lock:
            self._reports += encoded
            self._held = False
            self.flush(more=more)

    def flush(self, *, more: bool = False) -> None:
        """Send what is buffered."""
        with self._lock:
            if not (self._submissions or self._operations or self._reports or self._definitions):
                return
            self.ensure()
            frame_id = next(self._frame_ids) if self._submissions else 0
            frame = framing.pack(
                Changes(frame_id, self._definitions, self._submissions, self._operations, self._reports)
            )
            if frame_id:
                with self._told:
                    self._unacked[frame_id] = frame
            self._submissions, self._bytes = [], 0
            self._definitions, self._operations, self._reports = [], [], []
            try:
                self._send(frame, _MORE if more else 0)
            except DispatcherUnreachable:
                if not self.may_return:
                    raise
                # What is to be acknowledged is sent again with the connection.
                self.ensure()
                if not frame_id:
                    self._send(frame)

    def unconfirmed(self) -> int:
        """Return how many messages the dispatcher has not said to have, be it that they were not even sent."""
        with self._lock, self._told:
            frames = [framing.Unpacker(to_dispatcher).feed(frame)[0] for frame in self._unacked.values()]
            return len(self._submissions) + sum(len(one.submissions) for one in frames if isinstance(one, Changes))

    def hand_over(self, seconds: float, *, connect: bool = True) -> None:
        """See that the dispatcher has all messages, and has written them down.

        A frame that is not acknowledged may be one of too many that wait; what is answered after it tells that it is
        there.

        Arguments:
            seconds: that it may take.
            connect: whether to connect again, where the connection is lost.

        Raises:
            DispatcherUnreachable: it is not known whether it has them.
        """
        deadline = time.monotonic() + seconds
        while self._unacked or self._submissions:
            try:
                if not connect and not self.connected:
                    raise NotInTime(f"the connection is lost: {self._lost}")
                self._ask(questions.Pending(), left(deadline))
                return
            except DispatcherGone:
                raise
            except DispatcherUnreachable:
                remaining = left(deadline)
                if not remaining or not connect:
                    raise
                time.sleep(min(0.5, remaining))

    def flush_if_possible(self) -> None:
        """Send what is buffered; where the dispatcher is out of reach it is kept, and sent when it is back."""
        try:
            self.flush()
        except DispatcherUnreachable as exc:
            self._keep(exc)

    def _keep(self, exc: DispatcherUnreachable) -> None:
        logger.error("%s; %d messages are kept and sent when it is back", exc, len(self._submissions))

    def accompany(self, other: Client) -> None:
        """Take on another application's connection of this executor: its waits count, and it is flushed, as this one's.

        Arguments:
            other: the connection, not yet used.
        """
        self._companions.append(other)
        other.on_block = lambda blocked: None if self.on_block is None else self.on_block(blocked)

    def post(self, frame: Tagged | bytes, *, first: bool = False) -> None:
        """Send a frame that nobody acknowledges, after what is buffered, or before it.

        Raises:
            DispatcherUnreachable: the connection is lost; nothing is sent again.
        """
        packed = frame if isinstance(frame, bytes) else framing.pack(frame)
        with self._lock:
            if self._lost is not None:
                raise DispatcherUnreachable(f"the dispatcher went away: {self._lost}")
            if not first:
                self.flush()
            self._send(packed)

    def renew(self) -> None:
        """Connect again, to whatever dispatcher there is now, which knows nothing of what was defined.

        Raises:
            DispatcherUnreachable: no dispatcher answers.
        """
        with self._lock:
            self._defined.clear()
            self.ensure()

    # -- questions ----------------------------------------------------------------------------------------------

    def call(self, question: Question[A], *, timeout: float | None = 60.0) -> A:
        """Ask the dispatcher and return its answer; ask once more if it was restarted meanwhile.

        Arguments:
            question: one of :mod:`raycelery.protocol.questions`.
            timeout: seconds to wait for the answer; None: as long as it takes.

        Raises:
            DispatcherUnreachable: it went away, or did not answer in time.
            RayCeleryError: it cannot answer; or ``ValueError``, ``KeyError``, ``TypeError``.
        """
        try:
            return self._ask(question, timeout)
        except NotInTime:
            raise
        except DispatcherUnreachable:
            if self._lost is None or not self.may_return:
                raise
            return self._ask(question, timeout)

    def _ask(self, question: Question[A], timeout: float | None) -> A:
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._locked(deadline):
            self.ensure(deadline)
            self.flush()
            question_id = next(self._question_ids)
            self._send(framing.pack(Ask(question_id, question)))  # type: ignore[arg-type]
        return asking.answer_to(question, self._answer(question_id, question, timeout, deadline))

    def _answer(self, question_id: int, asked: Tagged, timeout: float | None, deadline: float | None) -> msgspec.Raw:
        with self._told:
            while question_id not in self._answers:
                what = type(asked).__name__
                if self._lost is not None:
                    raise DispatcherUnreachable(f"the dispatcher went away before it answered {what}: {self._lost}")
                seconds = left(deadline)
                if seconds == 0.0:
                    raise DispatcherUnreachable(f"the dispatcher did not answer {what} in {timeout} s")
                self._told.wait(seconds)
            answer = self._answers.pop(question_id)
        if type(answer) is Refusal:
            raise refusals.error_of(answer.error, answer.text)
        assert type(answer) is Answer
        return answer.value

    def watch(self, awaited: Awaited, timeout: float | None) -> bool:
        """Ask the dispatcher for what a wait is to ask for; send what is buffered, and connect again, where that helps.

        Arguments:
            awaited: the wait.
            timeout: seconds that it may take to connect; None: as long as it takes.

        Returns:
            False when the time is over.

        Raises:
            DispatcherUnreachable: the dispatcher went away, and is not one that may be started again.
        """
        if self.lost and not self.may_return:
            raise DispatcherUnreachable(f"the dispatcher went away while results were awaited: {self._lost}")
        # Looked at without the inbox's lock: what is added later wakes the wait, which comes here again.
        if self.connected and not awaited.unasked and not self._submissions:
            return True
        deadline = None if timeout is None else time.monotonic() + max(timeout, LEAST_SECONDS)
        try:
            with self._locked(deadline):
                self.ensure(deadline)
                try:
                    self.flush()
                    if awaited.unasked:
                        self._send(framing.pack(Watch(*self.inbox.to_ask(awaited))))
                except DispatcherUnreachable as exc:
                    if not self.lost:
                        raise
                    logger.debug("the wait goes on with the next connection: %s", exc)
        except NotInTime:
            return False
        return True

    def take(self, task_id: str) -> Result | None:
        """Return the result of a task if it has arrived and nobody waits for them."""
        return self.inbox.take(task_id)

    def forget(self, task_id: str) -> None:
        """Drop a result that arrived but was not read."""
        self.inbox.forget(task_id)

    def after_fork(self) -> None:
        """Begin anew in a forked child: the parent keeps its socket, its buffers and its results."""
        inherited = self._sock
        self._reset()
        self._finder = Finder(self._find)
        self._forked = True
        if self._hello.role == "executor":
            # What the dispatcher sends the executor is for the parent.
            self._hello = Hello("client")
            self.may_return, self._on_frame, self.on_block, self.quiet = True, None, None, ()
        self.submitted = 0
        # A child may end without Python's exit hooks (os._exit), so it holds nothing back.
        self.linger = 0
        if inherited is not None:
            os.close(inherited.detach())


def _encoded(part: Tagged) -> msgspec.Raw:
    return msgspec.Raw(encode(part))


def _after_fork() -> None:
    for client in list(_clients):
        client.after_fork()


os.register_at_fork(after_in_child=_after_fork)
