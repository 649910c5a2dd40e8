"""When the scheduler is asked what to do, and when what was said leaves: once for all that has come in together.

What has happened is in the journal before anybody hears of it: frames are acknowledged, and messages assigned, only
after the turn in which they were written down.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from raycelery.dispatcher import steady
from raycelery.dispatcher.group_sync import Leaving
from raycelery.errors import JournalInUse

if TYPE_CHECKING:
    from raycelery.dispatcher.group_sync import GroupSync
    from raycelery.dispatcher.journal import Journal

logger = logging.getLogger(__name__)

#: Seconds until a journal that could not be written is tried again.
UNWRITTEN_SECONDS = 0.5


class Sender(Leaving, Protocol):
    """What has frames to send."""

    def write_out(self) -> None:
        """Hand them to the operating system."""


class Turns:
    """The dispatcher's turns: what the scheduler decides is done, the journal is written, and frames leave.

    Arguments:
        journal: that is written before anything leaves.
        carry_out: does what the scheduler decides, and returns when the next turn is to be taken even if nothing
            happens, in seconds since the epoch.
    """

    def __init__(self, journal: Journal, carry_out: Callable[[], float | None]) -> None:
        self._journal = journal
        self._carry_out = carry_out
        #: Told of a disk that is full; returns whether there is room all the same.
        self.on_full: Callable[[], bool] = lambda: False
        #: Has frames leave once what they tell of is on the disk; None: once it is in the file.
        self.sync: GroupSync | None = None
        self._loop: asyncio.AbstractEventLoop
        #: Whether a turn, and whether sending, is about to come.
        self._turn_armed = self._send_armed = False
        #: With frames that leave after the journal was written; whether it could not be written the last time.
        self._senders: dict[Sender, None] = {}
        self._unwritten = False
        #: For the next turn that the scheduler asks for, and when that is, in seconds since the epoch.
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0

    def start(self) -> None:
        """Begin; to be called in the event loop, before any of the others."""
        self._loop = asyncio.get_running_loop()

    def soon(self) -> None:
        """Have a turn taken once what has come in is dealt with."""
        if not self._turn_armed:
            self._turn_armed = True
            self._loop.call_soon(self._turn)

    def send_soon(self, sender: Sender) -> None:
        """Have frames leave once all that they tell of is in the journal: with the end of this turn."""
        self._senders[sender] = None
        if not self._send_armed:
            self._send_armed = True
            self._loop.call_soon(self._send)

    def send_in(self, seconds: float, sender: Sender) -> asyncio.TimerHandle:
        """Have frames leave a little later."""
        return self._loop.call_later(seconds, self.send_soon, sender)

    def _turn(self) -> None:
        # All that is to be sent leaves at its end.
        self._turn_armed, self._send_armed = False, True
        try:
            self._set_timer(self._carry_out())
        finally:
            self._send()

    def _set_timer(self, at: float | None) -> None:
        """Have a turn taken at a time, in seconds since the epoch, and not before without need."""
        if self._timer is not None:
            if at is not None and self._timer_at <= at:
                return  # a turn too early costs less than a new timer for each
            self._timer.cancel()
            self._timer = None
        if at is not None:
            self._timer, self._timer_at = self._loop.call_later(max(0.0, at - steady.now()), self._on_timer), at

    def _on_timer(self) -> None:
        self._timer = None
        self._turn()

    def _send(self) -> None:
        self._send_armed = self._unwritten
        if self._turn_armed:
            return  # the turn that follows at once sends
        try:
            self._write()
        except JournalInUse as exc:
            logger.critical("%s: this one ends, and acknowledges nothing more", exc)
            logging.shutdown()
            os._exit(1)
        except OSError as exc:
            if not self._unwritten:
                self._loop.call_later(UNWRITTEN_SECONDS, self._send_again)
                logger.error(
                    "the journal %s cannot be written (%s): nothing is acknowledged, assigned or answered until it can",
                    self._journal.path, exc,
                )  # fmt: skip
            self._unwritten = self._send_armed = True
            return
        if self._unwritten:
            logger.warning("the journal %s can be written again", self._journal.path)
        self._unwritten = self._send_armed = False
        senders, self._senders = self._senders, {}
        if self.sync is not None:
            self.sync.send(senders)
            return
        for sender in senders:
            sender.write_out()

    def _write(self) -> None:
        try:
            self._journal.flush()
        except OSError as exc:
            if exc.errno not in (errno.ENOSPC, errno.EDQUOT) or not self.on_full():
                raise
            self._journal.flush()

    def _send_again(self) -> None:
        if self._unwritten:
            self._loop.call_later(UNWRITTEN_SECONDS, self._send_again)
            self._send()
