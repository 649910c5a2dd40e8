"""Frames between an application's processes and its dispatcher.

Why sockets and not actor calls: a Ray actor call costs about 0.6 ms each way and cannot be made
from a forked child; a frame on a TCP connection costs about 0.05 ms, carries many messages, and any
process that knows the endpoint can open one. The endpoint and its secret are handed out by an actor
call only, so whoever may talk to the Ray cluster (its token authentication included) may connect,
and nobody else: nothing is unpickled before both sides have proved that they know the secret.

A frame is a 4-byte length and a pickled tuple ``(kind, *fields)``.
"""

from __future__ import annotations

import hmac
import os
import pickle
import socket
import struct
from dataclasses import dataclass
from typing import Any

from raycelery.errors import DispatcherUnreachable

_LENGTH = struct.Struct("!I")
NONCE_BYTES = 32
#: No frame is larger than this; messages are smaller by far, see :data:`raycelery.serialization.pickling.MOST_BYTES`.
FRAME_BYTES = 2_000_000_000
DIGEST_BYTES = 32


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a dispatcher listens, and the secret that proves the right to connect."""

    host: str
    port: int
    secret: bytes


def pack(*fields: Any) -> bytes:
    """Return the frame that carries ``fields``, the first of which names its kind."""
    body = pickle.dumps(fields, 5)
    if len(body) > FRAME_BYTES:
        raise ValueError(f"a frame of {len(body)} bytes is larger than the {FRAME_BYTES} that are allowed")
    return _LENGTH.pack(len(body)) + body


class Unpacker:
    """Cuts a byte stream into frames."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[tuple[Any, ...]]:
        """Return the frames completed by ``data``."""
        return [frame for frame, _ in self.feed_raw(data)]

    def feed_raw(self, data: bytes) -> list[tuple[tuple[Any, ...], bytes]]:
        """Return the frames completed by ``data``, each with its bytes."""
        buffer = self._buffer
        buffer += data
        frames = []
        start, size = 0, len(buffer)
        while size - start >= 4:
            (length,) = _LENGTH.unpack_from(buffer, start)
            if length > FRAME_BYTES:
                raise ValueError(f"a frame of {length} bytes is larger than the {FRAME_BYTES} that are allowed")
            end = start + 4 + length
            if end > size:
                break
            raw = bytes(buffer[start:end])
            frames.append((pickle.loads(memoryview(raw)[4:]), raw))
            start = end
        if start:
            del buffer[:start]
        return frames


def digest(secret: bytes, nonce: bytes) -> bytes:
    """Return the proof that the holder of ``secret`` has seen ``nonce``."""
    return hmac.digest(secret, nonce, "sha256")


def connect(endpoint: Endpoint, timeout: float = 10.0) -> socket.socket:
    """Open an authenticated connection to a dispatcher.

    Arguments:
        endpoint: where it listens, and its secret.
        timeout: seconds to wait for it to answer.

    Raises:
        DispatcherUnreachable: nothing answers there, or something that does not know the secret.
    """
    where = f"{endpoint.host}:{endpoint.port}"
    try:
        sock = socket.create_connection((endpoint.host, endpoint.port), timeout=timeout)
    except OSError as exc:
        raise DispatcherUnreachable(
            f"the dispatcher at {where} does not answer ({exc}): this process must run on, or have a route to, "
            "the Ray cluster's nodes; from outside the cluster, submit it as a Ray job"
        ) from exc
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        nonce = os.urandom(NONCE_BYTES)
        theirs = _exactly(sock, NONCE_BYTES)
        sock.sendall(digest(endpoint.secret, theirs) + nonce)
        proof = _exactly(sock, DIGEST_BYTES)
        if not hmac.compare_digest(proof, digest(endpoint.secret, nonce)):
            raise DispatcherUnreachable(f"what listens at {where} is not this application's dispatcher")
        sock.settimeout(None)
    except OSError as exc:
        sock.close()
        raise DispatcherUnreachable(f"the dispatcher at {where} closed the connection ({exc})") from exc
    except DispatcherUnreachable:
        sock.close()
        raise
    return sock


def _exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = sock.recv(size - len(data))
        if not part:
            raise ConnectionResetError("closed during authentication")
        data += part
    return data
