"""``raycelery drain``: takes what an application's broker still holds to Ray, or what waits on Ray back."""

from __future__ import annotations

import contextlib
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, TextIO

import click

from raycelery.cli.project import app_option, connect, load, the_broker
from raycelery.cli.switch import queues_option
from raycelery.terminal import output

if TYPE_CHECKING:
    from raycelery.switch.draining import Counts

#: Seconds between two lines of progress.
LINE_SECONDS = 1.0


@click.command("drain")
@app_option
@queues_option
@click.option("--until-empty", is_flag=True, help="End once nothing more can be taken.  [default: go on until Ctrl-C]")
@click.option("--take-unacked", is_flag=True, help="Redis: also take messages that some worker has taken, though "
              "workers may be connected. What they run is then run again on Ray.")  # fmt: skip
@click.option("--to-broker", is_flag=True, help="The way back: send what waits on Ray to the broker.")
def command(name: str, queues: list[str], until_empty: bool, take_unacked: bool, to_broker: bool) -> None:
    """Take what the application's broker still holds to Ray.

    Ready messages, those of workers that were stopped, and those that wait for their time, with their ids, headers,
    priorities, retries and canvas. Each is acknowledged to the broker once it is safe on Ray. Messages of tasks that
    the application does not have stay in the broker, and so do those whose serializer it does not accept.

    With --to-broker the other way round: what waits on Ray, also for its time, is published to the broker again, and
    what runs ends on Ray.

    Exit status: 0 nothing is left, 1 something is.
    """
    out = output.own_stdout()
    app = load(name)
    connect(app)
    from raycelery.switch import broker
    from raycelery.switch.draining import Drain

    with the_broker(app):  # it should answer at the beginning
        pass
    if to_broker:
        _send_back(app, queues, until_empty, out)
        return
    names = broker.queues_of(app, queues)
    drain = Drain(app, names, _say, Progress(), take_unacked=take_unacked)
    _say(f"draining {', '.join(names)}")
    try:
        counts = drain.run(until_empty=until_empty)
    except KeyboardInterrupt:
        with the_broker(app) as found:
            drain.counts.remaining = sum(one.all for one in found.left(names))
        counts = drain.counts
    click.echo(summary(counts), file=out)
    sys.exit(1 if counts.remaining else 0)


def _send_back(app: Any, queues: list[str], until_empty: bool, out: TextIO) -> None:
    from raycelery.switch.returning import Return

    sending = Return(app, queues, _say, Progress())
    _say(f"sending back {', '.join(queues) or 'all queues'}")
    with contextlib.suppress(KeyboardInterrupt):
        sending.run(until_empty=until_empty)
    counts = sending.counts
    lines = [f"sent to the broker: {counts.moved.total():,}{_tasks(counts.moved)}"]
    lines += [f"stay on Ray: {count:,}, {why}" for why, count in counts.kept.most_common()]
    lines.append(f"waiting on Ray: {counts.remaining:,}" if counts.remaining else "nothing waits on Ray")
    click.echo("\n".join(lines), file=out)
    sys.exit(1 if counts.remaining else 0)


def _say(text: str) -> None:
    click.echo(text, err=True)


def _tasks(moved: Counter[str]) -> str:
    return f" ({', '.join(f'{count:,} {task}' for task, count in moved.most_common())})" if moved else ""


class Progress:
    """Writes a line now and then."""

    def __init__(self) -> None:
        self._shown = 0.0

    def __call__(self, counts: Any) -> None:
        if time.monotonic() - self._shown >= LINE_SECONDS:
            self._shown = time.monotonic()
            _say(f"{counts.moved.total():,} moved, {counts.kept.total():,} stay")


def summary(counts: Counts) -> str:
    """Return what a drain has done and what is left, in lines."""
    lines = [f"moved to Ray: {counts.moved.total():,}{_tasks(counts.moved)}"]
    if counts.known:
        lines.append(f"were on Ray already: {counts.known:,}")
    if counts.taken_over:
        lines.append(f"of workers that are gone: {counts.taken_over:,}")
    lines += [f"stay in the broker: {count:,}, as {why}" for why, count in counts.kept.most_common()]
    if counts.held:
        lines.append(
            f"left alone: {counts.held:,} that workers have taken, which are connected or cannot be counted; stop them "
            "and drain again, or use --take-unacked"
        )
    lines.append(f"left in the broker: {counts.remaining:,}" if counts.remaining else "the broker is empty")
    return "\n".join(lines)
