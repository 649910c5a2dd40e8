"""The cluster's nodes as the brain sees them: what is free where, and which node fits a request best."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

#: Amounts are integers of a ten-thousandth, as in Ray, so that fractions add up exactly.
UNIT = 10_000
#: Nodes of equal free CPUs that are looked at before the next larger ones: keeps a choice independent of their number.
_LOOKS = 8

Amounts = dict[str, int]


def scaled(request: Mapping[str, float]) -> Amounts:
    """Return ``request`` in integer units."""
    return {name: round(amount * UNIT) for name, amount in request.items() if amount}


class Node:
    """One node; ``free`` may fall below zero when CPUs that were on loan are taken back."""

    __slots__ = ("borrowed", "claim", "executors", "external", "free", "id", "lent", "total")

    def __init__(self, node_id: str, total: Amounts) -> None:
        self.id = node_id
        self.total = total
        self.free = dict(total)
        self.external: Amounts = {}
        #: CPUs of executors that wait for subtasks, and those of executors that were started on such CPUs.
        self.lent = 0
        self.borrowed = 0
        self.executors: set[int] = set()
        #: Key of the lane this node is kept clear for.
        self.claim: str | None = None

    def fits(self, request: Amounts) -> bool:
        """Return whether ``request`` is free here now."""
        free = self.free
        return all(free.get(name, 0) >= amount for name, amount in request.items())

    def could_fit(self, request: Amounts) -> bool:
        """Return whether ``request`` would fit if nothing else ran here."""
        return all(self.total.get(name, 0) >= amount for name, amount in request.items())

    def free_of_loans(self) -> int:
        """Return the CPUs that Ray, which knows of no loans, sees free."""
        return self.free.get("CPU", 0) - self.lent + self.borrowed


class Nodes:
    """All nodes, indexed by free CPUs."""

    def __init__(self) -> None:
        self._nodes: dict[str, Node] = {}
        self._buckets: defaultdict[int, dict[str, Node]] = defaultdict(dict)
        self.total_cpus = 0

    def __len__(self) -> int:
        return len(self._nodes)

    def get(self, node_id: str | None) -> Node | None:
        """Return a live node."""
        return None if node_id is None else self._nodes.get(node_id)

    def change(self, node_id: str, resources: Mapping[str, float]) -> None:
        """Add a node, or note its new total resources."""
        total = scaled(resources)
        node = self._nodes.get(node_id)
        if node is None:
            node = self._nodes[node_id] = Node(node_id, total)
            self._buckets[node.free.get("CPU", 0)][node_id] = node
        else:
            delta = {name: total.get(name, 0) - node.total.get(name, 0) for name in total.keys() | node.total.keys()}
            node.total = total
            self.add(node, delta)
        self.total_cpus = sum(n.total.get("CPU", 0) for n in self._nodes.values())

    def remove(self, node_id: str) -> None:
        """Forget a node."""
        node = self._nodes.pop(node_id, None)
        if node is not None:
            self._bucket_out(node)
            self.total_cpus -= node.total.get("CPU", 0)

    def set_external(self, node_id: str, used: Mapping[str, float]) -> None:
        """Note what others than this application use on a node."""
        node = self._nodes.get(node_id)
        if node is not None:
            external = scaled(used)
            names = external.keys() | node.external.keys()
            delta = {name: node.external.get(name, 0) - external.get(name, 0) for name in names}
            node.external = external
            self.add(node, delta)

    def _bucket_out(self, node: Node) -> None:
        cpus = node.free.get("CPU", 0)
        bucket = self._buckets[cpus]
        bucket.pop(node.id, None)
        if not bucket:
            del self._buckets[cpus]

    def add(self, node: Node, amounts: Mapping[str, int], sign: int = 1) -> None:
        """Give ``amounts`` back to a node, or take them with ``sign=-1``."""
        self._bucket_out(node)
        for name, amount in amounts.items():
            node.free[name] = node.free.get(name, 0) + sign * amount
        self._buckets[node.free.get("CPU", 0)][node.id] = node

    def best_fit(self, request: Amounts, lane: str) -> Node | None:
        """Return the node with the fewest free CPUs on which ``request`` fits, among those ``lane`` may use."""
        cpus = request.get("CPU", 0)
        for free in sorted(self._buckets):
            if free < cpus or free < 0:
                continue
            for looks, node in enumerate(self._buckets[free].values()):
                if (node.claim is None or node.claim == lane) and node.fits(request):
                    return node
                # Only requests for more than CPUs may be refused by nodes with enough of them: look further then.
                if looks >= _LOOKS and len(request) <= 1:
                    break
        return None

    def could_fit(self, request: Amounts) -> bool:
        """Return whether any node could ever hold ``request``."""
        return any(node.could_fit(request) for node in self._nodes.values())

    def candidates(self, request: Amounts, lane: str, most: int = 16) -> list[Node]:
        """Return some nodes that could hold ``request`` once cleared, those with the most free CPUs first."""
        found = []
        for free in sorted(self._buckets, reverse=True):
            for node in self._buckets[free].values():
                if node.claim in (None, lane) and node.could_fit(request):
                    found.append(node)
                    if len(found) >= most:
                        return found
        return found

    def largest(self, names: Mapping[str, object]) -> Mapping[str, float]:
        """Return the largest amount any node has of each of ``names``."""
        return {name: max((n.total.get(name, 0) for n in self._nodes.values()), default=0) / UNIT for name in names}
