"""Names by which an application's parts find each other in a Ray cluster."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from celery import Celery

#: Of raycelery; that of the installed package.
VERSION = "0.1.0"
#: The Ray namespace of dispatchers and of what belongs to them.
NAMESPACE = "raycelery"
#: What the head alone has; an actor that asks for a little of it stays there, so that no other node is kept for it.
ON_HEAD = {"node:__internal_head__": 0.0001}
#: What the name of a dispatcher's actor begins with; the application's name follows.
DISPATCHER_PREFIX = "raycelery:"
#: Environment variable that names the dispatcher of every application of a process, whatever they say, so that a script
#: can be run apart from what its application does otherwise.
NAME_VARIABLE = "RAYCELERY_APP_NAME"


def dispatcher_name(app: Celery) -> str:
    """Return the name of an application's dispatcher."""
    return (
        getattr(app, "dispatcher", None)
        or os.environ.get(NAME_VARIABLE)
        or str(app.conf.ray_app_name or app.main or getattr(app, "home", None) or "celery")
    )
