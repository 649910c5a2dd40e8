"""What seals the records of a journal: who has not the key can neither read nor change one, nor add any.

A journal holds what was defined, with environment variables and passwords of brokers in it, and what is run: arguments,
and code that executors load. AES-256-GCM is cryptography's, see
https://cryptography.io/en/latest/hazmat/primitives/aead/.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from raycelery.cluster.own_folder import OwnFolder
from raycelery.errors import FolderError

_NONCE_BYTES = 12
_TAG_BYTES = 16
#: Bytes that a sealed record has more than what is in it.
MORE_BYTES = _NONCE_BYTES + _TAG_BYTES
#: Bytes by which a key is known; nothing can be told of the key by them.
MARK_BYTES = 8
_KEY_BYTES = 32


class BrokenSeal(ValueError):
    """Data was changed, or was not sealed with this key, or not in this place."""


class Seal:
    """Seals with one key.

    Arguments:
        secret: of any length; nobody else's.
    """

    def __init__(self, secret: bytes) -> None:
        # Of a password file, too, that is longer than a key may be.
        root = hashlib.blake2b(secret, digest_size=64).digest()
        self._cipher = AESGCM(hashlib.blake2b(key=root, digest_size=_KEY_BYTES, person=b"records").digest())
        #: By this it is seen that something was sealed with another key.
        self.mark = hashlib.blake2b(key=root, digest_size=MARK_BYTES, person=b"mark").digest()

    def close(self, data: bytes | memoryview, place: bytes) -> bytes:
        """Return ``data`` sealed, to be opened in the same place only.

        Arguments:
            data: what is sealed.
            place: what tells one place from all others, as plain data beside it.
        """
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, data, place)

    def open(self, sealed: bytes, place: bytes) -> bytes:
        """Undo :meth:`close`.

        Raises:
            BrokenSeal: it was changed, or is not from here.
        """
        if len(sealed) < MORE_BYTES:
            raise BrokenSeal(f"its {len(sealed)} bytes are too few")
        try:
            return self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], place)
        except InvalidTag:
            raise BrokenSeal(f"its {len(sealed)} bytes were changed, or were not written here") from None


def seal_of(folder: OwnFolder, name: str, given: str | None) -> Seal:
    """Return the seal for an application's files; a key is made if there is none.

    Arguments:
        folder: where its files are.
        name: of the key's file there.
        given: path of a file that has the secret in place of that.

    Raises:
        FolderError: there is no secret where it should be; in a sentence with the remedy.
    """
    if given is not None:
        try:
            secret = Path(given).read_bytes()
        except OSError as exc:
            raise FolderError(f"the file of ray_journal_key cannot be read ({exc}): put one on every node") from exc
        if len(secret) < _KEY_BYTES // 2:
            raise FolderError(
                f"the file of ray_journal_key, {given}, has {len(secret)} bytes: write at least {_KEY_BYTES // 2} "
                "random ones into it"
            )
        return Seal(secret)
    if folder.size(name) is None:
        _make(folder, name)
    with open(folder.open(name, os.O_RDONLY), "rb") as file:
        secret = file.read()
    if len(secret) != _KEY_BYTES:
        raise FolderError(
            f"the key {folder.path / name} is damaged: it has {len(secret)} bytes and not {_KEY_BYTES}; without it the "
            "journal cannot be read: put it back from a copy, or remove both"
        )
    return Seal(secret)


def _make(folder: OwnFolder, name: str) -> None:
    scratch = f"{name}.{os.getpid()}"
    folder.remove(scratch)
    with open(folder.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb") as file:
        file.write(os.urandom(_KEY_BYTES))
        file.flush()
        os.fsync(file.fileno())
    folder.replace(name, scratch)
    folder.sync()
