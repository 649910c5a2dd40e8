"""What executors give up for others than this application's lanes: for other applications, and for new code."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

from raycelery.scheduler.lanes import ExecutorState
from raycelery.scheduler.nodes import UNIT, scaled
from raycelery.scheduler.revocation import Revocation


class Preemption(Revocation):
    """Pauses executors, and has them end, for the sake of others."""

    def make_room(self, amounts: Mapping[str, float], share: float, now: float) -> None:
        """Give executors up for another application: idle ones, and busy ones while this one has the larger share.

        Arguments:
            amounts: what the other lacks, in Ray's units.
            share: the CPUs it has.
        """
        self.now = now
        lacking = scaled(amounts)
        wanted = round(share * UNIT) + min(lacking.get("CPU", 0), UNIT)
        mine = sum(lane.share for lane in self.lanes.values() if not lane.for_settlement)
        for state in sorted(self.executors.values(), key=lambda e: not (e.leaving or e.id in self.idle)):
            request = state.lane.request
            if state.borrowed or state.guest or not any(lacking.get(name, 0) > 0 for name in request):
                continue
            if not state.leaving:
                if state.id in self.idle:
                    self.stop(state)
                elif state.usable() and not state.blocked and mine - request.get("CPU", 0) >= wanted:
                    self.ask(state, "")
                else:
                    continue
            mine -= request.get("CPU", 0)
            for name, amount in request.items():
                lacking[name] = lacking.get(name, 0) - amount

    def retire(self, executors: Iterable[int], now: float) -> None:
        """Have executors end after what they run; others start where there is work."""
        self.now = now
        for number in executors:
            state = self.executors.get(number)
            if state is None or state.leaving:
                continue
            if number in self.idle or state.resting or (state.paused and not state.outstanding):
                self.stop(state)
            elif state.alive() and not state.blocked:
                self.ask(state, "")

    def retire_others(self, app: str, now: float) -> None:
        """Have the executors of all definitions but one end after what they run."""
        self.retire([number for number, state in self.executors.items() if state.lane.lane.app != app], now)

    # -- CPUs that are lent to other applications, or by them ---------------------------------------------------

    def pause(self, number: int, now: float) -> None:
        """Give an executor nothing more; it keeps what it holds."""
        self.now = now
        executor = self.executors.get(number)
        if executor is None or executor.paused:
            return
        if len(executor.outstanding) > 1:
            self.recall(executor)
        self.set_waiting(executor, paused=True)
        self._turned(executor)

    def resume(self, number: int, now: float) -> None:
        """Give it messages again."""
        self.now = now
        executor = self.executors.get(number)
        if executor is None or not executor.paused:
            return
        self.set_waiting(executor, paused=False)
        executor.ready_at = now
        self._turned(executor)

    def _turned(self, executor: ExecutorState) -> None:
        self.file(executor)
        self.dirty[executor.lane.key] = None

    def start_guest(self, instead_of: int, node_id: str, now: float) -> int | None:
        """Start an executor on a node, for which Ray is asked for no CPUs, in place of one that Ray has no room for.

        Return its number, or None if there is no such node.
        """
        self.now = now
        waiting, node = self.executors[instead_of], self.nodes.get(node_id)
        if node is None:
            return None
        self.kill(waiting, 0, "terminated", "it uses the CPUs of another application instead")
        return self.start(waiting.lane, node, guest=True)

    def end_unused(self, number: int, now: float) -> None:
        """End an executor that has nothing to do, paused or not."""
        self.now = now
        executor = self.executors.get(number)
        if executor is not None and not executor.outstanding:
            self.stop(executor)

    def quiet(self, number: int) -> bool:
        """Return whether an executor needs no CPU: it has nothing to do, waits for its subtasks, or is no more."""
        executor = self.executors.get(number)
        return executor is None or len(executor.outstanding) <= executor.blocked

    def spare(self, number: int) -> bool:
        """Return whether an executor that is not paused has CPUs that it does not need now."""
        return number in self.idle or self.executors[number].blocked

    def could_run(self, number: int) -> bool:
        """Return whether something waits that an executor could run now, if it were idle."""
        executor = self.executors.get(number)
        return executor is not None and executor.lane.waiting > 0 and self.next_stream(executor.lane) is not None

    def in_use(self) -> float:
        """Return the CPUs of the executors that are up and not paused, without those that wait for subtasks."""
        busy = [
            e for e in self.executors.values() if e.usable() and not (e.blocked or e.resting or e.lane.for_settlement)
        ]
        return sum(executor.lane.request.get("CPU", 0) for executor in busy) / UNIT

    def most_lendable(self) -> float:
        """Return the most CPUs of one node that might ever be lent at once."""
        held: Counter[str | None] = Counter()
        for executor in self.executors.values():
            if executor.ready and not (executor.borrowed or executor.guest):
                held[executor.node] += executor.lane.request.get("CPU", 0)
        return max(held.values(), default=0) / UNIT

    def lendable(self, cpus: float, now: float, slice_seconds: float) -> list[int]:
        """Return executors of one node that have so many CPUs and may be paused, those that do not need them first.

        One that waits for subtasks may be where nobody else of this application uses its CPUs: the subtasks may be
        another application's.

        Arguments:
            slice_seconds: a busy one may be paused after it has had its CPUs for so long.
        """
        nodes: defaultdict[str, list[ExecutorState]] = defaultdict(list)
        unused: dict[str, float] = {}
        for executor in self.executors.values():
            ready = self.spare(executor.id) or now - executor.ready_at >= slice_seconds
            bound = executor.leaving or executor.lane.lane.one_shot
            own = executor.lane.request.get("CPU", 0) > 0 and not (executor.borrowed or executor.guest)
            if not (ready and own and executor.node and executor.usable()):
                continue
            if executor.blocked:
                node = self.node_of(executor)
                left = unused.setdefault(executor.node, 0 if node is None else node.free.get("CPU", 0))
                unused[executor.node] = left - executor.lane.request["CPU"]
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
                have += executor.lane.request["CPU"]
            if have >= wanted and (best is None or self._busy(chosen) < self._busy(best)):
                best = chosen
        return [executor.id for executor in best or []]

    def _busy(self, executors: list[ExecutorState]) -> int:
        return sum(not self.spare(executor.id) for executor in executors)
