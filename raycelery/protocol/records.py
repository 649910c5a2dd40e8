"""What the journal holds besides the frames that came: written by the dispatcher, read by the one that follows it."""

from __future__ import annotations

from typing import Literal

from raycelery.protocol.codec import Decoder, Tagged
from raycelery.protocol.frames import Ask, Changes
from raycelery.protocol.messages import Submission
from raycelery.protocol.operations import Completion


class Version(Tagged, frozen=True):
    """The first record: what the others are.

    Arguments:
        version: see :data:`raycelery.protocol.codec.VERSION`.
    """

    version: int


class Epoch(Tagged, frozen=True):
    """The journal's name, which stays when it is begun anew.

    Arguments:
        epoch: of its own.
    """

    epoch: str


class Source(Tagged, frozen=True):
    """Who the records after this one came from.

    Arguments:
        source: a process's id; "": the dispatcher itself.
    """

    source: str


class Given(Tagged, frozen=True):
    """Messages were handed to an executor.

    Arguments:
        executor_id: the scheduler's number of it.
        seqs: the scheduler's numbers of the messages, in order.
    """

    executor_id: int
    seqs: list[int]


class Came(Tagged, frozen=True):
    """An executor has connected.

    Arguments:
        executor_id: the scheduler's number of it.
        node: Ray's id of its node.
        begun: path of its :class:`raycelery.executor.begun.BegunFile` there.
    """

    executor_id: int
    node: str
    begun: str


class Lost(Tagged, frozen=True):
    """A message had begun when its executor ended: it is not run again unless Celery wants it to be.

    Arguments:
        seq: the scheduler's number of it.
        settle_reason: what Celery is to record it as.
        reason: in words.
        deliveries: how often executors died with it.
    """

    seq: int
    settle_reason: Literal["terminated", "timeout", "lost"]
    reason: str
    deliveries: int


class Ended(Tagged, frozen=True):
    """An executor has ended: what it was given and is not lost runs elsewhere.

    Arguments:
        executor_id: the scheduler's number of it.
    """

    executor_id: int


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


Record = Epoch | Source | Changes | Ask | Came | Given | Lost | Ended | LiveMessage | CompleteChord | Numbered

record: Decoder[Record] = Decoder(Record)
