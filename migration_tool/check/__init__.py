"""``raycelery-migrate check``: reports every use of Celery, and what becomes of it on raycelery."""

from __future__ import annotations

from dataclasses import dataclass

from ..engine import guarded
from ..model import Finding, Outcome, Verdict
from ..project.project import Project
from ..rewriting import view_of
from ..shim import requirements
from ..workspace import CELERY, Source
from . import code, commands, settings


@dataclass(frozen=True)
class Options:
    """What ``check`` knows of the whole project.

    Arguments:
        project: resolves names.
        relevant: keys of the modules that may use Celery.
        configurations: modules that hold settings, with the prefix of their names ("" for none).
    """

    project: Project
    relevant: frozenset[str]
    configurations: dict[str, str]


def examine(source: Source, options: Options) -> Outcome:
    """Return the outcome of one file, with a finding for each use of Celery."""

    def work(outcome: Outcome) -> None:
        if not source.readable or source.text is None:
            return  # nothing is said of Celery in it
        if source.python is not None:
            namespace = options.configurations.get(source.key)
            if source.key in options.relevant or namespace is not None:
                view = view_of(source, options.project)
                outcome.findings += code.uses(view, source)
                outcome.findings += settings.uses(view, source, namespace)
                outcome.findings.sort()
            return
        if not CELERY.search(source.text.content):
            return
        if source.kind in commands.KINDS:
            outcome.findings += commands.find(source, source.text.content)
        after, left = requirements.swap(source)
        outcome.findings += [*left, *requirements.installs(source)]
        if after != source.text.content:
            pairs = zip(source.text.content.split("\n"), after.split("\n"), strict=False)
            line = next((number for number, (old, new) in enumerate(pairs, 1) if old != new), 1)
            outcome.findings.append(
                Finding(str(source.path), line, 1, "dependency", "celery", Verdict.WORKS, "swapped by shim")
            )
        outcome.findings.sort()

    return guarded(source, work)
