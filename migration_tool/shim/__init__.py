"""``raycelery-migrate shim``: the same code, importing raycelery."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..engine import guarded
from ..model import Outcome
from ..project.project import Project
from ..rewriting import rewrite, set_text, view_of
from ..workspace import CELERY, Source
from . import annotate, dependencies, imports, strings


@dataclass(frozen=True)
class Options:
    """What ``shim`` is asked for.

    Arguments:
        project: what names mean.
        requests: resource requests by task name: ``{"num_cpus": 2.0, "memory": 1000000}``.
    """

    project: Project
    requests: dict[str, dict[str, float]] = field(default_factory=dict)


def migrate(source: Source, options: Options) -> Outcome:
    """Swap one file's imports, or its dependencies."""

    def work(outcome: Outcome) -> None:
        assert source.text is not None
        if source.python is None:
            after, findings = dependencies.swap(source)
            outcome.findings += findings
            if after != source.text.content:
                set_text(source, after, outcome)
            return
        if not (CELERY.search(source.python) or options.requests):
            return
        view = view_of(source, options.project)
        edits = imports.edits(view, source, outcome.findings) + strings.edits(view)
        if source.path.name == "setup.py":
            edits += dependencies.in_setup(view, source, outcome.findings)
        if options.requests:
            edits += annotate.edits(view, source, options.requests, outcome.findings)
        rewrite(source, edits, outcome)

    return guarded(source, work)
