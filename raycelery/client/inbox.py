"""The results that have come to a process, who waits for which, and which come unasked."""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from raycelery.protocol.frames import Result

#: Results that are kept for nobody in particular, and submissions whose results may be prefetched.
MAILBOX = 20_000
#: Results of other submissions that are asked for along with an awaited one.
PREFETCH = 1024


@dataclass(slots=True, eq=False)
class Awaited:
    """One wait's part of the inbox, which owns it.

    Arguments:
        ids: tasks whose results have not come.
        here: results that have come and were not taken.
        unasked: tasks of ``ids`` that the dispatcher is still to be asked for.
    """

    ids: dict[str, None]
    here: dict[str, Result] = field(default_factory=dict)
    unasked: list[str] = field(default_factory=list)


class Inbox:
    """What the connection's reading thread hands to the threads that want results."""

    def __init__(self) -> None:
        #: Guards everything here, every :class:`Awaited` included; notified of whatever comes.
        self._lock = threading.Condition(threading.Lock())
        #: Results that arrived before anybody waited for them, the oldest first.
        self._mailbox: OrderedDict[str, Result] = OrderedDict()
        self._awaited: dict[str, list[Awaited]] = {}
        #: Submissions for whose results nobody has asked, the oldest first; those whose results come unasked.
        self._recent: OrderedDict[str, None] = OrderedDict()
        self._prefetched: set[str] = set()

    # -- what comes ---------------------------------------------------------------------------------------------

    def submitted(self, task_id: str) -> None:
        """Note that somebody may ask for the result of a task."""
        with self._lock:
            self._recent[task_id] = None
            if len(self._recent) > MAILBOX:
                self._recent.popitem(last=False)

    def not_submitted(self, ids: Iterable[str]) -> list[str]:
        """Return those of some tasks that this process is not known to have submitted, and has no result of.

        Without the lock: each wait asks, and an id that goes from one to another meanwhile is only asked for in vain.
        """
        recent, prefetched, mailbox = self._recent, self._prefetched, self._mailbox
        return [one for one in ids if not (one in recent or one in prefetched or one in mailbox)]

    def put(self, results: Iterable[Result]) -> None:
        """Take results in."""
        with self._lock:
            for result in results:
                task_id = result.task_id
                self._prefetched.discard(task_id)
                if result.payload is None:
                    for awaited in self._awaited.get(task_id, ()):
                        awaited.unasked.append(task_id)
                elif task_id in self._awaited:
                    for awaited in self._awaited.pop(task_id):
                        del awaited.ids[task_id]
                        awaited.here[task_id] = result
                else:
                    self._mailbox[task_id] = result
            while len(self._mailbox) > MAILBOX:
                self._mailbox.popitem(last=False)
            self._lock.notify_all()

    def wake(self) -> None:
        """Have those who wait look around: the connection was lost."""
        with self._lock:
            self._lock.notify_all()

    # -- results that nobody waits for ------------------------------------------------------------------------------

    def take(self, task_id: str) -> Result | None:
        """Return the result of a task if it has arrived and nobody waits for them."""
        with self._lock:
            return self._mailbox.pop(task_id, None)

    def forget(self, task_id: str) -> None:
        """Drop a result that has arrived, or may arrive, for nobody."""
        with self._lock:
            self._mailbox.pop(task_id, None)
            self._recent.pop(task_id, None)

    # -- waits --------------------------------------------------------------------------------------------------

    def open(self, ids: Iterable[str]) -> Awaited:
        """Begin a wait for the results of some tasks."""
        awaited = Awaited({})
        with self._lock:
            for task_id in ids:
                self._add(awaited, task_id)
        return awaited

    def add(self, awaited: Awaited, task_id: str) -> None:
        """Have a wait wait for one task more."""
        with self._lock:
            self._add(awaited, task_id)
            self._lock.notify_all()

    def _add(self, awaited: Awaited, task_id: str) -> None:
        found = self._mailbox.pop(task_id, None)
        if found is not None:
            awaited.here[task_id] = found
        elif task_id not in awaited.ids:
            awaited.ids[task_id] = None
            self._awaited.setdefault(task_id, []).append(awaited)
            if task_id not in self._prefetched:
                awaited.unasked.append(task_id)

    def close(self, awaited: Awaited) -> None:
        """End a wait; what has come for it and was not taken is kept."""
        with self._lock:
            for task_id in awaited.ids:
                others = self._awaited[task_id]
                others.remove(awaited)
                if not others:
                    del self._awaited[task_id]
            self._mailbox.update(awaited.here)

    def wait(self, awaited: Awaited, timeout: float | None, lost: Callable[[], bool]) -> bool:
        """Wait until something has come for a wait, is to be asked for, or the connection is ``lost``.

        Arguments:
            awaited: the wait.
            timeout: seconds; None: as long as it takes.
            lost: tells whether the connection was lost; :meth:`wake` has it looked at.

        Returns:
            False when the time is over.
        """
        with self._lock:
            return self._lock.wait_for(lambda: bool(awaited.here or awaited.unasked or lost()), timeout)

    def arrived(self, awaited: Awaited) -> dict[str, Result]:
        """Return what has come for a wait since the last call."""
        with self._lock:
            here, awaited.here = awaited.here, {}
            return here

    # -- what the dispatcher is asked ---------------------------------------------------------------------------

    def to_ask(self, awaited: Awaited) -> tuple[list[str], list[str]]:
        """Return the tasks whose results a wait must ask for, and those whose results may come along.

        Who waits for one result at a time, of tasks that this process has submitted, will want the next ones too.
        """
        with self._lock:
            ask, awaited.unasked = awaited.unasked, []
            if len(ask) != 1 or ask[0] not in self._recent:
                for task_id in ask:
                    self._recent.pop(task_id, None)
                return ask, []
            del self._recent[ask[0]]
            along = list(itertools.islice(self._recent, PREFETCH))
            for task_id in along:
                del self._recent[task_id]
            self._prefetched.update(along)
            return ask, along

    def expected(self) -> list[str]:
        """Return the tasks whose results were asked for, or may be by whoever submitted them."""
        with self._lock:
            return list({**self._awaited, **dict.fromkeys(self._prefetched), **self._recent})

    def outstanding(self) -> tuple[list[str], list[str]]:
        """Return the tasks whose results the dispatcher was asked for and has not sent, and those that come along."""
        with self._lock:
            return list(self._awaited), list(self._prefetched)
