"""``raycelery failures``: lists the last failures, grouped by error, and retries them."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import click
from rich.console import Console
from rich.text import Text

from raycelery.cli.overview import span
from raycelery.cli.project import app_option, connect, load
from raycelery.protocol import questions
from raycelery.terminal import output
from raycelery.terminal.tables import Table, harmless, number, words
from raycelery.terminal.tables import name as shortened

Group = Mapping[str, Any]


@click.command("failures")
@app_option
@click.option("-t", "--task", metavar="PATTERN", help="Only tasks whose name matches, as in 'shop.*'.")
@click.option("-e", "--error", metavar="PATTERN", help="Only errors whose class or text matches, as in '*timed out*'.")
@click.option("-v", "--verbose", is_flag=True, help="Show the last traceback and arguments of each group.")
@click.option("--retry", is_flag=True, help="Run the failed tasks again, with the same ids and arguments.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with every failure's id and arguments.")
def command(name: str, task: str | None, error: str | None, verbose: bool, retry: bool, as_json: bool) -> None:
    """List the last failures of an application.

    They are grouped by task, error and place in the code. The last 1,000 failures since the dispatcher started are
    kept. With --retry, exit code 1 means that some tasks could not be retried.
    """
    out = output.own_stdout()
    app = load(name)
    session = connect(app)
    groups = [one for one in session.client.call(questions.Failures()) if _matches(one, task, error)]
    ids = [failure["id"] for group in groups for failure in group["failures"]]
    answer = _retry(app, session.client, ids) if retry else None
    if as_json:
        shown = groups if answer is None else {"failures": groups, **answer}
        click.echo(json.dumps(shown, indent=2, default=str), file=out)
    else:
        console = output.console(out)
        _show(session.name, groups, verbose, console)
        if answer is not None:
            _say(answer, console)
    if answer is not None and len(answer["retried"]) < len(ids):
        raise SystemExit(1)


def _retry(app: Any, client: Any, ids: list[str]) -> Any:
    # With this version of the application, which may contain the fix.
    client.define(*app.producer.descriptions.app_definition())
    return client.call(questions.Retry(ids, app.producer.descriptions.described().key))


def _matches(group: Group, task: str | None, error: str | None) -> bool:
    kind = group["error"]
    texts = (kind, kind.rpartition(".")[2], group["message"], *(one["message"] for one in group["failures"]))
    return (task is None or fnmatchcase(group["task"], task)) and (
        error is None or any(fnmatchcase(text, error) for text in texts)
    )


def _show(name: str, groups: Sequence[Group], verbose: bool, console: Console) -> None:
    if not groups:
        console.print(f"{name}: no failures are known", markup=False)
        return
    now = time.time()
    if not verbose:
        table = Table("", ("failed>", "task", "error", "where", "last>"))
        for group in groups:
            table.add(
                number(f"{group['count']:,}", "bold red"),
                shortened(group["task"]),
                words(_words(group), "red"),
                shortened(group["place"]),
                number(f"{span(now - group['last'])} ago"),
            )
        console.print(table)
        return
    for group in groups:
        console.print(Text(harmless(f"{group['count']:,} x {group['task']}: {_words(group)}"), "bold red"))
        latest = group["failures"][0]
        arguments = f"{latest['args'] or ''} {'' if latest['kwargs'] in (None, '{}') else latest['kwargs']}".strip()
        console.print(Text(harmless(f"last {span(now - group['last'])} ago: {latest['id']} {arguments}")))
        console.print(Text(harmless(group["traceback"]).rstrip() + "\n" if group["traceback"] else ""))


def _words(group: Group) -> str:
    return f"{group['error'].rpartition('.')[2]}: {group['message']}"


def _say(answer: Mapping[str, Sequence[str]], console: Console) -> None:
    said = [f"{len(answer['retried']):,} run again"]
    if answer["gone"]:
        said.append(f"{len(answer['gone']):,} cannot: their large arguments are gone from Ray's object store")
    if answer["unknown"]:
        said.append(f"{len(answer['unknown']):,} were retried or forgotten meanwhile")
    console.print("; ".join(said), markup=False)
