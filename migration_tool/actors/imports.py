"""Updates import statements after all other edits: remote functions instead of tasks, nothing unused."""

from __future__ import annotations

import re

import libcst as cst

from ..project.celery_names import is_celery
from ..project.edits import Edit
from ..project.project import Project
from ..project.view import View, dotted_name
from .analysis.uses import Use, is_loaded
from .insertions import IMPORTS
from .plan import Plan


def edits(
    view: View, plan: Plan, uses: list[Use], changes: list[Edit], replaced_names: set[str]
) -> tuple[list[Edit], set[cst.CSTNode]]:
    """Return the edits of a file's import statements, and the statements that are removed.

    Arguments:
        uses: the file's uses of converted tasks.
        changes: all other edits; a name that is only read in code they replace is not imported any more.
        replaced_names: names of Celery's that are now imported from the helper.
    """
    found: list[Edit] = []
    gone: set[cst.CSTNode] = set()
    for node in view.nodes:
        if isinstance(node, cst.Import):
            found += _plain(view, node, changes, gone)
            continue
        if not isinstance(node, cst.ImportFrom) or isinstance(node.names, cst.ImportStar):
            continue
        if any(outer_end for outer_end in changes if _inside(view, node, outer_end)):
            continue
        replaced: dict[cst.ImportAlias, str] = {}
        for alias in node.names:
            new = _alias(view, plan, node, alias, uses, changes)
            local = alias.evaluated_alias or alias.evaluated_name
            if new is None and local in replaced_names and is_celery(dotted_name(node.module)) and not node.relative:
                new = ""
            if new is not None:
                replaced[alias] = new
        if replaced:
            found += _statement(view, node, replaced, gone)
    return found, gone


def _plain(view: View, node: cst.Import, changes: list[Edit], gone: set[cst.CSTNode]) -> list[Edit]:
    """Remove ``import celery`` if nothing uses it any more."""
    alias = node.names[0]
    if len(node.names) > 1 or alias.evaluated_name != "celery" or view.project.modules.shadows_celery(view.key):
        return []
    local = alias.evaluated_alias or "celery"
    dotted = [
        one
        for one in view.nodes
        if isinstance(one, cst.Import) and any(each.evaluated_name.startswith("celery.") for each in one.names)
    ]
    return _gone(view, node, gone) if not dotted and _only_inside(view, local, changes) else []


def _inside(view: View, node: cst.CSTNode, edit: Edit) -> bool:
    start, end = view.span(node)
    return edit.start <= start and end <= edit.end and edit.end > edit.start


def _alias(
    view: View, plan: Plan, node: cst.ImportFrom, alias: cst.ImportAlias, uses: list[Use], changes: list[Edit]
) -> str | None:
    """Return what is imported instead of one name: "" to remove it, None to leave it."""
    local = alias.evaluated_alias or alias.evaluated_name
    value = view.project.evaluate(view.imported(node, alias), view.key)
    written = f"{alias.evaluated_name} as {local}" if alias.evaluated_alias else local
    remote = f"{alias.evaluated_name}_remote" + (f" as {local}_remote" if alias.evaluated_alias else "")
    if value is not None and value.kind == "task" and plan.converts((value.module, value.name)):
        mine = [use for use in uses if isinstance(use.node, cst.Name) and use.node.value == local]
        forms = {use.form for use in mine}
        if not forms & {"direct", "run"} and mine:
            return remote if forms & {"call", "canvas"} else ""
        return f"{written}, {remote}" if forms & {"call", "canvas"} or not mine else None
    if value is not None and value.kind == "class" and (value.module, value.name) in plan.actor_classes:
        launches = [one for key, one in plan.launches.items() if key[0] == view.key and plan.converts(key)]
        if any(one.constructor == local for one in launches):
            as_name = f" as {local}Actor" if alias.evaluated_alias else ""
            return f"{written}, {alias.evaluated_name}Actor{as_name}"
        return None
    of_celery = is_celery(dotted_name(node.module)) and not node.relative
    if (of_celery or (value is not None and value.kind == "app")) and _only_inside(view, local, changes):
        return ""
    return None


def _only_inside(view: View, name: str, changes: list[Edit]) -> bool:
    """Return whether a name is read only in code that is replaced by code without it."""
    names = [node for node in view.nodes if isinstance(node, cst.Name) and node.value == name]
    places = [view.span(node) for node in names if is_loaded(view, node)]
    word = re.compile(rf"\b{re.escape(name)}\b")
    spans = [(edit.start, edit.end) for edit in changes if edit.end > edit.start and not word.search(edit.text)]
    return bool(places) and all(any(start <= place[0] and place[1] <= end for start, end in spans) for place in places)


