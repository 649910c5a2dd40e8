"""Whether the project's files have changed since this process imported them."""

from __future__ import annotations

import os
import sys
import time

from raycelery.app.spec import LIBRARY

_PACKAGES = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")


class Sources:
    """The files of the modules that this process has imported, but for installed packages and Python's own."""

    def __init__(self) -> None:
        self._since = time.time_ns()
        self._seen = {path: stamp for path in _files() if (stamp := _stamp(path)) is not None}

    def changed(self) -> str | None:
        """Return one that was changed since it was imported, or None; that its folder is gone changes nothing."""
        for path in _files():
            stamp = _stamp(path)
            if stamp is None or stamp == self._seen.get(path):
                continue
            if path in self._seen or stamp[0] > self._since:
                return path
            self._seen[path] = stamp
        return None


def _files() -> list[str]:
    files = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
    return [
        path
        for path in files
        if isinstance(path, str)
        and path.endswith(".py")
        and not path.startswith(LIBRARY)
        and not any(part in path for part in _PACKAGES)
    ]


def _stamp(path: str) -> tuple[int, int] | None:
    """Return time of change, in ns, and size of a file; None if there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size
