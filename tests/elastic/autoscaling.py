"""A cluster with Ray's own autoscaler, whose nodes are processes of this machine.

The autoscaler is the one of ``ray up``; its provider of fake nodes starts them here. As
``ray.cluster_utils.AutoscalingCluster`` does it, which cannot be used: it ends every Ray of the machine.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import ray
from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID

from tests.support import ENVIRONMENT, free_port, short_directory, until

SECONDS = 100
HEAD = "ray.head.default"


def configuration(types: Mapping[str, Mapping[str, Any]], port: int, idle_seconds: float) -> dict[str, Any]:
    """Return what the autoscaler reads.

    Arguments:
        types: resources of a node, by the name of its type; and ``max_workers`` among them, of which the most are how
            many nodes there may be in all.
        port: of the head.
        idle_seconds: nodes that nobody uses go after so long.
    """
    described: dict[str, Any] = {HEAD: {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0}}
    for name, resources in types.items():
        most = resources["max_workers"]
        amounts = {key: amount for key, amount in resources.items() if key != "max_workers"}
        described[name] = {
            "resources": {"object_store_memory": 100_000_000, **amounts},
            "node_config": {},
            "min_workers": 0,
            "max_workers": most,
        }
    commands = (
        "initialization_commands", "setup_commands", "head_setup_commands", "worker_setup_commands",
        "head_start_ray_commands", "worker_start_ray_commands", "cluster_synced_files", "rsync_exclude", "rsync_filter",
    )  # fmt: skip
    return {
        "cluster_name": "elastic",
        "max_workers": max(one["max_workers"] for one in types.values()),
        "upscaling_speed": 10.0,
        "idle_timeout_minutes": idle_seconds / 60,
        "provider": {
            # `fake_multinode` by another name: its own defaults, which the second version asks for, are in no wheel.
            "type": "external",
            "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
            "gcs_address": f"{_this_machine()}:{port}",
            "launch_multiple": True,
            "use_node_id_as_ip": True,
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
        },
        "available_node_types": described,
        "head_node_type": HEAD,
        "auth": {},
        "docker": {},
        "file_mounts": {},
        "file_mounts_sync_continuously": False,
        **{command: [] for command in commands},
    }


def _this_machine() -> str:
    return str(ray.util.get_node_ip_address())


@dataclass
class Elastic:
    """A running cluster.

    Arguments:
        address: for programs to join it.
        temporary: where its files are.
        head: the process of ``ray start``.
    """

    address: str
    temporary: Path
    head: subprocess.Popen[bytes]

    def log(self) -> str:
        """What the autoscaler has written."""
        return (self.temporary / "session_latest" / "logs" / "monitor.log").read_text()

    def nodes(self) -> list[str]:
        """Ids of the nodes that there are besides the head."""
        return [node["NodeID"] for node in self.alive()]

    def alive(self) -> list[dict[str, Any]]:
        """What Ray says of the nodes that there are besides the head."""
        return [n for n in ray.nodes() if n["Alive"] and "node:__internal_head__" not in n["Resources"]]

    def kill(self, node_id: str) -> None:
        """End a node without notice."""
        for process in psutil.Process(self.head.pid).children(recursive=True):
            about = process.as_dict(["name", "cmdline"])  # of one that has just ended nothing is told
            if about["name"] == "raylet" and any(node_id in argument for argument in about["cmdline"] or ()):
                process.send_signal(signal.SIGKILL)
                return
        raise LookupError(f"there is no node {node_id}")


@contextlib.contextmanager
def elastic(types: Mapping[str, Mapping[str, Any]], idle_seconds: float = 6.0, v2: bool = False) -> Iterator[Elastic]:
    """Run a head without CPUs and its autoscaler; what it started is ended with it.

    Arguments:
        types: see :func:`configuration`.
        idle_seconds: nodes that nobody uses go after so long.
        v2: the autoscaler's second version, which KubeRay has.
    """
    with short_directory("rc-e-") as temporary:
        port = free_port()
        file = temporary / "autoscaling.json"
        file.write_text(json.dumps(configuration(types, port, idle_seconds)))
        log = temporary / "start.log"
        command = [
            *_ray(), "start", "--head", "--block", f"--autoscaling-config={file}", "--num-cpus=0", f"--port={port}",
            f"--temp-dir={temporary}", "--include-dashboard=false", "--object-store-memory=200000000",
            f"--dashboard-port={free_port()}", f"--ray-client-server-port={free_port()}",
            "--dashboard-agent-listen-port=0",
        ]  # fmt: skip
        env = {
            **{key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"},
            **ENVIRONMENT,
            "RAY_FAKE_CLUSTER": "1",
            "AUTOSCALER_UPDATE_INTERVAL_S": "1",
            "RAY_AUTH_MODE": "disabled",
            "RAY_enable_autoscaler_v2": "1" if v2 else "0",
            "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID,
        }
        with log.open("wb") as output:
            head = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        try:
            until(lambda: "Ray runtime started" in log.read_text() or head.poll() is not None, SECONDS, log.read_text)
            assert head.poll() is None, log.read_text()
            yield Elastic(f"{_this_machine()}:{port}", temporary, head)
        finally:
            _end(head)


def _ray() -> Sequence[str]:
    return [sys.executable, "-m", "ray.scripts.scripts"]


def _end(head: subprocess.Popen[bytes]) -> None:
    """End all processes that a head, its autoscaler and their nodes have started."""
    processes = [psutil.Process(head.pid)] if head.poll() is None else []
    processes += [child for process in processes for child in process.children(recursive=True)]
    for send in ("terminate", "kill"):
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                getattr(process, send)()
        _, processes = psutil.wait_procs(processes, timeout=5)
    head.wait()
