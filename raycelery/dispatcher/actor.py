"""The dispatcher: the Ray actor around the scheduler.

A thin shell: frames in, scheduler, frames out. It listens on a socket of its own (see
:mod:`raycelery.protocol.framing`), keeps the store, starts and stops executors, and tells the scheduler what Ray says
of nodes and of executors that died.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import secrets
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import ray

from raycelery.dispatcher.bridge_jobs import BridgeJobs
from raycelery.dispatcher.cluster_monitor import Watch
from raycelery.dispatcher.connection import Connection
from raycelery.dispatcher.cpu_leases import Sharing
from raycelery.dispatcher.definitions import Definitions
from raycelery.dispatcher.executor_manager import ExecutorManager
from raycelery.dispatcher.executor_processes import Actors
from raycelery.dispatcher.journal import Journal
from raycelery.dispatcher.large_values import LargeValues
from raycelery.dispatcher.logs import Logs
from raycelery.dispatcher.monitoring.metrics import Metrics
from raycelery.dispatcher.outcomes import Outcomes
from raycelery.dispatcher.profiling import Profiling
from raycelery.dispatcher.recovery import MUTATIONS, chord_message, given_up, message_of, recover, settlement_lane
from raycelery.dispatcher.rpc import Rpc
from raycelery.dispatcher.store import Store
from raycelery.errors import DispatcherUnreachable
from raycelery.protocol import framing
from raycelery.protocol.limits import Limits
from raycelery.scheduler import events, phases
from raycelery.scheduler.instructions import Assign, Drop, Kill, Recall, Return, Start, Stop
from raycelery.scheduler.model import Error, Message, Policy
from raycelery.scheduler.scheduler import Scheduler
from raycelery.scheduler.validate import BooksDisagree
from raycelery.serialization import ray_serializers

if TYPE_CHECKING:
    from raycelery.dispatcher.monitoring.control_plane import ControlPlane

# Ray imports this when it starts a dispatcher, whose values are plain.
ray_serializers.postpone_in_actors()

logger = logging.getLogger(__name__)
Method = TypeVar("Method", bound=Callable[..., Any])

#: Unfinished-but-small results that are pushed to a process that only hinted at them, in bytes.
HINTED_BYTES = 16_384


def _journal_path(name: str, folder: str | None) -> Path:
    if folder is None:
        folder = os.path.join(ray._private.worker._global_node.get_session_dir_path(), "raycelery")
    return Path(folder) / f"{re.sub(r'[^A-Za-z0-9._-]', '_', name)}.journal"


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
        self.secret = secrets.token_bytes(32)
        phases.enforce(limits.debug)
        self.scheduler = Scheduler(
            Policy(
                max_deliveries=limits.max_deliveries,
                max_executors=limits.max_executors,
                idle_seconds=limits.idle_seconds,
                infeasible_seconds=limits.infeasible_seconds,
            )
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
        self.held: list[tuple[Connection, int]] = []
        #: Number of each client's last frame.
        self.frames: dict[str, int] = {}
        self.outcomes = Outcomes(self)
        self.since = time.time()
        #: Remote control and events, once a tool has asked for them; and whether anybody listens to task events.
        self.plane: ControlPlane | None = None
        self.watched = False
        self.journal = Journal(_journal_path(name, limits.journal))
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
        self.sharing = Sharing(self)
        recover(self)
        self._server: asyncio.Server | None = None
        self._starting = asyncio.Lock()
        self._turning = False
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    # -- actor methods ------------------------------------------------------------------------------------------

    async def endpoint(self) -> tuple[str, int, bytes]:
        """Return host, port and secret; starts to listen at the first call."""
        async with self._starting:
            if self._server is None:
                self._loop = asyncio.get_running_loop()
                await self.large_values.recover(self._loop)
                host = ray.util.get_node_ip_address()
                self._server = await self._loop.create_server(lambda: Connection(self), host, 0)
                self._address = (host, self._server.sockets[0].getsockname()[1])
                self._loop.create_task(Watch(self).forever())
                self._loop.create_task(self.sharing.forever())
        return (*self._address, self.secret)

    async def keep(self, key: str, refs: list[Any], holder: str) -> bool:
        """Keep a large value for ``holder``; see :meth:`LargeValues.keep`."""
        return await self.large_values.keep(key, refs, holder)

    async def make_room(self, amounts: dict[str, float], share: float) -> None:
        """Give executors up for another application of the cluster, which has ``share`` CPUs and lacks ``amounts``."""
        self.scheduler.handle(events.MakeRoom(amounts, share), time.time())
        if self._loop is not None:
            self.turn_soon()

    # What dispatchers say to each other of CPUs, see :class:`Sharing`.

    @_said_once
    async def wish(self, name: str, units: list[float], share: float, has: list[str]) -> float:
        """Hear that another application, which ``has`` loans, wants CPUs; return the most that it could ever get."""
        return self.sharing.lending.wish(name, units, share, has) if self._server is not None else 0.0

    @_said_once
    async def loans(self, name: str, share: float, has: list[str]) -> list[str]:
        """Return the loans of another application, which knows of those that it ``has``."""
        return self.sharing.lending.loans(name, share, has)

    @_said_once
    async def lend(self, number: str, giver: str, node: str, cpus: float) -> bool:
        """Take CPUs that another application lends."""
        return self._server is not None and self.sharing.borrowing.lend(number, giver, node, cpus)

    @_said_once
    async def call_in(self, number: str) -> bool:
        """Give CPUs back to another application."""
        return self.sharing.borrowing.call_in(number)

    @_said_once
    async def repaid(self, number: str) -> None:
        """Take CPUs back that were lent."""
        self.sharing.lending.repaid(number)

    async def fetch(self, key: str) -> list[Any]:
        """Return the reference of a large value in a list, or an empty list."""
        return self.large_values.refs(key)

    # -- frames -------------------------------------------------------------------------------------------------

    def on_batch(self, conn: Connection, frame: tuple[Any, ...], raw: bytes) -> None:
        _, number, definitions, messages, ops, reports = frame
        now = time.time()
        if number and number <= self.frames.get(conn.source, 0):
            # It came before the dispatcher was restarted, and only its acknowledgement was lost.
            conn.acks.append(number)
            conn.dirty()
            return
        self.journal.append(conn.source, raw)
        for definition in definitions:
            self.definitions.add(definition)
            if definition[0] == "app" and conn.executor is None:
                # A program that has just begun: it may have come with new code.
                self.executor_manager.tell_those_of(definition[1], "look")
        for fields in messages:
            self.take(message_of(fields), fields[9], now)
        for op in ops:
            complete = self.store_op(op, now)
            question = op[-1] if op[0] == "part" else 0
            if complete is not None:
                self.take(complete, (), now, conn.executor if question else None)
            if question:
                self._answer_part(conn, question, complete)
        for report in reports:
            self._on_report(conn, report, now)
        if number:
            self.frames[conn.source] = number
            if conn.executor is None and self.scheduler.view.pending > self.limits.max_pending:
                self.held.append((conn, number))
            else:
                conn.acks.append(number)
                conn.dirty()
        self.turn_soon()

    def _answer_part(self, conn: Connection, number: int, complete: Message | None) -> None:
        """Tell an executor whether the chord's part that it brought was the last, so that it calls the body itself."""
        if complete is None or not complete.at_executor:
            conn.reply(number, True, None)
            return
        self.journal.append("", framing.pack("given", conn.executor, [complete.seq]))
        self.journal.flush()
        conn.reply(number, True, (complete.seq, complete.payload[-1]))

    def take(self, message: Message, keys: tuple[str, ...], now: float, executor: int | None = None) -> None:
        """Hand a message to the scheduler; it refers to the large values ``keys``, and may be an executor's already."""
        if message.settle_reason == "chord":
            self.scheduler.handle(events.AddLane(settlement_lane(message.lane.partition(":")[2])), now)
            keys = self.store.chord_keys(message.payload[0])
        if self.definitions.overridden:
            self.rpc.apply_time_limit(message)
        self.scheduler.handle(events.Submit(message, executor), now)
        if self.watched and message.settle_reason is None and self.plane is not None:
            self.plane.received(message)
        if keys:
            self.keys[message.seq] = keys
            self.large_values.refer(keys)

    def store_op(self, op: tuple[Any, ...], now: float) -> Message | None:
        """Write to the store; return the message to be run if that completes a chord."""
        kind = op[0]
        if kind == "meta":
            _, task_id, state, payload, keys, expires, final = op
            if keys:
                self.large_values.refer(keys)
            if self.store.set_meta(task_id, state, payload, keys, expires, now) and final:
                self._wake(task_id, state, payload)
        elif kind == "part":
            _, group, task_id, index, payload, size, expires, completion, keys, _ = op
            self.large_values.refer(keys)
            parts = self.store.chord_part(group, task_id, index, payload, size, now, expires, completion, keys)
            if parts is not None:
                return chord_message(completion, parts)
        elif kind == "size":
            # All parts may have come before the size.
            complete = self.store.chord_size(op[1], op[2])
            if complete is not None:
                return chord_message(*complete)
        elif kind == "extra":
            self.store.chord_extra(op[1])
        elif kind == "value":
            self.store.set(op[1], op[2], op[3], now)
        elif kind == "chord":
            self.large_values.refer(op[2]["keys"])
            self.store.put_chord(op[1], op[2])
        elif kind == "drop":
            for key in op[2]:
                self.large_values.release(key, op[1])
        elif kind == "event" and self.plane is not None:
            self.plane.event(*op[1:])
        return None

    def _wake(self, task_id: str, state: str, payload: bytes) -> None:
        waiting = self.waiters.pop(task_id, None)
        if waiting:
            for conn, hinted in waiting.items():
                conn.watching.discard(task_id)
                large = hinted and len(payload) > HINTED_BYTES
                conn.metas.append((task_id, state, None if large else payload))
                conn.dirty(later=hinted)

    def _on_report(self, conn: Connection, report: tuple[Any, ...], now: float) -> None:
        executor, kind = conn.executor, report[0]
        if executor is None:
            return
        if kind == "job":
            self.bridge_jobs.on_report(conn.info["node"], *report[1:])
        elif kind == "done":
            message = self.scheduler.view.given(executor, report[1])
            if message is not None:
                self.scheduler.handle(events.Finished(executor, report[1], report[2]), now)
                if message.bridged:
                    self.bridge_jobs.finished(message)
                elif message.settle_reason != "chord":
                    outcome, error = report[3] if len(report) > 3 else ("succeeded", None)
                    self.outcomes.note(message, outcome, report[2], conn.info["node"], now, error)
            self.release(report[1])
        elif kind == "requeue":
            self.scheduler.handle(events.Requeued(executor, report[1]), now)
        elif kind == "ready":
            self.scheduler.handle(events.ExecutorReady(executor, report[1]), now)
        elif kind == "recalled":
            self.scheduler.handle(events.Recalled(executor, report[1]), now)
        elif kind == "begun":
            self.scheduler.handle(events.Begun(executor), now)
        elif kind == "outdated":
            self.scheduler.handle(events.Retire([executor]), now)
        elif kind == "blocked":
            event = events.Blocked(executor, conn.watching) if report[1] else events.Unblocked(executor)
            self.scheduler.handle(event, now)
        elif kind == "bye":
            self.executor_manager.ended(executor, None)

    def release(self, seq: int) -> None:
        keys = self.keys.pop(seq, None)
        if keys:
            self.large_values.unrefer(keys)

    def on_watch(self, conn: Connection, frame: tuple[Any, ...]) -> None:
        for hinted, ids in ((False, frame[1]), (True, frame[2])):
            for task_id in ids:
                ready = self.store.ready(task_id)
                if ready is None:
                    self.waiters[task_id][conn] = hinted
                    conn.watching.add(task_id)
                else:
                    large = hinted and len(ready[1]) > HINTED_BYTES
                    conn.metas.append((task_id, ready[0], None if large else ready[1]))
        conn.dirty()

    # -- decisions ----------------------------------------------------------------------------------------------

    def turn_soon(self) -> None:
        if not self._turning:
            self._turning = True
            assert self._loop is not None
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._turning = False
        assert self._loop is not None
        now = time.time()
        instructions = self.scheduler.decide(now)
        if self.limits.debug:
            self._check_books()
        for instruction in instructions:
            if type(instruction) is Assign:
                self._assign(instruction)
            elif type(instruction) is Start:
                self.executor_manager.start(instruction, (*self._address, self.secret))
            elif type(instruction) is Stop:
                self.executor_manager.tell(instruction.executor_id, "stop")
            elif type(instruction) is Recall:
                self.executor_manager.tell(instruction.executor_id, "recall")
            elif type(instruction) is Kill:
                self.executor_manager.kill(instruction.executor_id)
            elif type(instruction) is Return:
                self._return(instruction.message)
            elif type(instruction) is Drop:
                self._drop(instruction.message, now)
        self.released()
        self.sharing.settle()
        self.journal.flush()
        pending = self.scheduler.view.pending
        while self.held and pending <= self.limits.max_pending:
            conn, number = self.held.pop(0)
            conn.acks.append(number)
            conn.dirty()
        if not pending and self.drainers:
            for conn, number in self.drainers:
                conn.reply(number, True, None)
            self.drainers.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        wake_at = self.scheduler.wake_at
        if wake_at is not None:
            self._timer = self._loop.call_later(max(0.0, wake_at - time.time()), self._turn)

    def _check_books(self) -> None:
        try:
            self.scheduler.validate()
        except BooksDisagree:
            latest = list(self.scheduler.view.log)[-20:]
            logger.exception("the scheduler's books disagree; its latest steps: %s", latest)

    def _return(self, message: Message) -> None:
        self.journal.append("", framing.pack("batch", 0, [], [], [], [("done", message.seq, 0.0)]))
        self.bridge_jobs.returned(message)

    def _drop(self, message: Message, now: float) -> None:
        logger.error("message %s of %s was given up: %s", message.id, message.task, message.reason)
        ops = []
        if message.settle_reason != "chord":
            ops.append(given_up(message))
            self.outcomes.note(message, "failed", 0.0, "", now, Error("WorkerLostError", message.reason))
        for op in ops:
            self.store_op(op, now)
        self.journal.append("", framing.pack("batch", 0, [], [], ops, [("done", message.seq, 0.0)]))
        self.release(message.seq)

    def released(self) -> None:
        """Let go of the large values that results no longer refer to."""
        if self.store.released:
            self.large_values.unrefer(self.store.released)
            self.store.released.clear()
        self.large_values.sweep()

    def _assign(self, instruction: Assign) -> None:
        conn = self.executor_manager.connected.get(instruction.executor_id)
        if conn is None:
            return
        self.journal.append("", framing.pack("given", instruction.executor_id, [m.seq for m in instruction.messages]))
        codes = self.definitions.codes_after(conn.info.get("app", ""), conn.codes)
        conn.codes += len(codes)
        messages = [
            (m.seq, m.payload, m.settle_reason, m.reason, m.deliveries + m.rejections) for m in instruction.messages
        ]
        conn.send(framing.pack("run", messages, codes))

    # -- questions ----------------------------------------------------------------------------------------------

    def on_call(self, conn: Connection, frame: tuple[Any, ...], raw: bytes) -> None:
        _, number, method, args = frame
        if method in MUTATIONS:
            self.journal.append(conn.source, raw)
            self.turn_soon()
        handler = None if method.startswith("_") else getattr(self.rpc, method, None)
        if method == "drained":
            if self.scheduler.view.pending:
                self.drainers.append((conn, number))
            else:
                conn.reply(number, True, None)
        elif method == "inline":
            assert self._loop is not None
            self._loop.create_task(self._inline(conn, number, args[0]))
        elif method == "introduce":
            assert self._loop is not None
            self._loop.create_task(self._introduce(conn, number, *args))
        elif method == "bus":
            self.control().on_call(conn, number, *args)
        elif handler is None:
            conn.reply(number, False, ValueError(f"the dispatcher knows no {method!r}"))
        else:
            try:
                value = handler(*args)
            except Exception as exc:  # whatever it is, the caller must hear of it
                logger.exception("%s failed", method)
                conn.reply(number, False, exc)
            else:
                conn.reply(number, True, value)
            self.turn_soon()

    def control(self) -> ControlPlane:
        """Return the control plane, which is made when it is asked for first."""
        if self.plane is None:
            from raycelery.dispatcher.monitoring.control_plane import ControlPlane

            self.plane = ControlPlane(self)
        return self.plane

    def greet(self, conn: Connection) -> None:
        """Tell an executor that has connected what differs from what it was started with."""
        if self.watched:
            conn.send(framing.pack("events", True))
        if self.logs.followed:
            conn.send(framing.pack("follow", True))
        if self.profiling.on:
            self.profiling.greet(conn)
        limits = self.rpc.time_limits()
        if limits:
            conn.send(framing.pack("limits", limits))

    async def _introduce(self, conn: Connection, number: int, name: str, limits: Limits) -> None:
        """Tell a process where another application's dispatcher listens, which is started if there is none."""
        try:
            dispatcher = self.actors.find_dispatcher(name, limits)  # held: in Ray 2.40 its methods do not hold it
            conn.reply(number, True, await dispatcher.endpoint.remote())
        except (ValueError, ray.exceptions.RayError) as exc:
            conn.reply(number, False, DispatcherUnreachable(f"the dispatcher of {name!r} does not answer: {exc}"))

    async def _inline(self, conn: Connection, number: int, key: str) -> None:
        try:
            conn.reply(number, True, await self.large_values.parts(key))
        except KeyError as exc:
            conn.reply(number, False, exc)
