"""Inlines variables that are assigned on one line and only used on the next."""

from __future__ import annotations

import libcst as cst
from libcst.metadata import Assignment, GlobalScope

from ...project.view import View


def has_comments(view: View, node: cst.CSTNode) -> bool:
    """Return whether a node contains comments."""
    return any(isinstance(one, cst.Comment) for one in view.nodes_in(node))


class Lines:
    """The consecutive assignments directly above a call's statement whose variables are used only on the next line.

    Arguments:
        node: the call; nothing else in its statement is evaluated before it.
    """

    def __init__(self, view: View, node: cst.Call) -> None:
        self.view = view
        #: Assignments whose values were inlined; they can be removed.
        self.read: list[cst.SimpleStatementLine] = []
        self._line: cst.CSTNode | None = None
        inner: cst.CSTNode = node
        for outer in view.around(node):
            if isinstance(outer, cst.SimpleStatementLine):
                self._line = outer if len(outer.body) == 1 else None
                break
            if isinstance(outer, cst.Call):
                first = isinstance(outer.func, cst.Name) and outer.args[:1] == (inner,)
                if outer.func is not inner and not first:
                    break
            elif not isinstance(
                outer, cst.Arg | cst.Attribute | cst.Await | cst.Expr | cst.Assign | cst.AnnAssign | cst.Return
            ):
                break
            inner = outer

    def values_of(self, nodes: list[cst.BaseExpression]) -> list[cst.BaseExpression]:
        """Replace names by the values that the lines above assign to them; other expressions are returned unchanged."""
        values = list(nodes)
        for _ in nodes:
            for number, node in enumerate(values):
                values[number] = self._value_of(node)
        return values

    def _value_of(self, node: cst.BaseExpression) -> cst.BaseExpression:
        if not isinstance(node, cst.Name) or self._line is None:
            return node
        above = _above(self.view, self._line)
        assign = above.body[0] if above is not None else None
        if above is None or not isinstance(assign, cst.Assign) or len(assign.targets) > 1:
            return node
        target = assign.targets[0].target
        if not isinstance(target, cst.Name) or target.value != node.value or not self._is_only_use(node):
            return node
        if has_comments(self.view, assign) or above.trailing_whitespace.comment is not None:
            return node
        self._line = above
        self.read.append(above)
        return assign.value

    def _is_only_use(self, node: cst.Name) -> bool:
        """Return whether a name is read only on the line after each of its assignments, once."""
        view = self.view
        scope = view.scopes.get(node)
        assignments = scope[node.value] if scope is not None else ()
        if not assignments or any(one.scope is not scope or not isinstance(one, Assignment) for one in assignments):
            return False
        if isinstance(scope, GlobalScope) and _is_imported(view):
            return False
        given = []
        for one in assignments:
            made = one.node if isinstance(one, Assignment) else view.tree
            line = view.statement(made)
            small = line.body[0] if isinstance(line, cst.SimpleStatementLine) else None
            if not isinstance(small, cst.Assign) or [target.target for target in small.targets] != [made]:
                return False
            given.append(line)
        reads = {access.node for one in assignments for access in one.references}
        lines = [view.statement(read) for read in reads]
        here = view.statement(node)
        others = [line for line in lines if line is not here]
        return len(lines) == len(set(lines)) and all(_above(view, line) in given for line in others)


def _above(view: View, line: cst.CSTNode) -> cst.SimpleStatementLine | None:
    """Return the simple statement directly above another one in the same block."""
    block = view.parents.get(line)
    if not isinstance(block, cst.Module | cst.IndentedBlock):
        return None
    at = next(number for number, one in enumerate(block.body) if one is line)
    above = block.body[at - 1] if at else None
    return above if isinstance(above, cst.SimpleStatementLine) and len(above.body) == 1 else None


def _is_imported(view: View) -> bool:
    """Return whether another module imports this one, and so may read its globals."""
    project = view.project
    return any(
        key != view.key
        and any(view.key in project.modules.candidates(dotted, key) for dotted in {*one.imports, *one.stars})
        for key, one in project.modules.items()
    )
