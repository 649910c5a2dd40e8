"""What the rules of ``actors`` see, and where they are registered."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import libcst as cst

from .. import rule
from ..project.project import Task
from .analysis.canvas import Canvas
from .analysis.uses import Use
from .plan import Plan

ACTORS = rule.Registry("actors", f"{__package__}.rules")


@dataclass(kw_only=True)
class File(rule.File):
    """One Python file or notebook.

    Arguments:
        plan: what is done to the project.
        uses: of tasks that become remote functions.
        namespace: the prefix of Celery's settings, if this module holds them; "" for none, None if it holds none.
        needed: what must be imported for the edits: "ray", "logging", and names of the helper module.
        told_settings: lines whose settings have been reported.
    """

    plan: Plan
    uses: list[Use] = field(default_factory=list)
    namespace: str | None = None
    needed: set[str] = field(default_factory=set)
    told_settings: set[int] = field(default_factory=set)

    @property
    def touched(self) -> bool:
        """Whether the file defines or uses a task that is converted, or reads results by id."""
        return self.view.key in self.plan.touched

    @property
    def keeps_tasks(self) -> bool:
        """Whether a task of this file stays on raycelery."""
        return any(key[0] == self.view.key and not self.plan.converts(key) for key in self.plan.definitions)

    @cached_property
    def calls(self) -> dict[cst.CSTNode, Use]:
        """Submissions and direct runs by the call that is replaced: of ``get``, if it is waited for at once."""
        return {use.wait or use.call: use for use in self.uses if use.form in ("call", "run") and use.call is not None}

    @cached_property
    def canvases(self) -> dict[cst.CSTNode, Canvas]:
        """Canvases by the call that applies them."""
        return {use.canvas.node: use.canvas for use in self.uses if use.canvas is not None}

    def task(self, node: cst.FunctionDef) -> Task | None:
        """The task that a function of this file is."""
        return self.view.project.task(self.view.key, self.view.qualname(node))
