"""The corpus: one folder per command, one file per case, which holds small projects before and after.

A case is a text with lines ``=== before: tasks.py`` and ``=== after: tasks.py``; files without an "after" stay as they
are, files without a "before" are created. What stands above the first such line says what the case is about.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

FOLDER = Path(__file__).parent / "corpus"
#: Stands in the cases as the one word HELPER.
HELPER = Path(__file__).parents[2] / "migration_tool" / "templates" / "ray_tasks.py"
_HEAD = re.compile(r"^=== (before|after): (\S+)\n", re.M)


@dataclass
class Case:
    """One case: files by relative path."""

    name: str
    about: str
    before: dict[str, str] = field(default_factory=dict)
    after: dict[str, str] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        for name, text in self.before.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text.encode())


def read(folder: Path) -> dict[str, str]:
    """All files of a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes().decode()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }


def cases(command: str) -> list[Case]:
    """The cases of a command."""
    found = []
    for path in sorted((FOLDER / command).glob("*.txt")):
        parts = _HEAD.split(path.read_text(encoding="utf-8"))
        case = Case(path.stem, parts[0].strip())
        for which, name, text in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
            text = HELPER.read_text(encoding="utf-8") if text.strip() == "HELPER" else text
            (case.before if which == "before" else case.after)[name] = text
        found.append(case)
    return found
