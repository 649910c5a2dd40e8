"""Standard output of a command, and the files that it writes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TextIO

import click
from rich.console import Console

#: Width of pipes and files: nothing is wrapped or shortened.
_WIDE = 100_000


def own_stdout() -> TextIO:
    """Return standard output for the command; what anything else prints goes to standard error from now on.

    Ray prints notices to standard output, even with ``log_to_driver=False``, which would break ``--json``. Its threads
    do so until the process ends, so this is not taken back when the command has ended.
    """
    out = sys.stdout
    click.get_current_context().call_on_close(out.flush)
    sys.stdout = sys.stderr
    return out


def console(file: TextIO | None = None) -> Console:
    """Return a console as wide as the terminal; for a pipe or a file nothing is wrapped or shortened.

    Arguments:
        file: the file to write to; None for standard output.
    """
    found = Console(file=file, highlight=False)
    if not found.is_terminal:
        found.width = _WIDE
    return found


class Output:
    """A file that a command writes at its end; that it can be written is checked at the beginning.

    Arguments:
        path: path of the file; its present content stays until :meth:`write`.
        option: the option that names it, for messages: "--output".

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
            click.ClickException: it cannot be written any more, for example as the disk is full.
        """
        data = content.encode() if isinstance(content, str) else content
        try:
            self.path.write_bytes(data)
        except OSError as exc:
            raise click.ClickException(f"{self._option} {self.path}: it cannot be written: {exc.strerror}") from exc


def folder(path: Path, option: str, *names: str) -> list[Output]:
    """Create a folder, and return the files in it that a command writes at its end.

    Arguments:
        path: path of the folder.
        option: the option that names it, for messages: "--out".
        names: names of the files.

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
