"""Resolves names and expressions across the files of a project."""

from __future__ import annotations

from dataclasses import dataclass, field

from . import tables
from .expressions import Expression
from .index import Class, Decorator, Function
from .modules import Modules
from .values import Value, canonical

_DEPTH = 40


@dataclass(frozen=True)
class Task:
    """A task that a decorator makes of a function.

    Arguments:
        module: key of its module.
        function: the function.
        decorator: the decorator that makes it a task.
        app: the application that the decorator belongs to; None for ``shared_task``.
        position: index of the decorator among the function's, from the top.
    """

    module: str
    function: Function
    decorator: Decorator
    position: int
    app: Value | None

    @property
    def key(self) -> tuple[str, str]:
        return self.module, self.function.qualname

    @property
    def bind(self) -> bool:
        """Whether its first parameter is the task itself."""
        return self.decorator.keywords.get("bind") == "True"

    @property
    def names(self) -> set[str]:
        """Names that Celery may give it, depending on the folder in which the worker is started."""
        given = self.decorator.keywords.get("name", "")
        if len(given) > 2 and given[0] in "\"'":
            return {given[1:-1]}
        parts = self.module.split(".")
        function = self.function.qualname.rpartition(".")[2]
        return {".".join([*parts[start:], function]) for start in range(len(parts))}


