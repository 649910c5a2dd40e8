"""What a journal says is still to be done."""

from __future__ import annotations

from collections.abc import Iterable

from raycelery.dispatcher.begun import Place
from raycelery.protocol.messages import Submission
from raycelery.protocol.records import Came, CompleteChord, Lost
from raycelery.protocol.reports import Done, Recalled, Report, Requeue
from raycelery.scheduler.model import Message


def lost(message: Message) -> Lost | None:
    """Return the record of a message that had begun when its executor ended; None for others."""
    match message.settle_reason:
        case "lost" | "timeout" | "terminated" as reason if not message.bridged:
            return Lost(message.seq, reason, message.reason, message.deliveries)
    return None


class Ledger:
    """Follows a journal, and knows at its end what is still to be done.

    Messages have the numbers that the scheduler gave them: each record says which was the latest before it.
    """

    def __init__(self) -> None:
        self._seq = 0
        self.messages: dict[int, Submission] = {}
        self.chords: dict[int, CompleteChord] = {}
        #: Who was given what and has not reported it, in order.
        self._outstanding: dict[int, dict[int, None]] = {}
        self._holder: dict[int, int] = {}
        #: Where the executors that have not ended say what they have begun.
        self._places: dict[int, Place] = {}
        #: What had begun when its executor ended, and was not settled yet.
        self.lost: dict[int, Lost] = {}
        #: How often executors died with what Celery wants to be run again.
        self.deliveries: dict[int, int] = {}

    def at(self, seq: int) -> None:
        """Go on after the number that a record says was the latest before it."""
        self._seq = max(self._seq, seq)

    def submitted(self, submission: Submission) -> int:
        """Note a submission; its number."""
        self._seq += 1
        self.messages[self._seq] = submission
        return self._seq

    def chord(self, complete: CompleteChord) -> int:
        """Note a chord whose parts are complete."""
        self._seq += 1
        self.chords[self._seq] = complete
        return self._seq

    def live(self, seq: int, what: Submission | CompleteChord) -> None:
        """Note a message of a rewritten journal, under the number it has."""
        self._seq = max(self._seq, seq)
        if isinstance(what, Submission):
            self.messages[seq] = what
        else:
            self.chords[seq] = what

    def numbered(self, seq: int) -> None:
        """Note that numbers up to ``seq`` are taken, also by messages that are not in the journal."""
        self._seq = max(self._seq, seq)

    def purge(self, queue: str | None = None) -> None:
        """Note that what waited was dropped."""
        for seq, submission in list(self.messages.items()):
            if seq not in self._holder and (queue is None or submission.queue == queue):
                del self.messages[seq]

    def withdraw(self, ids: Iterable[str]) -> list[Submission]:
        """Note that messages that waited were taken off the queues; in the order of their ids, then as they came."""
        found = []
        for task_id in ids:
            for seq, submission in list(self.messages.items()):
                waits = seq not in self._holder and seq not in self.lost
                if submission.task_id == task_id and waits and not submission.keys:
                    found.append(self.messages.pop(seq))
        return found

    def given(self, executor: int, seqs: Iterable[int]) -> None:
        """Note an assignment."""
        for seq in seqs:
            self._let_go(seq)
            self._outstanding.setdefault(executor, {})[seq] = None
            self._holder[seq] = executor

    def came(self, came: Came) -> None:
        """Note where an executor says what it has begun."""
        self._places[came.executor_id] = Place(came.node, came.begun)

    def ended(self, executor: int) -> None:
        """Note that an executor has ended, and that what it had begun was noted as lost."""
        self._places.pop(executor, None)
        for seq in self._outstanding.pop(executor, ()):
            del self._holder[seq]

    def _let_go(self, seq: int) -> None:
        holder = self._holder.pop(seq, None)
        if holder is not None:
            self._outstanding[holder].pop(seq, None)

    def reported(self, report: Report) -> None:
        """Note what an executor said."""
        match report:
            case Done(seq):
                self._let_go(seq)
                self.lost.pop(seq, None)
                self.messages.pop(seq, None)
                self.chords.pop(seq, None)
            case Requeue(seq, rejected):
                self._let_go(seq)
                lost = self.lost.pop(seq, None)
                if lost is not None:
                    self.deliveries[seq] = lost.deliveries
                if rejected and seq in self.messages:
                    self._seq += 1
                    self.messages[self._seq] = self.messages.pop(seq)
            case Recalled(seqs):
                for seq in seqs:
                    self._let_go(seq)

    def given_out(self) -> list[tuple[Place | None, list[int]]]:
        """Return what executors have that had not ended, in order, and where each says what it has begun."""
        return [(self._places.get(executor), list(seqs)) for executor, seqs in self._outstanding.items() if seqs]
