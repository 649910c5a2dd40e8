"""A real kube-apiserver with its etcd, on this machine, and objects in it as plain data."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
import urllib3
import yaml

from tests.support import free_port, short_directory, stop

#: Filled by ``tests/kubernetes/get_apiserver.sh``.
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "raycelery" / "kubernetes"
ADMIN, LAUNCHER = "admin-token", "launcher-token"
#: Kinds that KubeRay brings.
KINDS = {"rayjobs": "RayJob", "rayclusters": "RayCluster"}


def binary(name: str) -> Path | None:
    """``kube-apiserver`` or ``etcd``: beside the one in RAYCELERY_KUBE_APISERVER, in the cache, or in PATH."""
    named = os.environ.get("RAYCELERY_KUBE_APISERVER")
    places = [*([Path(named).parent / name] if named else []), CACHE / name, Path(shutil.which(name) or "/none")]
    return next((path for path in places if os.access(path, os.X_OK)), None)


def crd(kind: str) -> dict[str, Any] | None:
    """KubeRay's definition of a kind, where RAYCELERY_KUBERAY_CRDS or the cache has it; it is not in this project."""
    folder = Path(os.environ.get("RAYCELERY_KUBERAY_CRDS") or CACHE)
    path = folder / f"crd-{kind}-v1.json.gz"
    return json.loads(gzip.decompress(path.read_bytes())) if path.is_file() else None


def lenient(kind: str) -> dict[str, Any]:
    """A definition of one of KubeRay's kinds that takes any field."""
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{kind}.ray.io",
            "annotations": {"api-approved.kubernetes.io": "https://github.com/kubernetes/enhancements/pull/1111"},
        },
        "spec": {
            "group": "ray.io",
            "scope": "Namespaced",
            "names": {"kind": KINDS[kind], "listKind": f"{KINDS[kind]}List", "plural": kind, "singular": kind[:-1]},
            "versions": [
                {"name": "v1", "served": True, "storage": True, "subresources": {"status": {}},
                 "schema": {"openAPIV3Schema": {**anything, "properties": {"spec": anything, "status": anything}}}}
            ],
        },
    }  # fmt: skip


def host_address() -> str:
    """An address of this machine that is not loopback, which Kubernetes forwards nothing to."""
    for addresses in psutil.net_if_addrs().values():
        for one in addresses:
            if one.family == socket.AF_INET and not one.address.startswith(("127.", "169.254.")):
                return str(one.address)
    pytest.skip("this machine has no address but loopback's")


@dataclass
class Server:
    """A running API server, and one who may do everything in it.

    Arguments:
        url: of it.
        folder: where its kubeconfigs are.
        command: that starts it.
    """

    url: str
    folder: Path
    command: list[str]
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        with (self.folder / "kube-apiserver.log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder
            )
        _await(self, "readyz", self.folder)

    def stop(self) -> None:
        """End it; what it knows stays in etcd."""
        if self.process is not None:
            stop(self.process)

    def kubeconfig(self, token: str = ADMIN) -> Path:
        """A file for one who has a token."""
        path = self.folder / f"{token}.kubeconfig"
        path.write_text(yaml.safe_dump({
            "apiVersion": "v1", "kind": "Config", "current-context": "it",
            "clusters": [{"name": "it", "cluster": {"server": self.url, "insecure-skip-tls-verify": True}}],
            "users": [{"name": "it", "user": {"token": token}}],
            "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it", "namespace": "default"}}],
        }))  # fmt: skip
        return path

    def call(self, method: str, path: str, body: Any = None, kind: str = "application/json") -> Any:
        """Send a request to the API server; None for what there is not."""
        answer = requests.request(
            method, f"{self.url}/{path}", data=None if body is None else json.dumps(body), verify=False, timeout=60,
            headers={"Authorization": f"Bearer {ADMIN}", "Content-Type": kind},
        )  # fmt: skip
        if answer.status_code == 404:
            return None
        if answer.status_code >= 300:
            raise RuntimeError(f"{method} {path}: {answer.status_code} {answer.text}")
        return answer.json()

    def patch(self, path: str, body: Any) -> Any:
        """Merge into an object."""
        return self.call("PATCH", path, body, "application/merge-patch+json")


def of(kind: str, name: str = "", sub: str = "") -> str:
    """The path of objects in the namespace ``default``."""
    group = "apis/ray.io/v1" if kind in KINDS else "api/v1"
    return "/".join(part for part in (group, "namespaces/default", kind, name, sub) if part)


@contextlib.contextmanager
def running() -> Iterator[Server]:
    """Run an API server that knows KubeRay's kinds."""
    etcd, apiserver = binary("etcd"), binary("kube-apiserver")
    if etcd is None or apiserver is None:
        pytest.skip("there is no kube-apiserver: run tests/kubernetes/get_apiserver.sh, or `tox -e kubernetes`")
    urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
    with short_directory("rc-k8s-") as folder, contextlib.ExitStack() as processes:
        client, peer, secure = free_port(), free_port(), free_port()
        url = f"https://127.0.0.1:{secure}"
        key = folder / "sa.key"
        subprocess.run(["openssl", "genrsa", "-out", str(key), "2048"], check=True, capture_output=True)
        (folder / "tokens.csv").write_text(
            f'{ADMIN},admin,uid1,"system:masters"\n{LAUNCHER},system:serviceaccount:default:launcher,uid2,""\n'
        )

        log = processes.enter_context((folder / "etcd.log").open("wb"))
        store = subprocess.Popen(
            [str(etcd), f"--data-dir={folder}/etcd", f"--listen-client-urls=http://127.0.0.1:{client}",
             f"--advertise-client-urls=http://127.0.0.1:{client}", f"--listen-peer-urls=http://127.0.0.1:{peer}",
             f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}",
             f"--initial-cluster=default=http://127.0.0.1:{peer}", "--unsafe-no-fsync"],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder,
        )  # fmt: skip
        processes.callback(stop, store)
        server = Server(url, folder, [
            str(apiserver), f"--etcd-servers=http://127.0.0.1:{client}", f"--cert-dir={folder}/certs",
            "--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", f"--secure-port={secure}",
            "--service-cluster-ip-range=10.0.0.0/24", f"--service-account-issuer={url}",
            f"--service-account-key-file={key}", f"--service-account-signing-key-file={key}",
            f"--token-auth-file={folder}/tokens.csv", "--authorization-mode=RBAC",
            "--disable-admission-plugins=ServiceAccount", "--endpoint-reconciler-type=none",
        ])  # fmt: skip
        processes.callback(server.stop)
        server.start()
        for kind in KINDS:
            server.call("POST", "apis/apiextensions.k8s.io/v1/customresourcedefinitions", crd(kind) or lenient(kind))
        for kind in KINDS:
            _await(server, of(kind), folder)
        yield server


def _await(server: Server, path: str, folder: Path) -> None:
    deadline = time.monotonic() + 120
    while True:
        with contextlib.suppress(requests.RequestException):
            answer = requests.get(
                f"{server.url}/{path}", verify=False, timeout=10, headers={"Authorization": f"Bearer {ADMIN}"}
            )
            if answer.status_code == 200:
                return
        if time.monotonic() > deadline:
            raise AssertionError(
                f"the API server does not start:\n{(folder / 'kube-apiserver.log').read_text()[-3000:]}"
            )
        time.sleep(0.1)
