"""What others may read of the scheduler. Nothing here changes anything."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from raycelery.scheduler.model import Lane, Message, Policy, Stats
from raycelery.scheduler.why import explain

if TYPE_CHECKING:
    from raycelery.scheduler.executor import ExecutorState
    from raycelery.scheduler.gates import Limit, Rate
    from raycelery.scheduler.lanes import LaneState
    from raycelery.scheduler.nodes import Node, Nodes
    from raycelery.scheduler.parts import Parts
    from raycelery.scheduler.queues import Stream


class View:
    """A scheduler's state, as it is after the latest event.

    Arguments:
        parts: of the scheduler.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._messages = parts.messages
        self._executors = parts.executors.all

    # -- messages -----------------------------------------------------------------------------------------------

    @property
    def pending(self) -> int:
        """Messages that are not finished."""
        return self._messages.pending

    @property
    def pending_bytes(self) -> int:
        """Bytes of what messages carry that are not finished."""
        return self._messages.pending_bytes

    @property
    def scheduled(self) -> int:
        """Messages that wait for their time."""
        return self._parts.waiting.scheduled

    @property
    def seq(self) -> int:
        """Number of the latest message."""
        return self._messages.seq

    def find(self, task_id: str) -> Message | None:
        """Return the latest message of a task id that is not finished."""
        return self._messages.find(task_id)

    def find_all(self, task_id: str) -> list[Message]:
        """Return all messages of a task id that are not finished."""
        return self._messages.find_all(task_id)

    def given(self, executor_id: int, seq: int) -> Message | None:
        """Return a message that an executor has."""
        executor = self._executors.get(executor_id)
        return None if executor is None else executor.outstanding.get(seq)

    def unfinished(self) -> Iterator[Message]:
        """Yield every message that is not finished."""
        for stream in self._parts.waiting.streams.values():
            yield from stream.messages()
        yield from self.scheduled_messages()
        for executor in self._parts.executors.all.values():
            yield from executor.outstanding.values()
        for lane in self._parts.lanes.active.values():
            yield from lane.to_settle

    def scheduled_messages(self) -> list[Message]:
        """Return the messages that wait for their time."""
        return self._parts.waiting.scheduled_messages()

    def purgeable(self, queue: str | None) -> list[Message]:
        """Return what :class:`raycelery.scheduler.events.Purge` would drop."""
        waiting = (message for stream in self.streams() for message in stream.messages())
        found = [*waiting, *self.scheduled_messages()]
        return [message for message in found if not message.bridged and queue in (None, message.queue)]

    def waiting(self, queue: str) -> int:
        """Return how many messages of a queue wait for executors."""
        return self._parts.waiting.by_queue[queue]

    def streams(self) -> Iterable[Stream]:
        """Return the waiting messages by lane, queue and task."""
        return self._parts.waiting.streams.values()

    def revocations(self) -> tuple[list[str], dict[str, list[Any]]]:
        """Return the revoked ids and stamps that are remembered."""
        return self._parts.revocation.remembered()

    def why(self, message: Message, now: float, name_of: Callable[[str], str] = str) -> str:
        """Say in one or two sentences why a message is where it is; see :func:`raycelery.scheduler.why.explain`."""
        return explain(self._parts, message, now, name_of)

    # -- executors, lanes, nodes --------------------------------------------------------------------------------

    @property
    def executors(self) -> Mapping[int, ExecutorState]:
        """All executors that have not ended, by id."""
        return self._parts.executors.all

    @property
    def lanes(self) -> Mapping[str, LaneState]:
        """Lanes that have messages or executors, by key."""
        return self._parts.lanes.active

    @property
    def known_lanes(self) -> Mapping[str, Lane]:
        """All lanes that were ever named, by key."""
        return self._parts.lanes.known

    @property
    def nodes(self) -> Nodes:
        """All nodes."""
        return self._parts.nodes

    def node(self, node_id: str) -> Node | None:
        """Return a live node."""
        return self._parts.nodes.get(node_id)

    @property
    def starved(self) -> Mapping[str, float]:
        """Keys of lanes that want executors for which there is no room, and since when."""
        return self._parts.capacity.starved

    @property
    def growth(self) -> str:
        """What waits for nodes that the autoscaler adds, in a sentence; "" where nothing does."""
        return self._parts.growth.said()

    @property
    def in_use(self) -> int:
        """The CPUs of executors that have not been asked to end, in the units of nodes."""
        return self._parts.capacity.in_use()

    def ray_work(self, now: float) -> str:
        """Ray work that has waited long for what tasks hold, in a sentence; "" where there is none."""
        return self._parts.preemption.ray_work(now)

    @property
    def nodes_asked(self) -> int:
        """How many nodes the autoscaler is asked for."""
        return self._parts.growth.nodes_asked

    # -- leases, see raycelery.scheduler.leases -----------------------------------------------------------------

    def leased_from(self) -> Mapping[str, float]:
        """Return the CPUs that this application has of others, by application."""
        return self._parts.leases_taken.by_giver()

    def leased_to(self) -> Mapping[str, float]:
        """Return the CPUs that others have of this application, or will have soon, by application."""
        return self._parts.leases_given.by_peer()

    def leases_of(self, peer: str) -> list[str]:
        """Return the ids of the leases that a peer has of this application."""
        return self._parts.leases_given.ids_of(peer)

    def has_lease(self, lease_id: str) -> bool:
        """Return whether this application has CPUs of another by a lease of that id."""
        return lease_id in self._parts.leases_taken.taken

    def most_lendable(self) -> float:
        """Return the most CPUs of one node that might ever be leased to another application at once."""
        return self._parts.pausing.most_lendable()

    # -- limits -------------------------------------------------------------------------------------------------

    @property
    def limits(self) -> Mapping[str, Limit]:
        """Concurrency limits by name: "app", "queue:<name>", "task:<name>"; of what was used, also without maximum."""
        return self._parts.limits.limits

    @property
    def rates(self) -> Mapping[str, Rate]:
        """Rate limits by task."""
        return self._parts.limits.rates

    # -- all of it ----------------------------------------------------------------------------------------------

    @property
    def policy(self) -> Policy:
        """What may be tuned."""
        return self._parts.turn.policy

    @property
    def log(self) -> deque[tuple[Any, ...]]:
        """Time, kind and subject of the latest starts, assignments and ends."""
        return self._parts.turn.log

    def stats(self) -> Stats:
        """Return counts of what waits and runs."""
        executors = self._parts.executors.all.values()
        kinds = Counter("blocked" if e.condition() == "waiting" else e.condition() for e in executors)
        running = sum(1 for e in executors if e.outstanding)
        waiting = self._parts.waiting
        return Stats(dict(waiting.by_queue), waiting.scheduled, running, dict(kinds))
