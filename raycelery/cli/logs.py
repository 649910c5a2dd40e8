"""``raycelery logs``: shows what tasks printed and logged, with ``-f`` also new lines."""

from __future__ import annotations

import logging
import os
import queue
import sys
import threading
from collections.abc import Callable
from typing import Any, TextIO

import click

from raycelery.app.settings import give_defaults
from raycelery.client import session
from raycelery.client.connection import Client, Closed
from raycelery.client.waiting import Waiting
from raycelery.cluster import connecting, local
from raycelery.errors import DispatcherUnreachable, OptionError, RayCeleryError
from raycelery.logs import files
from raycelery.logs.lines import Line, colourful, opened, plain
from raycelery.names import NAMESPACE, dispatcher_name
from raycelery.protocol import questions
from raycelery.protocol.frames import FollowLines, Hello, Lines
from raycelery.terminal import output

#: Default number of lines of an application.
LINES = 100


@click.command("logs")
@click.argument("task_id", required=False)
@click.option(
    "-A", "--app", "name", envvar="CELERY_APP", metavar="APP", help="The application, as `celery -A` takes it."
)
@click.option("-f", "--follow", is_flag=True, help="Go on with new lines, until the task has ended or Ctrl-C.")
@click.option(
    "-n", "--lines", "most", type=click.IntRange(0),
    help=f"How many of the last lines to show.  [default: all of a task, {LINES} of an application]",
)  # fmt: skip
def command(task_id: str | None, name: str | None, follow: bool, most: int | None) -> None:
    """Show what a task printed and logged, or all tasks.

    With -A alone, the tasks of an application are shown. Lines are read from files on the cluster's nodes; new ones
    come through the application's dispatcher. Without -A, all applications are searched for the task.
    """
    if task_id is None and name is None:
        raise click.UsageError("name a task by its id, or an application with -A")
    out = output.own_stdout()
    application = _connect(name)
    following = _Following(application, task_id) if follow else None
    if most is None and task_id is None:
        most = LINES
    # A task's lines are read completely, so that lines can be told from new ones at the end.
    entries, sizes = _read(application, task_id, most if task_id is None else None)
    write = _writer(out, task_id)
    for entry in entries if most is None else entries[len(entries) - min(most, len(entries)) :]:
        write(entry)
    if following is not None:
        new = following.show(sizes, write)
        if task_id is not None:
            # Lines that were written to the file before the task ended, but not received.
            for entry in _read(application, task_id, None)[0][len(entries) + new :]:
                write(entry)
    elif task_id is not None and not entries:
        raise click.ClickException(
            f"nothing was found of task {task_id}: it printed nothing, has not begun, or its node is gone"
        )


def _connect(name: str | None) -> str | None:
    """Join the cluster; return the name of the application's dispatcher, or None if no application is named."""
    import celery
    from celery.app.utils import find_app

    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        app = find_app(name) if name else celery.Celery("raycelery-logs", set_as_current=False)
    except (ImportError, AttributeError) as exc:
        raise click.UsageError(f"there is no application at {name!r}: {exc}") from exc
    give_defaults(app)
    application = dispatcher_name(app) if name else None
    try:
        if connecting.named(app) is None:
            found = list(local.running()) if application is None else local.find(application)
            if len(found) != 1:
                raise click.UsageError(connecting.nothing_to_ask())
            app.conf.ray_address = found[0].address
        app.conf.ray_init = {"logging_level": logging.WARNING, **(app.conf.ray_init or {})}
        connecting.connect(app)
    except (OptionError, RayCeleryError) as exc:
        raise click.UsageError(str(exc)) from exc
    return application


