"""The modules of a project by key, and which of them an import refers to."""

from __future__ import annotations

import sys
from pathlib import PurePosixPath

from .index import Module

#: Packages that a module of the same name in the folder of a script is not taken for.
_OUTSIDE = frozenset({*sys.stdlib_module_names, "celery", "raycelery"})


class Modules(dict[str, Module]):
    """The index of each file, by the file's key: the dotted path of the file below the project's top, without ``.py``.

    Attributes:
        roots: dotted paths of folders that imports may start from (those that are no packages); "" is the
            top.
    """

    def __init__(self) -> None:
        super().__init__()
        self.roots: set[str] = {""}
        self._found: dict[tuple[str, str], str | None] = {}
        self._folders: set[str] = set()
        self._by_name: dict[str, set[str]] = {}

    def __reduce__(self) -> tuple[object, ...]:
        # The caches are left out; other processes fill their own.
        return Modules, (), {"roots": self.roots}, None, iter(self.items())

    def find(self, dotted: str, near: str) -> str | None:
        """Return the key of the module that ``import dotted`` in the module ``near`` refers to.

        None if there is none, or several are possible: a module inside a package may be run as a script, which imports
        from its own folder, or imported, which imports from the package's root.
        """
        mark = (dotted, near)
        if mark not in self._found:
            self._found[mark] = self._find(dotted, near)
        return self._found[mark]

    def _find(self, dotted: str, near: str) -> str | None:
        if not dotted:
            return None
        folder = near.rpartition(".")[0]
        above = [root for root in self.roots if not root or folder == root or folder.startswith(f"{root}.")]
        for root in sorted(above, key=len, reverse=True):
            key = f"{root}.{dotted}" if root else dotted
            if key in self and key != near:
                return key if self._beside(dotted, near) in (None, key) else None
        elsewhere = self.candidates(dotted, near)
        return elsewhere[0] if len(elsewhere) == 1 else None

    def candidates(self, dotted: str, near: str) -> list[str]:
        """Return the keys of all modules that ``import dotted`` may refer to, from any root or the module's folder."""
        keys = [f"{root}.{dotted}" if root else dotted for root in sorted(self.roots)]
        beside = self._beside(dotted, near)
        if beside is not None and beside not in keys:
            keys.append(beside)
        return [key for key in keys if key in self and key != near]

    def _beside(self, dotted: str, near: str) -> str | None:
        """Return the key of the module in the folder of ``near``, which ``near`` imports when it is run as a script."""
        top = dotted.partition(".")[0]
        folder = near.rpartition(".")[0]
        key = f"{folder}.{dotted}" if folder else dotted
        if top in _OUTSIDE or key not in self or key == near:
            return None
        return key

    def imports_by_name(self) -> dict[str, set[str]]:
        """Return the dotted names in absolute imports of the project, grouped by their last part."""
        if not self._by_name:
            for module in self.values():
                for dotted in module.absolute:
                    self._by_name.setdefault(dotted.rpartition(".")[2], set()).add(dotted)
        return self._by_name

    def folders(self) -> set[str]:
        """Return the dotted paths of all folders that contain modules."""
        if not self._folders:
            for key in self:
                parts = key.split(".")
                self._folders.update(".".join(parts[:end]) for end in range(1, len(parts)))
        return self._folders

    def is_celery(self, dotted: str, key: str, near: str) -> bool:
        """Return whether ``import celery`` refers to Celery although the project has a ``celery.py`` of the given key.

        Celery's guide for Django has projects write such a file. It shadows Celery only for modules in the same
        folder, and only if it does not import Celery itself.
        """
        if dotted.partition(".")[0] not in ("celery", "raycelery"):
            return False
        module = self[key]
        return key.rpartition(".")[0] != near.rpartition(".")[0] or bool(
            {one.partition(".")[0] for one in module.imports} & {"celery", "raycelery"}
        )

    def shadows_celery(self, near: str) -> bool:
        """Return whether ``import celery`` in a module imports a file of the project instead of Celery."""
        key = self.find("celery", near)
        return key is not None and not self.is_celery("celery", key, near)


def key_of(relative: PurePosixPath) -> str:
    """Return the key of a file, given its path below the project's top folder."""
    parts = list(relative.with_suffix("").parts)
    if parts and parts[-1] == "__init__":
        parts = parts[:-1]
    return ".".join(parts) or "__init__"


def package_of(relative: PurePosixPath) -> str:
    """Return the dotted path of a file's folder, to which its relative imports refer."""
    return ".".join(relative.parent.parts)
