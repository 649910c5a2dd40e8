"""The options by which commands are told what to launch."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, NoReturn

import click

from raycelery.launch.errors import LaunchError, SpecError
from raycelery.launch.spec import Spec, load, made

_OPTIONS = (
    click.option("-f", "--file", type=click.Path(path_type=Path), help="YAML or TOML file, or a pyproject.toml with "
                 "[tool.raycelery.app]."),
    click.option("--set", "settings", multiple=True, metavar="FIELD=VALUE", help="Over the file's, as in "
                 "workers.cpu.max=4; may be repeated."),
    click.option("--name", help="Name of the run.  [default: made of the program's]"),
    click.option("--env", multiple=True, metavar="NAME=VALUE", help="Environment variable; may be repeated."),
    click.option("--pip", multiple=True, metavar="REQUIREMENT", help="To be installed for it alone; may be repeated."),
    click.option("--working-dir", metavar="FOLDER", help="Sent along.  [default: this one]"),
    click.option("--timeout", type=float, metavar="SECONDS", help="It is cancelled after so long."),
    click.option("--max-failures", type=click.IntRange(min=0), metavar="TASKS", help="It has failed where more of its "
                 "tasks fail.  [default: the program alone decides]"),
    click.argument("command", nargs=-1, type=click.UNPROCESSED),
)  # fmt: skip


_PLACES = (
    click.option("--address", help="Ray's dashboard (http://host:8265) or cluster.  [default: RAY_ADDRESS]"),
    click.option("--namespace", help="Of Kubernetes.  [default: that of the kubeconfig]"),
    click.option("--context", help="Of the kubeconfig.  [default: the current one]"),
)


def placed(*backends: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add the options that say where runs are, and give the command ``place``: the arguments of ``launching.submit``.

    Arguments:
        backends: that may be chosen; the default is the first.
    """

    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def call(
            backend: str | None, address: str | None, namespace: str | None, context: str | None, **others: Any
        ) -> Any:
            place = {"backend": backend, "address": address, "namespace": namespace, "context": context}
            return function(place=place, **others)

        default = "local, unless a cluster is named" if "local" in backends else "ray"
        call = click.option(
            "--backend", type=click.Choice(backends), default=None if "local" in backends else "ray",
            help=f"What runs it.  [default: {default}]",
        )(call)  # fmt: skip
        for option in reversed(_PLACES):
            call = option(call)
        return call

    return add


def fail(error: LaunchError) -> NoReturn:
    """Say what went wrong, and end with its exit status."""
    click.echo(f"Error: {error}", err=True)
    sys.exit(error.exit_code)


def specified(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options, and give the command ``spec``, the :class:`Spec` that they make."""

    @wraps(function)
    def call(
        file: Path | None,
        settings: tuple[str, ...],
        name: str | None,
        env: tuple[str, ...],
        pip: tuple[str, ...],
        working_dir: str | None,
        timeout: float | None,
        max_failures: int | None,
        command: tuple[str, ...],
        **others: Any,
    ) -> Any:
        given: dict[str, Any] = {"name": name, "working_dir": working_dir, "timeout": timeout,
                                 "max_failures": max_failures}  # fmt: skip
        given.update(entrypoint=list(command) or None, pip=list(pip) or None)
        try:
            given["env"] = dict(_pair(one) for one in env) or None
            spec = _spec(file, {field: value for field, value in given.items() if value is not None}, settings)
        except LaunchError as exc:
            fail(exc)
        return function(spec=spec, **others)

    for option in reversed(_OPTIONS):
        call = option(call)
    return call


def _spec(file: Path | None, changes: dict[str, Any], settings: tuple[str, ...]) -> Spec:
    if file is not None:
        return load(file, changes, settings)
    if "entrypoint" not in changes:
        raise SpecError("no program is named: write it after '--', or give a file with -f")
    return made(changes, "the command line", settings)


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise SpecError(f"--env {text!r} is not of the form NAME=VALUE")
    return name, value
