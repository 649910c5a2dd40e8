"""``raycelery-migrate actors``: plain Ray, as far as that goes; what stays, stays on raycelery and says why."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import libcst as cst

from ..check import catalogue
from ..check.settings import configurations
from ..engine import each, guarded
from ..errors import MigrationError, UnreadableFile
from ..model import Outcome, Verdict
from ..project.project import Project
from ..project.values import Value
from ..project.view import Edit, View
from ..rewriting import finding, rewrite, set_text, view_of
from ..shim import dependencies, strings
from ..shim import imports as shim_imports
from ..workspace import Source, Workspace, as_named
from . import classes, functions, imports, leftovers, publishing
from . import uses as task_uses
from .plan import Plan, decide, helper_path, names_of

_TEMPLATE = Path(__file__).with_name("ray_tasks.py")
_LEFT = re.compile(r"^\s*(from\s+(ray)?celery\b|import\s+(.*[,\s])?(ray)?celery\b)", re.M)


@dataclass
class _Gathered:
    """What one file tells, before anything is decided."""

    facts: task_uses.Facts
    definitions: dict[task_uses.Key, functions.Definition] = field(default_factory=dict)
    launches: dict[task_uses.Key, classes.Launch] = field(default_factory=dict)
    settings_on: set[str] = field(default_factory=set)
    used: set[task_uses.Key] = field(default_factory=set)
    parsed: bool = True


@dataclass
class _Shared:
    plan: Plan
    names: dict[str, task_uses.Key]
    configurations: dict[str, str]
    task_classes: set[task_uses.Key]


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
    """
    texts = {one.key: one.python for one in workspace.sources if one.python is not None}
    relevant = frozenset(workspace.relevant())
    plan = Plan(workspace.project, relevant=relevant, closed=closed)
    keys = [task.key for task in workspace.project.tasks()]
    shared = _Shared(
        plan,
        names_of(workspace.project, keys),
        configurations(workspace.project, texts),
        {
            key
            for key in _classes(workspace.project)
            if "celery.Task" in workspace.project.bases(Value("class", key[1], key[0]))
        },
    )
    looked_at = [one for one in workspace.sources if one.python is not None and _concerns(one, shared)]
    gathered = list(each(_gather, looked_at, shared, jobs, progress))
    targets = {one.key for one in workspace.targets}
    for source, one in zip(looked_at, gathered, strict=True):
        plan.definitions |= one.definitions
        plan.launches |= one.launches
        plan.redelivers |= {"task_acks_late", "task_reject_on_worker_lost"} <= one.settings_on
        if source.key not in targets:
            one.facts.unreadable += one.facts.lookups
            one.facts.problems += [
                (key, f"{_inside(workspace, source)}, which is not migrated, uses it") for key in one.facts.publishes
            ]
            for definition in one.definitions.values():
                definition.problem = "its file is not among those to be migrated"
    facts = {source.key: one.facts for source, one in zip(looked_at, gathered, strict=True)}
    decide(plan, {**facts, **_unread(workspace, looked_at, gathered, plan)})
    plan.touched = frozenset(
        source.key
        for source, one in zip(looked_at, gathered, strict=True)
        if any(plan.converts(key) for key in one.used | set(one.definitions))
        or any(plan.classes.get(key, "") is None for key in one.facts.classes)
        or (one.facts.lookups and plan.reads_by_id)
    )
    pairs = list(each(_rewrite, workspace.targets, shared, jobs, progress))
    outcomes = [outcome for outcome, _ in pairs]
    if any(
        outcome.error is not None and source.readable
        for outcome, source in zip(outcomes, workspace.targets, strict=True)
    ):
        return [_taken_back(outcome) for outcome in outcomes]
    left = any(
        _LEFT.search(_text(outcome, source))
        for outcome, source in zip(outcomes, workspace.targets, strict=True)
        if source.python
    )
    for number, source in enumerate(workspace.targets):
        if source.python is None and source.error is None:
            outcomes[number] = _dependency(source, "raycelery" if left else "ray")
    return outcomes + _helpers(workspace, plan, {key for _, key in pairs if key is not None}, limit)


