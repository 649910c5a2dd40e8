"""The interface of a rule, the registry of rules, and how rules are applied to a file.

To add a rule to ``shim`` or ``actors``, write one module in ``shim/rules`` or ``actors/rules``::

    from ...examples import Example
    from ...project.edits import Edit
    from ...rule import TreeRule
    from ..file import ACTORS, File


    @ACTORS.register
    class Loggers(TreeRule[File]):
        \"\"\"Task loggers become plain ones.\"\"\"

        matches = (cst.Call,)
        examples = (Example(before="...", after="..."),)

        def wanted(self, file: File) -> bool:
            return "get_task_logger" in file.view.text

        def write(self, file: File, node: cst.Call) -> Iterator[Edit]:
            if file.view.dotted(node.func) == "celery.utils.log.get_task_logger":
                file.needed.add("logging")
                yield Edit(*file.view.span(node.func), "logging.getLogger")

1. The module's name is the rule's name, the class's docstring its description. Nothing else has to know of it: the
   registry imports every module of the folder.
2. ``matches`` names the types of LibCST's nodes that the rule is shown. ``wanted`` is a cheap look at the whole file.
3. ``write`` yields the edits for one node. Inner nodes come before outer ones, and ``file.view.source(node)`` has the
   edits of the inner ones in it, so a rule that replaces a call writes its arguments after their own edits.
4. ``examples`` are at least one file before and after, and one that stays as it is or says by a comment why something
   stays. They are run as tests (``tests/migration/test_rules.py``), and are the rule's entry in
   ``docs/migrating-rules.md``, which ``python -m raycelery.migrate.rules > docs/migrating-rules.md`` writes.
5. What involves several files, or several rules together, gets a case in ``tests/migration/corpus``.

A rule of ``actors`` only writes what the plan has decided (``actors/plan.py``): whether a task is converted depends on
all files of the project. A new reason to keep a task belongs into ``actors/analysis``.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, TypeVar

import libcst as cst

from .examples import Example
from .model import Finding, Verdict
from .project.edits import Edit
from .project.view import View
from .rewriting import finding
from .workspace import Source


@dataclass(kw_only=True)
class File:
    """One Python file or notebook, as rules see it.

    Arguments:
        view: its syntax tree, what its names stand for, and the edits so far.
        source: the file as it was read.
        findings: what the command tells the user about the file; rules add to it.
    """

    view: View
    source: Source
    findings: list[Finding] = field(default_factory=list)

    def report(
        self, node: cst.CSTNode, kind: str, name: str, verdict: Verdict, message: str = "", instead: str = ""
    ) -> None:
        """Add a finding at a node; the arguments are those of :class:`Finding`."""
        self.findings.append(finding(self.view, self.source, node, kind, name, verdict, message, instead))


AnyFile = TypeVar("AnyFile", bound=File)


class Rule(ABC):
    """The base of all rules. The docstring of a rule's class describes the rule to users."""

    #: Files before and after, and files that it leaves alone; run as tests.
    examples: ClassVar[tuple[Example, ...]]

    @property
    def name(self) -> str:
        """The name of its module, such as "loggers"."""
        return type(self).__module__.rpartition(".")[2]

    @property
    def about(self) -> str:
        """The rule's description: its class's docstring."""
        return inspect.cleandoc(type(self).__doc__ or "")


class TreeRule(Rule, Generic[AnyFile]):
    """A rule that changes Python code, node by node of its syntax tree."""

    #: The types of nodes that :meth:`write` is called with.
    matches: ClassVar[tuple[type[cst.CSTNode], ...]]

    def wanted(self, file: AnyFile) -> bool:
        """Return whether the file may contain matching code; if not, :meth:`write` is not called for it."""
        return True

    @abstractmethod
    def write(self, file: AnyFile, node: Any) -> Iterable[Edit]:
        """Yield the edits for one node, which is of a type in ``matches``; none if the rule does not apply to it."""


class TextRule(Rule):
    """A rule that changes files that are not Python, as text."""

    #: The kinds of files that it changes, see :mod:`raycelery.migrate.files.discover`.
    kinds: ClassVar[frozenset[str]]

    @abstractmethod
    def rewrite(self, source: Source) -> tuple[str, list[Finding]]:
        """Return the file's new text, which may be the old one, and findings."""


AnyRule = TypeVar("AnyRule", bound=Rule)


class Registry:
    """The rules of one command.

    Arguments:
        command: its name: "shim" or "actors".
        package: the package whose modules hold the rules.
    """

    def __init__(self, command: str, package: str) -> None:
        self.command, self.package = command, package
        self._rules: dict[str, Rule] = {}

    def register(self, rule: type[AnyRule]) -> type[AnyRule]:
        """Add a rule; a class decorator.

        Raises:
            ValueError: its module has registered a rule already.
        """
        made = rule()
        if made.name in self._rules:
            raise ValueError(f"{rule.__module__} has two rules; a rule has a module of its own, and its name")
        self._rules[made.name] = made
        return rule

    @property
    def rules(self) -> Mapping[str, Rule]:
        """All rules by name, sorted by name. Imports the package's modules."""
        package = importlib.import_module(self.package)
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{self.package}.{module.name}")
        return dict(sorted(self._rules.items()))


def apply(rules: Iterable[Rule], file: File) -> None:
    """Show each tree rule the nodes that it matches, inner nodes first, and make the edits that it yields.

    Arguments:
        rules: text rules among them are passed over.
        file: of the type that the rules are made for; the edits go to ``file.view.pending``.
    """
    by_type: dict[type[cst.CSTNode], list[TreeRule[Any]]] = {}
    for rule in rules:
        if isinstance(rule, TreeRule) and rule.wanted(file):
            for kind in rule.matches:
                by_type.setdefault(kind, []).append(rule)
    if not by_type:
        return
    for node in file.view.inside_out:
        for one in by_type.get(type(node), ()):
            for edit in one.write(file, node):
                file.view.change(edit)
