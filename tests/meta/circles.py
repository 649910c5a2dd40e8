"""Circles of imports between files: ``python -m tests.meta.circles`` prints them and fails where there may be none.

An import counts wherever it stands: at the top of a file, inside a function, or under ``TYPE_CHECKING``. Files that
import each other in a circle can only be read, tested and changed together.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping

import grimp

#: Packages, and how many of their files may stand in circles. The numbers only go down.
PACKAGES = {"bench": 0, "migration_tool": 0, "raycelery": 0}


def circles(imports: Mapping[str, set[str]]) -> Iterator[list[str]]:
    """Groups of files of which each reaches every other one by imports (strongly connected components, by Tarjan).

    Arguments:
        imports: what each file imports directly.
    """
    position: dict[str, int] = {}
    lowest: dict[str, int] = {}
    path: list[str] = []
    on_path: set[str] = set()

    def visit(file: str) -> Iterator[list[str]]:
        position[file] = lowest[file] = len(position)
        path.append(file)
        on_path.add(file)
        for other in sorted(imports[file]):
            if other not in position:
                yield from visit(other)
                lowest[file] = min(lowest[file], lowest[other])
            elif other in on_path:
                lowest[file] = min(lowest[file], position[other])
        if lowest[file] == position[file]:
            group = path[path.index(file) :]
            del path[path.index(file) :]
            on_path.difference_update(group)
            if len(group) > 1:
                yield sorted(group)

    for file in sorted(imports):
        if file not in position:
            yield from visit(file)


def main() -> int:
    """Print each circle with the imports that close it; the exit status: 1 if a package has more than it may."""
    graph = grimp.build_graph(*PACKAGES, cache_dir=None)
    failed = False
    for package, allowed in PACKAGES.items():
        files = graph.find_descendants(package) | {package}
        imports = {file: graph.find_modules_directly_imported_by(file) & files for file in files}
        found = list(circles(imports))
        for group in found:
            print(f"{len(group)} files import each other:")
            for file in group:
                print(f"    {file} -> {', '.join(sorted(imports[file] & set(group)))}")
        count = sum(len(group) for group in found)
        print(f"{package}: {count} files in circles, {allowed} allowed")
        if count > allowed:
            failed = True
        elif count < allowed:
            print(f"    write {count} into PACKAGES in {__spec__.name.replace('.', '/')}.py: the number only goes down")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
