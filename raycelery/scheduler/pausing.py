"""Executors whose CPUs change hands between applications: which could be paused, pausing them, going on."""

from __future__ import annotations

from collections import Counter, defaultdict

from raycelery.scheduler.executor import ExecutorState
from raycelery.scheduler.executors import Executors
from raycelery.scheduler.nodes import UNIT, Nodes
from raycelery.scheduler.occupancy import Occupancy
from raycelery.scheduler.turn import Turn
from raycelery.scheduler.waiting import Waiting


class Pausing:
    """Pauses executors whose CPUs another application has, and starts executors on CPUs that another leases.

    Arguments:
        turn: told of lanes whose executors were paused, or go on.
        nodes: of the cluster.
        occupancy: of nodes by executors.
        waiting: what executors could run.
        executors: all.
    """

    def __init__(self, turn: Turn, nodes: Nodes, occupancy: Occupancy, waiting: Waiting, executors: Executors) -> None:
        self._turn = turn
        self._nodes = nodes
        self._occupancy = occupancy
        self._waiting = waiting
        self._executors = executors

    # -- what is done -------------------------------------------------------------------------------------------

    def pause(self, executor_id: int) -> None:
        """Give an executor nothing more; it keeps what it holds."""
        executor = self._executors.all.get(executor_id)
        if executor is None or executor.paused:
            return
        if len(executor.outstanding) > 1:
            self._executors.recall(executor)
        self._occupancy.set_waiting(executor, paused=True)
        self._turned(executor)

    def resume(self, executor_id: int) -> None:
        """Give it messages again."""
        executor = self._executors.all.get(executor_id)
        if executor is None or not executor.paused:
            return
        self._occupancy.set_waiting(executor, paused=False)
        executor.ready_at = self._turn.now
        self._turned(executor)

    def _turned(self, executor: ExecutorState) -> None:
        self._executors.file(executor)
        self._turn.changed[executor.lane.key] = None

    def start_leased(self, instead_of: int, node_id: str) -> int | None:
        """Start an executor on a node, for which Ray is asked for no CPUs, in place of one that Ray has no room for.

        Return its id, or None if there is no such node.
        """
        waiting, node = self._executors.all[instead_of], self._nodes.get(node_id)
        if node is None or node.draining:
            return None
        self._executors.kill(waiting, 0, "terminated", "it uses the CPUs of another application instead")
        return self._executors.start(waiting.lane, node, leased=True)

    def end_unused(self, executor_id: int) -> None:
        """End an executor that has nothing to do, paused or not."""
        executor = self._executors.all.get(executor_id)
        if executor is not None and not executor.outstanding:
            self._executors.stop(executor)

    # -- what is so ---------------------------------------------------------------------------------------------

    def quiet(self, executor_id: int) -> bool:
        """Return whether an executor needs no CPU: it has nothing to do, waits for its subtasks, or is no more."""
        executor = self._executors.all.get(executor_id)
        return executor is None or len(executor.outstanding) <= executor.blocked

    def spare(self, executor_id: int) -> bool:
        """Return whether an executor that is not paused has CPUs that it does not need now."""
        return executor_id in self._executors.idle or self._executors.all[executor_id].blocked

    def could_run(self, executor_id: int) -> bool:
        """Return whether something waits that an executor could run now, if it were idle."""
        executor = self._executors.all.get(executor_id)
        return (
            executor is not None and executor.lane.waiting > 0 and self._waiting.next_stream(executor.lane) is not None
        )

    def in_use(self) -> float:
        """Return the CPUs of the executors that are up and not paused, without those that wait for subtasks."""
        busy = (
            e.cpus
            for e in self._executors.all.values()
            if e.usable() and not (e.blocked or e.resting or e.lane.for_settlement)
        )
        return sum(busy) / UNIT

    def most_lendable(self) -> float:
        """Return the most CPUs of one node that might ever be leased to another application at once."""
        held: Counter[str | None] = Counter()
        for executor in self._executors.all.values():
            if executor.ready and not (executor.backfilled or executor.leased):
                held[executor.node] += executor.cpus
        return max(held.values(), default=0) / UNIT

    def lendable(self, cpus: float, slice_seconds: float) -> list[int]:
        """Return executors of one node that have so many CPUs and may be paused, those that do not need them first.

        One that waits for subtasks may be where nobody else of this application uses its CPUs: the subtasks may be
        another application's.

        Arguments:
            slice_seconds: a busy one may be paused after it has had its CPUs for so long.
        """
        nodes: defaultdict[str, list[ExecutorState]] = defaultdict(list)
        unused: dict[str, float] = {}
        for executor in self._executors.all.values():
            ready = self.spare(executor.id) or self._turn.now - executor.ready_at >= slice_seconds
            bound = executor.leaving or executor.lane.lane.one_shot
            own = executor.cpus > 0 and not (executor.backfilled or executor.leased)
            if not (ready and own and executor.node and executor.usable()):
                continue
            if executor.blocked:
                node = self._occupancy.node_of(executor)
                left = unused.setdefault(executor.node, 0 if node is None else node.free.get("CPU", 0))
                unused[executor.node] = left - executor.cpus
                bound = unused[executor.node] < 0
            if not bound:
                nodes[executor.node].append(executor)
        wanted = round(cpus * UNIT)
        best: list[ExecutorState] | None = None
        for members in nodes.values():
            members.sort(key=lambda e: (not self.spare(e.id), e.ready_at))
            chosen, have = [], 0
            for executor in members:
                if have >= wanted:
                    break
                chosen.append(executor)
                have += executor.cpus
            if have >= wanted and (best is None or self._busy(chosen) < self._busy(best)):
                best = chosen
        return [executor.id for executor in best or []]

    def _busy(self, executors: list[ExecutorState]) -> int:
        return sum(not self.spare(executor.id) for executor in executors)
