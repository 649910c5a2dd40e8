"""What must be known of an application before its messages can run: sent once per connection, and again is harmless."""

from __future__ import annotations

from raycelery.protocol.codec import Tagged


class DefineApplication(Tagged, frozen=True):
    """How executors load an application. Client or bridge -> dispatcher.

    Arguments:
        key: identifies the definition.
        spec: the pickled :class:`raycelery.app.spec.AppSpec`, which executors open.
        env: the runtime environment of the application without its tasks' own, as JSON; "" for none.
    """

    key: str
    spec: bytes
    env: str


class DefineCode(Tagged, frozen=True):
    """A task that travels by value. Client or bridge -> dispatcher -> executors of the application.

    Arguments:
        app: key of the application's definition.
        name: of the task.
        key: identifies the code.
        code: pickled, for executors.
        prefer_import: whether a task of that name that an executor can import is to be preferred.
    """

    app: str
    name: str
    key: str
    code: bytes
    prefer_import: bool


class DefineLane(Tagged, frozen=True):
    """The executors that a message asks for: :class:`raycelery.scheduler.model.Lane`. Client or bridge -> dispatcher.

    Arguments:
        key: identifies the lane.
        request: in Ray's units: ``CPU``, ``GPU``, ``memory`` in bytes, custom names.
        app: key of the application's definition.
        env: the runtime environment, as JSON; "" for none.
        one_shot: whether executors run a single message and end (``executor="function"``).
        driver: whether what is asked for is left to the Ray work that tasks start (``executor="driver"``).
    """

    key: str
    request: dict[str, float]
    app: str
    env: str
    one_shot: bool
    driver: bool = False


class DefineLimit(Tagged, frozen=True):
    """How many messages may run at once, as the application says. Client or bridge -> dispatcher.

    Arguments:
        name: "app", "queue:NAME" or "task:NAME".
        maximum: so many.
    """

    name: str
    maximum: int


class DefineRate(Tagged, frozen=True):
    """How often a task may run, as the application says. Client -> dispatcher.

    Arguments:
        task: its name.
        per_second: runs per second.
    """

    task: str
    per_second: float


Definition = DefineApplication | DefineCode | DefineLane | DefineLimit | DefineRate
