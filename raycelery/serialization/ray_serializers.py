"""Ray's own serializers for pyarrow and pydantic: registered when an application needs them, and not before.

To register them, Ray imports pyarrow, numpy and pydantic where they are installed, 18 MB in each process, as soon as it
decodes an actor's first argument. See ``ray.util.serialization_addons``.
"""

from __future__ import annotations

import sys
from typing import Any

from ray._private.worker import WORKER_MODE, global_worker
from ray.util import serialization_addons

_register = serialization_addons.apply

#: Whether this process goes without them so far.
postponed = False


def _nothing(context: Any) -> None:
    """Register nothing."""


def postpone() -> None:
    """Have Ray register none in this process for now."""
    global postponed
    serialization_addons.apply = _nothing
    postponed = True


def postpone_in_actors() -> None:
    """Have Ray register none for now if this is a process of an actor, and not one that starts actors."""
    if getattr(global_worker, "mode", None) == WORKER_MODE:
        postpone()


def restore() -> None:
    """Have Ray register them when it is asked next to encode or decode something, which may be the application's."""
    if postponed:
        serialization_addons.apply = _register
        # Ray makes another one when it needs one.
        global_worker.serialization_context_map.clear()


def complete() -> None:
    """Register them now if the application has imported what they are for."""
    global postponed
    if serialization_addons.apply is _register and not sys.modules.keys().isdisjoint(("pyarrow", "pydantic")):
        global_worker.get_serialization_context()
        postponed = False
