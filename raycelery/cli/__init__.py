"""The ``raycelery`` command; each subcommand is one module.

Exit codes: 0 done, 1 the work was done and something in it failed, 2 wrong use, 130 interrupted.
"""

from __future__ import annotations

import importlib

import click

from raycelery.terminal.group import Group

#: Subcommands and their modules, which are imported only when used, so that ``--help`` is fast.
COMMANDS = {
    "apps": "raycelery.cli.apps",
    "bench": "raycelery.bench.cli",
    "beat": "raycelery.cli.beat",
    "demo": "raycelery.cli.demo",
    "down": "raycelery.cli.down",
    "drain": "raycelery.cli.drain",
    "failures": "raycelery.cli.failures",
    "job": "raycelery.cli.job",
    "logs": "raycelery.cli.logs",
    "render": "raycelery.cli.render",
    "rightsize": "raycelery.cli.rightsize",
    "status": "raycelery.cli.status",
    "submit": "raycelery.cli.submit",
    "switch": "raycelery.cli.switch",
    "top": "raycelery.cli.top",
    "up": "raycelery.cli.up",
}


class _Commands(Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        module = COMMANDS.get(name)
        command: click.Command | None = None if module is None else importlib.import_module(module).command
        return command


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="raycelery")
def main() -> None:
    """Run Celery applications on Ray."""
