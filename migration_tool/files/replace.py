"""Replaces files atomically, with a backup unless version control has the old content."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from ..errors import UnreadableFile


@cache
def _tracked(folder: Path) -> dict[str, str]:
    """Return the names of the files in a folder that git tracks, with the ids of their contents as last added."""
    try:
        done = subprocess.run(
            # The project's own configuration may name a program to be run: nothing of a project is.
            ["git", "-c", "core.fsmonitor=false", "ls-files", "--stage", "-z"],
            cwd=folder,
            capture_output=True,
            timeout=60,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired):
        return {}
    if done.returncode:
        return {}
    entries = (entry.partition(b"\t") for entry in done.stdout.split(b"\0") if entry)
    return {os.fsdecode(name): about.split()[1].decode() for about, _, name in entries}


def _blob(content: bytes, length: int) -> str:
    """Return git's id of a content, of so many digits, see https://git-scm.com/book/en/v2/Git-Internals-Git-Objects."""
    algorithm = "sha1" if length == 40 else "sha256"
    return hashlib.new(algorithm, b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def has_version(path: Path, content: bytes) -> bool:
    """Return whether version control has a file as it is, so that a change can be reverted.

    Arguments:
        path: the file.
        content: its content; edits that were never added to git are not there.
    """
    resolved = path.resolve()
    known = _tracked(resolved.parent).get(resolved.name)
    if known is not None:
        return known == _blob(content, len(known))
    return any((folder / mark).exists() for folder in resolved.parents for mark in (".hg", ".svn", ".jj"))


def _backup_path(path: Path) -> Path:
    candidate = path.with_name(path.name + ".orig")
    number = 1
    while candidate.exists():
        candidate = path.with_name(f"{path.name}.orig{number}")
        number += 1
    return candidate


def replace(path: Path, before: bytes, after: bytes) -> Path | None:
    """Replace a file's content atomically, keeping its permissions.

    Arguments:
        path: the file.
        before: its content when it was read.
        after: its new content.

    Returns:
        where the old content was saved; None if version control has it.

    Raises:
        UnreadableFile: it cannot be written, or has changed since it was read.
    """
    target = path.resolve()
    try:
        if target.read_bytes() != before:
            raise UnreadableFile(f"{path}: it changed while it was being migrated; run the command again")
        if not os.access(target, os.W_OK):
            raise UnreadableFile(f"{path}: it is read-only; make it writable first")
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".new")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(after)
                file.flush()
                os.fsync(file.fileno())
            shutil.copystat(target, name)
            os.utime(name)
            backup = None
            if not has_version(target, before):
                backup = _backup_path(target)
                shutil.copy2(target, backup)
            os.replace(name, target)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise UnreadableFile(f"{path}: {error.strerror or error}") from error
    return backup


def create(path: Path, content: str) -> None:
    """Create a file atomically.

    Raises:
        UnreadableFile: it exists, or cannot be written.
    """
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".new")
        try:
            with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            mask = os.umask(0)
            os.umask(mask)
            os.chmod(name, 0o666 & ~mask)
            os.link(name, path)  # unlike a rename, a link never replaces an existing file
        finally:
            Path(name).unlink(missing_ok=True)
    except OSError as error:
        raise UnreadableFile(f"{path}: {error.strerror or error}") from error
