"""What a command says on standard output, and nothing else; and the files that it writes."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TextIO

import click
from rich.console import Console

#: Columns of what is no terminal: nothing is wrapped or shortened there.
_WIDE = 100_000


def own_stdout() -> TextIO:
    """Return standard output for what the command says; until it ends, all that others print goes to standard error.

    Ray prints its notices to standard output, ``log_to_driver=False`` or not, where they would spoil ``--json``.
    """
    out = sys.stdout
    click.get_current_context().with_resource(contextlib.redirect_stdout(sys.stderr))
    return out


def console(file: TextIO | None = None) -> Console:
    """Return a console as wide as the terminal; in a pipe or a file nothing is wrapped, and nothing shortened.

    Arguments:
        file: where it writes; None: standard output.
    """
    found = Console(file=file, highlight=False)
    if not found.is_terminal:
        found.width = _WIDE
    return found


class Output:
    """A file that a command writes when its work is done; whether it can be written is seen before.

    Arguments:
        path: of the file; what is there stays until :meth:`write`.
        option: how the user named it, for messages: "--output".

    Raises:
        click.UsageError: it cannot be written.
    """

    def __init__(self, path: Path, option: str) -> None:
        self.path, self._option = path, option
        try:
            if path.exists():
                path.open("ab").close()
            else:
                path.open("xb").close()
                path.unlink()
        except OSError as exc:
            raise click.UsageError(f"{option} {path}: it cannot be written: {_reason(exc, path)}") from exc

    def write(self, content: str | bytes) -> None:
        """Write the file.

        Raises:
            click.ClickException: that does not work any more, as where the disk is full.
        """
        data = content.encode() if isinstance(content, str) else content
        try:
            self.path.write_bytes(data)
        except OSError as exc:
            raise click.ClickException(f"{self._option} {self.path}: it cannot be written: {exc.strerror}") from exc


def folder(path: Path, option: str, *names: str) -> list[Output]:
    """Return the files of a folder that a command writes when its work is done; the folder is made now.

    Arguments:
        path: of the folder.
        option: how the user named it, for messages: "--out".
        names: of the files.

    Raises:
        click.UsageError: they cannot be written.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise click.UsageError(f"{option} {path}: the folder cannot be made: {exc.strerror}") from exc
    return [Output(path / name, option) for name in names]


def _reason(exc: OSError, path: Path) -> str:
    parent = path.absolute().parent
    if isinstance(exc, FileNotFoundError) and not parent.is_dir():
        return f"there is no folder {parent}"
    return exc.strerror or str(exc)
