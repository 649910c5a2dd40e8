"""TLS for connections to dispatchers, where Ray is told to use it: by the same variables, files and rules as Ray's own.

``RAY_USE_TLS=1``, ``RAY_TLS_SERVER_CERT``, ``RAY_TLS_SERVER_KEY`` and ``RAY_TLS_CA_CERT``: both sides show the same
kind of certificate, and each sees that the other's is the CA's, see
https://docs.ray.io/en/latest/ray-core/configure.html#tls-authentication.
"""

from __future__ import annotations

import os
import select
import socket
import ssl
import threading

from raycelery.errors import DispatcherUnreachable

#: Bytes that are encrypted at a time.
_PART_BYTES = 1 << 18


def wanted() -> bool:
    """Return whether Ray uses TLS in this process."""
    return os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true")


def server_context() -> ssl.SSLContext | None:
    """Return how a dispatcher speaks with who connects; None: without TLS.

    Raises:
        DispatcherUnreachable: Ray uses TLS, and its files cannot be used.
    """
    return _context(ssl.PROTOCOL_TLS_SERVER) if wanted() else None


def connected(sock: socket.socket, host: str) -> socket.socket:
    """Return a connection to a dispatcher, encrypted where Ray uses TLS.

    Arguments:
        sock: the connection; closed if it cannot be encrypted.
        host: whose certificate the dispatcher must show.

    Raises:
        DispatcherUnreachable: Ray uses TLS, and its files cannot be used, or the other side shows another certificate.
    """
    if not wanted():
        return sock
    try:
        return _context(ssl.PROTOCOL_TLS_CLIENT).wrap_socket(sock, server_hostname=host)
    except ssl.SSLError as exc:
        sock.close()
        raise DispatcherUnreachable(
            f"the dispatcher at {host} cannot be spoken with by TLS ({exc}): RAY_USE_TLS must be the same for all "
            "processes of the cluster, and RAY_TLS_SERVER_CERT be of RAY_TLS_CA_CERT and for this host"
        ) from exc
    except DispatcherUnreachable:
        sock.close()
        raise


def _context(protocol: int) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    files = {name: os.environ.get(name) for name in ("RAY_TLS_SERVER_CERT", "RAY_TLS_SERVER_KEY", "RAY_TLS_CA_CERT")}
    cert, key, ca = files.values()
    if not cert or not key:
        raise DispatcherUnreachable("RAY_USE_TLS is set, and RAY_TLS_SERVER_CERT or RAY_TLS_SERVER_KEY is not")
    try:
        context.load_cert_chain(cert, key)
        if ca:
            context.load_verify_locations(ca)
            context.verify_mode = ssl.CERT_REQUIRED
        elif protocol == ssl.PROTOCOL_TLS_CLIENT:
            context.load_default_certs()
    except (OSError, ssl.SSLError) as exc:
        told = ", ".join(f"{name}={value}" for name, value in files.items() if value)
        raise DispatcherUnreachable(f"RAY_USE_TLS is set, and its files cannot be used ({exc}): {told}") from exc
    return context


class TlsSocket:
    """An encrypted connection that one thread reads from while others write to it; OpenSSL's must not be used so.

    Arguments:
        sock: the connection, which is used by nobody else from now on.
    """

    def __init__(self, sock: ssl.SSLSocket) -> None:
        sock.setblocking(False)
        self._sock = sock
        #: Held while OpenSSL is called, and never while something is waited for.
        self._lock = threading.Lock()

    def recv(self, size: int) -> bytes:
        """Return what has come, waiting until something has; nothing at the end."""
        while True:
            try:
                with self._lock:
                    return self._sock.recv(size)
            except ssl.SSLWantReadError:
                self._wait(select.POLLIN)
            except ssl.SSLWantWriteError:
                self._wait(select.POLLOUT)
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return b""

    def send(self, data: memoryview | bytes, flags: int = 0) -> int:
        """Send a part, and return how many bytes it has."""
        part = memoryview(data)[:_PART_BYTES]
        while True:
            try:
                with self._lock:
                    return self._sock.send(part)
            except ssl.SSLWantReadError:
                self._wait(select.POLLIN)
            except ssl.SSLWantWriteError:
                self._wait(select.POLLOUT)

    def sendall(self, data: bytes) -> None:
        """Send all."""
        view = memoryview(data)
        while view:
            view = view[self.send(view) :]

    def _wait(self, event: int) -> None:
        poll = select.poll()
        poll.register(self._sock.fileno(), event)
        poll.poll()

    def shutdown(self, how: int) -> None:
        """End the connection, for this side's reader, too."""
        socket.socket.shutdown(self._sock, how)  # OpenSSL's part stays, for the reader to see the end

    def close(self) -> None:
        """Close it."""
        self._sock.close()

    def detach(self) -> int:
        """Give its file descriptor up."""
        return self._sock.detach()
