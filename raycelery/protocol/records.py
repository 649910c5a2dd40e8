"""What the journal holds besides the frames that came: written by the dispatcher, read by the one that follows it."""

from __future__ import annotations

from raycelery.protocol.codec import Decoder, Tagged
from raycelery.protocol.frames import Ask, Changes
from raycelery.protocol.messages import Submission
from raycelery.protocol.operations import Completion


class Source(Tagged, frozen=True):
    """Who the records after this one came from.

    Arguments:
        source: a process's id; "": the dispatcher itself.
    """

    source: str


class Given(Tagged, frozen=True):
    """Messages were handed to an executor.

    Arguments:
        executor_id: the scheduler's number of it; negative for one that ended before the journal was begun anew.
        seqs: the scheduler's numbers of the messages, in order.
    """

    executor_id: int
    seqs: list[int]


class LiveMessage(Tagged, frozen=True):
    """A message that was not finished when the journal was begun anew.

    Arguments:
        seq: the scheduler's number of it.
        submission: as it came.
    """

    seq: int
    submission: Submission


class CompleteChord(Tagged, frozen=True):
    """A chord whose body was to be called when the journal was begun anew; what the scheduler's message of one holds.

    Arguments:
        seq: the scheduler's number of it; 0 before it has one.
        completion: what is to be done.
        parts: what each header task left, encoded, in the header's order.
    """

    seq: int
    completion: Completion
    parts: list[bytes]


class Numbered(Tagged, frozen=True):
    """Numbers of messages are taken, also by messages that are not in the journal.

    Arguments:
        seq: the highest.
    """

    seq: int


Record = Source | Changes | Ask | Given | LiveMessage | CompleteChord | Numbered

record: Decoder[Record] = Decoder(Record)
