"""Finds the files to process in folders, and tells their kinds."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pathspec import GitIgnoreSpec

from ..errors import MigrationError

#: Folders that hold no source of the project's own.
_SKIPPED = frozenset(
    {".git", ".hg", ".svn", ".tox", ".nox", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".ipynb_checkpoints",
     "__pycache__", "node_modules", "site-packages", ".eggs"}
)  # fmt: skip

#: Kinds of files with the pattern of their names; the first match decides.
_KINDS = (
    ("python", r".*\.pyi?"),
    ("notebook", r".*\.ipynb"),
    ("setup.cfg", r"setup\.cfg"),
    ("pyproject", r"pyproject\.toml"),
    ("pipfile", r"Pipfile"),
    ("lock", r"(poetry|uv|Pipfile|pdm)\.lock"),
    ("requirements", r"((.*[-_.])?(requirements|constraints)([-_.].*)?|requirements/[^/]+)\.(txt|in|pip)"),
    ("procfile", r"Procfile(\..*)?"),
    ("dockerfile", r"((.*\.)?(Dockerfile|Containerfile)(\..*)?)|(.*\.dockerfile)"),
    ("compose", r".*\.ya?ml"),
    ("systemd", r".*\.(service|timer|conf|ini)"),
    ("shell", r"(.*\.(sh|bash|zsh))|Makefile|justfile"),
)  # fmt: skip
_PATTERNS = tuple((kind, re.compile(f"(?:{pattern})\\Z")) for kind, pattern in _KINDS)
_SHELL_LINE = re.compile(rb"#!.*\b(ba|da|z|k)?sh\b")


@dataclass(frozen=True)
class Found:
    """A file to process.

    Arguments:
        path: as the user would name it.
        kind: "python", "notebook", "requirements", "procfile"...
    """

    path: Path
    kind: str


def kind_of(path: Path) -> str | None:
    """Return the kind of a file by its name or its first line; None if it is not to be processed."""
    name = f"{path.parent.name}/{path.name}"
    for kind, pattern in _PATTERNS:
        if pattern.match(path.name) or (kind == "requirements" and pattern.match(name)):
            return kind
    if "." not in path.name:
        try:
            with path.open("rb") as file:
                return "shell" if _SHELL_LINE.match(file.read(80)) else None
        except OSError:
            return None
    return None


def discover(paths: Sequence[Path], exclude: Sequence[str] = ()) -> list[Found]:
    """Return the files under ``paths``, sorted, each once.

    Symbolic links are not followed, and ignored files are left out, except for those in ``paths`` themselves.

    Arguments:
        paths: files and folders.
        exclude: patterns as in ``.gitignore``, relative to each folder.

    Raises:
        MigrationError: a path does not exist, or a pattern is malformed.
    """
    found: dict[Path, Found] = {}
    try:
        excluded = GitIgnoreSpec.from_lines(exclude)
    except ValueError as error:
        raise MigrationError(f"--exclude: {error}; write patterns as in .gitignore") from error
    for path in paths:
        if not path.exists():
            raise MigrationError(f"{path} does not exist")
        if path.is_file():
            kind = kind_of(path) or "python"
            found.setdefault(path.resolve(), Found(path, kind))
            continue
        for one in _walk(path, excluded):
            kind_found = kind_of(one)
            if kind_found is not None:
                found.setdefault(one.resolve(), Found(one, kind_found))
    return sorted(found.values(), key=lambda one: str(one.path))


def _walk(top: Path, excluded: GitIgnoreSpec) -> Iterator[Path]:
    specs = _ignored_above(top.resolve())
    stack = [(top, specs)]
    while stack:
        folder, above = stack.pop()
        spec = _read_spec(folder)
        here = [*above, (folder.resolve(), spec)] if spec is not None else above
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda one: one.name):
                path = folder / entry.name
                if entry.is_symlink() or entry.name in _SKIPPED:
                    continue
                is_folder = entry.is_dir(follow_symlinks=False)
                relative = path.relative_to(top).as_posix() + ("/" if is_folder else "")
                if excluded.match_file(relative) or _is_ignored(path.resolve(), is_folder, here):
                    continue
                if not is_folder:
                    if entry.is_file(follow_symlinks=False):
                        yield path
                elif not (path / "pyvenv.cfg").exists():
                    stack.append((path, here))


def _read_spec(folder: Path) -> GitIgnoreSpec | None:
    path = folder / ".gitignore"
    if not path.is_file():
        return None
    return GitIgnoreSpec.from_lines(path.read_text(encoding="utf-8", errors="replace").splitlines())


def _ignored_above(top: Path) -> list[tuple[Path, GitIgnoreSpec]]:
    """Return the ``.gitignore`` files between the repository's root and a folder inside it."""
    root = next((folder for folder in top.parents if (folder / ".git").exists()), None)
    if root is None or (top / ".git").exists():
        return []
    between = [folder for folder in reversed(top.parents) if folder == root or root in folder.parents]
    return [(folder, spec) for folder in between if (spec := _read_spec(folder)) is not None]


def _is_ignored(path: Path, is_folder: bool, specs: list[tuple[Path, GitIgnoreSpec]]) -> bool:
    """Return whether git would ignore a path: the deepest ``.gitignore`` with a matching pattern decides."""
    for folder, spec in reversed(specs):
        relative = path.relative_to(folder).as_posix() + ("/" if is_folder else "")
        verdict = spec.check_file(relative).include
        if verdict is not None:
            return verdict
    return False
