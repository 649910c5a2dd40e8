"""What a program sets on an application after it has made it, and executors must have too.

An application that is imported gets all this from its module, as in a Celery worker. One that travels by value has it
carried: attributes such as ``app.Task``, its hooks, steps and queues, and where it looks for tasks.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Iterator, Mapping
from types import FunctionType
from typing import TYPE_CHECKING, Any

from celery.app.task import Task
from celery.loaders import get_loader_cls
from kombu.utils.imports import symbol_by_name
from kombu.utils.objects import cached_property

from raycelery.app.options import TASK_OPTIONS
from raycelery.errors import ArgumentError
from raycelery.serialization import values
from raycelery.serialization.references import in_main

if TYPE_CHECKING:
    from celery import Celery

logger = logging.getLogger(__name__)

#: Attributes that Celery works out itself where nobody has set them: classes, and parts made of a class.
_CLASSES = ("Task", "AsyncResult", "ResultSet", "GroupResult")
_PARTS = ("amqp", "control", "events", "log", "loader")
#: Hooks of an application: those that are called with its configuration and its tasks, and the one of its children.
_HOOKS = ("on_after_configure", "on_after_finalize", "on_after_fork")
#: Packages whose handlers are connected wherever they are imported.
LIBRARIES = frozenset({"celery", "kombu", "vine", "billiard", "raycelery", "ray"})


def is_mine(function: Any) -> bool:
    """Return whether a function is the program's own, of its main module, so that no import would bring it."""
    return in_main(getattr(function, "__module__", ""))


def dumps(parts: Mapping[str, Any], what: str, app: Any) -> bytes:
    """Pickle the parts of an application.

    Arguments:
        parts: by name.
        what: how the error calls one of them, with ``{}`` for its name.
        app: the application.

    Raises:
        ArgumentError: one cannot be pickled, by its name.
    """
    try:
        return values.dumps_code(parts, app)
    except ArgumentError:
        for name, part in parts.items():
            try:
                values.dumps_code(part, app)
            except ArgumentError as exc:
                raise ArgumentError(f"{what.format(repr(name.lstrip('.')))} {exc}") from exc
        raise


def state_of(app: Celery, by_value: bool) -> dict[str, Any]:
    """Return what was set on an application, by name; empty if there is nothing that executors would lack.

    Arguments:
        app: the application.
        by_value: whether it travels by value; else only what the main module has set is meant.
    """
    state: dict[str, Any] = {}
    found = [(packages, name) for packages, name, module in app.discovered if by_value or in_main(module)]
    if found:
        state["autodiscover_tasks"] = found
    hooks = [(name, hook) for name in _HOOKS for hook in _receivers(getattr(app, name)) if by_value or is_mine(hook)]
    if hooks:
        state["hooks"] = hooks
    if not by_value:
        return state
    state.update({f".{name}": value for name, value in _attributes(app)})
    for name in ("steps", "user_options"):
        kept = {key: entries for key, entries in getattr(app, name).items() if entries}
        if kept:
            state[name] = kept
    if not app.strict_typing:
        state["strict_typing"] = False
    if "amqp" in vars(app):
        state.update({f"amqp.{name}": value for name, value in _of_amqp(app.amqp)})
    return state


def _receivers(signal: Any) -> Iterator[Any]:
    for _, reference in list(signal.receivers):
        receiver = reference if isinstance(reference, FunctionType) else _target(reference)
        if receiver is not None and (receiver.__module__ or "").partition(".")[0] not in LIBRARIES:
            yield receiver


def _target(reference: Any) -> Any:
    return reference() if isinstance(reference, weakref.ReferenceType) else reference


def _attributes(app: Celery) -> Iterator[tuple[str, Any]]:
    for name, value in vars(app).items():
        if name in app.made:
            continue
        default = getattr(type(app), name, None)
        if isinstance(default, cached_property):
            if not _is_celerys(app, name, value):
                yield name, value
        elif not name.startswith("_") or isinstance(default, FunctionType):
            yield name, value


def _is_celerys(app: Celery, name: str, value: Any) -> bool:
    """Return whether a cached property is what Celery makes of it."""
    if name in _CLASSES:
        return not isinstance(value, type) or vars(value).get("_app" if name == "Task" else "app") is app
    if name in _PARTS:
        chosen = getattr(app, f"{name}_cls")
        return type(value) is (get_loader_cls(chosen) if name == "loader" else symbol_by_name(chosen))
    return True


def _of_amqp(amqp: Any) -> Iterator[tuple[str, Any]]:
    for name, value in vars(amqp).items():
        default = getattr(type(amqp), name, None)
        if name == "queues":
            made = amqp.Queues(amqp.app.conf.task_queues)
            added = {key: queue for key, queue in value.items() if _declared(made, key) != queue}
            if added:
                yield name, added
        elif default is not None and not name.startswith("_") and not isinstance(default, (cached_property, property)):
            yield name, value


def _declared(queues: Any, name: str) -> Any:
    try:
        return queues[name]
    except KeyError:
        return None


def set_on_task(task: Task, *, function: bool) -> dict[str, Any]:
    """Return the attributes that were set on a task after it was made.

    Arguments:
        task: the task.
        function: whether it is made of a function; an instance of a class sets attributes of its own, of which only
            those that are Celery's options or Ray's are meant.
    """
    found = {name: value for name, value in vars(task).items() if not name.startswith("_") and name != "run"}
    if function:
        return found
    return {name: value for name, value in found.items() if hasattr(Task, name) or name in TASK_OPTIONS}


def restore(app: Any, state: Mapping[str, Any]) -> None:
    """Set on an application what :func:`state_of` found (in executors); its hooks wait for :func:`announce`."""
    for name, value in state.items():
        if name.startswith("."):
            setattr(app, name[1:], value)
    app.strict_typing = state.get("strict_typing", app.strict_typing)
    for name in ("steps", "user_options"):
        for key, entries in state.get(name, {}).items():
            getattr(app, name)[key] |= entries
    for packages, related_name in state.get("autodiscover_tasks", ()):
        app.autodiscover_tasks(packages, related_name)
    for name, hook in state.get("hooks", ()):
        if name == "on_after_fork":
            getattr(app, name).connect(hook, weak=False)
        else:
            app.hooks.append((name, hook))
    for name, value in state.items():
        if name == "amqp.queues":
            for queue in value.values():
                app.amqp.queues.add(queue)
        elif name.startswith("amqp."):
            setattr(app.amqp, name.partition(".")[2], value)


def announce(app: Any) -> None:
    """Call the hooks that were carried along, once the tasks that they may mention are there; errors are logged."""
    while app.hooks:
        name, hook = app.hooks.pop(0)
        source = {"source": app.conf} if name == "on_after_configure" else {}
        try:
            hook(signal=getattr(app, name), sender=app, **source)
        except Exception:  # as Celery's signals do
            logger.exception("the handler %s of %s raised", getattr(hook, "__qualname__", hook), name)
