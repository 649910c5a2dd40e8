"""Expressions in a reduced form that is enough to resolve them: plain tuples, which can be sent between processes.

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

#: Deeper expressions than this are not resolved.
DEPTH = 12
_LARGEST = 120


def from_ast(node: ast.AST | None, name: Callable[[str], Expression], depth: int = 0) -> Expression:
    """Reduce a node of Python's own syntax tree.

    Arguments:
        node: an expression.
        name: returns the reduced form of a bare name.
        depth: its depth in the whole expression.
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
    """Return the expression, or None if it is too large to be resolved.

    Variables that are assigned from each other repeatedly would grow without limit.
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
    """Return an expression for one of several; unknown ones are left out."""
    known = list(dict.fromkeys(one for one in expressions if one is not None))
    if len(known) > 1:
        return ("any", tuple(known[:6]))
    return known[0] if known else None
