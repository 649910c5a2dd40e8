"""What is known of Ray's autoscaler: which nodes it may add, and how long they take to come."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from raycelery.scheduler.model import NodeType, in_words
from raycelery.scheduler.nodes import Amounts, Node, Nodes, Shape, scaled

#: Nodes that have come of which it is remembered how long they took.
_SAMPLES = 9


@dataclass(frozen=True, slots=True)
class _Type:
    """A node type with its resources in the units of nodes."""

    described: NodeType
    amounts: Amounts

    def holds(self, request: Mapping[str, int]) -> bool:
        return all(self.amounts.get(name, 0) >= amount for name, amount in request.items())

    def is_of(self, node: Node) -> bool:
        """Return whether a node that does not name its type may be of this one: its size is the same."""
        if node.node_type:
            return node.node_type == self.described.name
        names = {"CPU", "GPU"} | (self.amounts.keys() - {"memory"})
        return all(node.total.get(name, 0) == self.amounts.get(name, 0) for name in names)


class Autoscaler:
    """The autoscaler of the cluster, if one is known.

    Arguments:
        nodes: of the cluster.
    """

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes
        #: Whether there is one.
        self.known = False
        self._types: list[_Type] | None = None
        self._maximum: int | None = None
        self._took: deque[float] = deque(maxlen=_SAMPLES)

    def found(self, node_types: Sequence[NodeType] | None, maximum: int | None) -> None:
        """Take note of one, and of the nodes that it may add; None: they are not known."""
        self.known = True
        self._maximum = maximum
        if node_types is None:
            self._types = None
        else:
            types = [_Type(one, scaled(one.resources)) for one in node_types if one.maximum != 0]
            # The smallest comes first, those without GPUs before those with, as the autoscaler chooses them.
            self._types = sorted(types, key=lambda one: (one.amounts.get("GPU", 0), one.amounts.get("CPU", 0)))

    def could_hold(self, shape: Shape) -> bool:
        """Return whether it may add a node that holds a request, as far as is known."""
        if not self.known:
            return False
        request = dict(shape)
        return self._types is None or any(one.holds(request) for one in self._types)

    def largest(self, request: Mapping[str, float]) -> str:
        """Say which of its node types comes nearest to a request that none holds."""
        if not self._types:
            return "the autoscaler has no node type"
        amounts = scaled(request)
        nearest = max(
            self._types,
            key=lambda one: (
                sum(one.amounts.get(name, 0) >= amount for name, amount in amounts.items()),
                [one.amounts.get(name, 0) for name in amounts],
            ),
        )
        has = in_words({name: nearest.described.resources.get(name, 0) for name in request})
        return f"the largest node type of the autoscaler is {nearest.described.name!r} with {has}"

    # -- what may come ------------------------------------------------------------------------------------------

    def came(self, seconds: float) -> None:
        """Take note of how long a node took to come."""
        self._took.append(seconds)

    @property
    def seconds(self) -> float | None:
        """How long a node takes to come, in seconds; None before any has come."""
        return median(self._took) if self._took else None

    def room(self) -> Room:
        """Return what it may add to the nodes that there are."""
        return Room(self._left(), self._maximum and max(0, self._maximum - self._workers()))

    def _workers(self) -> int:
        return sum(self._type_of(node) is not None for node in self._nodes)

    def _type_of(self, node: Node) -> _Type | None:
        return next((one for one in self._types or () if one.is_of(node)), None)

    def _left(self) -> list[tuple[Amounts, int | None]] | None:
        """Return the resources of each type, and how many nodes of it may come."""
        if self._types is None:
            return None
        present = Counter(one.described.name for node in self._nodes if (one := self._type_of(node)) is not None)
        found = []
        for one in self._types:
            most = one.described.maximum
            found.append((one.amounts, None if most is None else most - present[one.described.name]))
        return found


class Room:
    """Nodes that may come, and what fits on them: filled one request after the other.

    Arguments:
        types: resources of each type, and how many may come (None: no limit); None: no type is known, so that each
            node holds one request.
        maximum: most nodes in all; None: no limit.
    """

    def __init__(self, types: list[tuple[Amounts, int | None]] | None, maximum: int | None) -> None:
        self._types = types
        self._left = None if types is None else [left for _, left in types]
        self._maximum = maximum
        #: What the nodes that are taken so far have free; by request, which of them need not be looked at again.
        self._nodes: list[Amounts] = []
        self._full: dict[Shape, int] = {}

    def __len__(self) -> int:
        """How many nodes are needed for what was put in."""
        return len(self._nodes)

    def put(self, shape: Shape, most: int) -> bool:
        """Put a request in; return whether it fits on no more than ``most`` nodes in all."""
        request = dict(shape)
        for at in range(self._full.get(shape, 0), len(self._nodes)):
            free = self._nodes[at]
            if all(free.get(name, 0) >= amount for name, amount in request.items()):
                self._full[shape] = at
                break
        else:
            self._full[shape] = len(self._nodes)
            chosen = None if len(self) >= most or len(self) == self._maximum else self._new(request)
            if chosen is None:
                return False
            self._nodes.append(free := chosen)
        for name, amount in request.items():
            free[name] -= amount
        return True

    def _new(self, request: Amounts) -> Amounts | None:
        """Return the resources of a further node that holds a request."""
        if self._types is None or self._left is None:
            return dict(request)
        for at, (amounts, _) in enumerate(self._types):
            left = self._left[at]
            if (
                left != 0
                and (left is None or left > 0)
                and all(amounts.get(name, 0) >= amount for name, amount in request.items())
            ):
                self._left[at] = None if left is None else left - 1
                return dict(amounts)
        return None
