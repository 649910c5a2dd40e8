"""A process's connection to its dispatcher: one socket, buffered submissions, results pushed as they come.

Submissions are buffered and leave when the buffer is full, about a millisecond after the first, before any wait and
at exit. Each frame of submissions is acknowledged; past a window of unacknowledged frames ``submit`` blocks, which is
how the dispatcher makes producers wait when its queue is full.

A forked child of a connected process opens a socket of its own with the endpoint it inherited: it needs no Ray.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time
import uuid
import weakref
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from raycelery.client.answers import Answers
from raycelery.client.finding import NotInTime, left
from raycelery.client.forgotten import Epochs
from raycelery.client.inbox import Awaited, Inbox
from raycelery.client.link import Link
from raycelery.client.outbox import Outbox
from raycelery.errors import DispatcherGone, DispatcherUnreachable, JournalFull, QueueFull
from raycelery.protocol import asking, framing, operations, questions
from raycelery.protocol.asking import Question
from raycelery.protocol.codec import Tagged, encode
from raycelery.protocol.definitions import Definition
from raycelery.protocol.frames import (
    Acknowledged,
    Answer,
    Ask,
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
)
from raycelery.protocol.messages import Submission
from raycelery.protocol.operations import ChordPart, LastPart, Operation
from raycelery.protocol.reports import Report

logger = logging.getLogger(__name__)
A = TypeVar("A")

#: Seconds that a message waits for others to share its frame.
LINGER_SECONDS = 0.001
#: Seconds for which a full queue may hold up a call without a word.
SILENT_SECONDS = 5.0
#: Seconds that a wait takes at least where there is something to be sent first.
LEAST_SECONDS = 0.05
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
        self._find = find
        self._hello = hello
        self._on_frame = on_frame
        self._submit_timeout = submit_timeout
        self._max_pending = (max_pending, max_pending_bytes)
        self._reconnect_seconds = reconnect_seconds
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
        self._begin(None)
        _clients.add(self)

    def _begin(self, inherited: framing.Endpoint | None) -> None:
        """Begin anew, without a connection.

        Arguments:
            inherited: the endpoint in a forked child; None: this is none.
        """
        #: Guards the sending side: the socket, and everything that is buffered for it. Its holder may take the next one
        #: and the inbox's, never the other way round.
        self._lock = threading.RLock()
        #: Guards the frames that are not acknowledged, and the answers; notified when they change, and when the
        #: connection is lost.
        self._told = threading.Condition(threading.Lock())
        self.inbox = Inbox()
        self._outbox = Outbox(self._told, *self._max_pending)
        self._link = Link(
            self._find, endpoint=inherited, executor=self.is_executor, seconds=self._reconnect_seconds, lock=self._lock,
            told=self._told, greet=self._greet, receive=self._receive, closed=self._closed,
        )  # fmt: skip
        self._answers = Answers(self._told, lambda: self._link.lost)
        self._epochs = Epochs(self.call, self.inbox, self._reconnect_seconds)
        self._uninterrupted = False
        #: Whether what is buffered leaves only along with the next report; see :meth:`hold`.
        self._held = False
        #: Path of the journal whose disk is full; "": none is.
        self._full = ""
        self.id = uuid.uuid4().hex
        #: Who is to see what tasks say that this process submits: itself, or "" for nobody; in executors whoever
        #: submitted what they run.
        self.log_to = self.id if self._hello.logs else ""
        self._wake: threading.Event | None = None

    # -- connection ---------------------------------------------------------------------------------------------

    @property
    def is_executor(self) -> bool:
        """Whether this is an executor's connection to the dispatcher that has started it."""
        return self._hello.role == "executor"

    @property
    def may_return(self) -> bool:
        """Whether a dispatcher that went away is waited for; an executor ends with its dispatcher."""
        return not self.is_executor

    def ensure(self, deadline: float | None = None) -> None:
        """Connect if that has not been done, or again if the connection was lost.

        Arguments:
            deadline: by ``time.monotonic``; None: as long as it takes.

        Raises:
            DispatcherUnreachable: no dispatcher answers.
            NotInTime: none has answered by then.
        """
        self._link.ensure(deadline)

    @property
    def lost(self) -> bool:
        """Whether the connection was there and is no more."""
        return self._link.lost is not None

    @property
    def connected(self) -> bool:
        """Whether the connection stands, as far as is known."""
        return self._link.connected

    @property
    def endpoint(self) -> framing.Endpoint | None:
        """Where the dispatcher listens, as far as is known."""
        return self._link.endpoint

    @property
    def epoch(self) -> bytes | None:
        """Differs from one start of the dispatcher to the next."""
        endpoint = self._link.endpoint
        return None if endpoint is None else endpoint.secret

    @property
    def sending(self) -> bool:
        """Whether this is no moment to raise an exception from a signal handler: a frame is half sent, for one."""
        return self._link.sending or self._uninterrupted

    def close(self) -> None:
        """Send what is buffered and disconnect."""
        for companion in self._companions:
            companion.close()
        self._companions.clear()
        with self._lock:
            if self._link.connected:
                self.flush()
            self._link.close()

    def abandon(self) -> None:
        """Disconnect; what is buffered is not sent."""
        self._link.abandon()

    def _greet(self, again: bool) -> Iterator[bytes]:
        self._full = ""
        yield framing.pack(
            msgspec.structs.replace(
                self._hello, holder=self.id, holds=self.holds(), pid=os.getpid(), host=socket.gethostname()
            )
        )
        if again:
            logger.warning("reconnected to the dispatcher; %d frames are sent again", len(self._outbox.unacked))
            yield from self._outbox.again()
            yield framing.pack(Watch(*self.inbox.outstanding()))

    def _closed(self, reason: str) -> None:
        self.inbox.wake()
        if reason and self._on_frame is not None:
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
                self._outbox.acknowledge(frame.frame_ids)
            elif type(frame) is Answer or type(frame) is Refusal:
                self._answers.put(frame)
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

    # -- submissions --------------------------------------------------------------------------------------------

    def define(self, key: Hashable, definition: Definition) -> None:
        """Tell the dispatcher of a lane, an application or a limit, once per connection.

        Arguments:
            key: identifies the definition.
            definition: what to send.
        """
        if key not in self._outbox.defined:
            with self._lock:
                self.ensure()
                self._outbox.define(key, definition)

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
        if self._full and not self.is_executor:
            raise JournalFull(
                f"the disk of the dispatcher's journal {self._full} is full: free some room there, or have ray_journal "
                "name a folder on another disk; what was taken before runs"
            )
        outbox = self._outbox
        if not outbox.has_room:
            self._await_room()
        with self._lock:
            first = not outbox.submissions
            full = outbox.submit(encoded)
            self.submitted += 1
            if awaited:
                self.inbox.submitted(submission.task_id)
            if (full or not self.linger) and not self._held:
                self.flush()
        if first and not full and self.linger:
            self._flush_soon()

    def _await_room(self) -> None:
        if self.is_executor:
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
        return self._outbox.has_room or self.lost

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
        with self._lock:
            self._outbox.store(operation)
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
                question_id = self._answers.next_id()
                self._outbox.store(msgspec.structs.replace(part, question_id=question_id))
                self.flush()
            return operations.last_part.decode(self._answers.wait(question_id, part))
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
        with self._lock:
            self._outbox.report(reports)
            self._held = False
            self.flush(more=more)

    def flush(self, *, more: bool = False) -> None:
        """Send what is buffered."""
        with self._lock:
            if self._outbox.empty:
                return
            self.ensure()
            frame_id, frame = self._outbox.frame()
            try:
                self._link.send(frame, _MORE if more else 0)
            except DispatcherUnreachable:
                if not self.may_return:
                    raise
                # What is to be acknowledged is sent again with the connection.
                self.ensure()
                if not frame_id:
                    self._link.send(frame)

    def unconfirmed(self) -> int:
        """Return how many messages the dispatcher has not said to have, be it that they were not even sent."""
        with self._lock:
            return self._outbox.unconfirmed()

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
        while self._outbox.unacked or self._outbox.submissions:
            try:
                if not connect and not self.connected:
                    raise NotInTime(f"the connection is lost: {self._link.lost}")
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
        logger.error("%s; %d messages are kept and sent when it is back", exc, len(self._outbox.submissions))

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
            if self.lost:
                raise DispatcherUnreachable(f"the dispatcher went away: {self._link.lost}")
            if not first:
                self.flush()
            self._link.send(packed)

    def renew(self) -> None:
        """Connect again, to whatever dispatcher there is now, which knows nothing of what was defined.

        Raises:
            DispatcherUnreachable: no dispatcher answers.
        """
        with self._lock:
            self._outbox.defined.clear()
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
            if not self.lost or not self.may_return:
                raise
            return self._ask(question, timeout)

    def _ask(self, question: Question[A], timeout: float | None) -> A:
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._link.locked(deadline):
            self.ensure(deadline)
            self.flush()
            question_id = self._answers.next_id()
            self._link.send(framing.pack(Ask(question_id, question)))  # type: ignore[arg-type]
        return asking.answer_to(question, self._answers.wait(question_id, question, timeout, deadline))

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
            raise DispatcherUnreachable(f"the dispatcher went away while results were awaited: {self._link.lost}")
        # Looked at without the inbox's lock: what is added later wakes the wait, which comes here again.
        if self.connected and not awaited.unasked and not self._outbox.submissions:
            return True
        deadline = None if timeout is None else time.monotonic() + max(timeout, LEAST_SECONDS)
        try:
            with self._link.locked(deadline):
                self.ensure(deadline)
                try:
                    self.flush()
                    if awaited.unasked:
                        self._link.send(framing.pack(Watch(*self.inbox.to_ask(awaited))))
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
        inherited = self._link
        if self.is_executor:
            # What the dispatcher sends the executor is for the parent.
            self._hello = Hello("client")
            self._on_frame, self.on_block, self.quiet = None, None, ()
        self._begin(inherited.endpoint)
        self.submitted = 0
        # A child may end without Python's exit hooks (os._exit), so it holds nothing back.
        self.linger = 0
        inherited.leave_to_parent()


def _after_fork() -> None:
    for client in list(_clients):
        client.after_fork()


os.register_at_fork(after_in_child=_after_fork)
