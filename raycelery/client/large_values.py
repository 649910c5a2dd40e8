"""A process's side of the store of large values: what is stored once, what is kept for its next calls."""

from __future__ import annotations

import os
import threading
from collections import Counter, OrderedDict
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from raycelery.errors import ArgumentError, DispatcherUnreachable
from raycelery.protocol.operations import DropLargeValues
from raycelery.protocol.questions import LargeValue
from raycelery.reasons import reason_of

if TYPE_CHECKING:
    from raycelery.client.connection import Client
    from raycelery.serialization.large_values import Flat

#: Large values that a process keeps alive in the object store for its next calls: this many, and bytes beyond the last.
_KEPT = 16
_KEPT_BYTES = 200_000_000


class LargeValueStore:
    """The large values of a process that is connected to Ray.

    The dispatcher's store owns what is stored, so it outlives the process that stored it; what this process stored last
    stays in reach for its next calls, what a waiting message or a kept result refers to stays as long as that does.

    Arguments:
        dispatcher: the dispatcher's actor handle; None in a process that cannot use Ray.
        client: the connection, which names this process in the dispatcher's books and tells it what may go, in order
            with the messages that refer to it.
    """

    def __init__(self, dispatcher: Any, client: Client) -> None:
        self._dispatcher = dispatcher
        self._client = client
        self._pid = os.getpid() if dispatcher is not None else None
        self._epoch = client.epoch
        #: Key to size, the last used last.
        self._kept: OrderedDict[str, int] = OrderedDict()
        #: Keys that messages being made refer to, and those of stand-ins that :func:`raycelery.put` returned.
        self._busy: Counter[str] = Counter()
        self._fetched: OrderedDict[str, list[Any]] = OrderedDict()
        # Stand-ins may be collected at any time, in the middle of any method here.
        self._lock = threading.RLock()
        client.holds = self.kept
        client.lose_large_values = self._lose

    def keep(self, flat: Flat) -> str | None:
        """Store a value unless it is there; the key is in use until :meth:`done` is called with it."""
        if os.getpid() != self._pid:
            return None
        import ray

        if self._client.epoch is None:
            self._client.ensure()
        key = flat.key(self._client.epoch or b"")
        with self._lock:
            if self._client.epoch != self._epoch:
                self._epoch = self._client.epoch
                for old in list(self._kept):
                    if not self._ask("keep", old, [], self._client.id):
                        del self._kept[old]
            if key not in self._kept:
                # Another process may have stored the same bytes: ask before they are sent.
                if not self._ask("keep", key, [], self._client.id):
                    self._ask("keep", key, [ray.put(flat.parts())], self._client.id)
                self._kept[key] = flat.nbytes
            self._kept.move_to_end(key)
            self._busy[key] += 1
        return key

    def use(self, key: str) -> None:
        """Note that a message being made refers to ``key``, until :meth:`done`."""
        with self._lock:
            self._busy[key] += 1

    def _lose(self) -> None:
        """Take note that nothing is stored any more."""
        with self._lock:
            self._kept.clear()

    def kept(self) -> list[str]:
        """Return the keys that this process keeps alive."""
        with self._lock:
            return list(self._kept)

    def unuse(self, key: str) -> None:
        """Note that a stand-in is gone; what it stood for goes when the next message is done."""
        with self._lock:
            self._busy[key] -= 1
            if self._busy[key] <= 0:
                del self._busy[key]

    def done(self, keys: Iterable[str]) -> None:
        """Note that a message or result that refers to ``keys`` is buffered, or was not made after all."""
        with self._lock:
            for key in keys:
                self.unuse(key)
            if len(self._kept) <= 1 or os.getpid() != self._pid:
                return
            surplus = []
            size = sum(self._kept.values())
            for index, (key, nbytes) in enumerate(list(self._kept.items())[:-1]):
                if len(self._kept) - index <= _KEPT and size <= _KEPT_BYTES:
                    break
                size -= nbytes
                if key not in self._busy:
                    surplus.append(key)
            for key in surplus:
                del self._kept[key]
        if surplus:
            self._client.store(DropLargeValues(self._client.id, surplus), now=False)

    def _ask(self, method: str, *args: Any) -> Any:
        import ray

        try:
            return ray.get(getattr(self._dispatcher, method).remote(*args))
        except ray.exceptions.RayActorError as exc:
            raise DispatcherUnreachable(
                f"a large value could not be handed to the dispatcher: {reason_of(exc)}"
            ) from exc

    def fetch(self, key: str) -> list[Any]:
        """Return the parts of a value; its arrays are views of shared memory."""
        if os.getpid() != self._pid:
            sent: list[Any] = self._client.call(LargeValue(key), timeout=None)
            return sent
        import ray

        with self._lock:
            if key in self._fetched:
                self._fetched.move_to_end(key)
                return self._fetched[key]
        refs = self._ask("fetch", key)
        try:
            parts: list[Any] | None = ray.get(refs[0]) if refs else None
        except ray.exceptions.ObjectLostError as exc:
            raise ArgumentError(
                f"the large value {key} was lost with the process that held it: {reason_of(exc)}"
            ) from exc
        if parts is None:
            raise ArgumentError(
                f"the large value {key} is gone: keep the process that put it alive, or raise result_expires"
            )
        with self._lock:
            self._fetched[key] = parts
            while len(self._fetched) > 2:
                self._fetched.popitem(last=False)
        return parts
