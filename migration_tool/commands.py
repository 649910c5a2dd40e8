"""The three commands: each returns the outcomes of a workspace's files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from . import actors as actors_package
from . import check as check_package
from . import shim as shim_package
from .check.settings import configurations
from .engine import each
from .model import Outcome
from .shim.requests import read_requests
from .workspace import Source, Workspace, add

Progress = Callable[[int, int], None] | None


def from_stdin(raw: bytes) -> Workspace:
    """Return a workspace of one file, read from standard input.

    Arguments:
        raw: its bytes; Python, or a notebook if they are JSON with cells.
    """
    kind = "notebook" if raw.lstrip().startswith(b"{") and b'"cells"' in raw else "python"
    workspace = Workspace(Path())
    source = Source(Path("<stdin>"), kind, True, raw)
    add(source, "stdin.py", workspace.project)
    source.error = source.error or source.unread
    workspace.sources.append(source)
    return workspace


def check(workspace: Workspace, jobs: int = 1, progress: Progress = None) -> list[Outcome]:
    """Report every file's uses of Celery.

    Arguments:
        jobs: most processes to use.
        progress: called with the number of finished files and the number of all files."""
    texts = {one.key: one.python for one in workspace.sources if one.python is not None}
    options = check_package.Options(
        workspace.project, frozenset(workspace.relevant()), configurations(workspace.project, texts)
    )
    return list(each(check_package.examine, workspace.targets, options, jobs, progress))


def shim(workspace: Workspace, annotate: Path | None = None, jobs: int = 1, progress: Progress = None) -> list[Outcome]:
    """Swap every file's imports.

    Arguments:
        annotate: a result of ``raycelery rightsize``, whose requests are written to the tasks.

    Raises:
        MigrationError: ``annotate`` cannot be read.
    """
    requests = read_requests(annotate) if annotate is not None else {}
    options = shim_package.Options(workspace.project, requests)
    return list(each(shim_package.migrate, workspace.targets, options, jobs, progress))


def actors(
    workspace: Workspace, limit: int | None = None, closed: bool = False, jobs: int = 1, progress: Progress = None
) -> list[Outcome]:
    """Convert tasks to plain Ray, where that is possible.

    Arguments:
        limit: most unfinished submissions at once, in the written code; None for the default.
        closed: assume that nothing outside these files submits tasks.
    """
    return actors_package.migrate(workspace, limit, closed, jobs, progress)
