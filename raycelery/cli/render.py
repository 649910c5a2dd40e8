"""``raycelery render``: prints what ``raycelery submit --backend kuberay`` would send to Kubernetes."""

from __future__ import annotations

import click

from raycelery.cli.specified import fail, specified
from raycelery.launch.errors import LaunchError
from raycelery.launch.kuberay import manifest
from raycelery.launch.launching import name_of
from raycelery.launch.spec import Spec
from raycelery.terminal.output import own_stdout


@click.command("render")
@specified
def command(spec: Spec) -> None:
    """Print the RayJob manifest of an application, for KubeRay.

    raycelery render -f app.yaml --set workers.cpu.max=8

    It is what `raycelery submit --backend kuberay` sends, and what `kubectl apply -f -` takes where the image has the
    program. KubeRay's own rules are checked. Secrets are named in it, never shown.

    Exit status: 0 done, 2 wrong use, or a field is wrong.
    """
    try:
        found = manifest.of(spec, name_of(spec))
    except LaunchError as exc:
        fail(exc)
    click.echo(manifest.text(found), file=own_stdout(), nl=False)
