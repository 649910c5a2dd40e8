"""The files a command works on, read and indexed."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from .errors import UnreadableFile
from .files.discover import Found, discover
from .files.notebook import Notebook
from .files.text import Text, decode
from .project.index import index
from .project.modules import key_of, package_of
from .project.project import Project

CELERY = re.compile(r"celery", re.I)
_CELERY_BYTES = re.compile(rb"celery", re.I)
#: A file that uses tasks made elsewhere has one of these.
_USES = re.compile(
    r"\.(delay|apply_async|apply|s|si|subtask|signature|starmap|chunks|task|conf|send_task|AsyncResult)\b"
)

#: A folder that holds one of these is where a project starts, and imports with it, though it be a package by mistake.
_STARTS = (
    ".git", ".hg", "pyproject.toml", "setup.py", "setup.cfg", "requirements.txt", "Pipfile", "manage.py", "Procfile",
    "Dockerfile", "compose.yaml", "docker-compose.yml", "docker-compose.yaml",
)  # fmt: skip


def as_named(path: Path) -> Path:
    """Return a path as a user in the current folder would name it."""
    full = path.resolve()
    return full.relative_to(Path.cwd()) if full.is_relative_to(Path.cwd()) else path


@dataclass
class Source:
    """One file as read.

    Arguments:
        path: as the user would name it.
        kind: as ``discover`` says.
        target: it may be changed; others are only looked at to know what names mean.
        raw: its bytes.
        text: its text; None if it could not be read.
        python: the Python text of a module or notebook.
        key, package: of its module in the project.
        error: why it is skipped.
        readable: it can be parsed, as far as is known.
        unread: why it cannot be parsed; it is only an error if the file says anything of Celery.
    """

    path: Path
    kind: str
    target: bool
    raw: bytes = b""
    text: Text | None = None
    python: str | None = None
    key: str = ""
    package: str = ""
    notebook: Notebook | None = None
    error: str | None = None
    readable: bool = True
    unread: str | None = None


@dataclass
class Workspace:
    """All files, and the project they make up.

    Arguments:
        top: the folder that modules' keys are counted from.
    """

    top: Path
    sources: list[Source] = field(default_factory=list)
    project: Project = field(default_factory=Project)

    @property
    def targets(self) -> list[Source]:
        """The files that may change."""
        return [source for source in self.sources if source.target]

    def relevant(self) -> set[str]:
        """Keys of the modules that use Celery, or may use tasks of modules that do."""
        texts = {one.key: one.python for one in self.sources if one.python is not None}
        mentions = {key for key, text in texts.items() if CELERY.search(text)}
        interesting = mentions | {task.module for task in self.project.tasks()}
        importers: dict[str, set[str]] = {}
        for key, module in self.project.modules.items():
            for dotted in module.imports | set(module.stars):
                found = self.project.modules.find(dotted, key)
                for one in [found] if found is not None else self.project.modules.candidates(dotted, key):
                    importers.setdefault(one, set()).add(key)
        reached: set[str] = set()
        stack = list(interesting)
        while stack:
            for key in importers.get(stack.pop(), ()):
                if key not in interesting and key not in reached and self._passes_on(key):
                    reached.add(key)
                    stack.append(key)
        near = {key for one in interesting | reached for key in importers.get(one, ())}
        return interesting | reached | {key for key in near if _USES.search(texts.get(key) or "")}

    def _passes_on(self, key: str) -> bool:
        """Whether a module's imports bring it an application, a task or the like, which others may import from it."""
        module = self.project.modules[key]
        if module.stars:
            return True
        for binding in module.bindings.values():
            found = self.project.evaluate(binding, key) if binding is not None and binding[0] == "import" else None
            if found is not None and found.is_celery:
                return True
        return False


