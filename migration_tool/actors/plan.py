"""Decides which tasks become Ray remote functions, and why the others stay on raycelery."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..project.project import Project
from .analysis.definitions import Definition
from .analysis.launches import Launch
from .analysis.uses import Facts, Key

HELPER = "ray_tasks"


@dataclass
class Plan:
    """Which tasks are converted. Plain data, so that it can be sent between processes.

    Arguments:
        project: resolves names.
        definitions: how each task can be rewritten, by the task's key.
        kept: why a task stays on raycelery, by its key.
        classes: why each task class stays on raycelery; None if it is converted.
        launches: tasks that start an actor.
        helpers: the helper module's key, by the folder that imports start from.
        redelivers: the application redelivers messages whose worker died (``task_acks_late`` with
            ``task_reject_on_worker_lost``).
        relevant: keys of the modules to analyse.
        closed: assume that nothing outside these files submits tasks.
        touched: keys of the modules that define or use a converted task, or read results by id.
        kept_results: tasks whose results may be read by id.
    """

    project: Project
    definitions: dict[Key, Definition] = field(default_factory=dict)
    kept: dict[Key, str] = field(default_factory=dict)
    classes: dict[Key, str | None] = field(default_factory=dict)
    launches: dict[Key, Launch] = field(default_factory=dict)
    helpers: dict[str, str] = field(default_factory=dict)
    redelivers: bool = False
    relevant: frozenset[str] = frozenset()
    touched: frozenset[str] = frozenset()
    closed: bool = False
    kept_results: frozenset[Key] = frozenset()

    def converts(self, key: Key) -> bool:
        """Return whether a task becomes a remote function."""
        return key in self.definitions and key not in self.kept

    @property
    def converted(self) -> list[Key]:
        """All tasks that become remote functions."""
        return [key for key in self.definitions if key not in self.kept]

    @property
    def reads_by_id(self) -> bool:
        """Whether results of converted tasks may be read by id."""
        return any(self.converts(key) for key in self.kept_results)

    def is_looked_up(self, key: Key, dropped: bool) -> bool:
        """Return whether the result of a submission may be looked up by its id.

        Arguments:
            key: the task's.
            dropped: the submitting code does not use the result.
        """
        definition = self.definitions.get(key)
        return key in self.kept_results and (not dropped or (definition is not None and definition.tells_state))

    @property
    def actor_classes(self) -> set[Key]:
        """Classes that become Ray actors."""
        return {launch.owner for key, launch in self.launches.items() if self.converts(key)}

    def helper_for(self, module: str) -> str:
        """Return the dotted name by which a module imports the helper."""
        root = root_of(self.project, module)
        key = self.helpers[root]
        return key[len(root) + 1 :] if root else key


def root_of(project: Project, module: str) -> str:
    """Return the dotted path of the folder on ``sys.path`` by which a module is imported.

    It follows from how other modules import it, or how it imports others; otherwise it is the nearest folder that is
    not a package.
    """
    written = project.modules.imports_by_name().get(module.rpartition(".")[2], set())
    written = {dotted for dotted in written if dotted.partition(".")[0] not in ("celery", "raycelery")}
    known = [dotted for dotted in written if module == dotted or module.endswith(f".{dotted}")]
    if known:
        return module.removesuffix(max(known, key=len)).rstrip(".")
    for dotted in sorted(project.modules[module].absolute, key=len, reverse=True) if module in project.modules else ():
        found = project.modules.find(dotted, module)
        if found is not None and found.endswith(dotted):
            return found.removesuffix(dotted).rstrip(".")
    parts = module.split(".")
    for end in range(len(parts) - 1, -1, -1):
        root = ".".join(parts[:end])
        if root in project.modules.roots:
            return root
    return ""


def names_of(project: Project, keys: list[Key]) -> dict[str, Key]:
    """Return tasks by every name that Celery may know them by."""
    found: dict[str, Key] = {}
    for key in keys:
        task = project.task(*key)
        if task is not None:
            for name in sorted(task.names):
                found.setdefault(name, key)
    return found


def decide(plan: Plan, facts: dict[str, Facts]) -> None:
    """Decide which tasks are kept, and where helper modules are written.

    Arguments:
        plan: has the definitions; ``kept``, ``classes``, ``kept_results`` and ``helpers`` are filled in.
        facts: the facts of each module, by its key.
    """
    blockers: dict[str, str] = {}
    for module, one in facts.items():
        for blocker in one.blockers:
            blockers.setdefault(root_of(plan.project, module), blocker)
    for key in plan.definitions:
        root = root_of(plan.project, key[0])
        for blocked, why in blockers.items():
            if _is_within(root, blocked) or _is_within(blocked, root):
                plan.kept.setdefault(key, why)
    _keep(plan, list(facts.values()))
    _place_helpers(plan)


def _is_within(folder: str, other: str) -> bool:
    return not other or folder == other or folder.startswith(f"{other}.")


def _keep(plan: Plan, facts: list[Facts]) -> None:
    looked_up = {key for one in facts for key in one.looked_up}
    unreadable = [place for one in facts for place in one.unreadable]
    told = {key for key, definition in plan.definitions.items() if key in looked_up or definition.tells_state}
    for key, definition in plan.definitions.items():
        if definition.problem is not None:
            plan.kept.setdefault(key, definition.problem)
    for one in facts:
        for key, problem in one.problems:
            if key in plan.definitions:
                plan.kept.setdefault(key, problem)
    for key in plan.definitions:
        if unreadable and key in told:
            plan.kept.setdefault(key, f"results are read in a way that has no plain equivalent ({unreadable[0]})")
    if any(one.lookups for one in facts):
        plan.kept_results = frozenset(told)
    published = {key for one in facts for key in one.publishes}
    for key in plan.definitions:
        if key not in published and not plan.closed:
            plan.kept.setdefault(key, "nothing in the project submits it, so somebody outside may do it by its name")
    _look_at_classes(plan, facts)
    changed = True
    while changed:
        changed = _keep_with_classes(plan)
        for one in facts:
            for group in one.linked:
                stays = [key for key in group if not plan.converts(key)]
                for key in group if stays else ():
                    if plan.converts(key):
                        plan.kept[key] = f"it shares a canvas with {stays[0][1]}, which stays"
                        changed = True


def _look_at_classes(plan: Plan, facts: list[Facts]) -> None:
    for one in facts:
        plan.classes |= one.classes
    for one in facts:
        for key, problem in one.class_problems:
            if plan.classes.get(key) is None:
                plan.classes[key] = problem
    used = {definition.base for definition in plan.definitions.values()}
    for key in plan.classes:
        if key not in used and plan.classes[key] is None:
            plan.classes[key] = "no task function has it for its base"


def _keep_with_classes(plan: Plan) -> bool:
    """Keep classes whose tasks are kept, and tasks whose classes are kept; return whether that changed anything."""
    changed = False
    stay = {key[0] for key, why in plan.classes.items() if why is not None}
    for key, why in plan.classes.items():
        if why is None and key[0] in stay:
            plan.classes[key] = "another task class of its module stays"
            changed = True
    for key, definition in plan.definitions.items():
        base = definition.base
        if base is None:
            continue
        why = plan.classes.get(base, "it is not known")
        if plan.converts(key) and why is not None:
            plan.kept[key] = f"its base class {base[1]} stays: {why}"
            changed = True
        elif not plan.converts(key) and why is None:
            plan.classes[base] = f"{key[1]} stays"
            changed = True
    return changed


def _place_helpers(plan: Plan) -> None:
    tops: dict[str, set[str]] = {}
    for module, _ in plan.converted:
        root = root_of(plan.project, module)
        rest = module[len(root) + 1 :] if root else module
        tops.setdefault(root, set()).add(rest.partition(".")[0] if "." in rest else "")
    for root, found in tops.items():
        top = found.pop() if len(found) == 1 else ""
        plan.helpers[root] = ".".join(part for part in (root, top, HELPER) if part)
