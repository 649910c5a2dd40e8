"""What the dispatcher assigns to an executor at a time: one message of direct mode, or a bridge's batch of them."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence

from raycelery.protocol.messages import Assignment, BatchAssignment, ChordAssignment
from raycelery.protocol.reports import BatchReport, Began, Done, Report, Unbegun

#: One message of what was assigned: a task's of direct mode, a chord, or what a bridge tells of a task.
Assigned = Assignment | ChordAssignment | bytes


class Batch:
    """Messages that run one after the other. One of direct mode is alone in its batch.

    The connection's reading thread may take back what the running thread has not begun.

    Arguments:
        assignment: what the dispatcher has sent.
    """

    #: Guards, in all batches of this process, which messages have begun: `_begun`, `_left` and `_current`.
    _lock = threading.Lock()

    #: Whether its messages are a bridge's.
    bridged = False
    #: Whether its messages are expected to be short, so that nobody needs to hear that one has begun.
    quick = False
    #: Whether it is bookkeeping only, which runs nothing of the project's code anew.
    bookkeeping = False

    def __init__(self, assignment: Assignment | ChordAssignment | BatchAssignment) -> None:
        self.seq = assignment.seq
        self._messages: Sequence[Assigned]
        if isinstance(assignment, BatchAssignment):
            self.bridged, self.quick, self._messages = True, assignment.quick, assignment.messages
        else:
            self._messages = (assignment,)
            self.bookkeeping = isinstance(assignment, ChordAssignment) or assignment.settle_reason is not None
        #: How many have begun, how many have not, and the index of the one that runs.
        self._begun = 0
        self._left = len(self._messages)
        self._current: int | None = None

    def advance(self) -> tuple[int, Assigned] | None:
        """Take note that the message that ran has ended; return index and content of the one that is to run now.

        Returns:
            None if there is none left.
        """
        with self._lock:
            if not self._left:
                self._current = None
                return None
            index = self._current = self._begun
            self._begun += 1
            self._left -= 1
            return index, self._messages[index]

    def end(self, seconds: float) -> list[Report]:
        """Return what is reported of a batch that ran so many seconds; a message that is alone reports for itself."""
        return [Done(self.seq, seconds)] if self.bridged else []

    def take_back(self) -> list[Report]:
        """Give up what has not begun; return the reports that say so, and that the one that runs has begun."""
        with self._lock:
            left = range(self._begun, self._begun + self._left)
            reports: list[Report] = [BatchReport(self.seq, index, Unbegun()) for index in reversed(left)]
            self._left = 0
            if self._current is not None:
                reports.append(BatchReport(self.seq, self._current, Began(os.getpid())))
            return reports