def _read(application: str | None, task_id: str | None, most: int | None) -> tuple[list[files.Entry], _Sizes]:
    """Read the files of all nodes."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = ray.get_runtime_context().get_node_id()
    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
    remote = ray.remote(files.read).options(num_cpus=0)
    asked = {
        node: remote.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(
            application, task_id, most
        )
        for node in nodes
        if node != here
    }
    entries: list[files.Entry] = []
    sizes: _Sizes = {}
    for node in nodes:
        try:
            found = ray.get(asked[node]) if node in asked else files.read(application, task_id, most)
        except ray.exceptions.RayError as exc:
            click.echo(f"the logs of node {node} cannot be read: {exc}", err=True)
            continue
        entries += found.entries
        sizes.update({(node, file): size for file, size in found.sizes.items()})
    entries.sort(key=lambda entry: entry.time)
    return entries if most is None else entries[len(entries) - min(most, len(entries)) :], sizes


#: Bytes read of each file, by node and file name.
_Sizes = dict[tuple[str, str], int]


def _writer(out: TextIO, task_id: str | None) -> Callable[[files.Entry], None]:
    colour = colourful(out)

    def write(entry: files.Entry) -> None:
        text = entry.text if colour else plain(entry.text)
        whose = "" if task_id else f"{entry.task}[{entry.id[:8]}] "
        if colour and whose:
            whose = f"\x1b[36m{whose}\x1b[0m"
        out.write(f"{entry.time} {entry.level} {whose}{text}\n")
        out.flush()

    return write


class _Following:
    """Receives new lines of an application's tasks, or of one task.

    Arguments:
        application: name of its dispatcher; None for all dispatchers.
        task_id: id of the task; None for all tasks.
    """

    def __init__(self, application: str | None, task_id: str | None) -> None:
        self._task_id = task_id
        #: What comes from dispatchers; None: the task has ended.
        self._frames: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._clients = [self._follow(one) for one in _dispatchers(application)]
        if not self._clients:
            raise click.ClickException("no application runs in the cluster")

    def _follow(self, dispatcher: Any) -> Any:
        client = Client(lambda: session.endpoint(dispatcher), Hello("client"), on_frame=self._frames.put)
        try:
            client.ensure()
            client.post(FollowLines(self._task_id))
            # When it has answered, it sends all new lines.
            client.call(questions.Pending())
        except DispatcherUnreachable as exc:
            raise click.ClickException(str(exc)) from exc
        if self._task_id is not None:
            threading.Thread(target=self._wait, args=(client,), daemon=True).start()
        return client

    def _wait(self, client: Any) -> None:
        """Wait until the task has ended; its lines have been received by then."""
        try:
            with Waiting(client, [self._task_id or ""]) as waiting:
                waiting.next()
        except DispatcherUnreachable as exc:
            self._frames.put(Closed(str(exc)))
            return
        self._frames.put(None)

    def show(self, sizes: _Sizes, write: Callable[[files.Entry], None]) -> int:
        """Write new lines, without those that were read from the files; return their number when the task has ended."""
        shown = 0
        while True:
            frame = self._frames.get()
            if frame is None:
                return shown
            if type(frame) is Closed:
                raise click.ClickException(f"the dispatcher went away: {frame.reason}")
            if type(frame) is Lines:
                known = sizes.get((frame.node, frame.file), 0)
                for line in opened(frame.lines):
                    if line.end > known and self._task_id in (None, line.task_id):
                        shown += _write(line, write)
                if frame.left_out:
                    click.echo("tasks printed more than could be followed; without -f all of it is shown", err=True)


def _write(line: Line, write: Callable[[files.Entry], None]) -> int:
    texts = line.text.split("\n")
    for text in texts:
        write(files.Entry(files.stamp(line.created), files.label(line.level), line.task, line.task_id or "-", text))
    return len(texts)


def _dispatchers(application: str | None) -> list[Any]:
    import ray

    names = [one["name"] for one in ray.util.list_named_actors(all_namespaces=True) if one["name"]]
    wanted = [
        name for name in dict.fromkeys(names) if name.startswith("raycelery:") and application in (None, name[10:])
    ]
    return [ray.get_actor(name, namespace=NAMESPACE) for name in wanted]
