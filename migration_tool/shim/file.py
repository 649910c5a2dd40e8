"""The registry of the rules of ``shim``, and the file that they are given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .. import rule

SHIM = rule.Registry("shim", f"{__package__}.rules")


@dataclass(kw_only=True)
class File(rule.File):
    """One Python file or notebook.

    Arguments:
        requests: resource requests by task name: ``{"num_cpus": 2.0, "memory": 1000000}``; memory in bytes.
    """

    requests: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
