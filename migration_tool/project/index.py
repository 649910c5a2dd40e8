"""Indexes one Python file: imports, globals, functions and classes."""

from __future__ import annotations

import ast
import warnings
from dataclasses import dataclass, field

from .expressions import Expression, any_of, bounded, from_ast


@dataclass(frozen=True)
class Decorator:
    """A decorator.

    Arguments:
        target: what is applied, or called to get what is applied.
        called: it has parentheses.
        keywords: the source of its keyword arguments.
        line: from 1.
        starred: it has positional or ``**`` arguments."""

    target: Expression
    called: bool
    keywords: dict[str, str]
    line: int
    starred: bool = False


@dataclass
class Function:
    """A function or method.

    Arguments:
        qualname: dotted, without ``<locals>``.
        line: of its name, from 1.
        parameters: positional parameters with their annotations.
        returns: what it may return.
        decorators: outermost first.
        owner: qualified name of the class it is a method of.
        sets_self: it is a method that assigns attributes of ``self``.
    """

    qualname: str
    line: int
    parameters: dict[str, Expression]
    returns: Expression
    decorators: list[Decorator]
    owner: str | None = None
    sets_self: bool = False
    is_async: bool = False
    yields: bool = False


@dataclass
class Class:
    """A class.

    Arguments:
        attributes: what each attribute may be, those assigned in methods included.
        methods: their names.
        assigned: names of all attributes that methods assign."""

    qualname: str
    line: int
    bases: list[Expression]
    attributes: dict[str, Expression]
    methods: list[str]
    decorators: list[Decorator]
    assigned: set[str] = field(default_factory=set)


@dataclass
class Module:
    """One file's definitions.

    Arguments:
        bindings: what each global name may be.
        functions, classes: by qualified name.
        stars: modules from which ``*`` is imported.
        imports: dotted names that are imported.
    """

    bindings: dict[str, Expression] = field(default_factory=dict)
    functions: dict[str, Function] = field(default_factory=dict)
    classes: dict[str, Class] = field(default_factory=dict)
    stars: list[str] = field(default_factory=list)
    imports: set[str] = field(default_factory=set)
    #: Those of ``imports`` that are not relative.
    absolute: set[str] = field(default_factory=set)
    #: Local names of each function, by qualified name.
    local_names: dict[str, dict[str, Expression]] = field(default_factory=dict)


def absolute(module: str | None, level: int, package: str) -> str:
    """Return the absolute dotted name of a (relative) import in a package."""
    if not level:
        return module or ""
    parts = package.split(".") if package else []
    parts = parts[: len(parts) - level + 1]
    return ".".join([*parts, module] if module else parts)


