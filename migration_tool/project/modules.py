"""The files of a project by key, and which of them an import statement means."""

from __future__ import annotations

from pathlib import PurePosixPath

from .index import Module


class Modules(dict[str, Module]):
    """What each file defines, by key: the dotted path of the file below the project's top, without ``.py``.

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
        # Other processes get the modules and fill their own caches.
        return Modules, (), {"roots": self.roots}, None, iter(self.items())

    def find(self, dotted: str, near: str) -> str | None:
        """The project's module of that name as the module ``near`` would import it."""
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
                return key
        elsewhere = self.candidates(dotted, near)
        return elsewhere[0] if len(elsewhere) == 1 else None

    def candidates(self, dotted: str, near: str) -> list[str]:
        """Modules of that name below any folder that imports may start from."""
        keys = [f"{root}.{dotted}" if root else dotted for root in sorted(self.roots)]
        return [key for key in keys if key in self and key != near]

    def imports_by_name(self) -> dict[str, set[str]]:
        """The dotted names by which the project's modules import others, by their last part."""
        if not self._by_name:
            for module in self.values():
                for dotted in module.absolute:
                    self._by_name.setdefault(dotted.rpartition(".")[2], set()).add(dotted)
        return self._by_name

    def folders(self) -> set[str]:
        """Dotted paths of all folders that hold modules."""
        if not self._folders:
            for key in self:
                parts = key.split(".")
                self._folders.update(".".join(parts[:end]) for end in range(1, len(parts)))
        return self._folders

    def is_celery(self, dotted: str, key: str, near: str) -> bool:
        """Whether ``import celery`` means Celery although the project has a ``celery.py`` that could be meant.

        Such a file is what Celery's own guide tells Django projects to write. It shadows Celery only for modules
        beside it, and only if it does not itself use Celery.
        """
        if dotted.partition(".")[0] not in ("celery", "raycelery"):
            return False
        module = self[key]
        return key.rpartition(".")[0] != near.rpartition(".")[0] or bool(
            {one.partition(".")[0] for one in module.imports} & {"celery", "raycelery"}
        )

    def shadows_celery(self, near: str) -> bool:
        """Whether ``import celery`` in a module gives a file of the project that is not Celery."""
        key = self.find("celery", near)
        return key is not None and not self.is_celery("celery", key, near)


def key_of(relative: PurePosixPath) -> str:
    """The key of a file below the project's top."""
    parts = list(relative.with_suffix("").parts)
    if parts and parts[-1] == "__init__":
        parts = parts[:-1]
    return ".".join(parts) or "__init__"


def package_of(relative: PurePosixPath) -> str:
    """The dotted path of the folder that a file is in, from which its relative imports are counted."""
    return ".".join(relative.parent.parts)
