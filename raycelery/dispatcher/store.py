"""What the dispatcher remembers by task id: states, results, chords, saved groups.

Kept in memory, bounded by age and by bytes; the counterpart of a Celery result backend's server.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

from celery import states

_READY = states.READY_STATES


class Store:
    """States and results, keys and values, chords in progress.

    Arguments:
        max_bytes: payload bytes to keep; past it the oldest finished results are forgotten.
    """

    def __init__(self, max_bytes: float) -> None:
        self._max_bytes = max_bytes
        self.bytes = 0
        self._metas: OrderedDict[str, tuple[str, bytes, tuple[str, ...]]] = OrderedDict()
        self._values: dict[str, bytes] = {}
        self._chords: dict[str, dict[str, Any]] = {}
        self._due: list[tuple[float, str, str]] = []
        self._expiry: dict[tuple[str, str], float] = {}
        #: Keys of large values that no result refers to any more; the caller takes and clears them.
        self.released: list[str] = []

    def set_meta(
        self, task_id: str, state: str, payload: bytes, keys: tuple[str, ...], expires: float | None, now: float
    ) -> bool:
        """Store a state; False if the task has already succeeded, which nothing overwrites (as in Celery)."""
        old = self._metas.get(task_id)
        if old is not None:
            if old[0] == states.SUCCESS:
                self.released.extend(keys)
                return False
            self._drop_meta(task_id)
        self._metas[task_id] = (state, payload, keys)
        self.bytes += len(payload)
        self._expire("meta", task_id, expires, now)
        while self.bytes > self._max_bytes and len(self._metas) > 1:
            self._drop_meta(next(iter(self._metas)))
        return True

    def meta(self, task_id: str) -> tuple[str, bytes] | None:
        """Return state and payload, or None."""
        found = self._metas.get(task_id)
        return None if found is None else found[:2]

    def ready(self, task_id: str) -> tuple[str, bytes] | None:
        """Return state and payload if the task has ended."""
        found = self._metas.get(task_id)
        return found[:2] if found is not None and found[0] in _READY else None

    def forget(self, task_id: str) -> None:
        """Drop a result."""
        if task_id in self._metas:
            self._drop_meta(task_id)

    def _drop_meta(self, task_id: str) -> None:
        _, payload, keys = self._metas.pop(task_id)
        self.bytes -= len(payload)
        self.released.extend(keys)
        self._expiry.pop(("meta", task_id), None)

    # -- keys and values, for groups and whatever else Celery's backend code keeps ---------------------------------

    def get(self, key: str) -> bytes | None:
        """Return a value."""
        return self._values.get(key)

    def set(self, key: str, value: bytes, expires: float | None, now: float) -> None:
        """Keep a value."""
        self._values[key] = value
        self._expire("value", key, expires, now)

    def delete(self, key: str) -> None:
        """Drop a value."""
        self._values.pop(key, None)
        self._expiry.pop(("value", key), None)

    # -- chords ----------------------------------------------------------------------------------------------------

    def chord_size(self, group: str, size: int) -> tuple[Any, list[bytes]] | None:
        """Say how many parts a chord has (again, for a new run of the same chord).

        Returns:
            its completion and its parts, if they were all there already.
        """
        chord = self._chord(group)
        if chord["done"]:
            chord.update(done=False, parts={})
        chord["size"] = size
        parts = self._complete(chord)
        return None if parts is None else (chord["completion"], parts)

    def chord_part(
        self, group: str, task_id: str, index: float, payload: bytes, size: int | None, now: float,
        expires: float | None, completion: Any, keys: tuple[str, ...] = (),
    ) -> list[bytes] | None:  # fmt: skip
        """Add one part; the payloads of all, in the group's order, to whoever adds the last one."""
        chord = self._chord(group)
        if chord["done"] or task_id in chord["parts"]:
            self.released.extend(keys)
            return None
        chord["keys"] += keys
        chord["parts"][task_id] = (index, len(chord["parts"]), payload)
        chord["completion"] = completion
        if chord["size"] is None:
            chord["size"] = size
        self._expire("chord", group, expires, now)
        return self._complete(chord)

    def _chord(self, group: str) -> dict[str, Any]:
        return self._chords.setdefault(
            group, {"parts": {}, "size": None, "extra": 0, "done": False, "completion": None, "keys": []}
        )

    def chord_keys(self, group: str) -> tuple[str, ...]:
        """Return the large values that the parts of a complete chord refer to, which they then do no more."""
        chord = self._chords.get(group)
        if chord is None:
            return ()
        keys, chord["keys"] = chord["keys"], []
        self.released.extend(keys)
        return tuple(keys)

    def chord_extra(self, group: str, count: int = 1) -> None:
        """Count a part that was added while the chord ran (``add_to_chord``)."""
        self._chord(group)["extra"] += count

    def _complete(self, chord: dict[str, Any]) -> list[bytes] | None:
        if chord["done"] or not chord["parts"] or chord["size"] is None:
            return None
        if len(chord["parts"]) < chord["size"] + chord["extra"]:
            return None
        parts = [payload for _, _, payload in sorted(chord["parts"].values(), key=lambda part: part[:2])]
        chord.update(done=True, parts={}, extra=0)
        return parts

    # -- age -------------------------------------------------------------------------------------------------------

    def _expire(self, kind: str, key: str, expires: float | None, now: float) -> None:
        if expires and expires > 0:
            due = now + expires
            self._expiry[kind, key] = due
            heapq.heappush(self._due, (due, kind, key))

    def expire(self, now: float) -> None:
        """Forget what is past its age."""
        while self._due and self._due[0][0] <= now:
            due, kind, key = heapq.heappop(self._due)
            if self._expiry.get((kind, key)) != due:
                continue
            del self._expiry[kind, key]
            if kind == "meta":
                self.forget(key)
            elif kind == "value":
                self._values.pop(key, None)
            else:
                self.chord_keys(key)
                self._chords.pop(key, None)

    def ops(self, now: float) -> Iterator[tuple[Any, ...]]:
        """Forget what is past its age, and yield the operations that would bring an empty store to what is left."""
        self.expire(now)
        for task_id, (state, payload, keys) in self._metas.items():
            due = self._expiry.get(("meta", task_id))
            yield "meta", task_id, state, payload, keys, None if due is None else due - now, False
        for key, value in self._values.items():
            due = self._expiry.get(("value", key))
            yield "value", key, value, None if due is None else due - now
        for group, chord in self._chords.items():
            yield "chord", group, chord

    def put_chord(self, group: str, chord: dict[str, Any]) -> None:
        """Take over a chord in progress."""
        self._chords[group] = chord

    def __len__(self) -> int:
        return len(self._metas)
