"""Trainings that mostly wait for their data, as on workers that are 10-15 % busy."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
import time
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from .. import work
from ..calls import Call, Fleet, WrongResultError, call
from . import zones

_URL = "RAYCELERY_BENCH_WAREHOUSE"
#: Shortest and longest seconds of a query. A training computes for about 0.2 s.
_LATENCY = (0.5, 0.8)
#: CPUs of a task on Ray: it computes for a quarter of its time, and some more than four per CPU fill the gaps.
_NUM_CPUS = 0.16


class _Warehouse(BaseHTTPRequestHandler):
    """Answers a query for a partition's history, after a delay that depends only on the query."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        share = hashlib.sha256(self.path.encode()).digest()[0] / 255
        time.sleep(_LATENCY[0] + share * (_LATENCY[1] - _LATENCY[0]))
        body = json.dumps({"query": self.path.lstrip("/")}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256


def fetch_and_train(origin: str, dest: str, daypart: str) -> dict[str, Any]:
    """Query the warehouse, then train."""
    query = f"{origin}/{dest}/{daypart}"
    with urllib.request.urlopen(f"{os.environ[_URL]}/{query}", timeout=60) as answer:
        if json.load(answer)["query"] != query:
            raise WrongResultError(f"the warehouse answered something else than {query}")
    return zones.train(origin, dest, daypart)


class Workload(zones.Workload):
    """On queues one worker per host waits for its data; on Ray a task asks for a fraction of a CPU."""

    name = "warehouse"
    about = (
        "zone trainings that first wait for a data service: legacy with one worker on the host, on Ray with 0.16 "
        "CPUs a task"
    )
    systems = work.USUAL
    figures = ("utilisation", "makespan", "throughput", "concurrency", "memory")

    def fleet(self, system: str) -> Fleet:
        concurrency = self.settings.concurrency
        if system in work.QUEUES:
            return Fleet(1)
        return Fleet(int(concurrency / _NUM_CPUS), num_cpus=_NUM_CPUS, cpus=concurrency)

    @contextlib.contextmanager
    def environment(self) -> Iterator[dict[str, str]]:
        with _Server(("127.0.0.1", 0), _Warehouse) as server:
            thread = threading.Thread(target=server.serve_forever, daemon=True)
            thread.start()
            try:
                with super().environment() as variables:
                    yield {**variables, _URL: f"http://127.0.0.1:{server.server_address[1]}"}
            finally:
                server.shutdown()
                thread.join()

    def partitions(self) -> list[tuple[str, str, str]]:
        # Whole zones, the busiest one first.
        from data import partitions

        found: list[tuple[str, str, str]] = partitions(1 if self.settings.quick else 10)
        return found

    def calls(self, system: str) -> list[Call]:
        return [call(fetch_and_train, *partition) for partition in self.partitions()]
