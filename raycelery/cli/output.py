"""What a command says on standard output, and nothing else."""

from __future__ import annotations

import contextlib
import sys
from typing import TextIO

import click


def own_stdout() -> TextIO:
    """Return standard output for what the command says; until it ends, all that others print goes to standard error.

    Ray prints its notices to standard output, ``log_to_driver=False`` or not, where they would spoil ``--json``.
    """
    out = sys.stdout
    click.get_current_context().with_resource(contextlib.redirect_stdout(sys.stderr))
    return out