def _statement(
    view: View, node: cst.ImportFrom, replaced: dict[cst.ImportAlias, str], gone: set[cst.CSTNode]
) -> list[Edit]:
    assert not isinstance(node.names, cst.ImportStar)
    names = [replaced.get(alias, view.source(alias)) for alias in node.names]
    removed = [alias for alias in node.names if replaced.get(alias) == ""]
    if not removed:
        return [Edit(*_span(view, alias), text) for alias, text in replaced.items()]
    kept = [name for name in names if name]
    if kept:
        # Rewritten on one line, unless that would lose a comment.
        first, last = _span(view, node.names[0])[0], _span(view, node.names[-1])[1]
        if b"#" not in view.raw[first:last] and b"\n" not in view.raw[first:last]:
            return [Edit(first, last, ", ".join(kept))]
        return [_cut(view, node, alias) for alias in removed] + [
            Edit(*_span(view, alias), text) for alias, text in replaced.items() if text
        ]
    return _gone(view, node, gone)


def _gone(view: View, node: cst.Import | cst.ImportFrom, gone: set[cst.CSTNode]) -> list[Edit]:
    """Remove an import statement that is alone on its line at the top level of the module."""
    line = view.parents[node]
    alone = isinstance(line, cst.SimpleStatementLine) and len(line.body) == 1
    if alone and isinstance(view.parents[line], cst.Module):
        gone.add(line)
        start, end = view.span(node)
        start, end = view.line_start(start), view.line_end(end)
        above, below = view.raw[view.line_start(max(start - 1, 0)) : start], view.raw[end : view.line_end(end)]
        if not above.strip() and below and not below.strip() and end != _place(view)[0]:
            end = view.line_end(end)  # leave one blank line, not two
        return [Edit(start, end, "")]
    return []


def _span(view: View, alias: cst.ImportAlias) -> tuple[int, int]:
    start, _ = view.span(alias.name)
    if alias.asname is not None:
        return start, view.span(alias.asname.name)[1]
    return start, view.span(alias.name)[1]


def _cut(view: View, node: cst.ImportFrom, alias: cst.ImportAlias) -> Edit:
    """Remove one name with its comma, and the whole line if nothing else is on it."""
    start, end = _span(view, alias)
    comma = view.raw.find(b",", end)
    closing = view.raw.find(b")", end)
    if comma != -1 and (closing == -1 or comma < closing):
        end = comma + 1
    line_start, line_end = view.line_start(start), view.line_end(end)
    rest = view.raw[line_start:start] + view.raw[end:line_end]
    return Edit(line_start, line_end, "") if not rest.strip() else Edit(start, end, "")


def added(view: View, plan: Plan, needed: set[str], helper: str | None, gone: set[cst.CSTNode]) -> list[Edit]:
    """Return the edit that adds the imports which the new code needs, below the file's own.

    Arguments:
        needed: "ray", "logging", and names of the helper module.
        helper: the helper's dotted name.
        gone: import statements that are removed.
    """
    lines = []
    for module in ("logging", "ray"):
        if module in needed and not _imports(view.project, view.key, module):
            lines.append(f"import {module}")
    names = sorted(needed - {"ray", "logging"})
    if names and helper is not None:
        present = view.project.modules[view.key].bindings
        missing = [name for name in names if present.get(name) != ("import", helper, name)]
        if missing:
            lines.append(f"from {helper} import {', '.join(missing)}")
    if not lines:
        return []
    at, first = _place(view)
    text = view.newline.join(lines) + view.newline
    if first is not None:
        text += view.newline * (2 if isinstance(first, cst.FunctionDef | cst.ClassDef) else 1)
    if at and not view.raw[:at].endswith((b"\n", b"\r")):
        text = view.newline + text
    return [Edit(at, at, text, IMPORTS)]


def _imports(project: Project, key: str, module: str) -> bool:
    return project.modules[key].bindings.get(module) == ("import", module, None)


def _place(view: View) -> tuple[int, cst.CSTNode | None]:
    """Return where imports are inserted: after the first imports or the docstring.

    If there are none: before the first statement, which is returned too."""
    last: cst.CSTNode | None = None
    for number, statement in enumerate(view.tree.body):
        if not isinstance(statement, cst.SimpleStatementLine):
            break
        small = statement.body[0]
        docstring = number == 0 and isinstance(small, cst.Expr) and isinstance(small.value, cst.SimpleString)
        if not docstring and not isinstance(small, cst.Import | cst.ImportFrom):
            break
        last = statement
    if last is not None:
        return view.line_end(max(view.span(last)[1] - 1, 0)), None
    if not view.tree.body:
        return 0, None
    first = view.tree.body[0]
    start, _ = view.span(first)
    if isinstance(first, cst.FunctionDef | cst.ClassDef) and first.decorators:
        start = view.raw.rindex(b"@", 0, view.span(first.decorators[0].decorator)[0] + 1)
    return view.line_start(start), first
