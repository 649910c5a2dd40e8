"""Rewrites one file as the plan says: the second pass over the files."""

from __future__ import annotations

from .. import rule
from ..engine import guarded
from ..model import Outcome
from ..rewriting import rewrite, view_of
from ..shim.file import SHIM
from ..shim.file import File as ShimFile
from ..workspace import Source
from . import imports
from .analysis.uses import find
from .file import ACTORS, File
from .gathering import Shared

#: Rules of ``shim`` that are applied to what stays on raycelery.
_SWAPS = ("imports", "strings")


def convert(source: Source, shared: Shared) -> tuple[Outcome, str | None]:
    """Rewrite a file; return its outcome, and the key of the helper module that the new code imports, if any."""
    helpers: list[str] = []

    def work(outcome: Outcome) -> None:
        if source.python is None or not shared.concerns(source):
            return
        plan, view = shared.plan, view_of(source, shared.plan.project)
        # Files without converted tasks need no scope analysis, which takes most of the time.
        uses = find(view, str(source.path)) if view.key in plan.touched else []
        file = File(
            view=view,
            source=source,
            findings=outcome.findings,
            plan=plan,
            uses=[one for one in uses if plan.converts(one.task)],
            namespace=shared.configurations.get(source.key),
        )
        swaps = SHIM.rules
        rule.apply([swaps[name] for name in _SWAPS], ShimFile(view=view, source=source, findings=outcome.findings))
        rule.apply(ACTORS.rules.values(), file)
        helper = _add_imports(file)
        if helper is not None:
            helpers.append(helper)
        rewrite(source, view.pending, outcome)

    outcome = guarded(source, work)
    return outcome, helpers[0] if helpers and outcome.after is not None else None


def _add_imports(file: File) -> str | None:
    """Update the import statements; return the key of the helper module that is imported, if any."""
    view, plan = file.view, file.plan
    changed, gone = imports.edits(view, plan, file.uses, list(view.pending), file.needed & {"Task"})
    for edit in changed:
        view.change(edit)
    helper = None
    if file.needed - {"ray", "logging"}:
        helper = plan.helper_for(file.uses[0].task[0] if file.uses else view.key)
    for edit in imports.added(view, plan, file.needed, helper, gone):
        view.change(edit)
    if helper is None:
        return None
    return next(key for key in plan.helpers.values() if key == helper or key.endswith(f".{helper}"))
