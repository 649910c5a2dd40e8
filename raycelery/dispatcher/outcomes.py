"""What became of messages: how many of each task succeeded, failed and so on, and the last failures with their errors.

Kept in memory, since the dispatcher started.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

import msgspec

from raycelery.dispatcher import steady
from raycelery.dispatcher.conversions import message_of, submission_of
from raycelery.masking import masked, masked_text
from raycelery.protocol import framing, messages
from raycelery.protocol.codec import encode
from raycelery.protocol.definitions import DefineLane
from raycelery.protocol.frames import Ask, Changes
from raycelery.protocol.messages import Submission
from raycelery.protocol.questions import Forget
from raycelery.protocol.reports import Outcome, TaskError
from raycelery.scheduler.model import lane_of

if TYPE_CHECKING:
    from raycelery.dispatcher.core import Core
    from raycelery.dispatcher.journal import Journal
    from raycelery.dispatcher.metrics import Metrics
    from raycelery.scheduler.model import Message

#: What may become of a message, in the order in which it is shown.
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
#: Failures that are kept, and the bytes of their messages and tracebacks together; the oldest go first.
MOST_FAILURES = 1_000
MOST_BYTES = 32_000_000


@dataclass(frozen=True)
class Failure:
    """One message that failed.

    Arguments:
        submission: from which it can be made again.
        error: what it failed with.
        time: when, in seconds since the epoch.
        node: Ray's id of the node; "" if it did not run.
        seconds: that it ran; None where its task was not called.
    """

    submission: Submission
    error: TaskError
    time: float
    node: str
    seconds: float | None

    @property
    def size(self) -> int:
        """Bytes that it holds, roughly."""
        return len(self.submission.payload) + len(self.error.traceback) + len(self.error.text)


class Outcomes:
    """Counts what became of messages, and keeps the last failures.

    Arguments:
        core: takes what is retried.
        journal: likewise.
        metrics: told of each.
    """

    def __init__(self, core: Core, journal: Journal, metrics: Metrics) -> None:
        self._core = core
        self._journal = journal
        self._metrics = metrics
        #: Messages that have ended, by node, task and outcome.
        self.counts: Counter[tuple[str, str, str]] = Counter()
        #: By task id; of a task that failed again the last failure.
        self._failures: OrderedDict[str, Failure] = OrderedDict()
        self._bytes = 0

    def note(
        self,
        message: Message,
        outcome: str,
        seconds: float | None,
        node: str,
        now: float,
        error: TaskError | None = None,
    ) -> None:
        """Count a message that has ended, and keep it if it failed.

        Arguments:
            seconds: that it ran; None where its task was not called.
            node: Ray's id of the node where it ended; "" if it was at none.
            error: why it failed; nothing is kept without it.
        """
        self.counts[node, message.task, outcome] += 1
        self._metrics.finished(message, outcome, seconds, now)
        if error is not None and outcome == "failed":
            keys = self._core.keys.get(message.seq, ())
            self._keep(Failure(submission_of(message, keys), error, now, node, seconds))

    def by_task(self) -> dict[str, dict[str, int]]:
        """Return how many messages of each task had each outcome."""
        found: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for (_, task, outcome), count in self.counts.items():
            found[task][outcome] += count
        return {task: dict(counts) for task, counts in sorted(found.items())}

    def _keep(self, failure: Failure) -> None:
        self._forget(failure.submission.task_id)
        self._failures[failure.submission.task_id] = failure
        self._bytes += failure.size
        while len(self._failures) > MOST_FAILURES or (self._bytes > MOST_BYTES and len(self._failures) > 1):
            self._forget(next(iter(self._failures)))

    def _forget(self, task_id: str) -> None:
        failure = self._failures.pop(task_id, None)
        if failure is not None:
            self._bytes -= failure.size

    # -- the last failures --------------------------------------------------------------------------------------

    def failures(self) -> list[dict[str, Any]]:
        """Return the failures that are kept as plain data, those together that are one error at one place of one task.

        The latest group is the first, and so is the latest failure of each.
        """
        groups: dict[tuple[str, str, str], dict[str, Any]] = {}
        for failure in reversed(self._failures.values()):
            task, error = failure.submission.task, failure.error
            # An error's words often name what it is about; without a place there is nothing else to tell it by.
            key = (task, error.kind, error.place or error.text)
            one = _described(failure)
            group = groups.setdefault(
                key,
                {
                    "task": task,
                    "error": error.kind,
                    "place": error.place,
                    "message": masked_text(error.text),
                    "traceback": masked_text(error.traceback),
                    "last": steady.wall(failure.time),
                    "failures": [],
                },
            )
            group["failures"].append(one)
        return [{"count": len(group["failures"]), **group} for group in groups.values()]

    def latest(self, most: int) -> list[dict[str, Any]]:
        """Return the latest groups of failures, without their tracebacks and what is in them."""
        left_out = ("traceback", "failures")
        return [
            {
                **{key: value for key, value in group.items() if key not in left_out},
                "args": group["failures"][0]["args"],
                "kwargs": group["failures"][0]["kwargs"],
            }
            for group in self.failures()[:most]
        ]

    def retry(self, ids: list[str], app: str) -> dict[str, list[str]]:
        """Have failed tasks run once more, under their ids, as they were called, with no retries used up.

        Arguments:
            ids: of the tasks.
            app: key of the application's definition by which they run now: code may have been mended meanwhile.

        Returns:
            the ids of those that were ``retried``; of those that are ``unknown``; of those whose large arguments are
            ``gone`` from Ray's object store.
        """
        core, journal, now = self._core, self._journal, steady.now()
        answer: dict[str, list[str]] = {"retried": [], "unknown": [], "gone": []}
        for task_id in ids:
            failure = self._failures.get(task_id)
            if failure is None:
                answer["unknown"].append(task_id)
                continue
            submission, lane = self._anew(failure.submission, app)
            if not all(core.large_values.refs(key) for key in submission.keys):
                answer["gone"].append(task_id)
                continue
            self._forget(task_id)
            core.store.forget(task_id)
            journal.append("", framing.pack(Ask(0, Forget(task_id))))
            core.definitions.add(lane)
            journal.append("", framing.pack(Changes(definitions=[lane], submissions=[submission])))
            core.take(message_of(submission), submission.keys, now)
            answer["retried"].append(task_id)
        return answer

    def _anew(self, failed: Submission, app: str) -> tuple[Submission, DefineLane]:
        """Return a submission without what has passed: its retries, its time to begin and to expire; and its lane."""
        sent = messages.opened(failed.payload)
        lane = self._core.scheduler.view.known_lanes[failed.lane]
        if sent.code is None:  # else the task travels by value, with the definition that it was called by
            lane = lane_of(lane.request, app, lane.env, lane.one_shot, lane.driver)
        headers = msgspec.structs.replace(sent.headers, retries=0, eta=None, expires=None)
        payload = encode(msgspec.structs.replace(sent, headers=headers))
        anew = msgspec.structs.replace(failed, lane=lane.key, payload=payload, eta=None)
        return anew, DefineLane(lane.key, dict(lane.request), lane.app, lane.env, lane.one_shot, lane.driver)


def _described(failure: Failure) -> dict[str, Any]:
    submission = failure.submission
    headers = messages.opened(submission.payload).headers
    return {
        "id": submission.task_id,
        "queue": submission.queue,
        "args": masked(headers.argsrepr),
        "kwargs": masked(headers.kwargsrepr),
        "retries": headers.retries or 0,
        "message": masked_text(failure.error.text),
        "time": steady.wall(failure.time),
        "seconds": failure.seconds,
        "node": failure.node,
    }
