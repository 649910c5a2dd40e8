"""What the dispatcher remembers by task id: states, results, chords, saved groups.

Kept in memory, bounded by age and by bytes; the counterpart of a Celery result backend's server.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec
from celery import states

from raycelery.protocol.operations import (
    ChordInProgress,
    ChordPart,
    Completion,
    Operation,
    Part,
    StoreResult,
    StoreValue,
)
from raycelery.protocol.questions import StoredResult

_READY = states.READY_STATES
#: What a result, a value or a chord's part takes besides its payload, in bytes: objects, ids, places in tables.
ENTRY_BYTES = 600
#: Times of expiry that may be kept of what is forgotten.
LEAST_DUE = 1000


@dataclass(slots=True)
class _Chord:
    """A chord in progress: what is known of it, its parts by task id, and keys of large values that these refer to."""

    size: int | None = None
    extra: int = 0
    done: bool = False
    completion: Completion | None = None
    parts: dict[str, Part] = field(default_factory=dict)
    keys: list[str] = field(default_factory=list)


class Store:
    """States and results, keys and values, chords in progress.

    Arguments:
        max_bytes: that may be held, with what is around payloads; past it the oldest results and values are forgotten.
    """

    def __init__(self, max_bytes: float) -> None:
        self._max_bytes = max_bytes
        self.bytes = 0
        self._metas: OrderedDict[str, StoreResult] = OrderedDict()
        self._values: dict[bytes, bytes] = {}
        self._chords: dict[str, _Chord] = {}
        #: When what expires: of results and chords by their ids, of values by their keys.
        self._due: list[tuple[float, str, Any]] = []
        self._expiry: dict[tuple[str, Any], float] = {}
        #: Keys of large values that no result refers to any more; the caller takes and clears them.
        self.released: list[str] = []

    def set_meta(self, result: StoreResult, now: float) -> bool:
        """Store a state; False if the task has already succeeded, which nothing overwrites (as in Celery)."""
        task_id = result.task_id
        old = self._metas.get(task_id)
        if old is not None:
            if old.state == states.SUCCESS:
                self.released.extend(result.keys)
                return False
            self._drop_meta(task_id)
        self._metas[task_id] = result
        self.bytes += len(result.payload) + ENTRY_BYTES
        self._expire("meta", task_id, result.expires, now)
        self._bound()
        return True

    def _bound(self) -> None:
        """Forget the oldest results and values while all takes too much; the latest of each stays."""
        while self.bytes > self._max_bytes and len(self._metas) > 1:
            self._drop_meta(next(iter(self._metas)))
        while self.bytes > self._max_bytes and len(self._values) > 1:
            self.delete(next(iter(self._values)))

    def meta(self, task_id: str) -> StoredResult | None:
        """Return state and payload, or None."""
        found = self._metas.get(task_id)
        return None if found is None else StoredResult(found.state, found.payload)

    def ready(self, task_id: str) -> StoreResult | None:
        """Return what is stored if the task has ended."""
        found = self._metas.get(task_id)
        return found if found is not None and found.state in _READY else None

    def forget(self, task_id: str) -> None:
        """Drop a result."""
        if task_id in self._metas:
            self._drop_meta(task_id)

    def _drop_meta(self, task_id: str) -> None:
        dropped = self._metas.pop(task_id)
        self.bytes -= len(dropped.payload) + ENTRY_BYTES
        self.released.extend(dropped.keys)
        self._expiry.pop(("meta", task_id), None)

    # -- keys and values, for groups and whatever else Celery's backend code keeps ---------------------------------

    def get(self, key: bytes) -> bytes | None:
        """Return a value."""
        return self._values.get(key)

    def set(self, key: bytes, value: bytes, expires: float | None, now: float) -> None:
        """Keep a value."""
        self.delete(key)
        self._values[key] = value
        self.bytes += len(key) + len(value) + ENTRY_BYTES
        self._expire("value", key, expires, now)
        self._bound()

    def delete(self, key: bytes) -> None:
        """Drop a value."""
        value = self._values.pop(key, None)
        if value is not None:
            self.bytes -= len(key) + len(value) + ENTRY_BYTES
        self._expiry.pop(("value", key), None)

    # -- chords ----------------------------------------------------------------------------------------------------

    def chord_size(self, group: str, size: int) -> tuple[Completion, list[bytes]] | None:
        """Say how many parts a chord has (again, for a new run of the same chord).

        Returns:
            its completion and its parts, if they were all there already.
        """
        chord = self._chord(group)
        if chord.done:
            chord.done = False
            self._set_parts(chord, {})
        chord.size = size
        return self._complete(chord)

    def chord_part(self, part: ChordPart, now: float) -> tuple[Completion, list[bytes]] | None:
        """Add one part; the completion and the payloads of all, in the group's order, to whoever adds the last one."""
        chord = self._chord(part.group)
        if chord.done or part.task_id in chord.parts:
            self.released.extend(part.keys)
            return None
        chord.keys += part.keys
        chord.parts[part.task_id] = Part(part.task_id, part.index, len(chord.parts), part.payload)
        self.bytes += len(part.payload) + ENTRY_BYTES
        chord.completion = part.completion
        if chord.size is None:
            chord.size = part.size
        self._expire("chord", part.group, part.expires, now)
        self._bound()
        return self._complete(chord)

    def _set_parts(self, chord: _Chord, parts: dict[str, Part]) -> None:
        self.bytes -= sum(len(part.payload) + ENTRY_BYTES for part in chord.parts.values())
        self.bytes += sum(len(part.payload) + ENTRY_BYTES for part in parts.values())
        chord.parts = parts

    def _chord(self, group: str) -> _Chord:
        found = self._chords.get(group)
        if found is None:
            found = self._chords[group] = _Chord()
        return found

    def chord_keys(self, group: str) -> tuple[str, ...]:
        """Return the large values that the parts of a complete chord refer to, which they then do no more."""
        chord = self._chords.get(group)
        if chord is None:
            return ()
        keys, chord.keys = chord.keys, []
        self.released.extend(keys)
        return tuple(keys)

    def chord_extra(self, group: str) -> None:
        """Count a part that was added while the chord ran (``add_to_chord``)."""
        self._chord(group).extra += 1

    def _complete(self, chord: _Chord) -> tuple[Completion, list[bytes]] | None:
        if chord.done or not chord.parts or chord.size is None or chord.completion is None:
            return None
        if len(chord.parts) < chord.size + chord.extra:
            return None
        parts = [part.payload for part in sorted(chord.parts.values(), key=lambda part: (part.index, part.order))]
        chord.done, chord.extra = True, 0
        self._set_parts(chord, {})
        return chord.completion, parts

    # -- age -------------------------------------------------------------------------------------------------------

    def _expire(self, kind: str, key: Any, expires: float | None, now: float) -> None:
        if expires and expires > 0:
            due = now + expires
            self._expiry[kind, key] = due
            heapq.heappush(self._due, (due, kind, key))
            if len(self._due) > 2 * len(self._expiry) + LEAST_DUE:
                # What was forgotten or written again has left its place.
                self._due = [(due, kind, key) for (kind, key), due in self._expiry.items()]
                heapq.heapify(self._due)

    @property
    def due(self) -> float | None:
        """When something may be past its age next, in seconds since the epoch."""
        return self._due[0][0] if self._due else None

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
                self.delete(key)
            else:
                self.chord_keys(key)
                self._set_parts(self._chord(key), {})
                del self._chords[key]

    def ops(self, now: float) -> Iterator[Operation]:
        """Forget what is past its age, and yield the operations that would bring an empty store to what is left."""
        self.expire(now)
        for task_id, result in self._metas.items():
            due = self._expiry.get(("meta", task_id))
            yield msgspec.structs.replace(result, expires=None if due is None else due - now, final=False)
        for key, value in self._values.items():
            due = self._expiry.get(("value", key))
            yield StoreValue(key, value, None if due is None else due - now)
        for group, one in self._chords.items():
            parts = list(one.parts.values())
            yield ChordInProgress(group, one.size, one.extra, one.done, parts, one.completion, one.keys)

    def put_chord(self, chord: ChordInProgress) -> None:
        """Take over a chord in progress."""
        one = chord
        parts = {part.task_id: part for part in one.parts}
        taken = self._chords[one.group] = _Chord(one.size, one.extra, one.done, one.completion, {}, one.keys)
        self._set_parts(taken, parts)

    def __len__(self) -> int:
        return len(self._metas)
