"""Which tasks a canvas runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any


def tasks_in(call: Mapping[str, Any]) -> Counter[str]:
    """Return the number of runs of each task that a call causes; for a chord those of header and body."""
    kind, kwargs = call["task"], call.get("kwargs") or {}
    if kind == "celery.chord":
        inner = [*members(kwargs.get("header")), kwargs.get("body")]
    elif kind in ("celery.group", "celery.chain"):
        inner = members(kwargs.get("tasks"))
    else:
        return Counter([kind])
    found: Counter[str] = Counter()
    for one in inner:
        if one is not None:
            found += tasks_in(one)
    return found


def members(header: Any) -> list[Any]:
    """Return the signatures of a group, or of a list of them; none for None."""
    if isinstance(header, Mapping):  # a group
        return members(header["kwargs"].get("tasks"))
    return list(header or ())
