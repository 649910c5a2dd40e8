"""Decodes and encodes files, keeping encoding, byte order mark and line endings."""

from __future__ import annotations

import codecs
import io
import tokenize
from dataclasses import dataclass
from pathlib import Path

from ..errors import UnreadableFile

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


@dataclass(frozen=True)
class Text:
    """A decoded file.

    Arguments:
        content: the decoded text without byte order mark; line endings as in the file.
        encoding: the codec.
        mark: the byte order mark; empty if there is none.
    """

    content: str
    encoding: str
    mark: bytes = b""

    def encode(self, content: str) -> bytes:
        """Encode another text in the same way.

        Raises:
            UnicodeEncodeError: the encoding has no such character.
        """
        return self.mark + content.encode(self.encoding)

    @property
    def newline(self) -> str:
        """The line ending of the first line: ``"\\n"``, ``"\\r\\n"`` or ``"\\r"``; ``"\\n"`` if there is none."""
        end = self.content.find("\n")
        if end == -1:
            return "\r" if "\r" in self.content else "\n"
        return "\r\n" if self.content[end - 1 : end] == "\r" else "\n"


def decode(raw: bytes, path: Path, python: bool) -> Text:
    """Decode a file.

    Arguments:
        raw: its bytes.
        path: for error messages.
        python: whether it may name its encoding as Python source does.

    Raises:
        UnreadableFile: Python source in an encoding that does not exist or does not fit.
    """
    for mark, encoding in _MARKS:
        if raw.startswith(mark):
            return _decoded(raw[len(mark) :], encoding, path, mark)
    if python:
        try:
            encoding, _ = tokenize.detect_encoding(io.BytesIO(raw).readline)
        except (SyntaxError, LookupError) as error:
            raise UnreadableFile(f"{path}: {error}") from error
        return _decoded(raw, encoding, path)
    try:
        return Text(raw.decode("utf-8"), "utf-8")
    except UnicodeDecodeError:
        # Latin-1 maps every byte to a character, so that all bytes are written back unchanged.
        return Text(raw.decode("latin-1"), "latin-1")


def _decoded(raw: bytes, encoding: str, path: Path, mark: bytes = b"") -> Text:
    try:
        content = raw.decode(encoding)
    except UnicodeDecodeError as error:
        raise UnreadableFile(f"{path}: it is not in {encoding}: {error.reason} at byte {error.start}") from error
    text = Text(content, encoding, mark)
    if text.encode(content) != mark + raw:
        raise UnreadableFile(f"{path}: its encoding {encoding} does not give back the same bytes; convert it to UTF-8")
    return text
