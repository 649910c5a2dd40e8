"""``raycelery-migrate shim``: swaps imports of Celery, and the dependency on it, for raycelery's."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..engine import guarded
from ..model import Outcome
from ..project.project import Project
from ..rewriting import rewrite, set_text, view_of
from ..rule import TextRule, apply
from ..workspace import CELERY, Source
from .file import SHIM, File


@dataclass(frozen=True)
class Options:
    """What ``shim`` knows of the whole project.

    Arguments:
        project: resolves names.
        requests: resource requests by task name: ``{"num_cpus": 2.0, "memory": 1000000}``; memory in bytes.
    """

    project: Project
    requests: dict[str, dict[str, float]] = field(default_factory=dict)


def migrate(source: Source, options: Options) -> Outcome:
    """Swap one file's imports, or its dependencies."""

    def work(outcome: Outcome) -> None:
        if not source.readable:
            return  # nothing is said of Celery in it
        if source.python is None:
            _rewrite_text(source, outcome)
        elif CELERY.search(source.python) or options.requests:
            view = view_of(source, options.project)
            file = File(view=view, source=source, findings=outcome.findings, requests=options.requests)
            apply(SHIM.rules.values(), file)
            rewrite(source, view.pending, outcome)

    return guarded(source, work)


def _rewrite_text(source: Source, outcome: Outcome) -> None:
    assert source.text is not None
    for rule in SHIM.rules.values():
        if isinstance(rule, TextRule) and source.kind in rule.kinds:
            after, findings = rule.rewrite(source)
            outcome.findings += findings
            if after != source.text.content:
                set_text(source, after, outcome)
