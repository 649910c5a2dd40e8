"""``raycelery-migrate actors``: converts tasks to plain Ray; those that cannot be converted stay on raycelery.

Each file is read twice. First ``analysis`` collects facts about the project's tasks from every file. Then ``plan``
decides which tasks are converted, and ``rules`` rewrite each file accordingly.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from ..engine import each, guarded
from ..model import Outcome
from ..rewriting import set_text
from ..shim import requirements
from ..workspace import Source, Workspace
from . import helper
from .converting import convert
from .gathering import Shared, collect, gather, touched
from .plan import decide

_LEFT = re.compile(r"^\s*(from\s+(ray)?celery\b|import\s+(.*[,\s])?(ray)?celery\b)", re.M)


def migrate(
    workspace: Workspace,
    limit: int | None,
    closed: bool,
    jobs: int,
    progress: Callable[[int, int], None] | None,
) -> list[Outcome]:
    """Rewrite the files of a workspace in memory.

    Returns:
        one outcome per file, followed by those of the helper modules to be created.

    Arguments:
        limit: most unfinished submissions at once, in the written code; None for the helper's default.
        closed: assume that nothing outside these files submits tasks.
        jobs: most processes to use.
        progress: called with the number of finished files and the number of all files.

    Raises:
        MigrationError: the project has a module of the helper's name.
    """
    shared = Shared.of(workspace, closed)
    plan = shared.plan
    sources = [one for one in workspace.sources if one.python is not None and shared.concerns(one)]
    gathered = list(each(gather, sources, shared, jobs, progress))
    decide(plan, collect(workspace, sources, gathered, plan))
    plan.touched = touched(sources, gathered, plan)
    pairs = list(each(convert, workspace.targets, shared, jobs, progress))
    outcomes = [outcome for outcome, _ in pairs]
    both = list(zip(outcomes, workspace.targets, strict=True))
    if any(outcome.error is not None and source.readable for outcome, source in both):
        return [_taken_back(outcome) for outcome in outcomes]
    left = any(_LEFT.search(_text(outcome, source)) for outcome, source in both if source.python)
    for number, source in enumerate(workspace.targets):
        if source.python is None and source.error is None and source.readable:
            outcomes[number] = _dependency(source, "raycelery" if left else "ray")
    return outcomes + helper.outcomes(workspace, {key for _, key in pairs if key is not None}, limit)


def _taken_back(outcome: Outcome) -> Outcome:
    """Reset the outcome of a file that stays unchanged because another file could not be changed."""
    outcome.after, outcome.diff = None, []
    if outcome.error is not None:
        outcome.error += "; nothing else is changed either, so that all files go on fitting together"
    return outcome


def _text(outcome: Outcome, source: Source) -> str:
    if outcome.after is None or source.notebook is not None:
        return source.python or ""
    return outcome.diff[0][2]


def _dependency(source: Source, to: str) -> Outcome:
    def work(outcome: Outcome) -> None:
        after, findings = requirements.swap(source, to)
        outcome.findings += findings
        if source.text is not None and after != source.text.content:
            set_text(source, after, outcome)

    return guarded(source, work)