def load(
    paths: Sequence[Path], exclude: Sequence[str] = (), progress: Callable[[int, int], None] | None = None
) -> Workspace:
    """Read and index the files under some paths.

    Arguments:
        paths: files and folders; the package around them is read too, to know what names mean.
        exclude: patterns as in ``.gitignore``.
        progress: told how many files are read, of how many.

    Raises:
        MigrationError: a path does not exist.
    """
    targets = discover(paths, exclude)
    top = _top(paths)
    context = discover([top], exclude) if any(path.resolve() != top for path in paths) else []
    seen = {found.path.resolve() for found in targets}
    every = [(found, True) for found in targets]
    every += [(found, False) for found in context if found.path.resolve() not in seen and found.kind == "python"]
    workspace = Workspace(top)
    for number, (found, target) in enumerate(every):
        if progress is not None:
            progress(number, len(every))
        workspace.sources.append(read(found, top, target, workspace.project))
    _find_roots(workspace)
    return workspace


def _top(paths: Sequence[Path]) -> Path:
    folders = [path.resolve() if path.is_dir() else path.resolve().parent for path in paths]
    top = Path(os.path.commonpath(folders)) if folders else Path.cwd()
    while (top / "__init__.py").exists() and top.parent != top and not _is_start(top):
        top = top.parent
    return top


def _is_start(folder: Path) -> bool:
    return any((folder / name).exists() for name in _STARTS)


def read(found: Found, top: Path, target: bool, project: Project) -> Source:
    """Read one file and add its module to the project; what cannot be read carries the reason."""
    source = Source(found.path, found.kind, target)
    try:
        source.raw = found.path.read_bytes()
    except OSError as error:
        source.error, source.readable = f"{found.path}: {error.strerror or error}", False
        return source
    add(source, found.path.resolve().relative_to(top).as_posix(), project)
    return source


def add(source: Source, relative: str, project: Project) -> None:
    """Decode and index a file that has been read.

    Arguments:
        source: with ``raw`` set; the rest is set here.
        relative: its path below the project's top.
        project: gets its module.
    """
    try:
        source.text = decode(source.raw, source.path, source.kind == "python")
        if source.kind == "python":
            source.python = source.text.content
        elif source.kind == "notebook":
            source.notebook = Notebook(source.text.content, str(source.path))
            source.python = source.notebook.python
    except UnreadableFile as error:
        _skip(source, str(error))
        return
    if source.python is None:
        return
    posix = PurePosixPath(relative)
    notebook = posix.with_name(posix.name.replace(".", "_"))
    source.key = key_of(posix if source.kind == "python" else notebook)
    if source.key in project.modules:  # a.py and a/__init__.py, or a stub beside its module
        source.key = key_of(notebook)
    source.package = package_of(posix)
    try:
        project.modules[source.key] = index(source.python, source.package)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = getattr(error, "lineno", None)
        place = f":{line}" if line else ""
        reason = getattr(error, "msg", None) or type(error).__name__
        source.python = None
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        hint = f"; if it is written for a newer Python than {version}, run raycelery-migrate with that"
        _skip(source, f"{source.path}{place}: it is not valid Python {version}: {reason}{hint}")


def _skip(source: Source, reason: str) -> None:
    """Note that a file cannot be read, which is an error only if it says something of Celery."""
    source.readable, source.unread = False, reason
    if _CELERY_BYTES.search(source.raw.replace(b"\0", b"")):
        source.error = reason


def _find_roots(workspace: Workspace) -> None:
    packages = set()
    folders = set()
    for source in workspace.sources:
        if source.kind == "python" and source.text is not None:
            folders.add(source.package)
            if source.path.name == "__init__.py":
                packages.add(source.package)
    roots = {folder for folder in folders if folder not in packages}
    # Folders that hold only folders: packages need no __init__.py.
    for folder in list(roots):
        while folder:
            folder = folder.rpartition(".")[0]
            if folder not in packages:
                roots.add(folder)
    # The folder above an outermost package is one too, though it may hold no module of its own.
    for folder in packages:
        parent = folder.rpartition(".")[0]
        if parent not in packages:
            roots.add(parent)
    roots |= {folder for folder in packages if _is_start(workspace.top.joinpath(*folder.split(".")))}
    workspace.project.modules.roots |= roots
