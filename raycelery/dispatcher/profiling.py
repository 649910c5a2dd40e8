"""Has executors measure what they run, for whoever asks, and keeps the samples for a while."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from raycelery.protocol.frames import RunMeasured, SendSamples
from raycelery.protocol.questions import Samples

if TYPE_CHECKING:
    from collections.abc import Mapping

    from raycelery.dispatcher.connection import Connection

#: Samples that are kept; the oldest go first.
_MOST = 100_000


class Profiling:
    """Profiling in one dispatcher's executors.

    Arguments:
        executors: the connections of those that there are.
    """

    def __init__(self, executors: Mapping[int, Connection]) -> None:
        self._executors = executors
        self._samples: deque[bytes] = deque(maxlen=_MOST)
        self._count = 0
        self._end: asyncio.TimerHandle | None = None

    @property
    def on(self) -> bool:
        """Whether executors measure."""
        return self._end is not None

    def renew(self, seconds: float) -> None:
        """Have executors measure for so long, unless that is asked for again; 0: no longer."""
        was = self.on
        if self._end is not None:
            self._end.cancel()
            self._end = None
        if seconds > 0:
            self._end = asyncio.get_running_loop().call_later(seconds, self.renew, 0.0)
        if self.on != was:
            for connection in self._executors.values():
                self.greet(connection)

    def greet(self, connection: Connection) -> None:
        """Tell an executor whether to measure."""
        connection.send(SendSamples(self.on))

    def take(self, measured: RunMeasured) -> None:
        """Keep what an executor has measured."""
        self._samples.append(measured.sample)
        self._count += 1

    def since(self, after: int) -> Samples:
        """Return how many samples there have been, and those that are kept of them but the first ``after``."""
        new = min(max(0, self._count - after), len(self._samples))
        return Samples(self._count, list(self._samples)[len(self._samples) - new :])
