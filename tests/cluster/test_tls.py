"""Connections to dispatchers are encrypted where Ray's are, with certificates of one CA on both sides."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import os
import socket
import ssl
import threading
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from raycelery.errors import DispatcherUnreachable
from raycelery.protocol import framing, tls
from tests import scripts
from tests.cluster.processes import ray_start

CALL = """
    import socket, ssl
    import ray
    from raycelery import Celery

    app = Celery("encrypted")

    @app.task
    def add(x, y):
        return x + y

    if __name__ == "__main__":
        assert add.delay(1, 2).get(timeout=90) == 3
        assert sum(result.get(timeout=90) for result in [add.delay(i, 1) for i in range(300)]) == 45150
        assert len(add.delay("x" * 90_000, "y" * 90_000).get(timeout=90)) == 180_000
        endpoint = app.client.endpoint
        with socket.create_connection((endpoint.host, endpoint.port)) as plain:
            plain.settimeout(2)
            plain.sendall(b"raycelery")
            try:
                heard = plain.recv(100)
            except (TimeoutError, ConnectionResetError):
                heard = b""
            assert b"raycelery" not in heard, heard
        print("ok")
"""


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def make_files(folder: Path) -> dict[str, str]:
    """Make up a CA and a certificate for this machine; return the variables that name the files."""
    folder.mkdir()
    now = datetime.datetime.now(datetime.timezone.utc)
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, one)]) for one in ("made up", "localhost")]
    addresses = {"127.0.0.1", *(info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET))}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(("192.0.2.1", 9))  # nothing is sent
        addresses.add(sock.getsockname()[0])
    hosts = [x509.DNSName("localhost"), *(x509.IPAddress(ipaddress.ip_address(one)) for one in addresses)]
    for index, name in enumerate(("ca", "server")):
        builder = (
            x509.CertificateBuilder()
            .subject_name(names[index])
            .issuer_name(names[0])
            .public_key(keys[index].public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=not index, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(keys[index].public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(keys[0].public_key()), critical=False)
        )
        if index:
            builder = builder.add_extension(x509.SubjectAlternativeName(hosts), critical=False)
        certificate = builder.sign(keys[0], hashes.SHA256())
        (folder / f"{name}.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        (folder / f"{name}.key").write_bytes(_pem(keys[index]))
    return {
        "RAY_USE_TLS": "1",
        "RAY_TLS_SERVER_CERT": str(folder / "server.crt"),
        "RAY_TLS_SERVER_KEY": str(folder / "server.key"),
        "RAY_TLS_CA_CERT": str(folder / "ca.crt"),
    }


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """In this process Ray would use TLS."""
    made = make_files(tmp_path / "tls")
    for name, value in made.items():
        monkeypatch.setenv(name, value)
    return made


def listen() -> framing.Endpoint:
    """Listen as a dispatcher does; what comes after the greeting comes back."""
    context = tls.server_context()
    assert context is not None
    server = socket.create_server(("127.0.0.1", 0))
    endpoint = framing.Endpoint("127.0.0.1", server.getsockname()[1], os.urandom(32))

    def serve() -> None:
        raw, _ = server.accept()
        with server, contextlib.suppress(OSError), context.wrap_socket(raw, server_side=True) as conn:
            greeting = framing.Greeting(endpoint)
            conn.sendall(greeting.opening)
            while (heard := greeting.hear(conn.recv(4096))) is None:
                pass
            conn.sendall(heard[0])
            while data := conn.recv(1 << 16):
                conn.sendall(data)

    threading.Thread(target=serve, daemon=True).start()
    return endpoint


@pytest.mark.usefixtures("files")
def test_one_thread_reads_while_others_write() -> None:
    endpoint = listen()
    sock = framing.connect(endpoint)
    assert isinstance(sock, tls.TlsSocket)
    parts = [bytes([number]) * 3_000_000 for number in range(4)]
    read = bytearray()

    def reader() -> None:
        while len(read) < sum(map(len, parts)):
            read.extend(sock.recv(1 << 18))

    thread = threading.Thread(target=reader, daemon=True)
    thread.start()
    for part in parts:
        sock.sendall(part)
    thread.join(60)
    assert bytes(read) == b"".join(parts)
    ends = threading.Thread(target=lambda: read.clear() or read.extend(sock.recv(10)), daemon=True)  # type: ignore[func-returns-value]
    ends.start()
    sock.shutdown(socket.SHUT_RDWR)
    ends.join(60)
    assert not ends.is_alive(), "who reads is told of the end"
    sock.close()


def test_a_certificate_of_another_ca_is_refused(
    files: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = listen()
    for name, value in make_files(tmp_path / "strangers").items():
        monkeypatch.setenv(name, value)
    with pytest.raises(DispatcherUnreachable, match=r"cannot be spoken with by TLS .*RAY_TLS_CA_CERT"):
        framing.connect(endpoint)


@pytest.mark.usefixtures("files")
def test_who_shows_no_certificate_is_refused() -> None:
    endpoint = listen()
    context = ssl.create_default_context(cafile=os.environ["RAY_TLS_CA_CERT"])

    def talk() -> bytes:
        with (
            socket.create_connection((endpoint.host, endpoint.port)) as raw,
            context.wrap_socket(raw, server_hostname="127.0.0.1") as sock,
        ):
            return sock.recv(100)

    with pytest.raises(ssl.SSLError, match=r"(?i)certificate.required|handshake.failure"):
        talk()


def test_files_that_cannot_be_used_are_named(files: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TLS_SERVER_CERT", "/nowhere.crt")
    with pytest.raises(DispatcherUnreachable, match=r"its files cannot be used .*RAY_TLS_SERVER_CERT=/nowhere.crt"):
        tls.server_context()
    monkeypatch.delenv("RAY_TLS_SERVER_CERT")
    with pytest.raises(DispatcherUnreachable, match="RAY_TLS_SERVER_CERT or RAY_TLS_SERVER_KEY is not"):
        tls.server_context()


@pytest.mark.slow
def test_a_cluster_that_uses_tls(tmp_path: Path) -> None:
    env = make_files(tmp_path / "tls")
    with ray_start(**env) as cluster:
        (tmp_path / "project").mkdir()
        scripts.run(tmp_path / "project", CALL, cluster.address, env={**cluster.environment, **env})
