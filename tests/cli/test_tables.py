"""What commands show: near commands, narrow terminals, pipes, files that cannot be written."""

from __future__ import annotations

import io
import re
import time
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console

from raycelery.cli import main
from raycelery.cli.overview import View, render
from raycelery.masking import masked_text
from raycelery.terminal import output
from raycelery.terminal.tables import Table, cut, name, number, words

NOW = time.time()
NODE = "celery@ip-10-0-12-177.eu-central-1.compute.internal"
TASK = "warehouse.tasks.forecasting.train_zone"


def overview(**more: Any) -> dict[str, Any]:
    return {
        "application": "warehouse", "time": NOW, "since": NOW - 3725, "scheduled": 12,
        "outcomes": {TASK: {"succeeded": 123456, "failed": 120, "retried": 33}}, "dispatcher": {"memory": 147e6},
        "leased_from": {}, "leased_to": {}, "waits_for_nodes": "", "waits_in_ray": "",
        "nodes": [{"hostname": NODE, "cpus": 64.0, "cpus_held": 61.5, "draining": False, "cpu_percent": 97.3,
                   "memory_used": 203.04e9, "memory_total": 251.3e9, "loadavg": [63.65, 1, 1],
                   "executors": {"busy": 58, "starting": 3}}],
        "queues": [{"name": "a-queue-with-a-rather-long-name-for-nights", "waiting": 1234567, "running": 120,
                    "limit": 128}],
        "lanes": [{"request": {"CPU": 4.0, "GPU": 1.0, "memory": 2e9}, "bookkeeping": False, "one_shot": True,
                   "driver": False, "runtime_env": {"pip": []},
                   "waiting": 1234567, "executors": {"busy": 120, "idle": 3}}],
        "failures": [{"count": 118, "task": TASK, "error": "ValueError", "message": "zone 17 has no departures",
                      "place": "tasks.py:17 in load", "last": NOW - 500, "args": "()", "kwargs": "{}"}],
        "running": [{"id": str(i), "task": TASK, "queue": "q", "args": f"('Newark Liberty International', {i})",
                     "kwargs": "{}", "since": NOW - 700 - i, "pid": 160000 + i, "node": NODE,
                     "waits_for_subtasks": False} for i in range(20)],
        **more,
    }  # fmt: skip


def shown(width: int, view: View | None = None, **more: Any) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(render(overview(**more), view=view or View(width=width)))
    return console.export_text()


@pytest.mark.parametrize("width", [60, 80, 120])
def test_names_are_shortened_numbers_never(width: int) -> None:
    text = shown(width)
    assert max(map(len, text.splitlines())) <= width
    whole = " ".join(text.split())
    for one in ("1,234,567", "61.5 of 64", "203 of 251 GB", "63.65", "58 busy", "3 starting", "123,456", "120 failed",
                "118", "8 min 20 s ago", "11 min 40 s", "160019", "97%"):  # fmt: skip
        assert one in whole, one
    assert "…" in text or width > 100


def test_nothing_is_shortened_or_wrapped_in_a_pipe() -> None:
    file = io.StringIO()
    output.console(file).print(render(overview()))
    lines = file.getvalue().splitlines()
    assert "…" not in file.getvalue()
    assert any(re.search(rf"{TASK} +\('Newark Liberty International', 7\) .* {NODE} +160007$", line) for line in lines)
    assert "\x1b" not in file.getvalue()


@pytest.mark.parametrize("what", ["waits_for_nodes", "waits_in_ray"])
def test_what_waits_for_nodes_or_in_ray_is_said_in_one_line(what: str) -> None:
    said = "18 tasks wait for 2 CPU: autoscaler is adding 3 nodes"
    lines = shown(80, **{what: said}).splitlines()
    assert f"  {said}" in [line.rstrip() for line in lines]
    assert len(lines) == len(shown(80).splitlines()) + 1


def test_it_fits_the_terminals_height() -> None:
    text = shown(120, View(height=40, width=120))
    assert len(text.splitlines()) <= 40
    assert re.search(r"and \d+ more", text)


def test_what_is_shown_can_be_sorted_and_filtered() -> None:
    others = [{**overview()["running"][0], "task": "other.task", "since": NOW - 1, "pid": 7}]
    running = [*overview()["running"], *others]
    text = shown(120, View(width=120, order="latest first"), running=running)
    assert text.index("other.task") < text.index("160000")
    text = shown(120, View(width=120, pattern="OTHER"), running=running)
    assert "other.task" in text
    assert TASK not in text


def test_a_table_too_wide_for_its_numbers_is_shown_in_blocks() -> None:
    table = Table("", ("task", *(f"column {i}>" for i in range(9))))
    table.add(name("some.task"), *(number(f"{i},000,000") for i in range(9)))
    console = Console(width=60, record=True, file=io.StringIO())
    console.print(table)
    text = console.export_text()
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 60
    assert all(f"column {i} {i},000,000" in text for i in range(9))


def test_texts_are_cut_where_they_say_least() -> None:
    assert cut("project.tasks.train_zone", 12, middle=True) == "pro…ain_zone"
    assert cut("('EWR', 'morning')", 8) == "('EWR',…"
    assert cut("short", 5) == "short"
    assert words("two\nlines").text == "two lines"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["statsu"], "there is no command 'statsu'; did you mean 'status'?"),
        (["bench", "predic"], "did you mean 'predict'?"),
        (["nonsense"], "there is no command 'nonsense'; commands: "),
    ],
)
def test_near_commands_are_named(arguments: list[str], message: str) -> None:
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 2
    assert message in done.output


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("redis://shop:hunter2@broker:6379/0", "redis://shop:********@broker:6379/0"),
        ("redis://broker:6379/0", "redis://broker:6379/0"),
        ("{'password': 'it\\'s', 'zone': 'EWR'}", "{'password': '********', 'zone': 'EWR'}"),
        (repr("a 'b' password='hunter2'"), "\"a 'b' password='********'\""),
        (repr("\"a\" 'b' token='hunter2'"), "'\"a\" \\'b\\' token=\\'********\\''"),
        ("PGPASSWORD=hunter2 psql", "PGPASSWORD=******** psql"),
        ("Authorization: Bearer hunter2hunter2", "Authorization: Bearer ********"),
        ("unexpected token: 'x y' at routing_key='celery'", "unexpected token: '********' at routing_key='celery'"),
        ("unexpected token: x", "unexpected token: x"),
        ("max_tokens=100, author='Poe', compass=1", "max_tokens=100, author='Poe', compass=1"),
    ],
)
def test_credentials_are_not_shown(text: str, shown: str) -> None:
    assert masked_text(text) == shown


@pytest.mark.parametrize("part", ["a", "a.b-", "x='", "a://", "a:b@", "password=", "bearer ", "\\'", 'a:\\"'])
def test_long_texts_take_no_long_time(part: str) -> None:
    text = part * (1_000_000 // len(part))
    before = time.process_time()
    masked_text(text)
    assert time.process_time() - before < 30
