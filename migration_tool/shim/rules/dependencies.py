"""Files of dependencies."""

from __future__ import annotations

from ...examples import Example
from ...model import Finding
from ...rule import TextRule
from ...workspace import Source
from .. import requirements
from ..file import SHIM


@SHIM.register
class Dependencies(TextRule):
    """The dependency on Celery becomes one on raycelery, which installs Celery too.

    Lock files and lines with hashes cannot be changed this way and are reported, and so are commands that install it.
    """

    kinds = requirements.KINDS | requirements.INSTALLING
    examples = (
        Example(
            """\
# tasks
celery[redis]==5.4.0 ; python_version > "3"  # queue
flower>=2
""",
            """\
# tasks
raycelery[redis] ; python_version > "3"  # queue
flower>=2
""",
            file="requirements.txt",
        ),
        Example(
            """\
[project]
name = "shop"
dependencies = ["celery>=5.3,<6", "numpy"]
""",
            """\
[project]
name = "shop"
dependencies = ["raycelery", "numpy"]
""",
            file="pyproject.toml",
        ),
        Example(
            """\
[tool.poetry.dependencies]
celery = { version = "^5.3", extras = ["redis"] }
""",
            """\
[tool.poetry.dependencies]
raycelery = { version = "*", extras = ["redis"] }
""",
            file="pyproject.toml",
        ),
        Example(
            """\
[options]
install_requires =
    celery
    numpy
""",
            """\
[options]
install_requires =
    raycelery
    numpy
""",
            file="setup.cfg",
        ),
        Example(
            """\
django-celery-results==2.5
celery==5.4.0 --hash=sha256:aa
""",
            file="requirements.txt",
        ),
    )

    def rewrite(self, source: Source) -> tuple[str, list[Finding]]:
        after, findings = requirements.swap(source)
        return after, [*findings, *requirements.installs(source)]
