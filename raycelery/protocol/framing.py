"""The byte stream between an application's processes and its dispatcher: who may talk, in which version, and frames.

Why sockets and not actor calls: a Ray actor call costs about 0.6 ms each way and cannot be made from a forked child; a
frame on a TCP connection costs about 0.05 ms, carries many messages, and any process that knows the endpoint can open
one. The endpoint and its secret are handed out by an actor call only, so whoever may talk to the Ray cluster (its token
authentication included) may connect, and nobody else: nothing is decoded before both sides have proved that they know
the secret.

A connection begins with a greeting of each side: :data:`MAGIC`, the version of the protocol in two bytes, and a nonce;
the client gives its nonce along with its proof, and the dispatcher then gives its own, see :func:`proof`. After that
come frames: a length in four bytes, and one of :mod:`raycelery.protocol.frames` in so many.
"""

from __future__ import annotations

import hmac
import os
import socket
import ssl
import struct
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar

from raycelery.errors import DispatcherUnreachable, VersionMismatch
from raycelery.protocol import keepalive, tls
from raycelery.protocol.codec import VERSION, Decoder, ProtocolError, Tagged, encode

F = TypeVar("F")
#: A connection to a dispatcher.
Socket = socket.socket | tls.TlsSocket
Side = Literal["client", "dispatcher"]

_LENGTH = struct.Struct("!I")
#: Bytes in which a frame says its length.
LENGTH_BYTES = _LENGTH.size
_VERSION = struct.Struct("!H")
#: What both sides say first.
MAGIC = b"raycelery"
#: Bytes of magic and version.
HEAD_BYTES = len(MAGIC) + _VERSION.size
NONCE_BYTES = 32
#: No frame is larger than this; messages are smaller by far, see :data:`raycelery.serialization.pickling.MOST_BYTES`.
FRAME_BYTES = 2_000_000_000
DIGEST_BYTES = 32


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a dispatcher listens, and the secret that proves the right to connect."""

    host: str
    port: int
    secret: bytes = field(repr=False)


# -- frames ------------------------------------------------------------------------------------------------------------


def pack(frame: Tagged) -> bytes:
    """Return the bytes of a frame.

    Raises:
        TypeError: it holds something that is no plain data.
        ValueError: it is too large.
    """
    return _framed(encode(frame))


def _framed(body: bytes) -> bytes:
    if len(body) > FRAME_BYTES:
        raise ValueError(f"a frame of {len(body)} bytes is larger than the {FRAME_BYTES} that are allowed")
    return _LENGTH.pack(len(body)) + body


class Unpacker(Generic[F]):
    """Cuts a byte stream into frames.

    Arguments:
        decoder: of the frames that may come.
    """

    __slots__ = ("_buffer", "_decoder")

    def __init__(self, decoder: Decoder[F]) -> None:
        self._buffer = bytearray()
        self._decoder = decoder

    def feed(self, data: bytes) -> list[F]:
        """Return the frames completed by ``data``.

        Raises:
            ProtocolError: what has come is no frame; the stream cannot be read any further.
        """
        return [frame for frame, _ in self.feed_raw(data)]

    def feed_raw(self, data: bytes) -> list[tuple[F, bytes]]:
        """Return the frames completed by ``data``, each with its bytes.

        Raises:
            ProtocolError: as for :meth:`feed`.
        """
        buffer = self._buffer
        buffer += data
        frames = []
        start, size = 0, len(buffer)
        while size - start >= 4:
            (length,) = _LENGTH.unpack_from(buffer, start)
            if length > FRAME_BYTES:
                raise ProtocolError(f"a frame of {length} bytes is larger than the {FRAME_BYTES} that are allowed")
            end = start + 4 + length
            if end > size:
                break
            with memoryview(buffer) as view:
                raw = bytes(view[start:end])
            frames.append((self._decoder.decode(memoryview(raw)[4:]), raw))
            start = end
        if start:
            del buffer[:start]
        return frames


# -- the greeting ------------------------------------------------------------------------------------------------------


def head(version: int = VERSION) -> bytes:
    """Return what a side says first."""
    return MAGIC + _VERSION.pack(version)


def version_of(greeting: bytes) -> int | None:
    """Return the version of the protocol that the other side speaks, from its first ``HEAD_BYTES``; None: another."""
    return _VERSION.unpack_from(greeting, len(MAGIC))[0] if greeting.startswith(MAGIC) else None


def proof(endpoint: Endpoint, side: Side, client_nonce: bytes, dispatcher_nonce: bytes) -> bytes:
    """Return what proves that its sender knows the secret of an endpoint.

    It is good for one side of one connection to one endpoint: what one side says proves nothing for the other, nor for
    another connection, nor for a dispatcher that listens elsewhere.

    Arguments:
        endpoint: as Ray has named it; not where the connection happens to lead.
        side: who proves it.
        client_nonce: the client's.
        dispatcher_nonce: the dispatcher's.
    """
    where = f"{side} {VERSION} {endpoint.host} {endpoint.port} ".encode()
    return hmac.digest(endpoint.secret, where + client_nonce + dispatcher_nonce, "sha256")


def connect(endpoint: Endpoint, timeout: float = 10.0, *, impatient: bool = False) -> Socket:
    """Open an authenticated connection to a dispatcher.

    Arguments:
        endpoint: where it listens, and its secret.
        timeout: seconds to wait for it to answer.
        impatient: see :func:`raycelery.protocol.keepalive.keep`.

    Raises:
        DispatcherUnreachable: nothing answers there, or something that does not know the secret.
        VersionMismatch: the dispatcher is of another version of raycelery.
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
        keepalive.keep(sock, impatient=impatient)
        sock = tls.connected(sock, endpoint.host)
        version = version_of(_exactly(sock, HEAD_BYTES))
        if version != VERSION:
            raise VersionMismatch(
                f"the dispatcher at {where} speaks {_spoken(version)} and this process version {VERSION}: use the same "
                "raycelery on both sides, or end the dispatcher with 'raycelery apps --end NAME', and the next call "
                "starts one of this version"
            )
        theirs = _exactly(sock, NONCE_BYTES)
        nonce = os.urandom(NONCE_BYTES)
        sock.sendall(head() + proof(endpoint, "client", nonce, theirs) + nonce)
        if not hmac.compare_digest(_exactly(sock, DIGEST_BYTES), proof(endpoint, "dispatcher", nonce, theirs)):
            raise DispatcherUnreachable(f"what listens at {where} is not this application's dispatcher")
        sock.settimeout(None)
        if isinstance(sock, ssl.SSLSocket):
            return tls.TlsSocket(sock)
    except OSError as exc:
        sock.close()
        raise DispatcherUnreachable(f"the dispatcher at {where} closed the connection ({exc})") from exc
    except DispatcherUnreachable:
        sock.close()
        raise
    return sock


