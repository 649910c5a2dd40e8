"""``raycelery submit``: runs an application as a Ray job, with its own environment."""

from __future__ import annotations

import sys
import threading
from typing import Any, TextIO

import click
import msgspec

from raycelery.cli.specified import fail, placed, specified
from raycelery.launch.errors import LaunchError, SpecError
from raycelery.launch.kuberay import manifest
from raycelery.launch.launching import address_of, name_of, on_own_cluster
from raycelery.launch.launching import submit as start
from raycelery.launch.run import Run, RunState, RunStatus
from raycelery.launch.spec import Spec
from raycelery.terminal.output import own_stdout

#: A run that did not end in time.
TIMED_OUT = 4


@click.command("submit")
@specified
@placed("local", "ray", "kuberay")
@click.option("--num-cpus", type=click.IntRange(min=0), help="CPUs of the cluster that is started for it.")
@click.option(
    "--progress",
    type=float,
    default=10.0,
    metavar="SECONDS",
    show_default=True,
    help="Between lines that tell how many tasks are done, run and have failed; 0: none.",
)
@click.option("--no-wait", is_flag=True, help="Print its name and return.")
@click.option("--dry-run", is_flag=True, help="Tell what would be done.")
def command(
    spec: Spec, place: dict[str, Any], num_cpus: int | None, progress: float, no_wait: bool, dry_run: bool
) -> None:
    """Run an application as a Ray job, and show what it prints.

    raycelery submit -- python -m forecasts.train_all --date 2026-01-01

    The working directory is packaged, the program and its tasks run in it on every node, and `raycelery.Celery` finds
    the cluster by itself. Where neither --address nor RAY_ADDRESS names a cluster, one is started on this machine, and
    ended afterwards. With --backend kuberay it is a RayJob in Kubernetes, with a cluster of its own.

    Exit status: 0 it succeeded, 1 it failed, 2 wrong use, 3 the cluster is out of reach or refuses it, 4 it took too
    long, 130 it was cancelled.
    """
    out = own_stdout()
    if spec.progress is None and progress > 0:
        spec = msgspec.structs.replace(spec, progress=progress)
    where = address_of(place["address"])
    backend = place["backend"] or ("local" if where is None else "ray")
    try:
        if dry_run:
            _tell(spec, backend, where, place["namespace"] or spec.namespace, out)
            return
        if backend != "local":
            run = start(spec, **{**place, "backend": backend})
            if no_wait:
                _handed_over(run)
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


def _tell(spec: Spec, backend: str, where: str | None, namespace: str | None, out: TextIO) -> None:
    rows = {
        "run": spec.name or f"{name_of(spec).rpartition('-')[0]}-<new each time>",
        "cluster": "one on this machine, started for it and ended afterwards" if backend == "local" else where,
        "program": str(spec),
        "working directory": spec.runtime_env.get("working_dir", "none is sent"),
        "requirements": ", ".join(map(str, spec.pip or spec.uv or [])) or "those of the cluster",
        "environment": ", ".join(sorted(spec.env)) or "nothing more",
        "timeout": "none" if spec.timeout is None else f"{spec.timeout:g} s",
    }
    if backend == "kuberay":
        rows.update(_kuberay(spec, namespace))
    for label, text in rows.items():
        click.echo(f"{label:<18} {text}", file=out)


def _kuberay(spec: Spec, namespace: str | None) -> dict[str, str]:
    mode = manifest.of(spec, name_of(spec))["spec"]["submissionMode"]
    if spec.local:
        by = f"this process, through Kubernetes' API server, as a folder or file is sent along ({mode})"
    else:
        by = f"KubeRay, as nothing is sent along ({mode})"
    again = "this process" if spec.local else "KubeRay"
    return {
        "cluster": f"one of KubeRay's in the namespace {namespace or 'of the kubeconfig'}, for this run alone",
        "image": spec.image or manifest.default_image(),
        "handed over by": by,
        "retries": f"{spec.retries}, by {again}, each on a new cluster" if spec.retries else "none",
        "secrets": ", ".join(sorted(spec.secrets)) or "none",
    }


def _handed_over(run: Run) -> None:
    run.on_change = _show
    try:
        run.hand_over()
    except KeyboardInterrupt:
        _say(f"cancelling {run.name}")
        run.cancel()
        sys.exit(RunState.CANCELLED.exit_code)


def _show(status: RunStatus) -> None:
    if not status.state.ended:
        words = status.message if status.state is RunState.PENDING else ""
        _say(f"{status.state.value}{': ' if words else ''}{words}")


def _say(text: str) -> None:
    click.echo(f"raycelery: {text}", err=True)


def _followed(run: Run, spec: Spec, out: TextIO) -> int:
    """Show what a run prints until it has ended, and return the exit status."""
    _say(f"the run is {run.name}")
    run.on_change = _show
    late = threading.Event()
    timer = None
    if spec.timeout is not None and not run.keeps_time:
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
    run.release()
    return status.exit_code


_ENDED = {RunState.SUCCEEDED: "succeeded", RunState.FAILED: "failed", RunState.CANCELLED: "was cancelled"}


def _stop(run: Run, late: threading.Event) -> None:
    late.set()
    run.cancel()
