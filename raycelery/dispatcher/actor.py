"""The dispatcher: the Ray actor around the scheduler.

A thin shell: frames in, scheduler, frames out. It listens on a socket of its own (see
:mod:`raycelery.protocol.framing`), keeps the store, starts and stops executors, and tells the scheduler what Ray says
of nodes and of executors that died.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args

import msgspec
import ray

from raycelery.dispatcher.bridge_jobs import BridgeJobs
from raycelery.dispatcher.cluster_monitor import ClusterMonitor
from raycelery.dispatcher.connection import Connection
from raycelery.dispatcher.cpu_leases import CpuLeases
from raycelery.dispatcher.definitions import Definitions
from raycelery.dispatcher.executor_manager import ExecutorManager
from raycelery.dispatcher.executor_processes import Actors
from raycelery.dispatcher.journal import Journal
from raycelery.dispatcher.large_values import LargeValues
from raycelery.dispatcher.logs import Logs
from raycelery.dispatcher.monitoring.metrics import Metrics
from raycelery.dispatcher.outcomes import Outcomes
from raycelery.dispatcher.profiling import Profiling
from raycelery.dispatcher.recovery import chord_message, given_up, message_of, recover, settlement_lane
from raycelery.dispatcher.rpc import Rpc
from raycelery.dispatcher.store import Store
from raycelery.errors import DispatcherUnreachable
from raycelery.protocol import framing, operations
from raycelery.protocol.definitions import DefineApplication
from raycelery.protocol.frames import (
    Ask,
    Changes,
    LookForChanges,
    Recall,
    Result,
    Run,
    SendEvents,
    SendLines,
    Stop,
    UseTimeLimits,
    Watch,
)
from raycelery.protocol.limits import Limits
from raycelery.protocol.messages import (
    Assignment,
    BatchAssignment,
    BatchReport,
    Begun,
    Blocked,
    Bye,
    ChordAssignment,
    Done,
    Outdated,
    Ready,
    Recalled,
    Report,
    Requeue,
    TaskError,
)
from raycelery.protocol.operations import (
    ChordExtra,
    ChordInProgress,
    ChordPart,
    ChordSize,
    DropLargeValues,
    LastPart,
    Operation,
    StoreResult,
    StoreValue,
    TaskEvent,
)
from raycelery.protocol.questions import BusQuestion, Change, Drained, Introduce, LargeValue
from raycelery.protocol.records import CompleteChord, Given
from raycelery.scheduler import events, instructions, phases
from raycelery.scheduler.model import Message, Policy
from raycelery.scheduler.scheduler import Scheduler
from raycelery.scheduler.validate import BooksDisagree
from raycelery.serialization import ray_serializers

if TYPE_CHECKING:
    from raycelery.dispatcher.monitoring.control_plane import ControlPlane

# Ray imports this when it starts a dispatcher, whose values are plain.
ray_serializers.postpone_in_actors()

logger = logging.getLogger(__name__)
Method = TypeVar("Method", bound=Callable[..., Any])

#: Seconds until a journal that could not be written is tried again.
UNWRITTEN_SECONDS = 0.5
#: Results that are prefetched are sent when they are there if they are no larger, in bytes.
PREFETCHED_BYTES = 16_384
_BUS_QUESTIONS = get_args(BusQuestion)


def _journal_path(name: str, folder: str | None) -> Path:
    if folder is None:
        folder = ray._private.worker._global_node.get_session_dir_path()
    return Path(folder) / "raycelery" / f"{re.sub(r'[^A-Za-z0-9._-]', '_', name)}.journal"


def _said_once(method: Method) -> Method:
    """Have Ray not call a method again where the caller or this actor has ended meanwhile."""
    said_once: Method = ray.method(max_task_retries=0)(method)
    return said_once


class Dispatcher:
    """One application's queues, limits, lanes and results.

    Arguments:
        name: the application's.
        limits: its bounds.
        actors: starts executors, and the dispatchers of other applications.
    """

    def __init__(self, name: str, limits: Limits, actors: Actors) -> None:
        logging.basicConfig(level=logging.INFO)
        self.name = name
        self.limits = limits
        self.actors = actors
        #: Where it listens, once it does; what connects with it is refused anywhere else.
        self.listens_at = framing.Endpoint("", 0, secrets.token_bytes(32))
        phases.enforce(limits.debug)
        self.scheduler = Scheduler(
            Policy(
                max_deliveries=limits.max_deliveries,
                max_executors=limits.max_executors,
                idle_seconds=limits.idle_seconds,
                infeasible_seconds=limits.infeasible_seconds,
            ),
            name=name,
        )
        self.store = Store(limits.max_result_bytes)
        self.metrics = Metrics(name)
        self.definitions = Definitions(self.scheduler)
        self.executor_manager = ExecutorManager(self)
        self.waiters: dict[str, dict[Connection, bool]] = defaultdict(dict)
        self.connections: set[Connection] = set()
        self.drainers: list[tuple[Connection, int]] = []
        self.large_values = LargeValues(name)
        self.keys: dict[int, tuple[str, ...]] = {}
        #: Frames of submissions that are not acknowledged before there is room in the queues.
        self.back_pressured: list[tuple[Connection, int]] = []
        #: Of each client's last frame.
        self.frame_ids: dict[str, int] = {}
        self.outcomes = Outcomes(self)
        self.since = time.time()
        #: Remote control and events, once a tool has asked for them; and whether anybody listens to task events.
        self.plane: ControlPlane | None = None
        self.watched = False
        self.journal = Journal(
            _journal_path(name, limits.journal), latest=lambda: self.scheduler.view.seq, key=limits.journal_key
        )
        self.rpc = Rpc(self)
        self.bridge_jobs = BridgeJobs(
            self.scheduler,
            self.journal,
            tell=self.executor_manager.tell,
            count=self.outcomes.note,
            on_change=self.turn_soon,
            max_deliveries=limits.max_deliveries,
        )
        self.logs = Logs(self)
        self.profiling = Profiling(self)
        self.cpu_leases = CpuLeases(name, self.scheduler, self.turn_soon)
        self._monitor = ClusterMonitor(self)
        recover(self)
        self._server: asyncio.Server | None = None
        self._starting = asyncio.Lock()
        self._turning = False
        #: For the next turn that the scheduler asks for, and when that is, in seconds since the epoch.
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        #: Connections with frames that leave after the journal was written; whether that is about to be done, and
        #: whether it could not be written the last time.
        self._sending: dict[Connection, None] = {}
        self._send_armed = self._unwritten = False
        self._loop: asyncio.AbstractEventLoop | None = None

    # -- actor methods ------------------------------------------------------------------------------------------

    async def endpoint(self) -> tuple[str, int, bytes]:
        """Return host, port and secret; starts to listen at the first call."""
        async with self._starting:
            if self._server is None:
                self._loop = asyncio.get_running_loop()
                await self.large_values.recover(self._loop)
                host = ray.util.get_node_ip_address()
                server = await self._loop.create_server(lambda: Connection(self), host, 0, start_serving=False)
                self.listens_at = framing.Endpoint(host, server.sockets[0].getsockname()[1], self.listens_at.secret)
                await server.start_serving()
                self._server = server
                self._monitor.start()
        return self._told_of()

    def _told_of(self) -> tuple[str, int, bytes]:
        return self.listens_at.host, self.listens_at.port, self.listens_at.secret

    async def keep(self, key: str, refs: list[Any], holder: str) -> bool:
        """Keep a large value for ``holder``; see :meth:`LargeValues.keep`."""
        return await self.large_values.keep(key, refs, holder)

    async def make_room(self, amounts: dict[str, float], share: float) -> None:
        """Give executors up for another application of the cluster, which has ``share`` CPUs and lacks ``amounts``."""
        self.scheduler.handle(events.MakeRoom(amounts, share), time.time())
        if self._server is not None:
            self.turn_soon()

    # What dispatchers say to each other of CPUs, see :class:`CpuLeases`.

    @_said_once
    async def demand(self, peer: str, units: list[float], share: float, lease_ids: list[str]) -> float:
        """Hear that another application, which has leases, wants CPUs; return the most that it could ever get."""
        return self.cpu_leases.demand(peer, units, share, lease_ids) if self._server is not None else 0.0

    @_said_once
    async def confirm_leases(self, peer: str, share: float, lease_ids: list[str]) -> list[str]:
        """Return the leases of another application, which says which ones it knows of."""
        return self.cpu_leases.confirm(peer, share, lease_ids) if self._server is not None else []

    @_said_once
    async def lease(self, lease_id: str, giver: str, node: str, cpus: float) -> bool:
        """Take CPUs that another application leases; return whether there is still use for them."""
        return self._server is not None and self.cpu_leases.lease(lease_id, giver, node, cpus)

    @_said_once
    async def reclaim(self, lease_id: str) -> bool:
        """Give CPUs back to another application; return whether there is such a lease."""
        return self._server is not None and self.cpu_leases.reclaim(lease_id)

    @_said_once
    async def lease_returned(self, lease_id: str) -> None:
        """Take CPUs back that were leased."""
        if self._server is not None:
            self.cpu_leases.returned(lease_id)

    async def fetch(self, key: str) -> list[Any]:
        """Return the reference of a large value in a list, or an empty list."""
        return self.large_values.refs(key)

    # -- frames -------------------------------------------------------------------------------------------------

    def on_changes(self, conn: Connection, changes: Changes, raw: bytes) -> None:
        frame_id, now = changes.frame_id, time.time()
        if frame_id and frame_id <= self.frame_ids.get(conn.source, 0):
            # It came before the dispatcher was restarted, and only its acknowledgement was lost.
            conn.acks.append(frame_id)
            conn.dirty()
            return
        self.journal.append(conn.source, raw)
        for definition in changes.definitions:
            self.definitions.add(definition)
            if type(definition) is DefineApplication and conn.executor_id is None:
                # A program that has just begun: it may have come with new code.
                self.executor_manager.tell_those_of(definition.key, LookForChanges())
        for submission in changes.submissions:
            self.take(message_of(submission), submission.keys, now)
        for operation in changes.operations:
            complete = self.store_op(operation, now)
            question_id = operation.question_id if type(operation) is ChordPart else 0
            if complete is not None:
                self.take(complete, (), now, conn.executor_id if question_id else None)
            if question_id:
                self._answer_part(conn, question_id, complete)
        for report in changes.reports:
            self._on_report(conn, report, now)
        if frame_id:
            self.frame_ids[conn.source] = frame_id
            if conn.executor_id is None and self.scheduler.view.pending > self.limits.max_pending:
                self.back_pressured.append((conn, frame_id))
            else:
                conn.acks.append(frame_id)
                conn.dirty()
        self.turn_soon()

    def _answer_part(self, conn: Connection, question_id: int, complete: Message | None) -> None:
        """Tell an executor whether the chord's part that it brought was the last, so that it calls the body itself."""
        if complete is None or not complete.at_executor or conn.executor_id is None:
            conn.answer(question_id, None)
            return
        self.journal.append("", framing.pack(Given(conn.executor_id, [complete.seq])))
        conn.answer(question_id, LastPart(complete.seq, complete.payload.parts))

    def take(self, message: Message, keys: tuple[str, ...], now: float, executor: int | None = None) -> None:
        """Hand a message to the scheduler; it refers to the large values ``keys``, and may be an executor's already."""
        if message.settle_reason == "chord":
            self.scheduler.handle(events.AddLane(settlement_lane(message.lane.partition(":")[2])), now)
            keys = self.store.chord_keys(message.payload.completion.group)
        if self.definitions.set_time_limits:
            self.rpc.apply_time_limit(message)
        self.scheduler.handle(events.Submit(message, executor), now)
        if self.watched and message.settle_reason is None and self.plane is not None:
            self.plane.received(message)
        if keys:
            self.keys[message.seq] = keys
            self.large_values.refer(keys)

    def store_op(self, operation: Operation, now: float) -> Message | None:
        """Write to the store; return the message to be run if that completes a chord."""
        complete = None
        match operation:
            case StoreResult():
                if operation.keys:
                    self.large_values.refer(operation.keys)
                if self.store.set_meta(operation, now) and operation.final:
                    self._wake(operation)
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
                if self.plane is not None:
                    self.plane.event(operation.kind, operations.fields_of(operation), operation.node)
        return None if complete is None else chord_message(*complete)

    def _wake(self, result: StoreResult) -> None:
        waiting = self.waiters.pop(result.task_id, None)
        if waiting:
            for conn, prefetched in waiting.items():
                conn.watching.discard(result.task_id)
                conn.results.append(_sent(result, prefetched))
                conn.dirty(later=prefetched)

    def _on_report(self, conn: Connection, report: Report, now: float) -> None:
        executor = conn.executor_id
        if executor is None:
            return
        match report:
            case Done(seq, seconds):
                message = self.scheduler.view.given(executor, seq)
                if message is not None:
                    self.scheduler.handle(events.Finished(executor, seq, seconds), now)
                    if message.bridged:
                        self.bridge_jobs.finished(message)
                    elif message.settle_reason != "chord":
                        self.outcomes.note(message, report.outcome, seconds, conn.info.node, now, report.error)
                self.release(seq)
            case Begun():
                self.scheduler.handle(events.Begun(executor), now)
            case BatchReport(seq, index, event):
                self.bridge_jobs.on_report(conn.info.node, seq, index, event)
            case Requeue(seq):
                self.scheduler.handle(events.Requeued(executor, seq), now)
            case Ready(node):
                self.scheduler.handle(events.ExecutorReady(executor, node), now)
            case Recalled(seqs):
                self.scheduler.handle(events.Recalled(executor, seqs), now)
            case Outdated():
                self.scheduler.handle(events.Retire([executor]), now)
            case Blocked(True):
                self.scheduler.handle(events.Blocked(executor, conn.watching), now)
            case Blocked():
                self.scheduler.handle(events.Unblocked(executor), now)
            case Bye():
                self.executor_manager.ended(executor, None)

    def release(self, seq: int) -> None:
        keys = self.keys.pop(seq, None)
        if keys:
            self.large_values.unrefer(keys)

    def on_watch(self, conn: Connection, watch: Watch) -> None:
        for prefetched, ids in ((False, watch.ids), (True, watch.prefetched)):
            for task_id in ids:
                ready = self.store.ready(task_id)
                if ready is None:
                    self.waiters[task_id][conn] = prefetched
                    conn.watching.add(task_id)
                else:
                    conn.results.append(_sent(ready, prefetched))
        conn.dirty()

    # -- decisions ----------------------------------------------------------------------------------------------

    def turn_soon(self) -> None:
        assert self._loop is not None
        if not self._turning:
            self._turning = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        # All that is to be sent leaves at its end.
        self._turning, self._send_armed = False, True
        try:
            self._carry_out()
        finally:
            self._send()

    def _carry_out(self) -> None:
        """Do what the scheduler decides now."""
        assert self._loop is not None
        now = time.time()
        decided = self.scheduler.decide(now)
        if self.limits.debug:
            self._check_books()
        for instruction in decided:
            match instruction:
                case instructions.Assign():
                    self._assign(instruction)
                case instructions.Start():
                    self.executor_manager.start(instruction, self._told_of())
                case instructions.Stop(executor_id):
                    self.executor_manager.tell(executor_id, Stop())
                case instructions.Recall(executor_id):
                    self.executor_manager.tell(executor_id, Recall())
                case instructions.Kill():
                    self.executor_manager.kill(instruction.executor_id)
                case instructions.Return(message):
                    self._return(message)
                case instructions.Drop(message):
                    self._drop(message, now)
                case _:
                    self.cpu_leases.carry_out(instruction)
        self.released()
        self._monitor.settle()
        pending = self.scheduler.view.pending
        while self.back_pressured and pending <= self.limits.max_pending:
            conn, frame_id = self.back_pressured.pop(0)
            conn.acks.append(frame_id)
            conn.dirty()
        if not pending and self.drainers:
            for conn, question_id in self.drainers:
                conn.answer(question_id, None)
            self.drainers.clear()
        self._set_timer(self.scheduler.wake_at)

    def _set_timer(self, at: float | None) -> None:
        """Have a turn taken at a time, in seconds since the epoch, and not before without need."""
        if self._timer is not None:
            if at is not None and self._timer_at <= at:
                return  # a turn too early costs less than a new timer for each
            self._timer.cancel()
            self._timer = None
        if at is not None:
            assert self._loop is not None
            self._timer, self._timer_at = self._loop.call_later(max(0.0, at - time.time()), self._on_timer), at

    def _on_timer(self) -> None:
        self._timer = None
        self._turn()

    # -- what leaves --------------------------------------------------------------------------------------------

    def send_soon(self, conn: Connection) -> None:
        """Have a connection's frames leave once all that they tell of is in the journal: with the end of this turn."""
        self._sending[conn] = None
        if not self._send_armed:
            self._send_armed = True
            assert self._loop is not None
            self._loop.call_soon(self._send)

    def _send(self) -> None:
        assert self._loop is not None
        self._send_armed = self._unwritten
        if self._turning:
            return  # the turn that follows at once sends
        try:
            self.journal.flush()
        except OSError as exc:
            if not self._unwritten:
                self._loop.call_later(UNWRITTEN_SECONDS, self._send_again)
                logger.error(
                    "the journal %s cannot be written (%s): nothing is acknowledged, assigned or answered until it can",
                    self.journal.path, exc,
                )  # fmt: skip
            self._unwritten = self._send_armed = True
            return
        if self._unwritten:
            logger.warning("the journal %s can be written again", self.journal.path)
        self._unwritten = self._send_armed = False
        sending, self._sending = self._sending, {}
        for conn in sending:
            conn.write_out()

    def _send_again(self) -> None:
        assert self._loop is not None
        if self._unwritten:
            self._loop.call_later(UNWRITTEN_SECONDS, self._send_again)
            self._send()

    def _check_books(self) -> None:
        try:
            self.scheduler.validate()
        except BooksDisagree:
            latest = list(self.scheduler.view.log)[-20:]
            logger.exception("the scheduler's books disagree; its latest steps: %s", latest)

    def _return(self, message: Message) -> None:
        self.journal.append("", framing.pack(Changes(reports=[Done(message.seq, 0.0)])))
        self.bridge_jobs.returned(message)

    def _drop(self, message: Message, now: float) -> None:
        logger.error("message %s of %s was given up: %s", message.id, message.task, message.reason)
        told: list[Operation] = []
        if message.settle_reason != "chord":
            told.append(given_up(message))
            self.outcomes.note(message, "failed", 0.0, "", now, TaskError("WorkerLostError", message.reason))
        for operation in told:
            self.store_op(operation, now)
        self.journal.append("", framing.pack(Changes(operations=told, reports=[Done(message.seq, 0.0)])))
        self.release(message.seq)

    def released(self) -> None:
        """Let go of the large values that results no longer refer to."""
        if self.store.released:
            self.large_values.unrefer(self.store.released)
            self.store.released.clear()
        self.large_values.sweep()

    def _assign(self, instruction: instructions.Assign) -> None:
        conn = self.executor_manager.connected.get(instruction.executor_id)
        if conn is None:
            return
        self.journal.append("", framing.pack(Given(instruction.executor_id, [m.seq for m in instruction.messages])))
        codes = self.definitions.codes_after(conn.info.app, conn.codes)
        conn.codes += len(codes)
        conn.send(Run([_assigned(message) for message in instruction.messages], codes))

    # -- questions ----------------------------------------------------------------------------------------------

    def on_ask(self, conn: Connection, ask: Ask, raw: bytes) -> None:
        question_id, question = ask.question_id, ask.question
        assert self._loop is not None
        match question:
            case Drained():
                if self.scheduler.view.pending:
                    self.drainers.append((conn, question_id))
                else:
                    conn.answer(question_id, None)
                return
            case LargeValue(key):
                self._loop.create_task(self._large_value(conn, question_id, key))
                return
            case Introduce(name, limits):
                self._loop.create_task(self._introduce(conn, question_id, name, limits))
                return
        if isinstance(question, _BUS_QUESTIONS):
            self.control().on_question(conn, question_id, question)
            return
        if isinstance(question, Change):
            self.journal.append(conn.source, raw)
        try:
            conn.answer(question_id, self.rpc.answer(question))
        except Exception as exc:  # whatever it is, who asks must hear of it
            logger.exception("%s failed", type(question).__name__)
            conn.refuse(question_id, exc)
        self.turn_soon()

    def control(self) -> ControlPlane:
        """Return the control plane, which is made when it is asked for first."""
        if self.plane is None:
            from raycelery.dispatcher.monitoring.control_plane import ControlPlane

            self.plane = ControlPlane(self)
        return self.plane

    def greet(self, conn: Connection) -> None:
        """Tell an executor that has connected what differs from what it was started with."""
        if conn.executor_id is not None:
            self.scheduler.handle(events.ExecutorConnected(conn.executor_id), time.time())
        if self.watched:
            conn.send(SendEvents(True))
        if self.logs.followed:
            conn.send(SendLines(True))
        if self.profiling.on:
            self.profiling.greet(conn)
        limits = self.definitions.set_time_limits
        if limits:
            conn.send(UseTimeLimits(limits))

    async def _introduce(self, conn: Connection, question_id: int, name: str, limits: Limits) -> None:
        """Tell a process where another application's dispatcher listens, which is started if there is none."""
        try:
            dispatcher = self.actors.find_dispatcher(name, limits)  # held: in Ray 2.40 its methods do not hold it
            conn.answer(question_id, await dispatcher.endpoint.remote())
        except (ValueError, ray.exceptions.RayError) as exc:
            conn.refuse(question_id, DispatcherUnreachable(f"the dispatcher of {name!r} does not answer: {exc}"))

    async def _large_value(self, conn: Connection, question_id: int, key: str) -> None:
        try:
            conn.answer(question_id, await self.large_values.parts(key))
        except KeyError as exc:
            conn.refuse(question_id, exc)


def _sent(result: StoreResult, prefetched: bool) -> Result:
    """Return a result as it is sent: a large one that nobody waits for yet is only announced."""
    large = prefetched and len(result.payload) > PREFETCHED_BYTES
    return Result(result.task_id, result.state, None if large else result.payload)


def _assigned(message: Message) -> Assignment | ChordAssignment | BatchAssignment:
    """Return a message as its executor is told of it."""
    m = message
    if isinstance(m.payload, bytes):
        return Assignment(m.seq, m.id, m.task, m.payload, m.settle_reason, m.reason, m.deliveries + m.rejections)
    if isinstance(m.payload, CompleteChord):
        completion = m.payload.completion
        return ChordAssignment(m.seq, completion.group, completion.callback, completion.origin, m.payload.parts)
    batch: BatchAssignment = msgspec.structs.replace(m.payload, seq=m.seq)
    return batch