class Greeting:
    """A dispatcher's side of the beginning of a connection.

    Arguments:
        endpoint: where the dispatcher says that it listens.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._nonce = os.urandom(NONCE_BYTES)
        self._heard = b""
        #: What the dispatcher says first.
        self.opening = head() + self._nonce

    def hear(self, data: bytes) -> tuple[bytes, bytes] | None:
        """Take what has come; return what proves that this is the dispatcher, and what has come after it, once it may.

        Raises:
            VersionMismatch: it is of another version of raycelery.
            DispatcherUnreachable: it does not know the secret.
        """
        self._heard += data
        heard = self._heard
        if not MAGIC.startswith(heard[: len(MAGIC)]):
            raise DispatcherUnreachable("it does not know the secret, nor speaks raycelery's protocol")
        if len(heard) < HEAD_BYTES:
            return None
        version = version_of(heard)
        if version != VERSION:
            raise VersionMismatch(
                f"it speaks {_spoken(version)} and this dispatcher version {VERSION}: use the same raycelery on both "
                "sides, or end this dispatcher with 'raycelery apps --end NAME'"
            )
        after_proof = HEAD_BYTES + DIGEST_BYTES
        rest = after_proof + NONCE_BYTES
        if len(heard) < rest:
            return None
        nonces = heard[after_proof:rest], self._nonce
        if not hmac.compare_digest(heard[HEAD_BYTES:after_proof], proof(self._endpoint, "client", *nonces)):
            raise DispatcherUnreachable("it does not know the secret")
        return proof(self._endpoint, "dispatcher", *nonces), heard[rest:]


def _spoken(version: int | None) -> str:
    return "no version of raycelery's protocol" if version is None else f"version {version} of raycelery's protocol"


def _exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = sock.recv(size - len(data))
        if not part:
            raise ConnectionResetError("closed during authentication")
        data += part
    return data
