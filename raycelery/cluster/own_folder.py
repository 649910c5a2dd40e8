"""Folders that only the user who runs this process may enter, wherever they lie.

Ray's session folder may be written to by everybody: a folder in it can be renamed, and another be put in its place,
with files that were made up to be believed. So the folder's owner is looked at, and then the folder that was looked at
is held open and used, whatever its name leads to meanwhile.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from raycelery.errors import FolderError

_FOLDER_MODE = 0o700
_FILE_MODE = 0o600


class OwnFolder:
    """A folder of the user's own, made if it is not there; others may not read, nor write, nor list it.

    Arguments:
        path: where it is. Folders above it are made, too.

    Raises:
        FolderError: it is another user's, or no folder; in a sentence with the remedy.
        OSError: it cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            path.mkdir(_FOLDER_MODE)
        except FileExistsError:
            pass
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except NotADirectoryError as exc:
            raise FolderError(f"{path} is no folder, or leads to another: remove it") from exc
        found = os.fstat(self._fd)
        if found.st_uid != os.geteuid():
            os.close(self._fd)
            raise FolderError(
                f"the folder {path} belongs to another user (uid {found.st_uid}, and this process is of uid "
                f"{os.geteuid()}), who may have put anything into it: remove it"
            )
        if stat.S_IMODE(found.st_mode) != _FOLDER_MODE:
            os.fchmod(self._fd, _FOLDER_MODE)

    def open(self, name: str, flags: int) -> int:
        """Open a file of the folder and return its descriptor.

        Arguments:
            name: of the file.
            flags: as for ``os.open``; a file that is made is for this user only.

        Raises:
            FolderError: it is another user's, or no file.
            OSError: it cannot be opened.
        """
        fd = os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, _FILE_MODE, dir_fd=self._fd)
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
            os.close(fd)
            raise FolderError(f"{self.path / name} is another user's, or no file: remove it")
        if stat.S_IMODE(found.st_mode) & 0o077:
            os.fchmod(fd, _FILE_MODE)
        return fd

    def size(self, name: str) -> int | None:
        """Return how many bytes a file has; None: there is none."""
        try:
            return os.stat(name, dir_fd=self._fd, follow_symlinks=False).st_size
        except FileNotFoundError:
            return None

    def inode(self, name: str) -> int | None:
        """Return the number that tells a file from another of that name; None: there is none."""
        try:
            return os.stat(name, dir_fd=self._fd, follow_symlinks=False).st_ino
        except FileNotFoundError:
            return None

    def replace(self, name: str, by: str) -> None:
        """Put one file of the folder in the place of another, all or nothing."""
        os.replace(by, name, src_dir_fd=self._fd, dst_dir_fd=self._fd)

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        try:
            os.unlink(name, dir_fd=self._fd)
        except FileNotFoundError:
            pass

    def sync(self) -> None:
        """Force the names of files to disk."""
        os.fsync(self._fd)

    def held(self, name: str) -> str:
        """Return a path of a file for code that takes nothing else; it is good in this process, while the folder is."""
        if os.path.isdir("/proc/self/fd"):
            return f"/proc/self/fd/{self._fd}/{name}"
        return str(self.path / name)

    def close(self) -> None:
        """Let go of the folder."""
        os.close(self._fd)
