"""The registry of the rules of ``actors``, and the file that they are given."""

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
    """A Python file or notebook in a project that is being converted.

    Arguments:
        plan: which tasks of the project are converted.
        uses: of tasks that become remote functions.
        namespace: the prefix of Celery's settings, if this module holds them; "" for none, None if it holds none.
        needed: names that the edits need imported: "ray", "logging", and names of the helper module.
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
        """Submissions and calls of ``run``, by the call that is replaced (``get`` if it is called at once)."""
        return {use.wait or use.call: use for use in self.uses if use.form in ("call", "run") and use.call is not None}

    @cached_property
    def canvases(self) -> dict[cst.CSTNode, Canvas]:
        """Canvases by the call that applies them."""
        return {use.canvas.node: use.canvas for use in self.uses if use.canvas is not None}

    def task(self, node: cst.FunctionDef) -> Task | None:
        """Return the task that a function definition of this file makes, if any."""
        return self.view.project.task(self.view.key, self.view.qualname(node))
