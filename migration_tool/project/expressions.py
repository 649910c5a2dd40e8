"""Expressions reduced to what decides which thing they are; plain tuples, so that they travel between processes.

("name", n)                 a module's global
("import", module, attr)    an import; attr None for a module
("attr", e, n)              e.n
("call", e, args)           e(...), args: ((keyword or None, expression)...)
("item", e)                 an element of e: e[...] or what a loop over e gives
("key", e, text)            e["text"]
("any", (e, ...))           one of them
("function", q), ("class", q)   defined in the module under that qualified name
("param", e)                a parameter with that annotation (or None); ("self", q) the first one of a method of class q
("many", e)                 a list, set, tuple or generator of e
("str", text)
("pipe", e, e)              e | e
None                        anything else
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any

#: See the module's docstring.
Expression = Any

#: Longer chains than these do not occur in what this tool looks for.
DEPTH = 12
_LARGEST = 120


def from_ast(node: ast.AST | None, name: Callable[[str], Expression], depth: int = 0) -> Expression:
    """Reduce a node of Python's own syntax tree.

    Arguments:
        node: an expression.
        name: what a bare name is where the expression stands.
        depth: how deep in a larger expression it is.
    """
    if node is None or depth > DEPTH:
        return None

    def reduce(child: ast.AST | None) -> Expression:
        return from_ast(child, name, depth + 1)

    match node:
        case ast.Name():
            return name(node.id)
        case ast.Constant(value=str(text)):
            return ("str", text)
        case ast.Attribute():
            return ("attr", reduce(node.value), node.attr)
        case ast.Call():
            arguments: list[tuple[str | None, Expression]] = [(None, reduce(one)) for one in node.args[:3]]
            arguments += [(one.arg, reduce(one.value)) for one in node.keywords if one.arg]
            return ("call", reduce(node.func), tuple(arguments))
        case ast.Subscript(slice=ast.Constant(value=str(key))):
            return ("key", reduce(node.value), key)
        case ast.Subscript():
            return ("item", reduce(node.value))
        case ast.IfExp():
            return any_of([reduce(node.body), reduce(node.orelse)])
        case ast.BoolOp():
            return any_of([reduce(one) for one in node.values])
        case ast.BinOp(op=ast.BitOr()):
            return ("pipe", reduce(node.left), reduce(node.right))
        case ast.List() | ast.Tuple() | ast.Set():
            return ("many", reduce(node.elts[0])) if node.elts else None
        case ast.ListComp() | ast.SetComp() | ast.GeneratorExp():
            return ("many", reduce(node.elt))
        case ast.NamedExpr() | ast.Await() | ast.Starred():
            return reduce(node.value)
    return None


def bounded(expression: Expression) -> Expression:
    """The expression, or None if it is so large that it cannot be what this tool looks for.

    Variables that are assigned out of each other again and again would make expressions of any size.
    """
    stack, count = [expression], 0
    while stack:
        part = stack.pop()
        if isinstance(part, tuple):
            count += 1
            if count > _LARGEST:
                return None
            stack.extend(part)
    return expression


def any_of(expressions: list[Expression]) -> Expression:
    """One of several expressions; unknown ones are left out."""
    known = list(dict.fromkeys(one for one in expressions if one is not None))
    if len(known) > 1:
        return ("any", tuple(known[:6]))
    return known[0] if known else None
