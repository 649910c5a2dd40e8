"""Writes the helper module ``ray_tasks.py`` into projects, from the one in ``templates``."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from ..errors import MigrationError
from ..model import Outcome
from ..workspace import Workspace, as_named
from .plan import HELPER

_TEMPLATE = Path(__file__).parents[1] / "templates" / f"{HELPER}.py"
#: A line of the template by which an existing helper module is recognised.
_WRITTEN = "Written by raycelery-migrate"


def outcomes(workspace: Workspace, keys: set[str], limit: int | None) -> list[Outcome]:
    """Return an outcome for each helper module that is needed and does not exist yet.

    Arguments:
        keys: keys of the helper modules that files import.
        limit: most unfinished submissions at once; None for the template's default.

    Raises:
        MigrationError: the project has another module of that name.
    """
    template = _TEMPLATE.read_text(encoding="utf-8")
    if limit is not None:
        template = re.sub(r"(?m)^LIMIT = \d+$", f"LIMIT = {limit}", template)
    created = []
    for key in sorted(keys):
        path = as_named(workspace.top / _path(key))
        if key in workspace.project.modules:
            existing = next(one for one in workspace.sources if one.key == key)
            if _WRITTEN not in (existing.python or ""):
                raise MigrationError(f"{path}: the project has a module of this name; rename it, then run this again")
            continue
        created.append(Outcome(path, b"", template.encode(), diff=[(str(path), "", template)], creates=True))
    return created


def _path(key: str) -> PurePosixPath:
    """Return a module's path below the project's top folder."""
    return PurePosixPath(*key.split(".")).with_suffix(".py")
