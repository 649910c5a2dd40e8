"""What the parts of the scheduler share: the time, what has changed, what was decided."""

from __future__ import annotations

from collections import deque
from typing import Any

from raycelery.scheduler.gates import Gate
from raycelery.scheduler.instructions import Instruction
from raycelery.scheduler.model import Policy

#: Events and instructions that are remembered.
_LOG = 2000


class Turn:
    """The time, what is to be looked at before the next instructions are taken, and the instructions.

    Arguments:
        policy: what may be tuned.
    """

    __slots__ = ("changed", "growing", "hungry", "instructions", "log", "now", "policy", "roomy", "seeking")

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        #: Of the event that is handled, in seconds since the epoch.
        self.now = 0.0
        self.instructions: list[Instruction] = []
        #: Time, kind and subject of the latest starts, assignments and ends.
        self.log: deque[tuple[Any, ...]] = deque(maxlen=_LOG)
        #: Lanes, by key, where messages or executors changed; lanes that may want executors; limits and rates that
        #: have room for what is parked there.
        self.changed: dict[str, None] = {}
        self.hungry: dict[str, None] = {}
        self.roomy: dict[Gate, None] = {}
        #: Whether an executor has become idle, or a lane starves, since it was looked at who must make room.
        self.seeking = False
        #: Whether it is to be seen which nodes the autoscaler is asked for.
        self.growing = False

    def note(self, kind: str, *about: Any) -> None:
        """Write to the log."""
        self.log.append((self.now, kind, *about))

    def take(self) -> list[Instruction]:
        """Return the instructions so far, and begin anew."""
        taken, self.instructions = self.instructions, []
        return taken
