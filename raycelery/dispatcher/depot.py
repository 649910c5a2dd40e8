"""The dispatcher's books of large values in Ray's object store: who still needs which."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any


class Depot:
    """Keeps a reference to each large value for as long as a process, a message or a result holds it."""

    def __init__(self) -> None:
        self._refs: dict[str, Any] = {}
        self._holders: defaultdict[str, set[str]] = defaultdict(set)
        self._uses: Counter[str] = Counter()

    def hold(self, key: str, holder: str, ref: Any) -> None:
        """Keep ``ref`` under ``key`` until ``holder`` releases it."""
        self._refs.setdefault(key, ref)
        self._holders[key].add(holder)

    def release(self, key: str, holder: str) -> None:
        """``holder`` needs it no more."""
        self._holders[key].discard(holder)
        self._drop_unused(key)

    def release_all(self, holder: str) -> None:
        """``holder`` is gone."""
        for key in [key for key, holders in self._holders.items() if holder in holders]:
            self.release(key, holder)

    def refer(self, keys: Iterable[str]) -> None:
        """A message or result refers to ``keys``."""
        self._uses.update(keys)

    def unrefer(self, keys: Iterable[str]) -> None:
        """A message or result that referred to ``keys`` is gone."""
        for key in keys:
            self._uses[key] -= 1
            self._drop_unused(key)

    def refs(self, key: str) -> list[Any]:
        """Return the reference in a list, or an empty list."""
        ref = self._refs.get(key)
        return [] if ref is None else [ref]

    def _drop_unused(self, key: str) -> None:
        if not self._holders.get(key) and self._uses[key] <= 0:
            self._refs.pop(key, None)
            self._holders.pop(key, None)
            del self._uses[key]

    def __len__(self) -> int:
        return len(self._refs)
