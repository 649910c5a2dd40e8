"""A row of the table in docs/migrating.md for each project given: ``python -m tests.migration.public FOLDER...``

A folder is a checkout of a project; it is copied, and the three commands run over copies. Fails if one of them
crashes, if a changed file does not compile, or if a second run changes anything. ``--keep FOLDER`` keeps the migrated
copies there, for their diffs to be read.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path

from click.testing import CliRunner, Result

from migration_tool.cli import main

_STAYS = re.compile(r": note: task \S+: it stays on raycelery; (?P<reason>.*?)(?: \([^()]*:\d+\))?$", re.M)
_CHANGED = re.compile(r", (\d+) changed$", re.M)


class Broken(Exception):
    """Something that must hold does not."""


def _invoke(project: Path, *arguments: str) -> Result:
    done = CliRunner().invoke(main, [*arguments, str(project)])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise Broken(f"{' '.join(arguments)} crashed: {done.exception!r}") from done.exception
    return done


def _contents(project: Path) -> dict[Path, bytes]:
    return {path.relative_to(project): path.read_bytes() for path in project.rglob("*") if path.is_file()}


def _migrated(project: Path, *command: str) -> str:
    """Migrate a copy in its place; what was said on standard error."""
    before = _contents(project)
    first = _invoke(project, *command, "--write")
    after = _contents(project)
    for path, content in after.items():
        if path.suffix == ".py" and before.get(path) != content:
            compile(content, str(path), "exec", dont_inherit=True)
    _invoke(project, *command, "--write")
    if _contents(project) != after:
        raise Broken(f"a second run of {' '.join(command)} changed something")
    return first.stderr


def row(source: Path, keep: Path) -> str:
    """One project's row."""
    copies = {}
    for name in ("shim", "actors", "closed"):
        copies[name] = keep / name / source.name
        shutil.copytree(source, copies[name], symlinks=True, ignore=shutil.ignore_patterns(".git"))
        (copies[name] / ".hg").mkdir()  # so that no backups are made
    document = json.loads(_invoke(copies["shim"], "check", "--format", "json").stdout)
    summary = document["summary"]
    changed = _CHANGED.search(_migrated(copies["shim"], "shim"))
    stays = [match["reason"] for match in _STAYS.finditer(_migrated(copies["actors"], "actors"))]
    closed = len(_STAYS.findall(_migrated(copies["closed"], "actors", "--closed")))
    tasks = sum(one["kind"] == "task" for one in document["findings"])
    classes = sum(one["kind"] == "task class" for one in document["findings"])
    reasons = Counter(re.sub(r"^\S+, which", "a file that", one) for one in stays)
    return " | ".join(
        [
            f"| {source.name}",
            f"{summary['files']}",
            f"{tasks}" + (f" and {classes} classes" if classes else ""),
            f"{summary['works']}, {summary['changes']}, {summary['manual']}",
            changed[1] if changed else "?",
            f"{tasks - len(stays)}",
            f"{tasks - closed}",
            "; ".join(f"{count}: {reason}" for reason, count in reasons.most_common(4)) + " |",
        ]
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--keep", type=Path)
    options = parser.parse_args()
    status = 0
    with tempfile.TemporaryDirectory() as scratch:
        for folder in options.folders:
            try:
                print(row(folder.resolve(), options.keep or Path(scratch)), flush=True)
            except (Broken, SyntaxError) as error:
                print(f"{folder}: {error}", file=sys.stderr, flush=True)
                status = 1
    sys.exit(status)
