"""What a journal says is still to be done."""

from __future__ import annotations

from collections.abc import Iterable

from raycelery.protocol.messages import Submission
from raycelery.protocol.records import CompleteChord
from raycelery.protocol.reports import Done, Recalled, Report, Requeue


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

    def given(self, executor: int, seqs: Iterable[int]) -> None:
        """Note an assignment."""
        for seq in seqs:
            self._let_go(seq)
            self._outstanding.setdefault(executor, {})[seq] = None
            self._holder[seq] = executor

    def _let_go(self, seq: int) -> None:
        holder = self._holder.pop(seq, None)
        if holder is not None:
            self._outstanding[holder].pop(seq, None)

    def reported(self, report: Report) -> None:
        """Note what an executor said."""
        match report:
            case Done(seq):
                self._let_go(seq)
                self.messages.pop(seq, None)
                self.chords.pop(seq, None)
            case Requeue(seq, rejected):
                self._let_go(seq)
                if rejected and seq in self.messages:
                    self._seq += 1
                    self.messages[self._seq] = self.messages.pop(seq)
            case Recalled(seqs):
                for seq in seqs:
                    self._let_go(seq)

    def running(self) -> set[int]:
        """Return the messages that were running: the first of what each executor had."""
        return {next(iter(seqs)) for seqs in self._outstanding.values() if seqs}
