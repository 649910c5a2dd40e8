"""What is held back while much waits: acknowledgements of submissions, and answers to who waits for the queues' end."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from raycelery.dispatcher.connection import Connection
    from raycelery.scheduler.view import View


class BackPressure:
    """Makes producers wait: past a window of frames that are not acknowledged their calls block.

    Arguments:
        view: tells how many messages are not finished.
        max_pending: so many may be.
        max_pending_bytes: so many bytes of what they carry.
    """

    def __init__(self, view: View, max_pending: float, max_pending_bytes: float) -> None:
        self._view = view
        self._max_pending = max_pending
        self._max_pending_bytes = max_pending_bytes
        #: Frames of submissions that are not acknowledged before there is room in the queues.
        self._frames: list[tuple[Connection, int]] = []
        #: Questions that are answered when nothing is left to be done.
        self._drainers: list[tuple[Connection, int]] = []

    def acknowledge(self, conn: Connection, frame_id: int) -> None:
        """Acknowledge a frame of submissions, now or when there is room; executors do not wait."""
        if conn.executor_id is None and self._full():
            self._frames.append((conn, frame_id))
        else:
            conn.acknowledge(frame_id)

    def _full(self) -> bool:
        return self._view.pending > self._max_pending or self._view.pending_bytes > self._max_pending_bytes

    def await_end(self, conn: Connection, question_id: int) -> None:
        """Answer a question once nothing is left to be done."""
        if self._view.pending:
            self._drainers.append((conn, question_id))
        else:
            conn.answer(question_id, None)

    def settle(self) -> None:
        """See what need not be held back any longer; to be called in each turn."""
        while self._frames and not self._full():
            conn, frame_id = self._frames.pop(0)
            conn.acknowledge(frame_id)
        if not self._view.pending and self._drainers:
            for conn, question_id in self._drainers:
                conn.answer(question_id, None)
            self._drainers.clear()

    def gone(self, conn: Connection) -> None:
        """Forget a process that is gone."""
        self._frames = [one for one in self._frames if one[0] is not conn]
        self._drainers = [one for one in self._drainers if one[0] is not conn]