def _unread(
    workspace: Workspace, looked_at: list[Source], gathered: list[_Gathered], plan: Plan
) -> dict[str, task_uses.Facts]:
    """Reasons against converting tasks whose names stand in files that cannot be parsed, and may use them."""
    unread = [one for one in workspace.sources if one.error is not None and one.kind in ("python", "notebook")]
    unread += [source for source, one in zip(looked_at, gathered, strict=True) if not one.parsed]
    found = {}
    for source in unread:
        source.readable = False
        words = set(re.findall(r"\w+", source.raw.decode("latin-1")))
        problem = f"{_inside(workspace, source)}, which cannot be parsed, may use it"
        keys = [key for key in plan.definitions if key[1].rpartition(".")[2] in words]
        found[f"{source.key or source.path} (not read)"] = task_uses.Facts(problems=[(key, problem) for key in keys])
    return found


def _inside(workspace: Workspace, source: Source) -> str:
    """A file's path in its project: comments hold no path of the machine."""
    path = source.path.resolve()
    return path.relative_to(workspace.top).as_posix() if path.is_relative_to(workspace.top) else path.name


def _taken_back(outcome: Outcome) -> Outcome:
    """The outcome of a file that stays as it is because another could not be changed."""
    outcome.after, outcome.diff = None, []
    if outcome.error is not None:
        outcome.error += "; nothing else is changed either, so that all files go on fitting together"
    return outcome


def _classes(project: Project) -> list[task_uses.Key]:
    return [(key, qualname) for key, module in project.modules.items() for qualname in module.classes]


def _concerns(source: Source, shared: _Shared) -> bool:
    plan = shared.plan
    if source.key in plan.relevant or source.key in shared.configurations:
        return True
    if any(owner[0] == source.key for owner in plan.actor_classes):
        return True
    if any(name in (source.python or "") for name in shared.names):
        return True
    bindings = plan.project.modules[source.key].bindings.values()
    found = [plan.project.evaluate(one, source.key) for one in bindings if one is not None and one[0] == "import"]
    return any(one is not None and one.kind == "task" for one in found)


def _text(outcome: Outcome, source: Source) -> str:
    if outcome.after is None or source.notebook is not None:
        return source.python or ""
    return outcome.diff[0][2]


def _gather(source: Source, shared: _Shared) -> _Gathered:
    project = shared.plan.project
    try:
        view = view_of(source, project)
    except UnreadableFile:
        return _Gathered(task_uses.Facts(), parsed=False)
    uses = task_uses.find(view, str(source.path))
    found = _Gathered(task_uses.facts(view, str(source.path), uses, shared.names, shared.task_classes))
    found.used = {use.task for use in uses}
    for node in view.nodes:
        if isinstance(node, cst.FunctionDef):
            task = project.task(view.key, view.qualname(node))
            if task is not None:
                found.definitions[task.key] = functions.define(view, node, task)
                launch = classes.launch(view, node, task)
                if launch is not None:
                    found.launches[task.key] = launch
    for one in leftovers.settings_of(view, source, shared.configurations.get(source.key)):
        name = catalogue.setting_name(one.name, "CELERY")
        if name is not None and leftovers.is_on(view, one):
            found.settings_on.add(name)
    return found


def _rewrite(source: Source, shared: _Shared) -> tuple[Outcome, str | None]:
    helper: list[str] = []

    def work(outcome: Outcome) -> None:
        if source.python is None or not _concerns(source, shared):
            return
        view = view_of(source, shared.plan.project)
        edits = _edits(view, source, shared, outcome, helper)
        rewrite(source, edits, outcome)

    outcome = guarded(source, work)
    return outcome, helper[0] if helper and outcome.after is not None else None


