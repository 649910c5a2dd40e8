"""One run of an application, whatever runs it."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

#: Seconds between looks while a run is waited for: Ray tells of changes only when it is asked.
LOOK_SECONDS = 0.5


class RunState(str, Enum):
    """Where a run is."""

    #: Its cluster or environment is being made ready.
    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        """Whether it stays as it is."""
        return self in (RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED)

    @property
    def exit_code(self) -> int:
        """What a command line returns for it: 0, 1 where the application failed, 130 where it was cancelled."""
        return {RunState.SUCCEEDED: 0, RunState.CANCELLED: 130}.get(self, 1)


@dataclass(frozen=True)
class RunStatus:
    """What is known of a run.

    Arguments:
        state: where it is.
        message: Ray's words, or why it does not start; "" for none.
        started, ended: in seconds since the epoch; None: not yet.
        timed_out: whether it has failed because it took too long.
    """

    state: RunState
    message: str = ""
    started: float | None = None
    ended: float | None = None
    timed_out: bool = False

    @property
    def exit_code(self) -> int:
        """What a command line returns for it: that of the state, or 4 where it took too long."""
        return 4 if self.timed_out else self.state.exit_code


class Run(ABC):
    """A run of an application.

    Attributes:
        name: by which it is found again.
        on_change: called with what is known of it, while it is waited for or followed, whenever that is something else.
            Runs of which there is nothing to tell until they run never call it.
        keeps_time: whether whatever runs it ends it after the specification's ``timeout``.
    """

    name: str
    keeps_time = False
    on_change: Callable[[RunStatus], None] | None = None

    @abstractmethod
    def status(self) -> RunStatus:
        """Return what is known of it.

        Raises:
            NotFound: there is no such run any more.
            LaunchError: the cluster is out of reach.
        """

    @abstractmethod
    def logs(self, follow: bool = False) -> Iterator[str]:
        """Yield what it has printed, in pieces of any size; nothing is lost or told twice.

        Arguments:
            follow: go on until it has ended.
        """

    @abstractmethod
    def cancel(self) -> None:
        """End it: the program gets SIGTERM, and is killed if it goes on. One that has ended stays as it is."""

    @abstractmethod
    def delete(self) -> None:
        """Remove what is kept of it; it is cancelled first if it runs."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Return plain data from which :func:`raycelery.launch.attach` finds it, also in another process."""

    def hand_over(self) -> None:  # noqa: B027
        """Wait until the run needs this process no more, where it does: it goes on when the process ends."""

    def release(self) -> None:  # noqa: B027
        """Give back what only the reading of the logs of a run that has ended still needs."""

    def wait(self, timeout: float | None = None) -> RunStatus:
        """Wait until it has ended, and return how.

        Arguments:
            timeout: seconds; None: as long as it takes.

        Raises:
            TimeoutError: it has not ended by then, and goes on.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while not (status := self.status()).state.ended:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                raise TimeoutError(f"the run {self.name} has not ended in {timeout:g} s; it is {status.state.value}")
            time.sleep(LOOK_SECONDS if left is None else min(LOOK_SECONDS, left))
        return status
