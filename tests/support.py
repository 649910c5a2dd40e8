"""What several test folders start: Redis, Ray, a stock Celery worker; each is ended by its own handle."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent

#: For this process and every one it starts, before Ray is imported.
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DISABLE_IMPORT_WARNING": "1",
    # Ray is about to change how it treats GPUs of tasks that ask for none, and warns on each start.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # Tests run several at a time, and Ray takes long to start where all CPUs are busy.
    "RAY_raylet_start_wait_time_s": "100",
    "RAY_agent_register_timeout_ms": "100000",
}


def prepare_environment() -> None:
    """Set what Ray reads from the environment, and forget a cluster that the developer happens to be connected to."""
    os.environ.update(ENVIRONMENT)
    os.environ.pop("RAY_ADDRESS", None)


@contextlib.contextmanager
def short_directory(prefix: str = "rc-") -> Iterator[Path]:
    """A temporary directory with a path so short that Ray's Unix sockets under it fit into 107 bytes."""
    path = Path(tempfile.mkdtemp(prefix=prefix, dir="/tmp"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def free_port() -> int:
    """A TCP port that nothing listens on now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def stop(process: subprocess.Popen[Any], seconds: float = 30) -> int:
    """End a process with SIGTERM, with SIGKILL where that does not help in time, and return its exit status."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
    return process.wait()


def until(
    true: Callable[[], Any],
    seconds: float = 60,
    say: Callable[[], Any] | str = "it does not come true",
    every: float = 0.01,
) -> Any:
    """Wait until what ``true`` returns is true, and return it.

    Arguments:
        true: what is asked.
        seconds: how long at most; far more than it takes, as a busy machine is slow.
        say: what the error says.
        every: seconds between two questions.

    Raises:
        AssertionError: it is not in time.
    """
    deadline = time.monotonic() + seconds
    while not (found := true()):
        if time.monotonic() > deadline:
            raise AssertionError(say if isinstance(say, str) else say())
        time.sleep(every)
    return found


@contextlib.contextmanager
def redis_server() -> Iterator[str]:
    """Run a Redis of our own, without persistence, and yield its URL.

    Raises:
        RuntimeError: there is no ``redis-server``, or it does not come up.
    """
    executable = shutil.which("redis-server")
    if executable is None:
        raise RuntimeError("these tests need Redis: install it with 'apt-get install redis-server'")
    with short_directory("rc-redis-") as directory:
        for _attempt in range(5):  # the port may be taken between the choice and the start
            port = free_port()
            process = subprocess.Popen(
                [executable, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"],
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            assert process.stdout is not None
            lines = []
            for line in process.stdout:
                lines.append(line)
                if "Ready to accept connections" in line:
                    break
            else:
                process.wait()
                continue
            # Redis must not block on a full pipe.
            threading.Thread(target=process.stdout.read, daemon=True).start()
            try:
                yield f"redis://127.0.0.1:{port}/0"
            finally:
                stop(process)
            return
        raise RuntimeError("redis-server does not start:\n" + "".join(lines))


@dataclass(frozen=True)
class RaySession:
    """The Ray that the tests of this process share.

    Arguments:
        address: for other processes to join it, as ``RAY_ADDRESS``.
        temp_dir: where its logs are.
        num_cpus: how many CPUs it pretends to have.
    """

    address: str
    temp_dir: Path
    num_cpus: int


@contextlib.contextmanager
def dashboard(num_cpus: int = 2) -> Iterator[str]:
    """Start a Ray with a dashboard, as for the Job API, in processes of its own, and end it; yield the URL."""
    from raycelery.cluster import head

    names = ("RAY_TMPDIR", "PYTHONPATH", "RAY_ADDRESS")
    before = {name: os.environ.pop(name, None) for name in names}
    with short_directory() as folder:
        # As on a cluster whose image has the project installed.
        os.environ.update(RAY_TMPDIR=str(folder), PYTHONPATH=str(ROOT))
        try:
            with head.running(num_cpus) as found:
                yield found.dashboard
        finally:
            os.environ.pop("RAY_TMPDIR", None)
            os.environ.pop("PYTHONPATH", None)
            os.environ.update({name: value for name, value in before.items() if value is not None})


@contextlib.contextmanager
def ray_cluster(num_cpus: int = 4, **options: Any) -> Iterator[RaySession]:
    """Start a Ray of our own in this process, and end it.

    Arguments:
        num_cpus: more than the machine has is fine: most tests' tasks wait rather than compute.
        options: more arguments for ``ray.init``.
    """
    import ray

    from raycelery.cluster.slim import slim

    with short_directory() as directory:
        arguments: dict[str, Any] = {
            "address": "local",
            "num_cpus": num_cpus,
            "include_dashboard": False,
            "namespace": "raycelery",
            "log_to_driver": False,
            "object_store_memory": 300 * 1024**2,
            "_temp_dir": str(directory),
            **options,
        }
        with slim(dashboard=bool(arguments["include_dashboard"])):
            context = ray.init(**arguments)
        try:
            yield RaySession(context.address_info["gcs_address"], directory, num_cpus)
        finally:
            sessions = sys.modules.get("raycelery.client.session")
            if sessions is not None:
                sessions.shutdown()
            ray.shutdown()


def hostile_words(mark: str | Path) -> list[str]:
    """Return arguments that a shell, or whoever quotes them, would change; some make the file ``mark``."""
    made = [f"$(touch {mark})", f"`touch {mark}`", f"; touch {mark}"]
    return [*made, "it's", '"q"', "a\nb", "\\", "${HOME}", "*", "ü", ""]


@dataclass(frozen=True)
class StockWorker:
    """A running ``celery worker`` of stock Celery.

    Arguments:
        node: its node name.
        process: the main process.
        log: where it writes.
    """

    node: str
    process: subprocess.Popen[bytes]
    log: Path


@contextlib.contextmanager
def stock_worker(
    module: str,
    url: str,
    directory: Path,
    *arguments: str,
    concurrency: int = 1,
    env: Mapping[str, str] | None = None,
    path: Sequence[Path] = (),
    seconds: float = 60,
) -> Iterator[StockWorker]:
    """Run ``celery -A module worker -c concurrency``, ready to take tasks.

    Arguments:
        module: what ``-A`` takes.
        url: of the Redis that is broker and result backend, whatever the module says.
        directory: its working directory, from where ``module`` is imported; its log is written there.
        arguments: more of the worker's options.
        concurrency: number of prefork children.
        env: added to the environment.
        path: added to where it imports from.
        seconds: how long it may take to answer a ping.

    Raises:
        RuntimeError: it ends or does not answer in time; with its log.
    """
    import celery

    node = f"stock-{os.getpid()}-{free_port()}@localhost"
    log = directory / f"{node}.log"
    search = [str(directory), *map(str, path), str(ROOT)]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "celery", "-A", module, "-b", url, "--result-backend", url, "worker",
             "-c", str(concurrency), "-n", node, "-l", "INFO", "--without-gossip", "--without-mingle",
             *arguments],
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(search), "PYTHONUNBUFFERED": "1", **(env or {})},
        )  # fmt: skip
    try:
        with celery.Celery(broker=url, set_as_current=False) as app:
            deadline = time.monotonic() + seconds
            # A ping waits for its answer; it is asked again only because a node that is not up yet misses it.
            while not app.control.ping(destination=[node], timeout=1.0):
                if process.poll() is not None:
                    raise RuntimeError(f"the worker ended with status {process.returncode}:\n{log.read_text()}")
                if time.monotonic() > deadline:
                    raise RuntimeError(f"the worker does not answer within {seconds} s:\n{log.read_text()}")
        yield StockWorker(node, process, log)
    finally:
        stop(process)
