"""What can go wrong with one file or with the whole command."""

from __future__ import annotations


class MigrationError(Exception):
    """The command cannot go on; the message says what to do."""


class UnreadableFile(MigrationError):
    """One file cannot be read, decoded, parsed or replaced; the rest goes on without it."""
