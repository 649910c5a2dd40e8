"""All rules, and the page that shows them: ``python -m raycelery.migrate.rules > docs/migrating-rules.md``

:mod:`raycelery.migrate.rule` says how to add one.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import NamedTuple

from .actors.file import ACTORS
from .examples import Example
from .rule import Rule
from .shim.file import SHIM


class Entry(NamedTuple):
    """A rule of a command."""

    command: str
    rule: Rule

    @property
    def name(self) -> str:
        """Its name with the command's, such as "shim/imports"."""
        return f"{self.command}/{self.rule.name}"

    @property
    def about(self) -> str:
        """Its description, in Markdown."""
        return self.rule.about

    @property
    def examples(self) -> tuple[Example, ...]:
        """Files before and after."""
        return self.rule.examples


RULES = tuple(Entry(registry.command, rule) for registry in (SHIM, ACTORS) for rule in registry.rules.values())

_HEAD = """\
# Rules of raycelery-migrate

What each rule changes, and what it leaves alone. [Migrating](migrating.md) describes how to use them. This page is
generated from the examples in the rules' own modules, which are also run as tests:
`python -m raycelery.migrate.rules > docs/migrating-rules.md`.

A rule is one module in `migration_tool/shim/rules` or `migration_tool/actors/rules`. The docstring of
`migration_tool/rule.py` says how to add one.
"""


def page() -> str:
    """Return the page of all rules, in Markdown."""
    parts = [_HEAD]
    for rule in RULES:
        parts.append(f"## {rule.name}\n\n{rule.about}\n")
        parts += _shown(rule.examples)
    return "\n".join(parts)


def _shown(examples: tuple[Example, ...]) -> Iterator[str]:
    for example in examples:
        where = [f"`{example.file}`"] if example.file != "tasks.py" else []
        where += [f"`{' '.join(example.options)}`"] if example.options else []
        for name, text in example.beside.items():
            yield f"`{name}`:\n\n```\n{text}```\n"
        if example.after is None:
            said = f" ({', '.join(where)})" if where else ""
            yield f"Left alone{said}:\n\n```\n{example.before}```\n"
        else:
            yield f"{', '.join(where)}{':' if where else ''}\n\n```diff\n{_diff(example)}```\n".lstrip()


def _diff(example: Example) -> str:
    before, after = example.before.splitlines(keepends=True), (example.after or "").splitlines(keepends=True)
    lines = list(difflib.unified_diff(before, after, n=1000))[3:]
    return "".join(lines)


if __name__ == "__main__":
    print(page(), end="")