def index(text: str, package: str) -> Module:
    """Index a file.

    Arguments:
        text: its source.
        package: dotted name of the package it is in; empty for none.

    Raises:
        SyntaxError: it is not valid Python.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tree = ast.parse(text)
    indexer = _Indexer(package)
    indexer.block(tree.body, "", {}, None)
    module = indexer.module
    module.bindings = {name: any_of(found) for name, found in indexer.globals.items()}
    return module


_Locals = dict[str, list[Expression]]
#: Most assignments of one name that are considered.
_MOST = 8


class _Indexer:
    """Walks the statements of a file and reduces their expressions; local names are replaced by their values."""

    def __init__(self, package: str) -> None:
        self.package = package
        self.module = Module()
        self.globals: dict[str, list[Expression]] = {}

    def block(self, body: list[ast.stmt], prefix: str, scope: _Locals, owner: str | None) -> None:
        for statement in body:
            self.statement(statement, prefix, scope, owner)

    def bind(self, prefix: str, scope: _Locals, name: str, value: Expression) -> None:
        found = (scope if prefix else self.globals).setdefault(name, [])
        if len(found) < _MOST:
            found.append(bounded(value))

    def reduce(self, node: ast.AST | None, prefix: str, scope: _Locals) -> Expression:
        def name(text: str) -> Expression:
            return any_of(scope[text]) if prefix and text in scope else ("name", text)

        return from_ast(node, name)

    def statement(self, node: ast.stmt, prefix: str, scope: _Locals, owner: str | None) -> None:
        match node:
            case ast.Import() | ast.ImportFrom():
                self.imported(node, prefix, scope)
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                self.function(node, prefix, scope, owner)
            case ast.ClassDef():
                self.klass(node, prefix, scope)
            case ast.Assign():
                value = self.reduce(node.value, prefix, scope)
                for target in node.targets:
                    self.assign(target, value, prefix, scope)
            case ast.AnnAssign():
                value = self.reduce(node.value, prefix, scope)
                if value is None:
                    value = ("param", self.reduce(node.annotation, prefix, scope))
                self.assign(node.target, value, prefix, scope)
            case ast.For() | ast.AsyncFor():
                self.assign(node.target, ("item", self.reduce(node.iter, prefix, scope)), prefix, scope)
                self.block([*node.body, *node.orelse], prefix, scope, owner)
            case ast.While() | ast.If():
                self.block([*node.body, *node.orelse], prefix, scope, owner)
            case ast.With() | ast.AsyncWith():
                for item in node.items:
                    if item.optional_vars is not None:
                        value = self.reduce(item.context_expr, prefix, scope)
                        self.assign(item.optional_vars, value, prefix, scope)
                self.block(node.body, prefix, scope, owner)
            case ast.Try():
                self.block(node.body, prefix, scope, owner)
                for handler in node.handlers:
                    self.block(handler.body, prefix, scope, owner)
                self.block([*node.orelse, *node.finalbody], prefix, scope, owner)
            case ast.Match():
                for case in node.cases:
                    self.block(case.body, prefix, scope, owner)
            case ast.Global() if prefix:
                for name in node.names:
                    scope[name] = [("name", name)]

    def assign(self, target: ast.AST, value: Expression, prefix: str, scope: _Locals) -> None:
        match target:
            case ast.Name():
                if prefix and scope.get(target.id) == [("name", target.id)]:
                    self.globals.setdefault(target.id, []).append(value)
                else:
                    self.bind(prefix, scope, target.id, value)
            case ast.Tuple() | ast.List():
                for one in target.elts:
                    self.assign(one, None, prefix, scope)
            case ast.Attribute(value=ast.Name(id=name)) if scope.get(name, [None])[0] is not None:
                first = scope[name][0]
                if first[0] == "self":
                    owner = self.module.classes[first[1]]
                    owner.assigned.add(target.attr)
                    if value is not None:
                        owner.attributes[target.attr] = any_of([owner.attributes.get(target.attr), value])

    def imported(self, node: ast.Import | ast.ImportFrom, prefix: str, scope: _Locals) -> None:
        if isinstance(node, ast.Import):
            for alias in node.names:
                self.module.imports.add(alias.name)
                self.module.absolute.add(alias.name)
                if alias.asname:
                    self.bind(prefix, scope, alias.asname, ("import", alias.name, None))
                else:
                    top = alias.name.partition(".")[0]
                    self.bind(prefix, scope, top, ("import", top, None))
            return
        source = absolute(node.module, node.level, self.package)
        names = {source, *(f"{source}.{alias.name}" for alias in node.names if alias.name != "*")}
        self.module.imports |= names
        if not node.level:
            self.module.absolute |= names
        for alias in node.names:
            if alias.name == "*":
                self.module.stars.append(source)
            else:
                self.bind(prefix, scope, alias.asname or alias.name, ("import", source, alias.name))

    def decorators(self, nodes: list[ast.expr], prefix: str, scope: _Locals) -> list[Decorator]:
        found = []
        for node in nodes:
            call = node if isinstance(node, ast.Call) else None
            target = call.func if call is not None else node
            keywords = {one.arg: ast.unparse(one.value) for one in call.keywords if one.arg} if call is not None else {}
            starred = call is not None and (bool(call.args) or any(one.arg is None for one in call.keywords))
            found.append(
                Decorator(self.reduce(target, prefix, scope), call is not None, keywords, node.lineno, starred)
            )
        return found

    def function(
        self, node: ast.FunctionDef | ast.AsyncFunctionDef, prefix: str, scope: _Locals, owner: str | None
    ) -> None:
        qualname = f"{prefix}{node.name}"
        decorators = self.decorators(node.decorator_list, prefix, scope)
        arguments = [*node.args.posonlyargs, *node.args.args]
        parameters = {one.arg: self.reduce(one.annotation, prefix, scope) for one in arguments}
        inner: _Locals = {name: list(values) for name, values in scope.items()} if prefix else {}
        for name, annotation in parameters.items():
            inner[name] = [("param", annotation)]
        for one in [*node.args.kwonlyargs, node.args.vararg, node.args.kwarg]:
            if one is not None:
                inner[one.arg] = [("param", self.reduce(one.annotation, prefix, scope))]
        static = any(isinstance(one, ast.Name) and one.id == "staticmethod" for one in node.decorator_list)
        if owner is not None and arguments and not static:
            inner[arguments[0].arg] = [("self", owner)]
        # Methods do not see the names of their class's body; treating them as visible is exact enough here.
        before = dict(self.module.classes[owner].attributes) if owner else {}
        self.block(node.body, f"{qualname}.", inner, None)
        returns = []
        finder = _Returns()
        for statement in node.body:
            finder.visit(statement)
        for value in finder.values:
            returns.append(self.reduce(value, f"{qualname}.", inner))
        if not returns and node.returns is not None:
            returns.append(("param", self.reduce(node.returns, prefix, scope)))
        elif all(one is None for one in returns) and node.returns is not None:
            returns = [("param", self.reduce(node.returns, prefix, scope))]
        self.module.functions[qualname] = Function(
            qualname,
            node.lineno,
            parameters,
            any_of(returns),
            decorators,
            owner,
            sets_self=(owner is not None and self.module.classes[owner].attributes != before) or finder.sets_self,
            is_async=isinstance(node, ast.AsyncFunctionDef),
            yields=finder.yields,
        )
        self.module.local_names[qualname] = {name: any_of(values) for name, values in inner.items()}
        if owner is None:
            self.bind(prefix, scope, node.name, ("function", qualname))
        else:
            self.module.classes[owner].methods.append(node.name)

    def klass(self, node: ast.ClassDef, prefix: str, scope: _Locals) -> None:
        qualname = f"{prefix}{node.name}"
        self.bind(prefix, scope, node.name, ("class", qualname))
        bases = [self.reduce(one, prefix, scope) for one in node.bases]
        decorators = self.decorators(node.decorator_list, prefix, scope)
        found = Class(qualname, node.lineno, bases, {}, [], decorators)
        self.module.classes[qualname] = found
        inner: _Locals = {name: list(values) for name, values in scope.items()} if prefix else {}
        outer = dict(inner)
        # The body first: its attributes are looked up while methods are indexed.
        self.block(node.body, f"{qualname}.", inner, qualname)
        for name, values in inner.items():
            if outer.get(name) != values:
                found.attributes[name] = any_of([found.attributes.get(name), *values])


class _Returns(ast.NodeVisitor):
    """Collects the values that a function returns, without those of functions inside it."""

    def __init__(self) -> None:
        self.values: list[ast.expr | None] = []
        self.yields = False
        self.sets_self = False

    def visit_Return(self, node: ast.Return) -> None:
        self.values.append(node.value)
        self.generic_visit(node)

    def visit_Yield(self, node: ast.Yield) -> None:
        self.yields = True

    def visit_YieldFrom(self, node: ast.YieldFrom) -> None:
        self.yields = True

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if isinstance(node.ctx, ast.Store) and isinstance(node.value, ast.Name) and node.value.id == "self":
            self.sets_self = True
        self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        return

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        return

    def visit_Lambda(self, node: ast.Lambda) -> None:
        return

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        return
