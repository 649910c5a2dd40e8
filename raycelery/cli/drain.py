"""``raycelery drain``: takes what an application's broker still holds to Ray."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

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
def command(name: str, queues: list[str], until_empty: bool, take_unacked: bool) -> None:
    """Take what the application's broker still holds to Ray.

    Ready messages, those of workers that were stopped, and those that wait for their time, with their ids, headers,
    priorities, retries and canvas. Each is acknowledged to the broker once it is safe on Ray. Messages of tasks that
    the application does not have stay in the broker, and so do those whose serializer it does not accept.

    Exit status: 0 the broker is empty, 1 something is left.
    """
    out = output.own_stdout()
    app = load(name)
    connect(app)
    from raycelery.switch import broker
    from raycelery.switch.draining import Drain

    names = broker.queues_of(app, queues)
    with the_broker(app):  # it should answer at the beginning
        pass
    shown = [0.0]

    def progress(counts: Counts) -> None:
        if time.monotonic() - shown[0] >= LINE_SECONDS:
            shown[0] = time.monotonic()
            click.echo(f"{counts.moved.total():,} moved, {counts.kept.total():,} stay", err=True)

    drain = Drain(app, names, lambda said: click.echo(said, err=True), progress, take_unacked=take_unacked)
    click.echo(f"draining {', '.join(names)}", err=True)
    try:
        counts = drain.run(until_empty=until_empty)
    except KeyboardInterrupt:
        with the_broker(app) as found:
            drain.counts.remaining = sum(one.all for one in found.left(names))
        counts = drain.counts
    click.echo(summary(counts), file=out)
    sys.exit(1 if counts.remaining else 0)


def summary(counts: Counts) -> str:
    """Return what a drain has done and what is left, in lines."""
    tasks = ", ".join(f"{count:,} {task}" for task, count in counts.moved.most_common())
    lines = [f"moved to Ray: {counts.moved.total():,}{f' ({tasks})' if tasks else ''}"]
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
