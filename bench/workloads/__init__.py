"""The workloads. Each is one module, imported only where it is run or listed."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..work import Workload

#: Names of the modules, in the order in which they are listed.
NAMES = (
    "noop",
    "roundtrip",
    "zones",
    "warehouse",
    "mixed",
    "frame",
    "frame20",
    "chord",
    "burst",
    "headline",
    "recovery",
    "own",
)


def load(name: str) -> type[Workload]:
    """Return the class of a workload."""
    found: type[Workload] = importlib.import_module(f"{__name__}.{name}").Workload
    return found
