"""The command line of ``raycelery-migrate``."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from raycelery.terminal.group import Group
from raycelery.terminal.output import Output, console

from . import commands
from .config import Config, read_config
from .errors import MigrationError, UnreadableFile
from .files.replace import create, replace
from .model import Finding, Outcome, Verdict
from .report import formats, page, terminal
from .report.summary import count, summarise
from .workspace import Workspace, load

DONE, LEFT, FAILED = 0, 1, 2
_EPILOG = (
    "Exit status: 0 nothing to do or all done; 1 changes pending or work left to do by hand; 2 wrong use, or a file"
    " that could not be read or parsed (the other files are still processed)."
)


def _here(context: click.Context, parameter: click.Parameter, paths: tuple[Path, ...]) -> tuple[Path, ...]:
    """Take the working directory where no path is named."""
    return paths or (Path("."),)


def _common(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.argument("paths", nargs=-1, type=click.Path(path_type=Path, allow_dash=True), callback=_here),
        click.option(
            "--exclude", multiple=True, metavar="PATTERN", help="leave files out, as in .gitignore; may be repeated"
        ),
        click.option("--jobs", type=click.IntRange(1), help="processes (default: one per CPU)"),
    ):
        function = option(function)
    return function


def _changing(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--write", is_flag=True, help="change the files (default: show a diff)"),
        click.option("--check", "only_check", is_flag=True, help="print only the files that would change"),
    ):
        function = option(function)
    return function


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]}, epilog=_EPILOG)
@click.version_option(package_name="raycelery")
def main() -> None:
    """Move a Celery code base to Ray: check it, swap its imports, convert its tasks. The code is never imported."""


@main.command(epilog=_EPILOG)
@_common
@click.option(
    "--format", "form", type=click.Choice(["table", "json", "html", "github"]), default="table", show_default=True
)
@click.option("--all", "everything", is_flag=True, help="also list what works unchanged")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="write the report to this file")
@click.option("--live", metavar="APP", help="also show what the broker of this application, which is already on Ray, "
              "still holds; it is imported for that, in a process of its own")  # fmt: skip
def check(
    paths: tuple[Path, ...],
    exclude: tuple[str, ...],
    jobs: int | None,
    form: str,
    everything: bool,
    output: Path | None,
    live: str | None,
) -> None:
    """Report every use of Celery: works, works and changes, or must be changed by hand."""
    target = Output(output, "--output") if output else None
    with _Session(paths, exclude, jobs) as session:
        outcomes = commands.check(session.workspace, session.jobs, session.progress("checking"))
    session.say_errors(outcomes)
    if form == "table":
        written = io.StringIO() if target else None
        terminal.show_check(console(written), outcomes, everything)
        text = written.getvalue() if written else ""
    else:
        text = {"json": formats.as_json, "html": page.as_html, "github": formats.as_github}[form](outcomes) + "\n"
        if target is None:
            click.echo(text, nl=False)
    if target is not None:
        try:
            target.write(text)
        except click.ClickException as error:
            error.show()
            sys.exit(FAILED)
    summary = summarise(outcomes)
    # Another process, as this command never imports the code that it reads.
    status = subprocess.call([sys.executable, "-m", "raycelery", "switch", "status", "-A", live]) if live else DONE
    sys.exit(FAILED if summary.skipped or status > LEFT else LEFT if summary.manual or status else DONE)


@main.command(epilog=_EPILOG)
@_common
@_changing
@click.option("--annotate", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="JSON",
              help="add to each task what a result of 'raycelery rightsize' recommends")  # fmt: skip
def shim(
    paths: tuple[Path, ...],
    exclude: tuple[str, ...],
    jobs: int | None,
    write: bool,
    only_check: bool,
    annotate: Path | None,
) -> None:
    """Swap Celery's imports and dependency for raycelery's."""
    with _Session(paths, exclude, jobs) as session:
        requests = annotate or session.config.annotate
        outcomes = commands.shim(session.workspace, requests, session.jobs, session.progress("shim"))
    session.finish(outcomes, write, only_check)


@main.command(epilog=_EPILOG)
@_common
@_changing
@click.option(
    "--limit", type=click.IntRange(1), help="most unfinished submissions at once in the new code (default: 1000)"
)
@click.option("--closed", is_flag=True, help="nothing outside these files submits tasks, so convert all")
def actors(
    paths: tuple[Path, ...],
    exclude: tuple[str, ...],
    jobs: int | None,
    write: bool,
    only_check: bool,
    limit: int | None,
    closed: bool,
) -> None:
    """Rewrite tasks, their callers and the classes they use to plain Ray, where that can be done."""
    with _Session(paths, exclude, jobs) as session:
        bound = limit or session.config.limit
        closed = closed or session.config.closed
        outcomes = commands.actors(session.workspace, bound, closed, session.jobs, session.progress("actors"))
    session.finish(outcomes, write, only_check)


class _Session:
    """One run of a command: its files, its configuration and its progress bar. A context manager.

    Arguments:
        paths: files and folders; ``-`` alone for standard input.
        exclude: patterns of files to leave out, added to the configured ones.
        jobs: most processes; None for the configured number.
    """

    def __init__(self, paths: tuple[Path, ...], exclude: tuple[str, ...], jobs: int | None) -> None:
        self.stdin = [str(path) for path in paths] == ["-"]
        self.paths, self.exclude, self.given_jobs = paths, exclude, jobs
        self.config = Config()
        self.jobs = 1
        self.workspace: Workspace
        self.errors = Console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
            console=self.errors, transient=True, disable=self.stdin or not sys.stderr.isatty(),
        )  # fmt: skip

    def __enter__(self) -> _Session:
        try:
            self.config = read_config([] if self.stdin else self.paths)
            self.jobs = self.given_jobs or self.config.jobs or os.cpu_count() or 1
            self._bar.start()
            if self.stdin:
                self.workspace = commands.from_stdin(sys.stdin.buffer.read())
            elif Path("-") in self.paths:
                raise MigrationError("- stands alone: give it no other path")
            else:
                exclude = (*self.config.exclude, *self.exclude)
                self.workspace = load(self.paths, exclude, self.progress("reading"))
        except MigrationError as error:
            self._fail(error)
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._bar.stop()
        if isinstance(error, MigrationError):
            self._fail(error)

    def _fail(self, error: MigrationError) -> None:
        self._bar.stop()
        click.echo(f"raycelery-migrate: {error}", err=True)
        sys.exit(FAILED)

    def progress(self, what: str) -> Callable[[int, int], None]:
        """Add a progress bar, and return the function that moves it."""
        bar = self._bar.add_task(what, total=None)

        def move(done: int, of: int) -> None:
            self._bar.update(bar, completed=done, total=of)

        return move

    def say_errors(self, outcomes: Sequence[Outcome]) -> None:
        """Name the files that were skipped, on standard error."""
        for outcome in outcomes:
            if outcome.error is not None:
                click.echo(f"skipped: {outcome.error}", err=True)

    def finish(self, outcomes: Sequence[Outcome], write: bool, only_check: bool) -> None:
        """Show or write the changes, report what is left to do, and exit with the command's status."""
        if write and only_check:
            self._fail(MigrationError("--write and --check exclude each other: --check changes nothing"))
        self.say_errors(outcomes)
        changed = [one for one in outcomes if one.after is not None]
        failed = any(one.error is not None for one in outcomes)
        findings = [finding for one in outcomes for finding in one.findings]
        manual = any(finding.verdict is Verdict.MANUAL for finding in findings)
        if self.stdin:
            self._say_findings(findings)
            self._answer(outcomes, only_check)
            pending = only_check and bool(changed)
            sys.exit(FAILED if failed else LEFT if pending or manual else DONE)
        written = 0
        # New modules first, as the changed files import them.
        for one in sorted(changed, key=lambda one: not one.creates) if write else changed:
            if only_check:
                click.echo(f"would {'create' if one.creates else 'change'} {one.path}")
            elif write:
                done = self._write(one)
                failed |= not done
                written += done
                if one.creates and not done:
                    self._fail(
                        MigrationError(f"{one.path} cannot be written, which the other changes need: none is made")
                    )
            else:
                terminal.show_diff(Console(), one)
        self._say_findings(findings)
        verb = "changed" if write else "would change"
        click.echo(f"{count(len(outcomes), 'file')}, {written if write else len(changed)} {verb}", err=True)
        pending = bool(changed) and not write
        sys.exit(FAILED if failed else LEFT if pending or manual else DONE)

    def _answer(self, outcomes: Sequence[Outcome], only_check: bool) -> None:
        """Print the changed text of standard input, or with --check only whether it would change."""
        first, *others = outcomes
        if only_check:
            if first.after is not None:
                click.echo("would change <stdin>")
            return
        sys.stdout.buffer.write(first.after if first.after is not None else first.before)
        sys.stdout.buffer.flush()
        for one in others:
            click.echo(f"it needs {one.path} beside it, which is written where files are given by name", err=True)

    def _say_findings(self, findings: Sequence[Finding]) -> None:
        for finding in findings:
            if finding.verdict is not Verdict.WORKS:
                mark = "by hand" if finding.verdict is Verdict.MANUAL else "note"
                click.echo(f"{finding.place}: {mark}: {finding.kind} {finding.name}: {formats.text(finding)}", err=True)

    def _write(self, one: Outcome) -> bool:
        assert one.after is not None
        try:
            if one.creates:
                create(one.path, one.after.decode())
                return True
            backup = replace(one.path, one.before, one.after)
        except UnreadableFile as error:
            click.echo(f"skipped: {error}", err=True)
            return False
        if backup is not None:
            click.echo(f"{one.path}: the original is kept as {backup}", err=True)
        return True
