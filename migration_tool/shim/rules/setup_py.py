"""Requirements in ``setup.py``."""

from __future__ import annotations

import re
from collections.abc import Iterator

import libcst as cst

from ...examples import Example
from ...model import Verdict
from ...project.edits import Edit
from ...rule import TreeRule
from ..file import SHIM, File
from ..requirements import REQUIREMENT, requirement

#: Arguments of ``setup`` that hold other lists than requirements.
_OTHER = frozenset({"keywords", "packages", "py_modules", "classifiers", "scripts", "platforms", "license_files"})
_ALREADY = re.compile(r"(?<![\w-])raycelery(?![\w-])")


@SHIM.register
class SetupPy(TreeRule[File]):
    """The dependency on Celery in a list of ``setup.py`` becomes one on raycelery."""

    matches = (cst.SimpleString,)
    examples = (
        Example(
            """\
from setuptools import setup

setup(name="shop", install_requires=["celery[redis]>=5.3", "numpy"], keywords=["celery"])
""",
            """\
from setuptools import setup

setup(name="shop", install_requires=["raycelery[redis]", "numpy"], keywords=["celery"])
""",
            file="setup.py",
        ),
        Example(
            """\
from setuptools import setup

setup(name="shop", install_requires=["celery>=5.3", "raycelery"], keywords="celery")
""",
            file="setup.py",
        ),
    )

    def wanted(self, file: File) -> bool:
        if file.source.path.name != "setup.py":
            return False
        return not _ALREADY.search(re.sub(r"(?m)^.*import.*$", "", file.view.text))

    def _argument(self, file: File, node: cst.CSTNode) -> str | None:
        """Return the name of the argument that a node is in; None if it is in none that has a name."""
        parent = file.view.parents.get(node)
        while parent is not None and not isinstance(parent, cst.Arg):
            parent = file.view.parents.get(parent)
        return parent.keyword.value if parent is not None and parent.keyword is not None else None

    def write(self, file: File, node: cst.SimpleString) -> Iterator[Edit]:
        if not isinstance(file.view.parents.get(node), cst.Element):
            return
        text = node.raw_value
        match = REQUIREMENT.fullmatch(text)
        if match is None or self._argument(file, node) in _OTHER:
            return
        new, lost = requirement(match)
        if lost:
            file.report(
                node, "dependency", text, Verdict.CHANGES, f"raycelery has no extra of the name {', '.join(lost)}",
                "keep Celery's if it is still needed",
            )  # fmt: skip
        start, _ = file.view.span(node)
        start += len(node.prefix) + len(node.quote)
        yield Edit(start, start + len(text.encode()), new)
