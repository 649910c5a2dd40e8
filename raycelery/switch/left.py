"""What the broker of a project in direct mode still holds: looked at once, in the background, and said."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raycelery.switch.broker import Left

logger = logging.getLogger(__name__)

#: Seconds after a process has connected to its dispatcher until it looks: short programs end first, and do not.
LATER_SECONDS = 2.0
#: Queues that are named in the sentence.
_NAMED = 5


def look_later(app: Any) -> None:
    """Have the broker looked at in the background, and what it holds said; once, and silently where it is gone."""
    if app.conf.ray_check_broker:
        timer = threading.Timer(LATER_SECONDS, _look, (app,))
        timer.name, timer.daemon = "raycelery-broker", True
        timer.start()


def _look(app: Any) -> None:
    # Not before it is needed: what connects with brokers takes its time to import.
    from raycelery.switch import broker

    if not broker.names_broker(app):
        return
    try:
        with broker.opened(app) as found:
            said = sentence(app, found.left(broker.queues_of(app)))
    except Exception as exc:  # whatever its library raises: it is gone, or is none that can be looked at
        logger.debug("the broker is not looked at: %s", exc)
        return
    if said:
        logger.warning(said)


def sentence(app: Any, left: list[Left]) -> str:
    """Return what a broker holds, with number, queues and remedy; "" where it holds nothing."""
    held = [one for one in left if one.all]
    if not held:
        return ""
    number = sum(one.all for one in held)
    names = ", ".join(f"{one.all:,} in {one.queue}" for one in held[:_NAMED])
    more = f" and {len(held) - _NAMED} more queues" if len(held) > _NAMED else ""
    what = "message waits" if number == 1 else "messages wait"
    return (
        f"{number:,} {what} in the broker of {app.main or 'this application'}, which runs on Ray now and does not "
        f"read them ({names}{more}): 'raycelery drain -A ...' takes them to Ray, a worker with the old code runs them, "
        "and ray_check_broker = False ends this warning"
    )
