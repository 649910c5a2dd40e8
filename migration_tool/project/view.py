"""One file's syntax tree: where its nodes are in the text, what its names refer to, and the edits made so far."""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cached_property

import libcst as cst
from libcst.metadata import (
    Assignment,
    ByteSpanPositionProvider,
    CodeSpan,
    GlobalScope,
    ImportAssignment,
    MetadataWrapper,
    Scope,
    ScopeProvider,
)
from libcst.metadata.scope_provider import BaseAssignment

from .edits import Edit, apply
from .expressions import DEPTH, Expression, any_of, bounded
from .index import absolute
from .project import Project
from .values import Value


class View:
    """A parsed file of a project.

    Arguments:
        text: its source.
        key: its module's key.
        package: dotted path of its folder, for relative imports.
        project: resolves names.

    Raises:
        libcst.ParserSyntaxError: LibCST cannot parse it.
    """

    def __init__(self, text: str, key: str, package: str, project: Project) -> None:
        self.text, self.key, self.package, self.project = text, key, package, project
        self.raw = text.encode("utf-8", "surrogatepass")
        #: Edits made so far; :meth:`source` applies them.
        self.pending: list[Edit] = []
        self.tree = cst.parse_module(text)
        self._wrapper = MetadataWrapper(self.tree, unsafe_skip_copy=True)
        self._values: dict[cst.CSTNode, Value | None] = {}
        self._locals: dict[tuple[Scope, str], Expression] = {}

    @cached_property
    def _spans(self) -> dict[cst.CSTNode, CodeSpan]:
        return dict(self._wrapper.resolve(ByteSpanPositionProvider))

    @cached_property
    def scopes(self) -> dict[cst.CSTNode, Scope | None]:
        """The scope of each expression."""
        return dict(self._wrapper.resolve(ScopeProvider))

    @cached_property
    def parents(self) -> dict[cst.CSTNode, cst.CSTNode]:
        """The parent of each node."""
        found: dict[cst.CSTNode, cst.CSTNode] = {}
        stack: list[cst.CSTNode] = [self.tree]
        while stack:
            node = stack.pop()
            for child in node.children:
                found[child] = node
                stack.append(child)
        return found

    @cached_property
    def nodes(self) -> list[cst.CSTNode]:
        """All nodes, parents before their children, in the order of the text."""
        return self.nodes_in(self.tree)

    def nodes_in(self, node: cst.CSTNode) -> list[cst.CSTNode]:
        """Return a node and all nodes below it, in the order of the text."""
        found: list[cst.CSTNode] = []
        stack = [node]
        while stack:
            inner = stack.pop()
            found.append(inner)
            stack.extend(reversed(inner.children))
        return found

    @cached_property
    def inside_out(self) -> list[cst.CSTNode]:
        """All nodes, children before their parents, in the order of the text."""
        found: list[cst.CSTNode] = []
        stack: list[cst.CSTNode] = [self.tree]
        while stack:
            node = stack.pop()
            found.append(node)
            stack.extend(node.children)
        found.reverse()
        return found

    # ---- places

    def span(self, node: cst.CSTNode) -> tuple[int, int]:
        """Return the offsets in UTF-8 bytes at which a node begins and ends."""
        span = self._spans[node]
        return span.start, span.start + span.length

    def whole(self, node: cst.CSTNode) -> tuple[int, int]:
        """Return the offsets at which a node begins and ends, with the parentheses around it."""
        start, end = self.span(node)
        left, right = getattr(node, "lpar", ()), getattr(node, "rpar", ())
        if left and right:
            return self.span(left[0])[0], self.span(right[-1])[1]
        return start, end

    def source(self, node: cst.CSTNode) -> str:
        """Return a node's text with the parentheses around it, after the edits made so far."""
        return self.between(*self.whole(node))

    def between(self, start: int, end: int) -> str:
        """Return the text between two offsets, after the edits made so far."""
        inside = [one for one in self.pending if one.is_inside(start, end)]
        moved = [replace(one, start=one.start - start, end=one.end - start) for one in inside]
        return apply(self.raw[start:end].decode("utf-8", "surrogatepass"), moved)

    def change(self, edit: Edit) -> None:
        """Make an edit; it replaces the edits inside its range."""
        self.pending = [one for one in self.pending if not one.is_inside(edit.start, edit.end)]
        self.pending.append(edit)

    @cached_property
    def _line_starts(self) -> list[int]:
        starts = [0]
        for line in self.raw.splitlines(keepends=True):
            starts.append(starts[-1] + len(line))
        return starts

    def line(self, offset: int) -> int:
        """Return the number of an offset's line, from 1."""
        return bisect.bisect_right(self._line_starts, offset)

    def offset(self, line: int) -> int:
        """Return the offset of the first character of a line that is not white space; lines are counted from 1."""
        start = self._line_starts[line - 1]
        text = self.raw[start : self._line_starts[min(line, len(self._line_starts) - 1)]]
        return start + len(text) - len(text.lstrip())

    def column(self, offset: int) -> int:
        """Return the number of the character in its line, from 1."""
        start = self._line_starts[self.line(offset) - 1]
        return len(self.raw[start:offset].decode("utf-8", "surrogatepass")) + 1

    def line_start(self, offset: int) -> int:
        """Return the offset at which an offset's line begins."""
        return self._line_starts[self.line(offset) - 1]

    def line_end(self, offset: int) -> int:
        """Return the offset at which the line after an offset's line begins."""
        return self._line_starts[min(self.line(offset), len(self._line_starts) - 1)]

    def indentation(self, offset: int) -> str:
        """Return the white space at the beginning of an offset's line."""
        line = self.raw[self.line_start(offset) : self.line_end(offset)].decode("utf-8", "surrogatepass")
        return line[: len(line) - len(line.lstrip(" \t\f"))]

    @cached_property
    def newline(self) -> str:
        """The file's line ending."""
        return self.tree.default_newline

    def around(self, node: cst.CSTNode) -> Iterator[cst.CSTNode]:
        """Yield the ancestors of a node, the nearest first."""
        while node in self.parents:
            node = self.parents[node]
            yield node

    def statement(self, node: cst.CSTNode) -> cst.CSTNode:
        """Return the simple or compound statement that contains a node."""
        for outer in (node, *self.around(node)):
            if isinstance(outer, cst.SimpleStatementLine | cst.BaseCompoundStatement):
                return outer
        return self.tree

    def function(self, node: cst.CSTNode) -> cst.FunctionDef | None:
        """Return the innermost function whose body contains a node."""
        inner = node
        for outer in self.around(node):
            if isinstance(outer, cst.FunctionDef) and inner is outer.body:
                return outer
            inner = outer
        return None

    def qualname(self, node: cst.FunctionDef | cst.ClassDef) -> str:
        """Return a definition's dotted name in its module."""
        names = [node.name.value]
        names += [one.name.value for one in self.around(node) if isinstance(one, cst.FunctionDef | cst.ClassDef)]
        return ".".join(reversed(names))

    # ---- names

    def value(self, node: cst.BaseExpression) -> Value | None:
        """Return the value of an expression; None if it is not known."""
        if node not in self._values:
            self._values[node] = self.project.evaluate(self.expression(node), self.key)
        return self._values[node]

    def dotted(self, node: cst.BaseExpression) -> str | None:
        """Return the dotted name of an expression whose value is outside the project; None for any other."""
        value = self.value(node)
        return value.name if value is not None and value.kind == "external" else None

    def expression(self, node: cst.CSTNode | None, depth: int = 0) -> Expression:
        """Return a node in reduced form, with local names replaced by their values."""
        if node is None or depth > DEPTH:
            return None

        def reduce(child: cst.CSTNode | None) -> Expression:
            return self.expression(child, depth + 1)

        match node:
            case cst.Name():
                return self._name(node)
            case cst.Attribute():
                return ("attr", reduce(node.value), node.attr.value)
            case cst.Call():
                given = [one for one in node.args if one.keyword is None and not one.star][:3]
                named = [one for one in node.args if one.keyword is not None]
                arguments = [(one.keyword.value if one.keyword else None, reduce(one.value)) for one in given + named]
                return ("call", reduce(node.func), tuple(arguments))
            case cst.Subscript():
                key = node.slice[0].slice
                if isinstance(key, cst.Index) and isinstance(key.value, cst.SimpleString):
                    return ("key", reduce(node.value), key.value.evaluated_value)
                return ("item", reduce(node.value))
            case cst.IfExp():
                return any_of([reduce(node.body), reduce(node.orelse)])
            case cst.BooleanOperation():
                return any_of([reduce(node.left), reduce(node.right)])
            case cst.BinaryOperation(operator=cst.BitOr()):
                return ("pipe", reduce(node.left), reduce(node.right))
            case cst.List() | cst.Tuple() | cst.Set():
                return ("many", reduce(node.elements[0].value)) if node.elements else None
            case cst.ListComp() | cst.SetComp() | cst.GeneratorExp():
                return ("many", reduce(node.elt))
            case cst.NamedExpr():
                return reduce(node.value)
            case cst.Await():
                return reduce(node.expression)
            case cst.SimpleString():
                return ("str", node.evaluated_value) if isinstance(node.evaluated_value, str) else None
        return None

    def _name(self, node: cst.Name) -> Expression:
        scope = self.scopes.get(node)
        if scope is None:
            return None
        assignments = scope[node.value]
        if not assignments or any(isinstance(one.scope, GlobalScope) for one in assignments):
            return ("name", node.value)
        mark = (next(iter(assignments)).scope, node.value)
        if mark not in self._locals:
            self._locals[mark] = None  # while it is being resolved: a name that is assigned from itself is unknown
            self._locals[mark] = bounded(self._local(assignments, node.value))
        return self._locals[mark]

    def _local(self, assignments: Iterable[BaseAssignment], name: str) -> Expression:
        found: list[Expression] = []
        for assignment in list(assignments)[:8]:
            if isinstance(assignment, ImportAssignment):
                found.append(self._import(assignment, name))
            elif isinstance(assignment, Assignment):
                found.append(self._assigned(assignment.node, assignment.scope, 0))
        return any_of(found)

    def _import(self, assignment: ImportAssignment, name: str) -> Expression:
        node = assignment.node
        if isinstance(node, cst.Import):
            for alias in node.names:
                if alias.evaluated_alias == name:
                    return ("import", alias.evaluated_name, None)
            return ("import", name, None)
        if isinstance(node, cst.ImportFrom) and not isinstance(node.names, cst.ImportStar):
            source = absolute(dotted_name(node.module), len(node.relative), self.package)
            for alias in node.names:
                if (alias.evaluated_alias or alias.evaluated_name) == name:
                    return ("import", source, alias.evaluated_name)
        return None

    def imported(self, node: cst.ImportFrom, alias: cst.ImportAlias) -> Expression:
        """Return the reduced form of one name of an import statement."""
        return ("import", absolute(dotted_name(node.module), len(node.relative), self.package), alias.evaluated_name)

    def _assigned(self, node: cst.CSTNode, scope: Scope, depth: int) -> Expression:
        """Return the reduced form of a local name, given the node that binds it."""
        match node:
            case cst.FunctionDef():
                return ("function", self.qualname(node))
            case cst.ClassDef():
                return ("class", self.qualname(node))
            case cst.Param():
                return self._parameter(node, depth)
        inner = node
        for outer in self.around(node):
            match outer:
                case cst.AssignTarget():
                    parent = self.parents[outer]
                    if isinstance(parent, cst.Assign) and outer.target is node:
                        return self.expression(parent.value, depth + 1)
                    return None
                case cst.AnnAssign():
                    if outer.value is not None:
                        return self.expression(outer.value, depth + 1)
                    return ("param", self.expression(outer.annotation.annotation, depth + 1))
                case cst.NamedExpr():
                    return self.expression(outer.value, depth + 1)
                case cst.For() | cst.CompFor():
                    return ("item", self.expression(outer.iter, depth + 1)) if outer.target is node else None
                case cst.WithItem():
                    return self.expression(outer.item, depth + 1)
                case cst.Param():
                    return self._parameter(outer, depth)
                case cst.Name() | cst.AsName() | cst.Tuple() | cst.List() | cst.Element() | cst.StarredElement():
                    if isinstance(inner, cst.Name) and isinstance(outer, cst.Tuple | cst.List):
                        return None
                case _:
                    return None
            inner = outer
        return None

    def _parameter(self, node: cst.Param, depth: int) -> Expression:
        parameters = self.parents.get(node)
        function = self.parents.get(parameters) if parameters is not None else None
        if isinstance(function, cst.FunctionDef) and isinstance(parameters, cst.Parameters):
            positional = [*parameters.posonly_params, *parameters.params]
            if positional and positional[0] is node:
                owner = next(
                    (one for one in self.around(function) if isinstance(one, cst.ClassDef | cst.FunctionDef)), None
                )
                if isinstance(owner, cst.ClassDef):
                    return ("self", self.qualname(owner))
        if node.annotation is None:
            return None
        return ("param", self.expression(node.annotation.annotation, depth + 1))


def dotted_name(node: cst.BaseExpression | None) -> str | None:
    """Return the text of a dotted name; None for any other expression."""
    if isinstance(node, cst.Name):
        return node.value
    if isinstance(node, cst.Attribute):
        base = dotted_name(node.value)
        return f"{base}.{node.attr.value}" if base is not None else None
    return None
