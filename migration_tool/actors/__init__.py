"""``raycelery-migrate actors``: plain Ray, as far as that goes; what stays, stays on raycelery and says why.

The files are gone through twice. ``analysis`` finds what each of them tells about the project's tasks, ``plan`` decides
which tasks are converted, and ``rules`` write what has been decided.
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
    """Rewrite a workspace; its files' outcomes, and those of the helper modules that are to be created.

    Arguments:
        limit: most submissions in flight in what is written; None for the helper's default.
        closed: nothing outside these files submits tasks.
        jobs: processes at most.
        progress: told how many files are done, of how many.

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
        if source.python is None and source.error is None:
            outcomes[number] = _dependency(source, "raycelery" if left else "ray")
    return outcomes + helper.outcomes(workspace, {key for _, key in pairs if key is not None}, limit)


def _taken_back(outcome: Outcome) -> Outcome:
    """The outcome of a file that stays as it is because another could not be changed."""
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
