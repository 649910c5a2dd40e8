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
        directory: for its files.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._port = support.free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"redis://127.0.0.1:{self._port}/0"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        import redis

        self._process = subprocess.Popen(
            ["redis-server", "--port", str(self._port), "--bind", "127.0.0.1", "--appendonly", "yes", "--save", ""],
            cwd=self._directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        client = redis.Redis.from_url(self.url)

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
