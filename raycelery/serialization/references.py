"""How a pickle refers to an application other than the one that it belongs to: by where that is imported from.

A chain may lead from one application to another, a task may return another's result: what arrives must be the other
application's there too, not the receiver's.
"""

from __future__ import annotations

import importlib
import sys
import weakref
from typing import Any, NamedTuple

from celery import Celery
from celery._state import _get_active_apps
from celery.canvas import Signature
from celery.local import Proxy

from raycelery.errors import ArgumentError
from raycelery.names import dispatcher_name

#: Packages that hold applications, but never a user's.
_NOT_SEARCHED = frozenset({"celery", "kombu", "raycelery", "ray"})
#: Modules of raycelery that make applications all the same, for tests and benchmarks.
MAKERS = ("raycelery.contrib.", "raycelery.bench.")


class Reference(NamedTuple):
    """Where an application is found.

    Arguments:
        name: its own.
        dispatcher: the name of its dispatcher.
        module: the module that has it; None: no module that could be imported.
        attribute: its name there.
    """

    name: str
    dispatcher: str
    module: str | None
    attribute: str | None


#: The application that this process is an executor of.
_own: Any = None
_known: weakref.WeakKeyDictionary[Any, Reference] = weakref.WeakKeyDictionary()


def name_of(app: Celery) -> str:
    """Return the name that tells an application from others."""
    return str(app.main or getattr(app, "home", None) or "celery")


def is_other(app: Any, own: Any) -> bool:
    """Return whether ``app`` is another application than ``own``; a cell that makes one again means the same."""
    return own is not None and app is not None and app is not own and name_of(app) != name_of(own)


def app_of(signature: Any) -> Any:
    """Return the application that a signature's task belongs to; None where it does not say."""
    if not isinstance(signature, Signature):
        return None
    kind = signature._type
    return signature._app if kind is None else kind.app


def app_of_task(task: Any) -> Any:
    """Return the application of a task; None for a shared one, which belongs to whatever application is current."""
    return None if type(task) is Proxy else task.app


def in_main(name: str | None) -> bool:
    """Return whether that is the name of a program's main module."""
    return name in (None, "__main__", "__mp_main__")


def find_attribute(app: Celery, home: str | None) -> tuple[str, str | None] | None:
    """Return the module and attribute by which ``app`` can be imported, or None.

    Arguments:
        app: the application.
        home: the module it was made in; looked at first.
    """
    names = [home, *{task.__module__ for task in app._tasks.values() if not task.name.startswith("celery.")}]
    for name in list(names):
        if name and "." in name:
            names.append(name.rpartition(".")[0])
    # A factory's product is often kept by a module that has no other part in it, as Flask's guide has it.
    others = [
        name for name in list(sys.modules) if name.partition(".")[0] not in _NOT_SEARCHED or name.startswith(MAKERS)
    ]
    for name in [*names, *others]:
        module = sys.modules.get(name) if name and not in_main(name) else None
        if module is None or name is None:
            continue
        if getattr(module, "__spec__", None) is None:
            continue
        for attribute, found in list(vars(module).items()):
            if found is app:
                return name, attribute
    return None


def to(app: Celery) -> Reference:
    """Return a reference to an application."""
    found = _known.get(app)
    if found is None or found.module is None:
        where = find_attribute(app, getattr(app, "home", None))
        found = _known[app] = Reference(name_of(app), dispatcher_name(app), *(where or (None, None)))
    return found


def importable(app: Celery) -> Reference:
    """Return a reference to an application by which any process can import it.

    Raises:
        ArgumentError: it is no attribute of a module.
    """
    found = to(app)
    if found.module is None:
        raise ArgumentError(
            f"refers to another application, {found.name!r}, which is not an attribute of a module that executors "
            "could import: move it and its tasks to a module"
        )
    return found


def resolve(reference: Reference, own: Any = None) -> Any:
    """Return the application that is meant.

    Arguments:
        reference: from :func:`to`.
        own: the application of this executor, if this is one.

    Raises:
        ArgumentError: it is not in this process, and cannot be imported.
    """
    if own is not None and name_of(own) == reference.name:
        return own
    if reference.module is not None:
        try:
            return getattr(importlib.import_module(reference.module), str(reference.attribute))
        except (ImportError, AttributeError) as exc:
            raise ArgumentError(
                f"the application {reference.name!r} cannot be imported from {reference.module!r} here: {exc}"
            ) from exc
    named = [app for app in _get_active_apps() if name_of(app) == reference.name]
    if not named:
        raise ArgumentError(f"there is no application {reference.name!r} in this process")
    return named[-1]


def signature(reference: Reference, fields: dict[str, Any]) -> Signature:
    """Make a signature of another application's task."""
    app = resolve(reference)
    made = Signature.from_dict(fields, app=app)
    made._type = app.tasks.get(made["task"])
    return made


def load_task(name: str, reference: Reference | None = None) -> Any:
    """Return the task of that name; what a pickle has in its place."""
    # A function that mentions another task may be loaded before it: look it up when it is used.
    return Proxy(lambda: load_app(reference).tasks[name])


def own_app() -> Celery | None:
    """Return the application that this process is an executor of; None in others."""
    return _own


def load_app(reference: Reference | None = None) -> Any:
    """Return the application, or another one that is referred to; what a pickle has in its place."""
    if reference is not None:
        return resolve(reference, _own)
    if _own is not None:
        return _own
    from celery import current_app

    return current_app._get_current_object()


def adopt(app: Celery) -> None:
    """Set, in an executor, the application that its tasks belong to."""
    global _own
    _own = app
