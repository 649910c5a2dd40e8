"""The dispatcher: the Ray actor around the scheduler.

A thin shell: frames in, scheduler, frames out. Here its parts are put together, and what the scheduler decides is done;
the parts know nothing of each other beyond what they are given.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import ray

from raycelery.dispatcher import steady
from raycelery.dispatcher.admission import Admission
from raycelery.dispatcher.autoscaler import Autoscaler
from raycelery.dispatcher.back_pressure import BackPressure
from raycelery.dispatcher.bridge_jobs import BridgeJobs
from raycelery.dispatcher.cluster_monitor import ClusterMonitor
from raycelery.dispatcher.conversions import given_up
from raycelery.dispatcher.core import Core
from raycelery.dispatcher.cpu_leases import CpuLeases
from raycelery.dispatcher.definitions import Definitions
from raycelery.dispatcher.executor_manager import ExecutorManager
from raycelery.dispatcher.executor_processes import Actors
from raycelery.dispatcher.group_sync import GroupSync
from raycelery.dispatcher.idle_end import IdleEnd
from raycelery.dispatcher.journal import Journal
from raycelery.dispatcher.large_values import LargeValues
from raycelery.dispatcher.logs import Logs
from raycelery.dispatcher.metrics import Metrics
from raycelery.dispatcher.monitoring.subject import Subject
from raycelery.dispatcher.monitoring.tools import Tools
from raycelery.dispatcher.outcomes import Outcomes
from raycelery.dispatcher.profiling import Profiling
from raycelery.dispatcher.queries import Queries
from raycelery.dispatcher.ray_demand import Books, RayDemand
from raycelery.dispatcher.recovery import Recovery, rewrite
from raycelery.dispatcher.reports import Reports
from raycelery.dispatcher.reserve import Reserve
from raycelery.dispatcher.rpc import Rpc
from raycelery.dispatcher.server import Parts, Server
from raycelery.dispatcher.store import Store
from raycelery.dispatcher.turns import Turns
from raycelery.dispatcher.waiters import Waiters
from raycelery.protocol import framing
from raycelery.protocol.frames import Ask, Changes, LargeValuesLost, Recall, Run, Stop
from raycelery.protocol.limits import Limits
from raycelery.protocol.messages import Assignment, BatchAssignment, ChordAssignment
from raycelery.protocol.operations import Operation
from raycelery.protocol.records import CompleteChord, Given
from raycelery.protocol.reports import Done, TaskError
from raycelery.scheduler import events, instructions, phases
from raycelery.scheduler.model import Message, Policy
from raycelery.scheduler.scheduler import Scheduler
from raycelery.scheduler.validate import BooksDisagree
from raycelery.serialization import ray_serializers

if TYPE_CHECKING:
    from raycelery.dispatcher.connection import Connection
    from raycelery.protocol.asking import Change

# Ray imports this when it starts a dispatcher, whose values are plain.
ray_serializers.postpone_in_actors()

logger = logging.getLogger(__name__)
Method = TypeVar("Method", bound=Callable[..., Any])


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
        self._limits = limits
        self._actors = actors
        phases.enforce(limits.debug)
        self._scheduler = scheduler = Scheduler(
            Policy(
                max_deliveries=limits.max_deliveries,
                max_executors=limits.max_executors,
                idle_seconds=limits.idle_seconds,
                infeasible_seconds=limits.infeasible_seconds,
                max_nodes_ahead=limits.max_nodes_ahead,
            ),
            name=name,
        )
        self._journal = journal = Journal(
            _journal_path(name, limits.journal), latest=lambda: scheduler.view.seq, key=limits.journal_key,
            durable=limits.durability == "node", shared=limits.journal is not None,
        )  # fmt: skip
        self._turns = turns = Turns(journal, self._carry_out)
        store, definitions, self._large_values = (
            Store(limits.max_result_bytes),
            Definitions(scheduler),
            LargeValues(name, on_lost=lambda: self._server.tell_all(LargeValuesLost())),
        )
        waiters = Waiters(store)
        self._core = core = Core(
            scheduler, store, definitions, self._large_values,
            on_result=waiters.came, on_event=lambda event: self._tools.event(event),
        )  # fmt: skip
        metrics = Metrics(name)
        self._outcomes = Outcomes(core, journal, metrics)
        self._executors = executors = ExecutorManager(
            name, actors, definitions.apps, scheduler, turns.soon, journal, core.came
        )
        self._bridge_jobs = BridgeJobs(
            scheduler,
            journal,
            tell=executors.tell,
            count=self._outcomes.note,
            on_change=turns.soon,
            max_deliveries=limits.max_deliveries,
        )
        connections: set[Connection] = set()
        queries = Queries(core, self._outcomes, executors.connected, connections, since=steady.now())
        self._tools = tools = Tools(Subject(queries, core, executors.connected, self._change, turns.soon))
        logs, profiling = Logs(executors.connected, self._bridge_jobs), Profiling(executors.connected)
        self._rpc = Rpc(name, core, queries, self._bridge_jobs, tools, profiling, journal, executors.connected)
        self._back_pressure = BackPressure(scheduler.view, limits.max_pending, limits.max_pending_bytes)
        self._cpu_leases = CpuLeases(name, scheduler, turns.soon)
        autoscaler = Autoscaler(scheduler, turns.soon)
        self._ray_demand = ray_demand = RayDemand(name, scheduler, turns.soon)
        idle_end = IdleEnd(
            name, limits.dispatcher_idle_seconds, core, (connections, executors.handles), lambda: server.close()
        )
        self._monitor = ClusterMonitor(
            core, journal, metrics, tools, autoscaler, ray_demand, turns, connections, idle_end
        )
        reports = Reports(core, self._outcomes, self._bridge_jobs, executors)
        self._admission = admission = Admission(
            Reserve(journal.path.parent), str(journal.path), connections, lambda *held: server.on_changes(*held)
        )
        parts = Parts(
            core, executors, reports, waiters, admission, self._back_pressure, self._bridge_jobs, self._rpc, tools,
            logs, profiling,
        )  # fmt: skip
        self._server = server = Server(parts, connections, journal, turns, self._introduce)
        turns.on_full = admission.disk_full
        if limits.durability == "node":
            turns.sync = GroupSync(journal.descriptor, lambda: rewrite(core, journal))
        self._recovery = Recovery(core, journal, self._rpc.answer)
        #: Guards the start of listening.
        self._starting = asyncio.Lock()
        self._listening = False

    # -- actor methods ------------------------------------------------------------------------------------------

    async def endpoint(self) -> tuple[str, int, bytes]:
        """Return host, port and secret; starts to listen at the first call."""
        async with self._starting:
            if not self._listening:
                self._turns.start()
                await self._recovery.finish()
                await self._large_values.recover(asyncio.get_running_loop())
                self._admission.begin()
                await self._server.listen()
                self._listening = True
                self._monitor.start()
        return self._told_of()

    def _told_of(self) -> tuple[str, int, bytes]:
        endpoint = self._server.endpoint
        return endpoint.host, endpoint.port, endpoint.secret

    async def keep(self, key: str, refs: list[Any], holder: str) -> bool:
        """Keep a large value for ``holder``; see :meth:`LargeValues.keep`."""
        return await self._large_values.keep(key, refs, holder)

    async def fetch(self, key: str) -> list[Any]:
        """Return the reference of a large value in a list, or an empty list."""
        return self._large_values.refs(key)

    async def end_of(self, executor_id: int) -> list[Any]:
        """Return a reference, in a list, of what is there once an executor has ended."""
        return [self._executors.handles[executor_id].ended]

    # What dispatchers say to each other of CPUs, see :class:`CpuLeases`.

    async def make_room(self, amounts: dict[str, float], share: float) -> None:
        """Give executors up for another application of the cluster, which has ``share`` CPUs and lacks ``amounts``."""
        self._scheduler.handle(events.MakeRoom(amounts, share), steady.now())
        if self._listening:
            self._turns.soon()

    async def books(self) -> Books:
        """Return what this application has of Ray."""
        return self._ray_demand.books()

    @_said_once
    async def demand(self, peer: str, units: list[float], share: float, lease_ids: list[str]) -> float:
        """Hear that another application, which has leases, wants CPUs; return the most that it could ever get."""
        return self._cpu_leases.demand(peer, units, share, lease_ids) if self._listening else 0.0

    @_said_once
    async def confirm_leases(self, peer: str, share: float, lease_ids: list[str]) -> list[str]:
        """Return the leases of another application, which says which ones it knows of."""
        return self._cpu_leases.confirm(peer, share, lease_ids) if self._listening else []

    @_said_once
    async def lease(self, lease_id: str, giver: str, node: str, cpus: float) -> bool:
        """Take CPUs that another application leases; return whether there is still use for them."""
        return self._listening and self._cpu_leases.lease(lease_id, giver, node, cpus)

    @_said_once
    async def reclaim(self, lease_id: str) -> bool:
        """Give CPUs back to another application; return whether there is such a lease."""
        return self._listening and self._cpu_leases.reclaim(lease_id)

    @_said_once
    async def lease_returned(self, lease_id: str) -> None:
        """Take CPUs back that were leased."""
        if self._listening:
            self._cpu_leases.returned(lease_id)

    # -- what parts have it do ----------------------------------------------------------------------------------

    async def _introduce(self, name: str, limits: Limits) -> tuple[str, int, bytes]:
        """Return where another application's dispatcher listens, which is started if there is none."""
        dispatcher = self._actors.find_dispatcher(name, limits)  # held: older Ray's methods do not hold it
        try:
            told: tuple[str, int, bytes] = await dispatcher.endpoint.remote()
        except ray.exceptions.ActorDiedError:
            # Nobody used it, so it was about to end.
            dispatcher = self._actors.find_dispatcher(name, limits)
            told = await dispatcher.endpoint.remote()
        return told

    def _change(self, change: Change[Any]) -> Any:
        """Do what a question asks for as if a process had asked it, so that it lasts."""
        self._journal.append("", framing.pack(Ask(0, change)))  # type: ignore[arg-type]
        self._turns.soon()
        return self._rpc.answer(change)

    # -- what the scheduler decides -----------------------------------------------------------------------------

    def _carry_out(self) -> float | None:
        """Do what the scheduler decides now; return when it is to be asked again, in seconds since the epoch."""
        now = steady.now()
        decided = self._scheduler.decide(now)
        if self._limits.debug:
            self._check_books()
        for instruction in decided:
            match instruction:
                case instructions.Assign():
                    self._assign(instruction)
                case instructions.Start():
                    self._executors.start(instruction, self._told_of())
                case instructions.Stop(executor_id):
                    self._executors.tell(executor_id, Stop())
                case instructions.Recall(executor_id):
                    self._executors.tell(executor_id, Recall())
                case instructions.Kill():
                    self._executors.kill(instruction.executor_id)
                case instructions.Return(message):
                    self._return(message)
                case instructions.Drop(message):
                    self._drop(message, now)
                case _:
                    self._cpu_leases.carry_out(instruction)
        self._core.sweep()
        self._monitor.settle()
        self._back_pressure.settle()
        return self._scheduler.wake_at

    def _check_books(self) -> None:
        try:
            self._scheduler.validate()
        except BooksDisagree:
            latest = list(self._scheduler.view.log)[-20:]
            logger.exception("the scheduler's books disagree; its latest steps: %s", latest)

    def _assign(self, instruction: instructions.Assign) -> None:
        conn = self._executors.connected.get(instruction.executor_id)
        if conn is None:
            return
        self._journal.append("", framing.pack(Given(instruction.executor_id, [m.seq for m in instruction.messages])))
        codes = self._core.definitions.codes_after(conn.info.app, conn.codes)
        conn.codes += len(codes)
        conn.send(Run([_assigned(message) for message in instruction.messages], codes))

    def _return(self, message: Message) -> None:
        self._journal.append("", framing.pack(Changes(reports=[Done(message.seq, 0.0)])))
        self._bridge_jobs.returned(message)

    def _drop(self, message: Message, now: float) -> None:
        logger.error("message %s of %s was given up: %s", message.id, message.task, message.reason)
        told: list[Operation] = []
        if message.settle_reason != "chord":
            told.append(given_up(message))
            self._outcomes.note(message, "failed", 0.0, "", now, TaskError("WorkerLostError", message.reason))
        for operation in told:
            self._core.write(operation, now)
        self._journal.append("", framing.pack(Changes(operations=told, reports=[Done(message.seq, 0.0)])))
        self._core.release(message.seq)


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