@dataclass
class Project:
    """The modules of a project, and what their names refer to.

    Arguments:
        modules: the index of each file.
    """

    modules: Modules = field(default_factory=Modules)
    #: Expressions that are being resolved: one that refers to itself has no value.
    _busy: set[object] = field(default_factory=set, repr=False)
    _known: dict[object, Value | None] = field(default_factory=dict, repr=False)

    def __getstate__(self) -> dict[str, object]:
        return {"modules": self.modules, "_busy": set(), "_known": {}}

    # ---- modules

    def imported(self, module: str, name: str | None, near: str, depth: int) -> Value | None:
        """Return the value of ``import module`` or ``from module import name``; None if it is not known."""
        if name is None:
            key = self.modules.find(module, near)
            if key is not None and not self.modules.is_celery(module, key, near):
                return Value("module", key, key)
            if key is None and module in self.modules.folders():
                return Value("package", module, near)
            return _external(module)
        key = self.modules.find(module, near)
        if key is not None and not self.modules.is_celery(module, key, near):
            found = self.member(key, name, depth + 1)
            if found is not None:
                return found
        below = self.modules.find(f"{module}.{name}", near)
        if below is not None and module.partition(".")[0] not in ("celery", "raycelery"):
            return Value("module", below, below)
        if key is not None and not self.modules.is_celery(module, key, near):
            return None
        return _external(f"{module}.{name}")

    def member(self, key: str, name: str, depth: int = 0) -> Value | None:
        """Return the value of a module's global name."""
        found = self.evaluate(("name", name), key, depth)
        if found is not None:
            return found
        below = f"{key}.{name}"
        return Value("module", below, below) if below in self.modules else None

    # ---- expressions

    def evaluate(self, expression: Expression, key: str, depth: int = 0) -> Value | None:
        """Return the value of an expression in a module; None if it is not known.

        Arguments:
            expression: see :mod:`.expressions`.
            key: the module's.
            depth: number of steps so far; resolving stops after 40."""
        if expression is None or depth > _DEPTH:
            return None
        mark = (key, expression)
        if mark in self._known:
            return self._known[mark]
        if mark in self._busy:
            return None
        self._busy.add(mark)
        try:
            value = self._evaluate(expression, key, depth + 1)
        finally:
            self._busy.discard(mark)
        if value is not None or not self._busy:
            self._known[mark] = value
        return value

    def _evaluate(self, expression: Expression, key: str, depth: int) -> Value | None:
        match expression:
            case ("name", name):
                module = self.modules.get(key)
                if module is None:
                    return None
                if name in module.bindings:
                    return self.evaluate(module.bindings[name], key, depth)
                for star in module.stars:
                    source = self.modules.find(star, key)
                    if source is not None and not self.modules.is_celery(star, source, key):
                        found = self.member(source, name, depth)
                        if found is not None:
                            return found
                    elif star.partition(".")[0] in ("celery", "raycelery"):
                        return _external(f"{star}.{name}")
                return None
            case ("import", module_name, name):
                return self.imported(module_name, name, key, depth)
            case ("attr", inner, name):
                return self.attribute(self.evaluate(inner, key, depth), name, depth)
            case ("call", inner, arguments):
                return self.call(self.evaluate(inner, key, depth), arguments, key, depth)
            case ("function", qualname):
                task = self.task(key, qualname, depth)
                return Value("task" if task is not None else "function", qualname, key)
            case ("class", qualname):
                return Value("class", qualname, key)
            case ("any", choices):
                return self._best([self.evaluate(one, key, depth) for one in choices])
            case ("param", annotation):
                return self._annotated(self.evaluate(annotation, key, depth))
            case ("self", qualname):
                return Value("instance", qualname, key, Value("class", qualname, key))
            case ("many", inner):
                return self._many(self.evaluate(inner, key, depth))
            case ("item", inner):
                return self._item(self.evaluate(inner, key, depth))
            case ("key", inner, text):
                found = self.evaluate(inner, key, depth)
                if found is not None and found.name == "extensions" and text == "celery":
                    return Value("app", "extensions", key)
                if text == "celery" and inner is not None and inner[:1] == ("attr",) and inner[2] == "extensions":
                    return Value("app", "extensions", key)
                if found is not None and found.kind == "app" and text:
                    return None
                return self._tasks_entry(inner, text, key, depth)
            case ("pipe", left, right):
                for side in (left, right):
                    found = self.evaluate(side, key, depth)
                    if found is not None and found.kind in ("signature", "app"):
                        return found
        return None

    def _tasks_entry(self, inner: Expression, text: str, key: str, depth: int) -> Value | None:
        if inner is not None and inner[:1] == ("attr",) and inner[2] == "tasks":
            owner = self.evaluate(inner[1], key, depth)
            if owner is not None and owner.kind == "app":
                return Value("task by name", text, key)
        return None

    @staticmethod
    def _best(found: list[Value | None]) -> Value | None:
        known = [one for one in found if one is not None]
        for one in known:
            if one.is_celery:
                return one
        return known[0] if known else None

    @staticmethod
    def _many(found: Value | None) -> Value | None:
        if found is not None and found.kind in ("result", "signature", "task"):
            return Value("many", "", found.module, found)
        return None

    @staticmethod
    def _item(found: Value | None) -> Value | None:
        if found is None:
            return None
        if found.kind == "many":
            return found.of
        if found.kind == "results":
            return Value("result", "", found.module)
        return None

    def _annotated(self, found: Value | None) -> Value | None:
        """Return the value of a parameter that is annotated with a class."""
        match found:
            case Value("external", "celery.Celery"):
                return Value("app", "parameter")
            case Value("external", "celery.Task"):
                return Value("task", "parameter")
            case Value("external", "celery.result.AsyncResult" | "celery.result.EagerResult"):
                return Value("result")
            case Value("external", "celery.result.GroupResult" | "celery.result.ResultSet"):
                return Value("results")
            case Value("class"):
                return self._instance(found)
        return None

    def _instance(self, of: Value) -> Value:
        bases = self.bases(of)
        if "celery.Celery" in bases:
            return Value("app", of.name, of.module)
        if "celery.Task" in bases:
            return Value("task instance", of.name, of.module, of)
        return Value("instance", of.name, of.module, of)

    def bases(self, of: Value, depth: int = 0) -> list[str]:
        """Return the dotted names of all base classes outside the project; "?" for one that is not known."""
        module = self.modules.get(of.module)
        found = module.classes.get(of.name) if module is not None else None
        if found is None or depth > _DEPTH:
            return []
        names = []
        for base in found.bases:
            value = self.evaluate(base, of.module, depth)
            if value is None:
                names.append("?")
            elif value.kind == "class":
                names += self.bases(value, depth + 1)
            elif value.kind == "external":
                names.append(value.name)
            elif value.kind == "app.attribute" and value.name == "Task":
                names.append("celery.Task")
            else:
                names.append("?")
        return names

    def attribute(self, of: Value | None, name: str, depth: int = 0) -> Value | None:
        """Return the value of ``of.name``; None if it is not known."""
        match of:
            case None:
                return None
            case Value("module"):
                return self.member(of.module, name, depth)
            case Value("package"):
                return self.imported(f"{of.name}.{name}", None, of.module, depth)
            case Value("external"):
                return _external(f"{of.name}.{name}")
            case Value("app" | "task" | "signature" | "result" | "results" | "task instance" as kind):
                if kind == "task" and name == "app":
                    return Value("app", "task.app")
                return Value(f"{kind}.attribute", name, of.module, of)
            case Value("instance" | "class"):
                return self._of_class(of if of.kind == "class" else of.of, name, depth)
            case Value("app.attribute" | "task.attribute"):
                return Value(of.kind, f"{of.name}.{name}", of.module, of.of)
        return None

    def _of_class(self, of: Value | None, name: str, depth: int) -> Value | None:
        module = self.modules.get(of.module) if of is not None else None
        found: Class | None = module.classes.get(of.name) if module is not None and of is not None else None
        if of is None or found is None or depth > _DEPTH:
            return None
        if name in found.attributes:
            return self.evaluate(found.attributes[name], of.module, depth)
        if name in found.methods:
            qualname = f"{of.name}.{name}"
            return Value("task" if self.task(of.module, qualname, depth) else "function", qualname, of.module)
        for base in found.bases:
            value = self._of_class(self.evaluate(base, of.module, depth), name, depth + 1)
            if value is not None:
                return value
        return None

    def call(
        self, of: Value | None, arguments: tuple[tuple[str | None, Expression], ...], key: str, depth: int
    ) -> Value | None:
        """Return the value of a call of ``of`` in a module; None if it is not known."""
        match of:
            case None:
                return None
            case Value("external", name) if name in tables.EXTERNAL_APPS:
                return Value("app", name, key)
            case Value("external", name) if name in tables.EXTERNAL_DECORATORS:
                return Value("decorator", name, key)
            case Value("external", name) if name in tables.CANVAS:
                return Value("signature", name.removeprefix("celery."), key)
            case Value("external", "celery.result.AsyncResult"):
                return Value("result", "by id", key)
            case Value("external", "celery.result.GroupResult" | "celery.result.ResultSet"):
                return Value("results", "", key)
            case Value("class"):
                return self._instance(of)
            case Value("function"):
                module = self.modules.get(of.module)
                function = module.functions.get(of.name) if module is not None else None
                return self.evaluate(function.returns, of.module, depth) if function is not None else None
            case Value("decorator"):
                return Value("task", "made", key)
            case Value("signature"):
                return Value("results" if of.name in ("group", "chunks") else "result", of.name, key)
            case Value("app.attribute", name):
                return self._app_call(of, name, key)
            case Value("task.attribute", name, _, task):
                if name in tables.SUBMIT:
                    return Value("result", "", key, task)
                if name in tables.SIGNATURES:
                    return Value("signature", "task", key, task)
                return Value("result", "by id", key) if name == "AsyncResult" else None
            case Value("signature.attribute", name, _, signature):
                if name in tables.SUBMIT:
                    grouped = signature is not None and signature.name in ("group", "chunks")
                    return Value("results" if grouped else "result", "", key)
                return signature if name in tables.CHAINED else None
        return None

    def _app_call(self, of: Value, name: str, key: str) -> Value | None:
        if name in tables.TASK_DECORATORS:
            return Value("decorator", name, key, of.of)
        if name in ("send_task", "AsyncResult"):
            return Value("result", "by id" if name == "AsyncResult" else "by name", key)
        if name in ("GroupResult", "ResultSet"):
            return Value("results", "", key)
        if name == "signature":
            return Value("signature", "by name", key)
        return Value("task", "made", key) if name == "register_task" else None

    # ---- tasks

    def task(self, key: str, qualname: str, depth: int = 0) -> Task | None:
        """Return the task that a decorator makes of a function; None if it makes none."""
        module = self.modules.get(key)
        function = module.functions.get(qualname) if module is not None else None
        if function is None:
            return None
        for position, decorator in enumerate(function.decorators):
            target = self.evaluate(decorator.target, key, depth + 1)
            if target is None:
                continue
            if target.kind == "app.attribute" and target.name in tables.TASK_DECORATORS:
                return Task(key, function, decorator, position, target.of)
            if target.kind == "external" and target.name in tables.EXTERNAL_DECORATORS:
                return Task(key, function, decorator, position, None)
            if target.kind in ("decorator",) or (target.kind == "function" and self._makes_tasks(target, depth)):
                return Task(key, function, decorator, position, target.of)
        return None

    def _makes_tasks(self, of: Value, depth: int) -> bool:
        """Return whether a function of the project returns a task decorator or a task."""
        made = self.call(of, (), of.module, depth + 1)
        return made is not None and (made.kind == "decorator" or (made.kind == "task" and made.name == "made"))

    def tasks(self) -> list[Task]:
        """Return all tasks of the project, sorted by module and line."""
        found = []
        for key, module in self.modules.items():
            for qualname in module.functions:
                task = self.task(key, qualname)
                if task is not None:
                    found.append(task)
        return sorted(found, key=lambda task: (task.module, task.function.line))


def _external(dotted: str) -> Value:
    """Return the value of a dotted name outside the project."""
    name = canonical(dotted)
    return Value("app", name) if name in tables.APPS else Value("external", name)
