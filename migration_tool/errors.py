"""Errors that are shown to the user as they are."""

from __future__ import annotations


class MigrationError(Exception):
    """The command cannot go on; the message says what to do."""


class UnreadableFile(MigrationError):
    """One file cannot be read, decoded, parsed or replaced; the rest goes on without it."""
