"""``raycelery submit``: runs an application as a Ray job, with its own environment."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any, NoReturn, TextIO

import click

from raycelery.launch.errors import LaunchError, SpecError
from raycelery.launch.launching import address_of, name_of, on_own_cluster
from raycelery.launch.launching import submit as start
from raycelery.launch.run import Run, RunState
from raycelery.launch.spec import Spec, load, made
from raycelery.terminal.output import own_stdout

#: A run that did not end in time.
TIMED_OUT = 4


def fail(error: LaunchError) -> NoReturn:
    """Say what went wrong, and end with its exit status."""
    click.echo(f"Error: {error}", err=True)
    sys.exit(error.exit_code)


@click.command("submit")
@click.option("-f", "--file", type=click.Path(path_type=Path), help="YAML or TOML file, or a pyproject.toml with "
              "[tool.raycelery.app].")  # fmt: skip
@click.option("--address", help="Ray's dashboard (http://host:8265) or cluster.  [default: RAY_ADDRESS]")
@click.option("--name", help="Name of the run.  [default: made of the program's]")
@click.option("--env", multiple=True, metavar="NAME=VALUE", help="Environment variable; may be repeated.")
@click.option("--pip", multiple=True, metavar="REQUIREMENT", help="To be installed for it alone; may be repeated.")
@click.option("--working-dir", metavar="FOLDER", help="Sent along.  [default: this one]")
@click.option("--timeout", type=float, metavar="SECONDS", help="It is cancelled after so long.")
@click.option("--num-cpus", type=click.IntRange(min=0), help="CPUs of the cluster that is started for it.")
@click.option("--no-wait", is_flag=True, help="Print its name and return.")
@click.option("--dry-run", is_flag=True, help="Tell what would be done.")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def command(
    file: Path | None,
    address: str | None,
    name: str | None,
    env: tuple[str, ...],
    pip: tuple[str, ...],
    working_dir: str | None,
    timeout: float | None,
    num_cpus: int | None,
    no_wait: bool,
    dry_run: bool,
    command: tuple[str, ...],
) -> None:
    """Run an application as a Ray job, and show what it prints.

    raycelery submit -- python -m forecasts.train_all --date 2026-01-01

    The working directory is packaged, the program and its tasks run in it on every node, and `raycelery.Celery` finds
    the cluster by itself. Where neither --address nor RAY_ADDRESS names a cluster, one is started on this machine, and
    ended afterwards.

    Exit status: 0 it succeeded, 1 it failed, 2 wrong use, 3 the cluster is out of reach or refuses it, 4 it took too
    long, 130 it was cancelled.
    """
    out = own_stdout()
    try:
        spec = _spec(file, name, env, pip, working_dir, timeout, command)
        where = address_of(address)
        if dry_run:
            _tell(spec, where, out)
            return
        if where is not None:
            run = start(spec, address=where)
            if no_wait:
                click.echo(run.name, file=out)
                return
            sys.exit(_followed(run, spec, out))
        if no_wait:
            raise SpecError(
                "--no-wait needs a cluster that stays: start one with 'raycelery up' or name one with --address"
            )
        _say("starting a Ray cluster on this machine")
        with on_own_cluster(spec, num_cpus) as run:
            code = _followed(run, spec, out)
    except LaunchError as exc:
        fail(exc)
    sys.exit(code)


def _spec(
    file: Path | None,
    name: str | None,
    env: tuple[str, ...],
    pip: tuple[str, ...],
    working_dir: str | None,
    timeout: float | None,
    command: tuple[str, ...],
) -> Spec:
    changes: dict[str, Any] = {}
    if command:
        changes["entrypoint"] = list(command)
    if env:
        changes["env"] = dict(_pair(one) for one in env)
    if pip:
        changes["pip"] = list(pip)
    given = {"name": name, "working_dir": working_dir, "timeout": timeout}
    changes.update({field: value for field, value in given.items() if value is not None})
    if file is not None:
        return load(file, changes)
    if not command:
        raise SpecError("no program is named: write it after '--', or give a file with -f")
    return made(changes, "the command line")


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise SpecError(f"--env {text!r} is not of the form NAME=VALUE")
    return name, value


def _tell(spec: Spec, where: str | None, out: TextIO) -> None:
    rows = {
        "run": spec.name or f"{name_of(spec).rpartition('-')[0]}-<new each time>",
        "cluster": where or "one on this machine, started for it and ended afterwards",
        "program": str(spec),
        "working directory": spec.runtime_env.get("working_dir", "none is sent"),
        "requirements": ", ".join(map(str, spec.pip or spec.uv or [])) or "those of the cluster",
        "environment": ", ".join(sorted(spec.env)) or "nothing more",
        "timeout": "none" if spec.timeout is None else f"{spec.timeout:g} s",
    }
    for label, text in rows.items():
        click.echo(f"{label:<18} {text}", file=out)


def _say(text: str) -> None:
    click.echo(f"raycelery: {text}", err=True)


def _followed(run: Run, spec: Spec, out: TextIO) -> int:
    """Show what a run prints until it has ended, and return the exit status."""
    _say(f"the run is {run.name}")
    late = threading.Event()
    timer = None
    if spec.timeout is not None:
        timer = threading.Timer(spec.timeout, _stop, (run, late))
        timer.daemon = True
        timer.start()
    try:
        for piece in run.logs(follow=True):
            out.write(piece)
            out.flush()
        status = run.status()
    except KeyboardInterrupt:
        _say(f"cancelling {run.name}")
        run.cancel()
        return RunState.CANCELLED.exit_code
    finally:
        if timer is not None:
            timer.cancel()
    if late.is_set():
        _say(f"{run.name} was cancelled: it had not ended in {spec.timeout:g} s")
        return TIMED_OUT
    words = f": {status.message}" if status.state is RunState.FAILED and status.message else ""
    _say(f"{run.name} {_ENDED[status.state]}{words}")
    return status.state.exit_code


_ENDED = {RunState.SUCCEEDED: "succeeded", RunState.FAILED: "failed", RunState.CANCELLED: "was cancelled"}


def _stop(run: Run, late: threading.Event) -> None:
    late.set()
    run.cancel()
