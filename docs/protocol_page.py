"""The page of the protocol: ``python docs/protocol_page.py > docs/protocol.md``"""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Iterable, Iterator
from typing import Any

from raycelery.dispatcher import journal
from raycelery.protocol import (
    asking,
    codec,
    definitions,
    frames,
    framing,
    messages,
    operations,
    questions,
    records,
    reports,
)

_HEAD = f"""\
# Protocol

Programs, executors and bridges speak with the dispatcher of their application, each over a TCP connection of its own.
`raycelery/protocol/` has all that is said, and all that the dispatcher writes to its journal. This page is generated
from the docstrings there: `python docs/protocol_page.py > docs/protocol.md`.

## The greeting

The endpoint (host, port and a secret) is handed out by a call of the dispatcher's actor, so exactly those who may use
the Ray cluster can connect. Nothing is decoded before both sides have proved that they know the secret, by an
HMAC-SHA-256 of who proves it, the version, host and port as Ray names them, and both nonces: what one side of one
connection says proves nothing in another place.

| who | says |
| --- | --- |
| dispatcher | `{framing.MAGIC.decode()}`, the version of the protocol in 2 bytes, a nonce in {framing.NONCE_BYTES} |
| client | `{framing.MAGIC.decode()}`, its version, its proof in {framing.DIGEST_BYTES} bytes, a nonce |
| dispatcher | its proof |

This is version {codec.VERSION}. Where two versions meet, both sides say so and name the remedy, and the connection is
closed.

## The journal

A journal begins with the {len(journal.MAGIC)} bytes "{journal.MAGIC.decode()}", the version in 2 bytes, and 8 bytes by
which the key is known; one of another version is put aside under another name. Each record is the number of the
scheduler's latest message before it (8 bytes), a length (4 bytes), and so many bytes: a frame without its own
length, sealed by AES-256-GCM along with both numbers and its place in the file (nonce of 12 bytes, what is sealed,
tag of 16). What a frame of the dispatcher tells
of is in the journal before the frame leaves. A record that was changed is left out when the journal is read; the file
is then kept aside as a whole.

## Frames

A frame is its length in 4 bytes and, in so many, a dataclass in [msgpack](https://msgpack.org): an array of the
class's name and its fields in order. Types are checked on arrival; what does not fit ends the connection. A task's
arguments and result, code and errors are opaque `bytes`, which only their consumer unpickles.
"""


def page() -> str:
    """Return the page, in Markdown."""
    parts = {
        "": typing.get_args(frames.ToDispatcher) + typing.get_args(frames.FromDispatcher),
        "What frames hold": [frames.Batch, frames.BridgeMessage, frames.BridgeReport, frames.BridgeTask, frames.Result],
        "Definitions": typing.get_args(definitions.Definition),
        "Messages": [
            messages.Submission,
            messages.TaskMessage,
            messages.Headers,
            messages.Delivery,
            messages.CodeKey,
            messages.Assignment,
            messages.ChordAssignment,
            messages.BatchAssignment,
            messages.BridgedTask,
            messages.BridgedCall,
        ],
        "Reports": [*typing.get_args(reports.Report), reports.TaskError],
        "What happens to messages of a bridge": typing.get_args(reports.Event),
        "Store operations": [
            *typing.get_args(operations.Operation), operations.Completion, operations.Part, operations.LastPart,
        ],
        "Questions": [*typing.get_args(questions.AnyQuestion), questions.StoredResult, questions.Samples],
        "Records of the journal": [
            kind for kind in typing.get_args(records.Record) if kind.__module__ == records.__name__
        ],
    }  # fmt: skip
    tables = (f"\n## {title}\n\n{_table(kinds)}" if title else f"\n{_table(kinds)}" for title, kinds in parts.items())
    return _HEAD + "".join(tables)


def _table(kinds: Iterable[Any]) -> str:
    rows = (f"| `{kind.__name__}` | {_about(kind)} | {_fields(kind)} |\n" for kind in kinds)
    return "| name | what it is | fields |\n| --- | --- | --- |\n" + "".join(rows)


def _about(kind: Any) -> str:
    about = _plain(inspect.cleandoc(kind.__doc__ or "").partition("\nArguments:")[0])
    [base] = getattr(kind, "__orig_bases__", [None])
    if not issubclass(kind, asking.Question):
        return about
    answer = typing.get_args(base)[0]
    return f"{about} Answer: `{_type(answer)}`." if answer is not None and answer is not type(None) else about


def _fields(kind: Any) -> str:
    told = dict(_told(inspect.cleandoc(kind.__doc__ or "")))
    return "<br>".join(f"`{name}`: {told[name]}" if name in told else f"`{name}`" for name in kind.__struct_fields__)


def _told(text: str) -> Iterator[tuple[str, str]]:
    """Yield names and descriptions of the arguments of a docstring."""
    arguments = text.partition("Arguments:\n")[2].partition("\n\n")[0]
    for name, about in re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", arguments, re.MULTILINE):
        yield name, _plain(about)


def _plain(text: str) -> str:
    text = re.sub(r":\w+:`[\w.]*?(\w+)`", r"`\1`", " ".join(text.split()))
    return text.replace("``", "`").replace("|", "\\|")


def _type(kind: Any) -> str:
    name = kind.__name__ if isinstance(kind, type) and not typing.get_args(kind) else str(kind)
    return re.sub(r"(?:\w+\.)+(\w+)", r"\1", name).replace("|", "\\|")


if __name__ == "__main__":
    print(page(), end="")
