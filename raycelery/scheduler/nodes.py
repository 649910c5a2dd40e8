"""The cluster's nodes as the scheduler sees them: what is free where, and which node fits a request best."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping

#: Amounts are integers of a ten-thousandth, as in Ray, so that fractions add up exactly.
UNIT = 10_000
#: Differences between amounts in Ray's units that are due to rounding.
ROUNDING = 1e-9
#: Gains that are remembered one by one; whoever missed more looks at all nodes.
_GAINS = 64

Amounts = dict[str, int]
#: A request as a key.
Shape = tuple[tuple[str, int], ...]


def scaled(request: Mapping[str, float]) -> Amounts:
    """Return ``request`` in integer units."""
    return {name: round(amount * UNIT) for name, amount in request.items() if amount}


class Node:
    """One node; ``free`` may fall below zero when executors take back the CPUs that they had vacated."""

    __slots__ = ("backfilled", "claim", "draining", "executors", "free", "id", "node_type", "total", "vacated")

    def __init__(self, node_id: str, total: Amounts, node_type: str = "") -> None:
        self.id = node_id
        #: What the autoscaler calls its type, "" where it is not told.
        self.node_type = node_type
        self.total = total
        self.free = dict(total)
        #: CPUs of executors that wait for subtasks, and those of executors that were started on such CPUs.
        self.vacated = 0
        self.backfilled = 0
        self.executors: dict[int, None] = {}
        #: Key of the lane this node is kept clear for.
        self.claim: str | None = None
        #: It will be taken away: nothing new goes there.
        self.draining = False

    @property
    def open(self) -> bool:
        """Whether any lane may use what is free here."""
        return self.claim is None and not self.draining

    def fits(self, request: Amounts) -> bool:
        """Return whether ``request`` is free here now."""
        free = self.free
        return all(free.get(name, 0) >= amount for name, amount in request.items())

    def could_fit(self, request: Amounts) -> bool:
        """Return whether ``request`` would fit if nothing else ran here."""
        return all(self.total.get(name, 0) >= amount for name, amount in request.items())

    def free_for_ray(self) -> int:
        """Return the CPUs that Ray sees free, which does not know that some are vacated and backfilled."""
        return self.free.get("CPU", 0) - self.vacated + self.backfilled

    def overdrawn(self) -> bool:
        """Return whether CPUs were taken back that others still use."""
        return self.free.get("CPU", 0) < 0


class Nodes:
    """All nodes; those that are not claimed are indexed by free CPUs."""

    def __init__(self) -> None:
        self._nodes: dict[str, Node] = {}
        self._buckets: defaultdict[int, dict[str, Node]] = defaultdict(dict)
        self._feasible: dict[Shape, bool] = {}
        self._latest: deque[Node] = deque(maxlen=_GAINS)
        self.total_cpus = 0
        #: How often a node came to have more to give. What did not fit still does not while this is the same.
        self.gains = 0

    def __len__(self) -> int:
        return len(self._nodes)

    def __iter__(self) -> Iterator[Node]:
        return iter(self._nodes.values())

    def get(self, node_id: str | None) -> Node | None:
        """Return a live node."""
        return None if node_id is None else self._nodes.get(node_id)

    def change(self, node_id: str, resources: Mapping[str, float], node_type: str = "") -> Node | None:
        """Add a node, or note its new total resources; returns it unless nothing is new."""
        total = scaled(resources)
        node = self._nodes.get(node_id)
        if node is not None and node.total == total:
            return None
        self._feasible.clear()
        if node is None:
            node = self._nodes[node_id] = Node(node_id, total, node_type)
            self.total_cpus += total.get("CPU", 0)
            self._bucket_in(node)
            self._gained(node)
            return node
        delta = {name: total.get(name, 0) - node.total.get(name, 0) for name in total.keys() | node.total.keys()}
        node.total = total
        self.total_cpus += delta.get("CPU", 0)
        self.add(node, delta)
        return node

    def remove(self, node_id: str) -> Node | None:
        """Forget a node."""
        node = self._nodes.pop(node_id, None)
        if node is not None:
            if node.open:
                self._bucket_out(node)
            self.total_cpus -= node.total.get("CPU", 0)
            self._feasible.clear()
        return node

    def indexed(self, node: Node) -> bool:
        """Return whether a node is found by its free CPUs, where it belongs and nowhere else."""
        found = [free for free, bucket in self._buckets.items() if node.id in bucket]
        return found == [node.free.get("CPU", 0)]

    def _bucket_in(self, node: Node) -> None:
        self._buckets[node.free.get("CPU", 0)][node.id] = node

    def _bucket_out(self, node: Node) -> None:
        cpus = node.free.get("CPU", 0)
        bucket = self._buckets[cpus]
        del bucket[node.id]
        if not bucket:
            del self._buckets[cpus]

    def _gained(self, node: Node) -> None:
        self.gains += 1
        self._latest.append(node)

    def add(self, node: Node, amounts: Mapping[str, int], sign: int = 1) -> None:
        """Give ``amounts`` back to a node, or take them with ``sign=-1``."""
        if node.open:
            self._bucket_out(node)
        for name, amount in amounts.items():
            node.free[name] = node.free.get(name, 0) + sign * amount
        if node.open:
            self._bucket_in(node)
        if any(sign * amount > 0 for amount in amounts.values()):
            self._gained(node)

    def claim(self, node: Node, lane: str) -> None:
        """Keep a node clear for a lane."""
        if node.open:
            self._bucket_out(node)
        node.claim = lane

    def unclaim(self, node: Node) -> None:
        """Let all use it again."""
        if node.claim is not None:
            node.claim = None
            if self._nodes.get(node.id) is node and node.open:
                self._bucket_in(node)
                self._gained(node)

    def drain(self, node: Node) -> None:
        """Let nobody use it any more, and count on it no more."""
        if node.open:
            self._bucket_out(node)
        node.draining = True
        self._feasible.clear()

    def best_fit(self, request: Amounts, since: int = -1) -> Node | None:
        """Return the node with the fewest free CPUs on which ``request`` fits, among those that nobody claims.

        Arguments:
            since: ``gains`` when last it fitted nowhere, if only what came after is to be looked at.
        """
        cpus = request.get("CPU", 0)
        missed = self.gains - since
        if since >= 0 and missed <= len(self._latest):
            latest = (self._latest[-index] for index in range(1, missed + 1))
            fitting = (n for n in latest if n.open and self._nodes.get(n.id) is n and n.fits(request))
            return min(fitting, key=lambda n: n.free.get("CPU", 0), default=None)
        for free in sorted(self._buckets):
            if free < cpus and cpus:
                continue
            # For CPUs alone the first one fits.
            for node in self._buckets[free].values():
                if node.fits(request):
                    return node
        return None

    def could_fit(self, shape: Shape) -> bool:
        """Return whether any node could ever hold a request."""
        found = self._feasible.get(shape)
        if found is None:
            request = dict(shape)
            found = self._feasible[shape] = any(
                node.could_fit(request) for node in self._nodes.values() if not node.draining
            )
        return found

    def roomiest(self, request: Amounts, most: int) -> Iterable[Node]:
        """Return some unclaimed nodes that could hold ``request`` once cleared, those with the most free CPUs first."""
        found: list[Node] = []
        looks = 0
        for free in sorted(self._buckets, reverse=True):
            for node in self._buckets[free].values():
                looks += 1
                if node.could_fit(request):
                    found.append(node)
                if len(found) >= most or looks >= 50 * most:
                    return found
        return found

    def largest(self, names: Iterable[str]) -> dict[str, float]:
        """Return the largest amount any node has of each of ``names``."""
        return {name: max((n.total.get(name, 0) for n in self._nodes.values()), default=0) / UNIT for name in names}
