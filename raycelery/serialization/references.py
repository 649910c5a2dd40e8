"""How a pickle refers to an application other than the one that it belongs to: by where that is imported from.

A chain may lead from one application to another, a task may return another's result: what arrives must be the other
application's there too, not the receiver's.
"""

from __future__ import annotations

import importlib
import weakref
from typing import Any, NamedTuple

from celery import Celery
from celery._state import _get_active_apps
from celery.canvas import Signature
from celery.local import Proxy

from raycelery.errors import ArgumentError


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


def to(app: Celery) -> Reference:
    """Return a reference to an application."""
    found = _known.get(app)
    if found is None or found.module is None:
        from raycelery.app.spec import find_attribute
        from raycelery.client.session import dispatcher_name

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


def backend(reference: Reference) -> Any:
    """Return the result backend of an application, to read and write its results."""
    from raycelery.serialization import values

    try:
        return resolve(reference, values.own_app()).backend
    except ArgumentError:
        from raycelery.app.application import Celery as OurCelery

        # Its tasks are not needed for that.
        app = OurCelery(reference.name, set_as_current=False)
        app.dispatcher = reference.dispatcher
        return app.backend
