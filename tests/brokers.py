"""Brokers that can be stopped and started again, with what is in their queues."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests import support
from tests.support import until


class Redis:
    """A Redis that keeps its data over a restart.

    Arguments:
        directory: for its files, and its Unix socket: a short path.
        tls: whether it talks TLS only, with a certificate of its own.
    """

    def __init__(self, directory: Path, *, tls: bool = False) -> None:
        self._directory = directory
        self.port = support.free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._socket = directory / "redis.sock"
        self.url = f"{'rediss' if tls else 'redis'}://127.0.0.1:{self.port}/0"
        #: The same by its Unix socket.
        self.socket_url = f"redis+socket://{self._socket}?virtual_host=0"
        self._arguments = ["--port", str(self.port)]
        if tls:
            key, certificate = str(directory / "key.pem"), str(directory / "certificate.pem")
            subprocess.run(
                ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                 "-subj", "/CN=localhost", "-days", "2", "-keyout", key, "-out", certificate],
                check=True, capture_output=True,
            )  # fmt: skip
            self._arguments = [
                "--port", "0", "--tls-port", str(self.port), "--tls-auth-clients", "no",
                "--tls-key-file", key, "--tls-cert-file", certificate, "--tls-ca-cert-file", certificate,
            ]  # fmt: skip

    def start(self) -> None:
        """Start it, and wait until it answers."""
        import redis

        self._process = subprocess.Popen(
            ["redis-server", *self._arguments, "--bind", "127.0.0.1", "--unixsocket", str(self._socket),
             "--appendonly", "yes", "--save", ""],
            cwd=self._directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        client = redis.Redis(unix_socket_path=str(self._socket))

        def answers() -> bool:
            try:
                return bool(client.ping())
            except redis.ConnectionError:
                return False

        until(answers, 30, "redis-server does not start")
        client.close()

    def stop(self) -> None:
        """Stop it."""
        if self._process is not None:
            support.stop(self._process)
            self._process = None


@contextmanager
def redis(*, tls: bool = False) -> Iterator[Redis]:
    """Run a Redis, and stop it with the context.

    Arguments:
        tls: whether it talks TLS only.
    """
    with support.short_directory("rc-redis-") as directory:
        broker = Redis(directory, tls=tls)
        broker.start()
        try:
            yield broker
        finally:
            broker.stop()


@contextmanager
def sentinel(master: Redis) -> Iterator[str]:
    """Run a sentinel that knows a Redis by the name ``shop``, and yield its URL."""
    import redis as client

    port = support.free_port()
    with support.short_directory("rc-sentinel-") as directory:
        (directory / "sentinel.conf").write_text(
            f"port {port}\nbind 127.0.0.1\nsentinel monitor shop 127.0.0.1 {master.port} 1\n"
        )
        process = subprocess.Popen(
            ["redis-server", "sentinel.conf", "--sentinel"],
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        asked = client.Redis(port=port)

        def answers() -> bool:
            try:
                return bool(asked.ping())
            except client.ConnectionError:
                return False

        try:
            until(answers, 30, "the sentinel does not start")
            asked.close()
            yield f"sentinel://127.0.0.1:{port}/0"
        finally:
            support.stop(process)


class RabbitMQ:
    """A RabbitMQ of our own: node name, ports and folders that no other uses.

    Arguments:
        directory: for its files.
        settings: more of its settings, in Erlang's notation.
    """

    def __init__(self, directory: Path, settings: str = "") -> None:
        if shutil.which("rabbitmq-server") is None:
            raise RuntimeError("these tests need RabbitMQ: install it with 'apt-get install rabbitmq-server'")
        self._directory = directory
        self._port = support.free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._names: subprocess.Popen[bytes] | None = None
        self.url = f"amqp://guest:guest@127.0.0.1:{self._port}//"
        (directory / "rabbitmq.conf").write_text(f"listeners.tcp.default = 127.0.0.1:{self._port}\n")
        (directory / "advanced.config").write_text(f"[{{rabbit, [{settings}]}}].\n")
        (directory / "enabled_plugins").write_text("[].\n")
        self._environment = {
            **os.environ,
            "HOME": str(directory),
            "RABBITMQ_NODENAME": f"raycelery{self._port}@localhost",
            "RABBITMQ_BASE": str(directory),
            "RABBITMQ_MNESIA_BASE": str(directory / "mnesia"),
            "RABBITMQ_LOG_BASE": str(directory / "log"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(directory / "advanced.config"),
            "RABBITMQ_CONFIG_FILE": str(directory / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "enabled_plugins"),
            "RABBITMQ_CONF_ENV_FILE": str(directory / "none"),
            "RABBITMQ_NODE_PORT": str(self._port),
            "RABBITMQ_DIST_PORT": str(support.free_port()),
            "ERL_EPMD_PORT": str(support.free_port()),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
        }

    def start(self) -> None:
        """Start it, and wait until it answers."""
        import amqp

        if self._names is None:
            # Erlang's name server, which it would start as a daemon and leave behind.
            self._names = subprocess.Popen(
                ["epmd"], env=self._environment, stdin=subprocess.DEVNULL, start_new_session=True
            )
        # The Debian wrapper would go on as the user `rabbitmq`, who may not write here.
        executable = "/usr/lib/rabbitmq/bin/rabbitmq-server"
        with (self._directory / "output").open("ab") as output:
            self._process = subprocess.Popen(
                [executable if Path(executable).exists() else "rabbitmq-server"],
                cwd=self._directory,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

        def answers() -> bool:
            try:
                amqp.Connection(f"127.0.0.1:{self._port}", connect_timeout=2).connect()
            except (OSError, amqp.AMQPError):
                return False
            return True

        until(answers, 90, lambda: (self._directory / "output").read_text())

    def stop(self) -> None:
        """Stop it."""
        if self._process is not None:
            support.stop(self._process)
            self._process = None

    def close(self) -> None:
        """Stop it for good."""
        self.stop()
        if self._names is not None:
            support.stop(self._names)
            self._names = None


@contextmanager
def rabbitmq(settings: str = "") -> Iterator[RabbitMQ]:
    """Run a RabbitMQ, and stop it with the context.

    Arguments:
        settings: more of its settings, in Erlang's notation.
    """
    with support.short_directory("rc-rabbit-") as directory:
        broker = RabbitMQ(directory, settings)
        try:
            broker.start()
            yield broker
        finally:
            broker.close()
