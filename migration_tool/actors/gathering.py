"""Collects facts about the project's tasks from each file: the first pass over the files."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import libcst as cst

from ..check import catalogue, settings
from ..engine import failure
from ..errors import UnreadableFile
from ..model import Finding
from ..project.project import Project
from ..project.values import Value
from ..project.view import View
from ..rewriting import view_of
from ..workspace import Source, Workspace
from .analysis import uses as task_uses
from .analysis.definitions import Definition, define
from .analysis.launches import Launch, launch
from .plan import Plan, names_of

Key = task_uses.Key


@dataclass
class Gathered:
    """What one file contributes. Plain data, so that it can be sent between processes.

    Arguments:
        facts: about tasks of the whole project.
        definitions: of the file's own tasks.
        launches: its tasks that are one call of one method of a new object.
        settings_on: Celery's settings that it sets to True.
        used: tasks that it uses.
        parsed: False if LibCST could not parse it.
        error: what went wrong otherwise.
    """

    facts: task_uses.Facts
    definitions: dict[Key, Definition] = field(default_factory=dict)
    launches: dict[Key, Launch] = field(default_factory=dict)
    settings_on: set[str] = field(default_factory=set)
    used: set[Key] = field(default_factory=set)
    parsed: bool = True
    error: str | None = None


@dataclass
class Shared:
    """What is known of the whole project; sent to every process.

    Arguments:
        plan: which tasks are converted; empty during the first pass.
        names: tasks by every name that Celery may know them by.
        configurations: modules that hold Celery's settings, with the prefix of their names ("" for none).
        task_classes: classes that come from Celery's Task.
    """

    plan: Plan
    names: dict[str, Key]
    configurations: dict[str, str]
    task_classes: set[Key]

    @classmethod
    def of(cls, workspace: Workspace, closed: bool) -> Shared:
        """Analyse a workspace.

        Arguments:
            closed: assume that nothing outside the workspace submits tasks."""
        project = workspace.project
        texts = {one.key: one.python for one in workspace.sources if one.python is not None}
        return cls(
            Plan(project, relevant=frozenset(workspace.relevant()), closed=closed),
            names_of(project, [task.key for task in project.tasks()]),
            settings.configurations(project, texts),
            {key for key in _classes(project) if "celery.Task" in project.bases(Value("class", key[1], key[0]))},
        )

    def concerns(self, source: Source) -> bool:
        """Return whether a file may define or use tasks, or hold Celery's settings."""
        plan = self.plan
        if source.key in plan.relevant or source.key in self.configurations:
            return True
        if any(owner[0] == source.key for owner in plan.actor_classes):
            return True
        if any(name in (source.python or "") for name in self.names):
            return True
        bindings = plan.project.modules[source.key].bindings.values()
        found = [plan.project.evaluate(one, source.key) for one in bindings if one is not None and one[0] == "import"]
        return any(one is not None and one.kind == "task" for one in found)


def _classes(project: Project) -> list[Key]:
    return [(key, qualname) for key, module in project.modules.items() for qualname in module.classes]


def gather(source: Source, shared: Shared) -> Gathered:
    """Collect the facts of one file; none if it cannot be parsed or analysed."""
    try:
        return _gathered(source, shared)
    except UnreadableFile:
        return Gathered(task_uses.Facts(), parsed=False)
    except Exception as error:  # whatever is wrong with this tool or the file, the other files are processed
        return Gathered(task_uses.Facts(), parsed=False, error=failure(source, error))


def _gathered(source: Source, shared: Shared) -> Gathered:
    project = shared.plan.project
    view = view_of(source, project)
    uses = task_uses.find(view, str(source.path))
    found = Gathered(task_uses.facts(view, str(source.path), uses, shared.names, shared.task_classes))
    found.used = {use.task for use in uses}
    if source.notebook is not None:
        words = set(re.findall(r"\w+", source.notebook.magics))
        problem = f"a magic of a notebook may use it ({source.path}:1)"
        keys = dict.fromkeys(key for key in shared.names.values() if key[1].rpartition(".")[2] in words)
        found.facts.problems += [(key, problem) for key in keys]
    for node in view.nodes:
        if isinstance(node, cst.FunctionDef):
            task = project.task(view.key, view.qualname(node))
            if task is not None:
                found.definitions[task.key] = define(view, node, task)
                made = launch(view, node, task)
                if made is not None:
                    found.launches[task.key] = made
    namespace = shared.configurations.get(source.key)
    if "conf" in view.text or namespace is not None:
        for one in settings.uses(view, source, namespace):
            name = catalogue.setting_name(one.name, "CELERY")
            if name is not None and _is_on(view, one):
                found.settings_on.add(name)
    return found


def _is_on(view: View, one: Finding) -> bool:
    """Return whether a setting is assigned the constant True."""
    line = view.text.split("\n")[one.line - 1]
    return re.search(rf"{re.escape(one.name)}[\"']?\]?\s*[=:]\s*True\b", line) is not None


def collect(
    workspace: Workspace, sources: list[Source], gathered: list[Gathered], plan: Plan
) -> dict[str, task_uses.Facts]:
    """Add what the files contribute to the plan; return the facts of each file.

    Arguments:
        sources: the files that were analysed.
        gathered: what each of them contributes.
    """
    targets = {one.key for one in workspace.targets}
    facts = {}
    for source, one in zip(sources, gathered, strict=True):
        facts[source.key] = one.facts
        source.error = source.error or one.error
        plan.definitions |= one.definitions
        plan.launches |= one.launches
        plan.redelivers |= {"task_acks_late", "task_reject_on_worker_lost"} <= one.settings_on
        if source.key not in targets:
            one.facts.unreadable += one.facts.lookups
            problem = f"{_inside(workspace, source)}, which is not migrated, uses it"
            one.facts.problems += [(key, problem) for key in one.facts.publishes]
            for definition in one.definitions.values():
                definition.problem = "its file is not among those to be migrated"
    unread = [one for one in workspace.sources if not one.readable and one.kind in ("python", "notebook")]
    unread += [source for source, one in zip(sources, gathered, strict=True) if not one.parsed]
    return {**facts, **_unread(workspace, unread, plan)}


def _unread(workspace: Workspace, unread: list[Source], plan: Plan) -> dict[str, task_uses.Facts]:
    """Return reasons against converting tasks whose names occur in files that cannot be parsed."""
    found = {}
    for source in unread:
        source.readable = False
        words = set(re.findall(r"\w+", source.raw.decode("latin-1")))
        problem = f"{_inside(workspace, source)}, which cannot be parsed, may use it"
        keys = [key for key in plan.definitions if key[1].rpartition(".")[2] in words]
        found[f"{source.key or source.path} (not read)"] = task_uses.Facts(problems=[(key, problem) for key in keys])
    return found


def _inside(workspace: Workspace, source: Source) -> str:
    """Return a file's path relative to the project: comments must not contain absolute paths of this machine."""
    path = source.path.resolve()
    return path.relative_to(workspace.top).as_posix() if path.is_relative_to(workspace.top) else path.name


def touched(sources: list[Source], gathered: list[Gathered], plan: Plan) -> frozenset[str]:
    """Return the keys of the files that define or use converted tasks, or read their results by id."""
    return frozenset(
        source.key
        for source, one in zip(sources, gathered, strict=True)
        if any(plan.converts(key) for key in one.used | set(one.definitions))
        or any(plan.classes.get(key, "") is None for key in one.facts.classes)
        or (one.facts.lookups and plan.reads_by_id)
    )
