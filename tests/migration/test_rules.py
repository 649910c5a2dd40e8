"""Each rule does what its examples show, and the page of rules shows what the rules do."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from migration_tool import rules
from migration_tool.cli import main
from migration_tool.examples import Example
from tests.support import ROOT

EXAMPLES = [(rule, number, example) for rule in rules.RULES for number, example in enumerate(rule.examples, 1)]


@pytest.mark.parametrize(
    ("rule", "example"),
    [(rule, example) for rule, _, example in EXAMPLES],
    ids=[f"{rule.name}-{number}" for rule, number, _ in EXAMPLES],
)
def test_example(rule: rules.Entry, example: Example, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".hg").mkdir()  # so that no backups are made
    path = tmp_path / example.file
    path.write_text(example.before)
    for name, text in example.beside.items():
        (tmp_path / name).write_text(text)
    done = CliRunner().invoke(main, [rule.command, "--write", "--jobs", "1", *example.options, str(path)])
    assert done.exit_code in (0, 1), done.output
    assert path.read_text() == (example.before if example.after is None else example.after)


@pytest.mark.parametrize("rule", rules.RULES, ids=[rule.name for rule in rules.RULES])
def test_a_rule_shows_what_it_does_and_what_it_leaves_alone(rule: rules.Entry) -> None:
    changed = [example for example in rule.examples if example.after is not None]
    assert changed
    assert rule.about
    if rule.command == "shim":
        assert len(changed) < len(rule.examples)
    else:
        # What stays on raycelery is told by a comment.
        assert any("# raycelery-migrate:" in (example.after or "") for example in rule.examples)


@pytest.mark.parametrize("command", ["shim", "actors"])
def test_every_module_of_the_folder_is_a_rule(command: str) -> None:
    folder = ROOT / "migration_tool" / command / "rules"
    modules = {f"{command}/{path.stem}" for path in folder.glob("*.py") if path.stem != "__init__"}
    assert modules == {rule.name for rule in rules.RULES if rule.command == command}


def test_the_page_of_rules_is_up_to_date() -> None:
    remedy = "run: python -m raycelery.migrate.rules > docs/migrating-rules.md"
    assert (ROOT / "docs" / "migrating-rules.md").read_text(encoding="utf-8") == rules.page(), remedy
