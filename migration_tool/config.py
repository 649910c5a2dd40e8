"""Reads ``[tool.raycelery-migrate]`` of ``pyproject.toml``."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import MigrationError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_TYPES: dict[str, type] = {"exclude": list, "jobs": int, "annotate": str, "limit": int, "closed": bool}


@dataclass(frozen=True)
class Config:
    """Defaults of the command's options.

    Arguments:
        exclude: patterns as in ``.gitignore``.
        jobs: most processes; None for one per CPU.
        annotate: a ``rightsize`` result for ``shim``.
        limit: most unfinished submissions at once, in the code that ``actors`` writes; None for the default.
        closed: for ``actors``: nothing outside the given files submits tasks.
    """

    exclude: tuple[str, ...] = ()
    jobs: int | None = None
    annotate: Path | None = None
    limit: int | None = None
    closed: bool = False


def read_config(paths: Sequence[Path]) -> Config:
    """Return the table of the nearest ``pyproject.toml`` at or above the first path that has one.

    Raises:
        MigrationError: an entry is unknown or of the wrong type.
    """
    start = paths[0].resolve() if paths else Path.cwd()
    for folder in (start, *start.parents) if start.is_dir() else start.parents:
        path = folder / "pyproject.toml"
        if not path.is_file():
            continue
        try:
            table = tomllib.loads(path.read_text(encoding="utf-8")).get("tool", {}).get("raycelery-migrate")
        except (OSError, ValueError):
            continue  # a template, or malformed: reported when its dependencies are swapped
        if table is not None:
            return _checked(table, path)
    return Config()


def _checked(table: dict[str, Any], path: Path) -> Config:
    for key, value in table.items():
        if key not in _TYPES:
            close = difflib.get_close_matches(key, _TYPES, 1)
            hint = f"; did you mean {close[0]!r}?" if close else f"; there are {', '.join(_TYPES)}"
            raise MigrationError(f"{path}: [tool.raycelery-migrate] has no entry {key!r}{hint}")
        if type(value) is not _TYPES[key]:
            raise MigrationError(f"{path}: {key} = {value!r} must be a {_TYPES[key].__name__}")
    exclude = table.get("exclude", [])
    if not all(isinstance(one, str) for one in exclude):
        raise MigrationError(f"{path}: exclude must be a list of patterns")
    jobs, limit = table.get("jobs"), table.get("limit")
    for name, number in (("jobs", jobs), ("limit", limit)):
        if number is not None and number < 1:
            raise MigrationError(f"{path}: {name} = {number} must be 1 or more")
    annotate = path.parent / table["annotate"] if "annotate" in table else None
    return Config(tuple(exclude), jobs, annotate, limit, table.get("closed", False))
