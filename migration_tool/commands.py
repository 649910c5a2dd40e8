"""The three commands, from a workspace to the outcomes of its files."""

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
    """A workspace of one Python file that has no name.

    Arguments:
        raw: what standard input gave; a notebook if it is JSON.
    """
    kind = "notebook" if raw.lstrip().startswith(b"{") and b'"cells"' in raw else "python"
    workspace = Workspace(Path())
    source = Source(Path("<stdin>"), kind, True, raw)
    add(source, "stdin.py", workspace.project)
    workspace.sources.append(source)
    return workspace


def check(workspace: Workspace, jobs: int = 1, progress: Progress = None) -> list[Outcome]:
    """Every file with what it uses of Celery."""
    texts = {one.key: one.python for one in workspace.sources if one.python is not None}
    options = check_package.Options(
        workspace.project, frozenset(workspace.relevant()), configurations(workspace.project, texts)
    )
    return list(each(check_package.examine, workspace.targets, options, jobs, progress))


def shim(workspace: Workspace, annotate: Path | None = None, jobs: int = 1, progress: Progress = None) -> list[Outcome]:
    """Every file with its imports swapped.

    Raises:
        MigrationError: ``annotate`` cannot be read.
    """
    requests = read_requests(annotate) if annotate is not None else {}
    options = shim_package.Options(workspace.project, requests)
    return list(each(shim_package.migrate, workspace.targets, options, jobs, progress))


def actors(
    workspace: Workspace, limit: int | None = None, closed: bool = False, jobs: int = 1, progress: Progress = None
) -> list[Outcome]:
    """Every file rewritten to plain Ray as far as that goes.

    Arguments:
        limit: most submissions in flight in what is written; None for the default.
        closed: nothing outside these files submits tasks.
    """
    return actors_package.migrate(workspace, limit, closed, jobs, progress)
