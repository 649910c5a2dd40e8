"""A stand-in for KubeRay's operator: its RayJob controller's states, with a real Ray of this machine per RayCluster.

Written from ``rayjob_controller.go``: which state follows which, with which reason; retries on new clusters, deadlines,
the finalizer, clean-up after the end. A pod's containers are not run; Ray's head node is a process of this machine,
whose dashboard stands behind the cluster's Service.
"""

from __future__ import annotations

import base64
import contextlib
import os
import secrets
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import requests
import yaml

from raycelery.cluster import head
from tests.kubernetes.server import Server, host_address, of
from tests.support import ROOT, free_port

FINALIZER = "ray.io/rayjob-finalizer"
#: A label of RayJobs that says what is to go wrong with them.
LABEL = "stand-in"
TERMINAL = ("SUCCEEDED", "FAILED", "STOPPED")


def now() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def since(text: str) -> float:
    begun = datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)
    return time.time() - begun.timestamp()


class Cluster:
    """A real Ray, as the head node of a RayCluster, with a token of its own."""

    def __init__(self, server: Server, name: str, folder: Path) -> None:
        self.server, self.name, self.token = server, name, secrets.token_hex(16)
        self.address, self.port = host_address(), free_port()
        self.service = f"{name}-head-svc"
        temporary = folder / name[-6:]
        environ = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
        environ.update(
            RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=self.token, RAY_TMPDIR=str(temporary), PYTHONPATH=str(ROOT),
            PATH=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        )  # fmt: skip
        temporary.mkdir()
        with (temporary / "head.log").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", f"--port={free_port()}", "--block",
                 "--num-cpus=2", f"--dashboard-host={self.address}", f"--dashboard-port={self.port}",
                 "--dashboard-agent-listen-port=0"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environ, start_new_session=True, cwd=temporary,
            )  # fmt: skip
        labels = {"ray.io/cluster": name}
        pod = {"metadata": {"name": f"{name}-head", "labels": labels},
               "spec": {"containers": [{"name": "ray-head", "image": "none"}]}}  # fmt: skip
        pod = server.call("POST", of("pods"), pod)
        # The API server forwards only to addresses that a pod has.
        pod["status"].update(podIP=self.address, podIPs=[{"ip": self.address}], phase="Running")
        server.call("PUT", of("pods", f"{name}-head", "status"), pod)
        encoded = base64.b64encode(self.token.encode()).decode()
        server.call("POST", of("secrets"), {"metadata": {"name": name}, "data": {"auth_token": encoded}})
        port = {"name": "dashboard", "port": 8265}
        server.call("POST", of("services"), {"metadata": {"name": self.service}, "spec": {"ports": [port]}})
        server.call("POST", of("endpoints"), {
            "metadata": {"name": self.service},
            "subsets": [{
                "addresses": [{"ip": self.address, "targetRef": {"kind": "Pod", "name": f"{name}-head",
                                                                 "namespace": "default"}}],
                "ports": [{"name": "dashboard", "port": self.port}],
            }],
        })  # fmt: skip

    def ask(self, method: str, path: str, body: Any = None) -> requests.Response:
        return requests.request(
            method, f"http://{self.address}:{self.port}{path}", json=body, timeout=30,
            headers={"X-Ray-Authorization": f"Bearer {self.token}"},
        )  # fmt: skip

    def ready(self) -> bool:
        try:
            return self.ask("GET", "/api/jobs/").status_code == 200
        except requests.RequestException:
            return False

    def delete(self) -> None:
        head.stop(self.process.pid)
        self.process.wait()
        for kind, name in (("endpoints", self.service), ("services", self.service), ("secrets", self.name)):
            self.server.call("DELETE", of(kind, name))
        self.server.call("DELETE", of("pods", f"{self.name}-head"), {"gracePeriodSeconds": 0})
        self.server.call("DELETE", of("rayclusters", self.name))


