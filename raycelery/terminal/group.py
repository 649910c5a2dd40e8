"""A click group that suggests similar names for an unknown command."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

import click


class Group(click.Group):
    """A click group that suggests similar commands. Older releases of click do not, none does for lazy commands."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """Return the command that the arguments begin with.

        Raises:
            click.UsageError: there is no such command; the message suggests similar ones.
        """
        name = args[0]
        known = self.list_commands(ctx)
        if not name.startswith("-") and name not in known and not ctx.resilient_parsing:
            near = get_close_matches(name, known)
            hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"commands: {', '.join(known)}"
            ctx.fail(f"there is no command {name!r}; {hint}")
        return super().resolve_command(ctx, args)