def _edits(view: View, source: Source, shared: _Shared, outcome: Outcome, helper: list[str]) -> list[Edit]:
    plan = shared.plan
    touched = view.key in plan.touched
    # What only stays needs no scopes, which are most of the work.
    uses = [one for one in task_uses.find(view, str(source.path)) if plan.converts(one.task)] if touched else []
    view.pending = shim_imports.edits(view, source, outcome.findings) + strings.edits(view)
    needed, places = publishing.change(view, uses, plan) if touched else (set(), [])
    found: list[Edit] = []
    outcome.findings += [
        finding(view, source, place, "result", "by id", Verdict.CHANGES, "it is read from this Ray cluster",
                "programs that ask for results share one cluster with those that submit; set RAY_ADDRESS")
        for place in places
    ]  # fmt: skip
    home = next((use.task[0] for use in uses), view.key if places else None)
    kept_here = False
    for node in view.nodes:
        if isinstance(node, cst.FunctionDef):
            task = view.project.task(view.key, view.qualname(node))
            if task is None:
                continue
            if plan.converts(task.key):
                launch = plan.launches.get(task.key)
                text = (
                    _launch_text(view, node, launch, functions.written(view, node, task))
                    if launch is not None
                    else None
                )
                more, names = functions.edits(view, node, task, plan.definitions[task.key], plan.redelivers, text)
                found += more
                needed |= names
                home = home or task.module
            else:
                kept_here = True
                found += _kept(view, source, node, plan.kept.get(task.key, "it cannot be told how it is used"), outcome)
        elif isinstance(node, cst.ClassDef) and _is_task_class(view, node):
            why = plan.classes.get((view.key, view.qualname(node)), "it is not known")
            if why is None:
                base = node.bases[0].value
                found.append(Edit(*view.span(base), "Task"))
                needed.add("Task")
                home = home or view.key
                continue
            outcome.findings.append(
                finding(view, source, node.name, "task class", node.name.value, Verdict.CHANGES,
                        "it stays on raycelery", why)
            )  # fmt: skip
        elif isinstance(node, cst.ClassDef) and (view.key, view.qualname(node)) in plan.actor_classes:
            name = node.name.value
            found.append(functions.after(view, node, [f"{name}Actor = ray.remote(num_cpus=1)({name})"]))
            needed.add("ray")
    if plan.converted:
        namespace = shared.configurations.get(source.key)
        found += leftovers.comments(view, source, namespace, outcome.findings)
        if not kept_here and (touched or not plan.kept):
            more, names = leftovers.loggers(view)
            found += more
            needed |= names
        found += leftovers.timeouts(view, bool(plan.kept), bool(uses))
        found += leftovers.controls(view)
        if not plan.kept:
            found += leftovers.applications(view, source, outcome.findings)
    changed, gone = imports.edits(view, plan, uses, found + view.pending, needed & {"Task"})
    found += changed
    names_of_helper = needed - {"ray", "logging"}
    dotted = plan.helper_for(home) if home is not None and names_of_helper else None
    if dotted is not None and home is not None:
        helper.append(next(key for key in plan.helpers.values() if key == dotted or key.endswith(f".{dotted}")))
    found += imports.added(view, plan, needed, dotted, gone)
    ranges = [(one.start, one.end) for one in found if one.end > one.start]
    return found + [
        one for one in view.pending if not any(start <= one.start and one.end <= end for start, end in ranges)
    ]


def _is_task_class(view: View, node: cst.ClassDef) -> bool:
    return "celery.Task" in view.project.bases(Value("class", view.qualname(node), view.key))


def _launch_text(view: View, node: cst.FunctionDef, launch: classes.Launch, keywords: dict[str, str]) -> str:
    requests = ", ".join(
        f"{key}={keywords[key]}"
        for key in ("num_cpus", "num_gpus", "memory", "resources", "runtime_env")
        if key in keywords
    )
    return launch.render(node.name.value, view.source(node.params), requests)


def _kept(view: View, source: Source, node: cst.FunctionDef, reason: str, outcome: Outcome) -> list[Edit]:
    at = view.raw.rindex(b"@", 0, view.span(node.decorators[0].decorator)[0] + 1)
    outcome.findings.append(
        finding(view, source, node.name, "task", node.name.value, Verdict.CHANGES, "it stays on raycelery", reason)
    )
    if leftovers.has_comment(view, at):
        return []
    return [leftovers.comment(view, at, "stays on raycelery: " + re.sub(r" \([^()]*:\d+\)$", "", reason))]


def _dependency(source: Source, to: str) -> Outcome:
    def work(outcome: Outcome) -> None:
        after, findings = dependencies.swap(source, to)
        outcome.findings += findings
        if source.text is not None and after != source.text.content:
            set_text(source, after, outcome)

    return guarded(source, work)


def _helpers(workspace: Workspace, plan: Plan, keys: set[str], limit: int | None) -> list[Outcome]:
    """The helper modules that are needed and not there yet.

    Raises:
        MigrationError: the project has another module of that name.
    """
    template = _TEMPLATE.read_text(encoding="utf-8")
    if limit is not None:
        template = re.sub(r"(?m)^LIMIT = \d+$", f"LIMIT = {limit}", template)
    created = []
    for key in sorted(keys):
        path = as_named(workspace.top / helper_path(key))
        if key in workspace.project.modules:
            existing = next(one for one in workspace.sources if one.key == key)
            if "Written by raycelery-migrate" not in (existing.python or ""):
                raise MigrationError(f"{path}: the project has a module of this name; rename it, then run this again")
            continue
        created.append(Outcome(path, b"", template.encode(), diff=[(str(path), "", template)], creates=True))
    return created
