"""All rules, and the page that shows them: ``python -m raycelery.migrate.rules > docs/migrating-rules.md``"""

from __future__ import annotations

import difflib
import inspect
from dataclasses import dataclass
from types import ModuleType

from .actors import bases, canvas, classes, functions, leftovers, publishing, results
from .examples import Example
from .shim import dependencies, imports, strings


@dataclass(frozen=True)
class Rule:
    """One rule: a module with ``EXAMPLES``, whose docstring says what it does.

    Arguments:
        command: that it is part of.
        module: that it is in.
    """

    command: str
    module: ModuleType

    @property
    def name(self) -> str:
        """Such as "shim/imports"."""
        return f"{self.command}/{self.module.__name__.rpartition('.')[2]}"

    @property
    def about(self) -> str:
        """What it does, in plain English."""
        return inspect.cleandoc(self.module.__doc__ or "")

    @property
    def examples(self) -> tuple[Example, ...]:
        """What it does, shown."""
        found: tuple[Example, ...] = self.module.EXAMPLES
        return found


RULES = (
    *(Rule("shim", module) for module in (imports, strings, dependencies)),
    *(Rule("actors", module) for module in (functions, publishing, canvas, results, classes, bases, leftovers)),
)

_HEAD = """\
# Rules of raycelery-migrate

What each rule changes, and what it leaves alone. [Migrating](migrating.md) describes how to use them. This page is
generated from the examples in the rules' own modules, which are also run as tests:
`python -m raycelery.migrate.rules > docs/migrating-rules.md`.
"""


def page() -> str:
    """The page of all rules, in Markdown."""
    parts = [_HEAD]
    for rule in RULES:
        parts.append(f"## {rule.name}\n\n{rule.about}\n")
        for example in rule.examples:
            options = f"`{' '.join(example.options)}`" if example.options else ""
            where = ", ".join(
                part for part in (f"`{example.file}`" if example.file != "tasks.py" else "", options) if part
            )
            if example.after is None:
                parts.append(f"Left alone{f' ({where})' if where else ''}:\n\n```\n{example.before}```\n")
            else:
                parts.append(f"{where}{':' if where else ''}\n\n```diff\n{_diff(example)}```\n".lstrip())
    return "\n".join(parts)


def _diff(example: Example) -> str:
    before, after = example.before.splitlines(keepends=True), (example.after or "").splitlines(keepends=True)
    lines = list(difflib.unified_diff(before, after, n=1000))[3:]
    return "".join(lines)


if __name__ == "__main__":
    print(page(), end="")