class StandIn:
    """The operator.

    Arguments:
        server: whose RayJobs it looks after.
        folder: for what clusters write; a short path.

    Attributes:
        clusters: that are there, by name.
        made: names of all that have been made.
    """

    def __init__(self, server: Server, folder: Path) -> None:
        self.server, self.folder = server, folder
        self.clusters: dict[str, Cluster] = {}
        self.made: list[str] = []
        self.troubles: list[str] = []
        self._looks: dict[str, float] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)

    @contextlib.contextmanager
    def running(self) -> Iterator[StandIn]:
        self._thread.start()
        try:
            yield self
        finally:
            self._ended.set()
            self._thread.join()
            for cluster in list(self.clusters.values()):
                cluster.delete()
            self.clusters.clear()

    def _run(self) -> None:
        while not self._ended.wait(0.2):
            try:
                for job in self.server.call("GET", of("rayjobs"))["items"]:
                    self._reconcile(job)
                there = {one["metadata"]["name"] for one in self.server.call("GET", of("rayclusters"))["items"]}
                for name in set(self.clusters) - there:  # somebody else has deleted it
                    self.clusters.pop(name).delete()
            except Exception:
                # As an operator, it goes on; a conflict of two writers is usual.
                self.troubles.append(traceback.format_exc())

    def _set(self, job: Mapping[str, Any], **status: Any) -> None:
        name = job["metadata"]["name"]
        whole = {key: value for key, value in {**(job.get("status") or {}), **status}.items() if value != ""}
        if whole.get("jobDeploymentStatus") == "Failed":
            whole["failed"] = whole.get("failed", 0) + 1
            again = whole["failed"] <= (job["spec"].get("backoffLimit") or 0)
            if again and whole.get("reason") not in ("DeadlineExceeded", "JobStatusCheckTimeoutExceeded"):
                whole["jobDeploymentStatus"] = "Retrying"
        if whole.get("jobDeploymentStatus") in ("Complete", "Failed"):
            whole["endTime"] = now()
        self.server.call("PUT", of("rayjobs", name, "status"), {**job, "status": whole})

    def _delete_cluster(self, job: Mapping[str, Any]) -> None:
        cluster = self.clusters.pop((job.get("status") or {}).get("rayClusterName", ""), None)
        if cluster is not None:
            cluster.delete()

    def _late(self, job: Mapping[str, Any], field: str, reason: str) -> bool:
        limit = job["spec"].get(field)
        if limit is None or since(job["status"]["startTime"]) < limit:
            return False
        self._set(job, jobDeploymentStatus="Failed", reason=reason, message=f"The RayJob has passed the {field}.")
        return True

    def _reconcile(self, job: dict[str, Any]) -> None:
        metadata, spec, status = job["metadata"], job["spec"], job.get("status") or {}
        state, wrong = status.get("jobDeploymentStatus") or "", (metadata.get("labels") or {}).get(LABEL)
        if metadata.get("deletionTimestamp"):
            cluster = self.clusters.get(status.get("rayClusterName", ""))
            if cluster is not None and status.get("jobStatus") not in TERMINAL:
                with contextlib.suppress(requests.RequestException):
                    cluster.ask("POST", f"/api/jobs/{status.get('jobId')}/stop")
            self._delete_cluster(job)
            self.server.patch(of("rayjobs", metadata["name"]), {"metadata": {"finalizers": None}})
        elif state == "ValidationFailed" or wrong == "nothing":
            pass
        elif wrong == "refused":
            self._set(
                job, jobDeploymentStatus="ValidationFailed", reason="ValidationFailed", message="refused by a rule"
            )
        elif state == "":
            if FINALIZER not in (metadata.get("finalizers") or []):
                job = self.server.patch(of("rayjobs", metadata["name"]), {"metadata": {"finalizers": [FINALIZER]}})
            given = {} if spec["submissionMode"] == "InteractiveMode" else {
                "jobId": spec.get("jobId") or f"{metadata['name']}-{secrets.token_hex(3)}"}  # fmt: skip
            name = f"{metadata['name']}-{secrets.token_hex(3)}"
            self._set(job, jobDeploymentStatus="Initializing", rayClusterName=name, startTime=now(), **given)
        elif state == "Initializing":
            self._initialize(job, wrong)
        elif state == "Waiting":
            if not self._late(job, "preRunningDeadlineSeconds", "PreRunningDeadlineExceeded") and spec.get("jobId"):
                self._set(job, jobDeploymentStatus="Running", jobId=spec["jobId"])
        elif state == "Running":
            self._look(job)
        elif state in ("Retrying", "Suspending"):
            self._delete_cluster(job)
            fresh = dict.fromkeys(("rayClusterName", "dashboardURL", "jobId", "message", "reason", "jobStatus"), "")
            self._set(job, jobDeploymentStatus="Suspended" if state == "Suspending" else "", **fresh)
        elif state == "Suspended" and not spec.get("suspend"):
            self._set(job, jobDeploymentStatus="")
        elif state in ("Complete", "Failed"):
            self._clean_up(job)

    def _initialize(self, job: dict[str, Any], wrong: str | None) -> None:
        spec, status = job["spec"], job["status"]
        name = status["rayClusterName"]
        if spec.get("suspend"):
            self._set(job, jobDeploymentStatus="Suspending")
            return
        for field, reason in (("activeDeadlineSeconds", "DeadlineExceeded"),
                              ("preRunningDeadlineSeconds", "PreRunningDeadlineExceeded")):  # fmt: skip
            if self._late(job, field, reason):
                return
        if wrong == "image":
            if name not in self.made:
                self.made.append(name)
                self._pod_without_image(name)
        elif name not in self.clusters and name not in self.made:
            self.made.append(name)
            self.server.call("POST", of("rayclusters"), {
                "apiVersion": "ray.io/v1", "kind": "RayCluster", "metadata": {"name": name},
                "spec": spec["rayClusterSpec"],
            })  # fmt: skip
            self.clusters[name] = Cluster(self.server, name, self.folder)
        elif self.clusters[name].ready():
            next_state = "Waiting" if spec["submissionMode"] == "InteractiveMode" else "Running"
            url = f"{self.clusters[name].service}.default.svc.cluster.local:8265"
            self._set(job, jobDeploymentStatus=next_state, dashboardURL=url)

    def _pod_without_image(self, cluster: str) -> None:
        name = f"{cluster}-head"
        pod = self.server.call("POST", of("pods"), {
            "metadata": {"name": name, "labels": {"ray.io/cluster": cluster}},
            "spec": {"containers": [{"name": "ray-head", "image": "registry/none:1"}]},
        })  # fmt: skip
        waiting = {"reason": "ImagePullBackOff", "message": "manifest for registry/none:1 not found"}
        pod["status"]["containerStatuses"] = [
            {"name": "ray-head", "image": "registry/none:1", "imageID": "", "ready": False, "restartCount": 0,
             "state": {"waiting": waiting}}]  # fmt: skip
        self.server.call("PUT", of("pods", name, "status"), pod)

    def _look(self, job: dict[str, Any]) -> None:
        # As seldom as KubeRay, which deletes the cluster of a failed try at once after that.
        if time.monotonic() < self._looks.get(job["metadata"]["uid"], 0):
            return
        self._looks[job["metadata"]["uid"]] = time.monotonic() + 3
        spec, status = job["spec"], job["status"]
        if spec.get("suspend"):
            self._set(job, jobDeploymentStatus="Suspending")
            return
        if self._late(job, "activeDeadlineSeconds", "DeadlineExceeded"):
            return
        cluster = self.clusters[status["rayClusterName"]]
        answer = cluster.ask("GET", f"/api/jobs/{status['jobId']}")
        if answer.status_code == 404 and spec["submissionMode"] == "HTTPMode":
            cluster.ask("POST", "/api/jobs/", {
                "entrypoint": spec["entrypoint"], "submission_id": status["jobId"], "metadata": spec.get("metadata"),
                "runtime_env": yaml.safe_load(spec.get("runtimeEnvYAML") or "{}"),
            }).raise_for_status()  # fmt: skip
            return
        answer.raise_for_status()
        found = answer.json()
        told = {"jobStatus": found["status"], "message": found.get("message") or ""}
        if found["status"] in TERMINAL:
            failed = found["status"] == "FAILED"
            told.update(jobDeploymentStatus="Failed" if failed else "Complete", reason="AppFailed" if failed else "")
        if any(status.get(field, "") != value for field, value in told.items()):
            self._set(job, **told)

    def _clean_up(self, job: dict[str, Any]) -> None:
        spec, ended = job["spec"], since(job["status"]["endTime"])
        if spec.get("shutdownAfterJobFinishes") and ended >= (spec.get("ttlSecondsAfterFinished") or 0):
            self._delete_cluster(job)
        for rule in (spec.get("deletionStrategy") or {}).get("deletionRules") or []:
            condition = rule["condition"]
            if condition.get("jobStatus") == job["status"]["jobStatus"] and ended >= condition.get("ttlSeconds", 0):
                if rule["policy"] == "DeleteCluster":
                    self._delete_cluster(job)
                elif rule["policy"] == "DeleteSelf":
                    self.server.call("DELETE", of("rayjobs", job["metadata"]["name"]))
