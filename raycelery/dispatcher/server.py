"""The dispatcher's socket: what comes over it from clients, executors, bridges and tools, and to whom it goes."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

import ray

from raycelery.dispatcher import steady
from raycelery.dispatcher.connection import Connection
from raycelery.dispatcher.conversions import given_up, message_of
from raycelery.errors import DispatcherUnreachable
from raycelery.protocol import framing, tls
from raycelery.protocol.asking import Change
from raycelery.protocol.bus_questions import BusQuestion
from raycelery.protocol.codec import Tagged
from raycelery.protocol.definitions import DefineApplication
from raycelery.protocol.frames import (
    Ask,
    Changes,
    FollowLines,
    Hello,
    LookForChanges,
    RunMeasured,
    TaskLines,
    ToDispatcher,
    UseTimeLimits,
    Watch,
    Welcome,
)
from raycelery.protocol.limits import Limits
from raycelery.protocol.messages import Submission
from raycelery.protocol.operations import ChordPart, LastPart
from raycelery.protocol.questions import Drained, Introduce, LargeValue
from raycelery.protocol.records import Given
from raycelery.scheduler import events

if TYPE_CHECKING:
    from raycelery.dispatcher.admission import Admission
    from raycelery.dispatcher.back_pressure import BackPressure
    from raycelery.dispatcher.bridge_jobs import BridgeJobs
    from raycelery.dispatcher.core import Core
    from raycelery.dispatcher.executor_manager import ExecutorManager
    from raycelery.dispatcher.journal import Journal
    from raycelery.dispatcher.logs import Logs
    from raycelery.dispatcher.monitoring.tools import Tools
    from raycelery.dispatcher.profiling import Profiling
    from raycelery.dispatcher.reports import Reports
    from raycelery.dispatcher.rpc import Rpc
    from raycelery.dispatcher.turns import Turns
    from raycelery.dispatcher.waiters import Waiters
    from raycelery.scheduler.model import Message

logger = logging.getLogger(__name__)

#: Seconds that the large values of a process are kept after its connection was lost.
HOLD_SECONDS = 5.0
#: Seconds for which it is known which frames a process has sent whose connection was lost.
FRAME_SECONDS = 3600.0
_BUS_QUESTIONS = get_args(BusQuestion)


@dataclass(frozen=True)
class Parts:
    """The parts of the dispatcher that frames go to.

    Arguments:
        core: messages and store.
        executors: that connect.
        reports: of executors.
        waiters: for results.
        admission: holds submissions back while the journal's disk is full.
        back_pressure: acknowledges submissions.
        bridge_jobs: of bridges.
        rpc: questions.
        tools: Celery's.
        logs: lines of tasks.
        profiling: samples of tasks.
    """

    core: Core
    executors: ExecutorManager
    reports: Reports
    waiters: Waiters
    admission: Admission[Connection]
    back_pressure: BackPressure
    bridge_jobs: BridgeJobs
    rpc: Rpc
    tools: Tools
    logs: Logs
    profiling: Profiling


class Server:
    """Listens, and hands on what comes.

    Arguments:
        parts: that frames go to.
        connections: kept up to date: all that there are.
        journal: that a frame is written to before anything is done about it.
        turns: taken after each frame.
        introduce: returns where the dispatcher of another application listens, by its name and limits.
    """

    def __init__(
        self,
        parts: Parts,
        connections: set[Connection],
        journal: Journal,
        turns: Turns,
        introduce: Callable[[str, Limits], Awaitable[tuple[str, int, bytes]]],
    ) -> None:
        self._parts = parts
        self._core = parts.core
        self._connections = connections
        self._journal = journal
        self._turns = turns
        self._introduce = introduce
        self._tasks: set[asyncio.Task[None]] = set()
        self._listener: asyncio.Server
        #: Where it listens, once it does; what connects with it is refused anywhere else.
        self.endpoint = framing.Endpoint("", 0, secrets.token_bytes(32))

    async def listen(self) -> None:
        """Begin to listen."""
        loop, host = asyncio.get_running_loop(), ray.util.get_node_ip_address()
        self._listener = server = await loop.create_server(
            lambda: Connection(self, self._turns), host, 0, ssl=tls.server_context(), start_serving=False
        )
        self.endpoint = framing.Endpoint(host, server.sockets[0].getsockname()[1], self.endpoint.secret)
        await server.start_serving()
        # Of what the journal says of processes that are gone.
        loop.call_later(FRAME_SECONDS, self._forget_absent)

    def close(self) -> None:
        """Have nobody connect any more."""
        self._listener.close()

    # -- connections --------------------------------------------------------------------------------------------

    def on_made(self, conn: Connection) -> None:
        """Take note of a connection."""
        self._connections.add(conn)

    def on_lost(self, conn: Connection) -> None:
        """Forget a process whose connection is lost."""
        parts = self._parts
        self._connections.discard(conn)
        parts.logs.gone(conn)
        parts.tools.gone(conn)
        parts.waiters.gone(conn)
        parts.admission.gone(conn)
        parts.back_pressure.gone(conn)
        if conn.info.role == "bridge":
            parts.bridge_jobs.gone(conn)
            self._turns.soon()
        if conn.source:
            asyncio.get_running_loop().call_later(FRAME_SECONDS, self._forget, conn.source)
            # It may only have to connect again.
            asyncio.get_running_loop().call_later(HOLD_SECONDS, self._release_values, conn.source)

    def _forget(self, source: str) -> None:
        """Forget which frames a process has sent that does not come back."""
        if all(conn.source != source for conn in self._connections):
            self._core.frame_ids.pop(source, None)

    def _forget_absent(self) -> None:
        for source in set(self._core.frame_ids) - {conn.source for conn in self._connections}:
            del self._core.frame_ids[source]

    def _release_values(self, source: str) -> None:
        if all(conn.source != source for conn in self._connections):
            self._core.large_values.release_all(source)
            self._turns.soon()

    def tell_all(self, frame: Tagged) -> None:
        """Send a frame to all processes that have said who they are."""
        for conn in self._connections:
            if conn.source:
                conn.send(frame)

    # -- frames -------------------------------------------------------------------------------------------------

    def on_frame(self, conn: Connection, frame: ToDispatcher, raw: bytes) -> None:
        """Hand on a frame.

        Arguments:
            raw: its bytes.
        """
        match frame:
            case Changes():
                self.on_changes(conn, frame, raw)
            case Watch():
                self._parts.waiters.watch(conn, frame)
            case Ask():
                self._on_ask(conn, frame, raw)
            case TaskLines():
                self._parts.logs.take(conn, frame)
            case FollowLines():
                self._parts.logs.follow(conn, frame)
            case RunMeasured():
                self._parts.profiling.take(frame)
            case Hello():
                self._on_hello(conn, frame)
            case _:
                self._parts.bridge_jobs.on_frame(conn, frame)

    def _on_hello(self, conn: Connection, hello: Hello) -> None:
        conn.info, conn.source, conn.executor_id = hello, hello.holder, hello.executor_id
        large_values = self._core.large_values
        for key in hello.holds:
            for ref in large_values.refs(key):
                large_values.hold(key, conn.source, ref)
        self._parts.logs.came(conn)
        if hello.role in ("client", "bridge"):
            conn.takes_word = True
            conn.send(Welcome(self._core.epoch))
            self._parts.admission.greet(conn)
        if hello.executor_id is not None:
            self._parts.executors.came(hello.executor_id, conn)
            self._greet(conn, hello.executor_id)

    def _greet(self, conn: Connection, executor_id: int) -> None:
        """Tell an executor that has connected what differs from what it was started with."""
        parts, limits = self._parts, self._core.definitions.set_time_limits
        self._core.scheduler.handle(events.ExecutorConnected(executor_id), steady.now())
        parts.tools.greet(conn)
        parts.logs.greet(conn)
        if parts.profiling.on:
            parts.profiling.greet(conn)
        if limits:
            conn.send(UseTimeLimits(limits))

    def on_changes(self, conn: Connection, changes: Changes, raw: bytes) -> None:
        """Take what a process defines, submits, stores and reports.

        Arguments:
            raw: the frame's bytes.
        """
        if self._parts.admission.full and conn.executor_id is None:
            self._parts.admission.hold(conn, changes, raw)
            return
        core, frame_id, now = self._core, changes.frame_id, steady.now()
        if frame_id and frame_id <= core.frame_ids.get(conn.source, 0):
            # It came before the dispatcher was restarted, and only its acknowledgement was lost.
            conn.acknowledge(frame_id)
            return
        self._journal.append(conn.source, raw)
        for definition in changes.definitions:
            core.definitions.add(definition)
            if type(definition) is DefineApplication and conn.executor_id is None:
                # A program that has just begun: it may have come with new code.
                self._parts.executors.tell_those_of(definition.key, LookForChanges())
        for submission in changes.submissions:
            try:
                core.take(message_of(submission), submission.keys, now)
            except KeyError:
                if submission.lane in core.scheduler.view.known_lanes:
                    raise
                self._refuse(submission, now)
        for operation in changes.operations:
            complete = core.write(operation, now)
            question_id = operation.question_id if type(operation) is ChordPart else 0
            if complete is not None:
                core.take(complete, (), now, conn.executor_id if question_id else None)
            if question_id:
                self._answer_part(conn, question_id, complete)
        for report in changes.reports:
            self._parts.reports.take(conn, report, now)
        if frame_id:
            core.frame_ids[conn.source] = frame_id
            self._parts.back_pressure.acknowledge(conn, frame_id)
        self._turns.soon()

    def _refuse(self, submission: Submission, now: float) -> None:
        """Fail a message whose lane nobody has defined."""
        message = message_of(submission)
        message.reason = f"the dispatcher was not told where a task of lane {message.lane!r} runs"
        logger.error("message %s of %s was refused: %s", message.id, message.task, message.reason)
        self._core.write(given_up(message), now)

    def _answer_part(self, conn: Connection, question_id: int, complete: Message | None) -> None:
        """Tell an executor whether the chord's part that it brought was the last, so that it calls the body itself."""
        if complete is None or not complete.at_executor or conn.executor_id is None:
            conn.answer(question_id, None)
            return
        self._journal.append("", framing.pack(Given(conn.executor_id, [complete.seq])))
        conn.answer(question_id, LastPart(complete.seq, complete.payload.parts))

    # -- questions ----------------------------------------------------------------------------------------------

    def _on_ask(self, conn: Connection, ask: Ask, raw: bytes) -> None:
        question_id, question = ask.question_id, ask.question
        match question:
            case Drained():
                self._parts.back_pressure.await_end(conn, question_id)
                return
            case LargeValue(key):
                self._answer_later(conn, question_id, self._core.large_values.parts(key))
                return
            case Introduce(name, limits):
                self._answer_later(conn, question_id, self._endpoint_of(name, limits))
                return
        if isinstance(question, _BUS_QUESTIONS):
            self._parts.tools.control().on_question(conn, question_id, question)
            return
        if isinstance(question, Change):
            self._journal.append(conn.source, raw)
        try:
            conn.answer(question_id, self._parts.rpc.answer(question))
        except Exception as exc:  # whatever it is, who asks must hear of it
            logger.exception("%s failed", type(question).__name__)
            conn.refuse(question_id, exc)
        self._turns.soon()

    def _answer_later(self, conn: Connection, question_id: int, answer: Awaitable[object]) -> None:
        async def do() -> None:
            try:
                conn.answer(question_id, await answer)
            except (KeyError, DispatcherUnreachable) as exc:
                conn.refuse(question_id, exc)

        task = asyncio.get_running_loop().create_task(do())
        # The loop keeps a weak reference only.
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _endpoint_of(self, name: str, limits: Limits) -> tuple[str, int, bytes]:
        """Return where another application's dispatcher listens, which is started if there is none.

        Raises:
            DispatcherUnreachable: it does not answer.
        """
        try:
            return await self._introduce(name, limits)
        except (ValueError, ray.exceptions.RayError) as exc:
            raise DispatcherUnreachable(f"the dispatcher of {name!r} does not answer: {exc}") from exc
