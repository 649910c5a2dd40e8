"""Runs on KubeRay, against a real API server, with real Ray behind it and a stand-in for KubeRay's operator."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from raycelery.launch import LaunchError, NotFound, RunState, Spec, SpecError, attach, runs, submit
from raycelery.launch.kuberay.api import Api
from raycelery.launch.launching import find
from tests.kubernetes import server as kubernetes
from tests.kubernetes.server import Server, of
from tests.kubernetes.stand_in import LABEL, StandIn
from tests.support import ROOT, hostile_words, short_directory, until

DOCS = ROOT / "docs" / "launching.md"
pytestmark = [
    pytest.mark.timeout(400),
    pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning"),
]
PROGRAM = """
import json, os, signal, sys, time
from pathlib import Path


def stop(*_):
    print("asked to end", flush=True)
    sys.exit(0)


print("got", json.dumps([sys.argv[1:], os.environ.get("WHO"), sorted(os.listdir("."))]), flush=True)
if "many" in sys.argv:
    for number in range(3000):
        print("line", number, "." * 50, flush=number % 100 == 0)
if "wait" in sys.argv:
    signal.signal(signal.SIGTERM, stop)
    print("waiting", flush=True)
    mark, told = Path(sys.argv[-1]), False
    for _ in range(6000):
        if mark.exists() and not told:
            print("more", flush=True)
            told = True
        time.sleep(0.1)
if "once" in sys.argv:
    mark = Path(sys.argv[-1])
    if not mark.exists():
        mark.touch()
        print("first try", flush=True)
        sys.exit(3)
    print("second try", flush=True)
if "fail" in sys.argv:
    sys.exit(3)
"""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """An API server, on which this process is who the documentation's role is for."""
    with kubernetes.running() as found, pytest.MonkeyPatch.context() as patch:
        (manifests,) = re.findall(r"```yaml\n(apiVersion: v1\nkind: ServiceAccount.*?)```", DOCS.read_text(), re.DOTALL)
        for one in yaml.safe_load_all(manifests):
            path = "api/v1" if one["kind"] == "ServiceAccount" else "apis/rbac.authorization.k8s.io/v1"
            one["metadata"]["namespace"] = "default"
            for subject in one.get("subjects", []):
                subject["namespace"] = "default"
            found.call("POST", f"{path}/namespaces/default/{one['kind'].lower()}s", one)
        patch.setenv("KUBECONFIG", str(found.kubeconfig(kubernetes.LAUNCHER)))
        patch.delenv("RAY_ADDRESS", raising=False)
        yield found


@pytest.fixture(scope="module")
def operator(server: Server) -> Iterator[StandIn]:
    with short_directory("rc-kr-") as folder, StandIn(server, folder).running() as found:
        yield found


@pytest.fixture
def program(tmp_path: Path) -> Path:
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "program.py").write_text(PROGRAM)
    return folder / "program.py"


def within(program: Path, *arguments: str, **fields: Any) -> Spec:
    """The program is there already, as in an image."""
    return Spec(entrypoint=["python", str(program), *arguments], image="registry/shop:1", **fields)


def sent(program: Path, *arguments: str, **fields: Any) -> Spec:
    """The program's folder is sent along."""
    return Spec(entrypoint=["python", "program.py", *arguments], image="registry/shop:1",
                working_dir=str(program.parent), **fields)  # fmt: skip


def started(*arguments: str, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "raycelery", *arguments], cwd=folder, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def raycelery(*arguments: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    process = started(*arguments, folder=folder)
    out, err = process.communicate(timeout=300)
    return subprocess.CompletedProcess(arguments, process.returncode, out, err)


def test_a_folder_is_sent_along_and_words_arrive_as_they_are(operator: StandIn, program: Path, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    hostile = hostile_words(mark)
    value = f"`touch {mark}` $(touch {mark}) \\ ' \" 1:30"
    run = submit(sent(program, "many", *hostile, name="folder", env={"WHO": value}), backend="kuberay")
    said = "".join(run.logs(follow=True)).splitlines()
    got = next(line for line in said if line.startswith("got "))
    assert json.loads(got[4:]) == [["many", *hostile], value, ["program.py"]]
    assert [int(line.split()[1]) for line in said if line.startswith("line ")] == list(range(3000))
    assert run.wait(60).state is RunState.SUCCEEDED
    assert "".join(run.logs()).splitlines() == said
    assert not mark.exists()
    assert run.name in [one.name for one in runs(backend="kuberay")]
    # Its cluster goes when it is given back, and the run when it is deleted.
    run.release()
    until(lambda: not operator.clusters, 60)
    assert run.status().state is RunState.SUCCEEDED
    run.delete()
    with pytest.raises(NotFound, match="there is no run 'folder'"):
        find("folder", backend="kuberay")


def test_kuberay_tries_again_on_a_new_cluster(
    operator: StandIn, program: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = len(operator.made)
    run = submit(within(program, "once", str(tmp_path / "mark"), name="again", retries=1), backend="kuberay")
    told: list[str] = []
    run.on_change = lambda status: told.append(status.state.value)
    said = "".join(run.logs(follow=True))
    assert said.count("second try") == 1
    # KubeRay deletes the first cluster as soon as it sees the failure, with the end of the log, if need be.
    assert said.count("first try") == 1 or "the log of a try of again may lack its end" in caplog.text
    assert run.status().state is RunState.SUCCEEDED
    assert len(operator.made) == before + 2
    assert told[0] == "pending"
    assert told[-1] == "succeeded"
    run.delete()


def test_the_launcher_tries_again_also_where_another_process_goes_on(
    operator: StandIn, program: Path, tmp_path: Path
) -> None:
    before = len(operator.made)
    first = submit(sent(program, "once", str(tmp_path / "mark"), name="sent-again", retries=1), backend="kuberay")
    # Nothing was handed over yet: the process that follows it does so, and tries again.
    run = attach(json.loads(json.dumps(first.to_dict())))
    said = "".join(run.logs(follow=True))
    assert (said.count("first try"), said.count("second try")) == (1, 1)
    assert run.wait(60).state is RunState.SUCCEEDED
    assert len(operator.made) == before + 2
    run.delete()


def test_a_failing_application_and_its_exit_status(operator: StandIn, program: Path) -> None:
    done = raycelery("submit", "--backend", "kuberay", "--name", "fails", "--", "python", "program.py", "fail",
                     folder=program.parent)  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "got " in done.stdout
    assert "fails failed: " in done.stderr
    assert raycelery("job", "wait", "fails", "--backend", "kuberay").returncode == 1
    listed = json.loads(raycelery("job", "list", "--backend", "kuberay", "--json").stdout)
    assert next(one["state"] for one in listed if one["name"] == "fails") == "failed"
    assert raycelery("job", "delete", "fails", "--backend", "kuberay").returncode == 0
    assert raycelery("job", "status", "fails", "--backend", "kuberay").returncode == 5
    until(lambda: not operator.clusters, 60)


def test_a_client_is_killed_the_api_server_is_gone_for_a_while_and_the_run_is_cancelled(
    operator: StandIn, server: Server, program: Path
) -> None:
    client = started("submit", "--backend", "kuberay", "--name", "lives-on", "--", "python", "program.py", "wait",
                     str(program.parent.parent / "mark"), folder=program.parent)  # fmt: skip
    assert client.stdout is not None
    assert any(line == "waiting\n" for line in client.stdout)
    client.send_signal(signal.SIGKILL)
    client.communicate()
    run = attach({"backend": "kuberay", "name": "lives-on"})
    until(lambda: run.status().state is RunState.RUNNING, 60)
    with pytest.raises(LaunchError, match="there is a run 'lives-on' in the namespace default already"):
        submit(sent(program, name="lives-on"), backend="kuberay")
    said: list[str] = []
    follower = threading.Thread(target=lambda: said.extend(run.logs(follow=True)))
    follower.start()
    until(lambda: "waiting" in "".join(said), 60)
    server.stop()
    server.start()
    (program.parent.parent / "mark").touch()
    until(lambda: "more" in "".join(said), 100)
    assert raycelery("job", "cancel", "lives-on", "--backend", "kuberay").returncode == 0
    follower.join(100)
    assert not follower.is_alive()
    whole = "".join(said)
    # The program was told to end, and every line came once.
    assert [whole.count(word) for word in ("got ", "waiting", "more", "asked to end")] == [1] * 4
    assert run.status().state is RunState.CANCELLED
    with pytest.raises(NotFound):
        find("lives-on", backend="kuberay")
    until(lambda: not operator.clusters, 60)


def test_a_run_that_takes_too_long(operator: StandIn, program: Path) -> None:
    done = raycelery("submit", "--backend", "kuberay", "--name", "late", "--timeout", "1", "--set", "image=i", "--",
                     "python", str(program), "wait")  # fmt: skip
    assert done.returncode == 4, done.stderr
    assert "activeDeadlineSeconds" in done.stderr
    find("late", backend="kuberay").delete()


def test_why_a_run_does_not_start(operator: StandIn, server: Server, program: Path) -> None:
    run = submit(within(program, name="no-image", labels={LABEL: "image"}), backend="kuberay")
    until(lambda: "image" in run.status().message, 30)
    message = run.status().message
    assert message.startswith("the image registry/none:1 of the container ray-head of the pod no-image-")
    assert message.endswith("cannot be pulled: manifest for registry/none:1 not found")
    with pytest.raises(TimeoutError, match="has not ended in 1 s; it is pending"):
        run.wait(1)
    run.cancel()
    assert run.status().state is RunState.CANCELLED
    for name in ("no-quota", "no-machine"):
        server.call("POST", of("rayjobs"), {
            "apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": {"name": name, "labels": {LABEL: "nothing"}},
            "spec": {"entrypoint": "x", "submissionMode": "HTTPMode"},
        })  # fmt: skip
        status = {"jobDeploymentStatus": "Initializing", "rayClusterName": f"{name}-1"}
        job = server.call("GET", of("rayjobs", name))
        server.call("PUT", of("rayjobs", name, "status"), {**job, "status": {**status, "failed": 0}})
    server.call("POST", of("events"), {
        "metadata": {"name": "quota"}, "type": "Warning", "reason": "FailedToCreateHeadPod",
        "involvedObject": {"kind": "RayCluster", "name": "no-quota-1", "namespace": "default"},
        "message": "pods is forbidden: exceeded quota: cpu",
    })  # fmt: skip
    pod = server.call("POST", of("pods"), {
        "metadata": {"name": "no-machine-1-head", "labels": {"ray.io/cluster": "no-machine-1"}},
        "spec": {"containers": [{"name": "ray-head", "image": "i"}]},
    })  # fmt: skip
    pod["status"]["conditions"] = [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
         "message": "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."}]  # fmt: skip
    server.call("PUT", of("pods", "no-machine-1-head", "status"), pod)
    quota, machine = (find(name, backend="kuberay").status() for name in ("no-quota", "no-machine"))
    assert quota.message == "RayCluster no-quota-1: pods is forbidden: exceeded quota: cpu"
    assert machine.message == (
        "no machine takes the pod no-machine-1-head: 0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
    )
    for name in ("no-quota", "no-machine"):
        server.call("DELETE", of("rayjobs", name))


def test_ctrl_c_while_a_run_does_not_start(operator: StandIn, program: Path) -> None:
    client = started("submit", "--backend", "kuberay", "--name", "given-up", "--set", f"labels.{LABEL}=image", "--set",
                     "image=registry/none:1", "--", "python", str(program), folder=program.parent)  # fmt: skip
    assert client.stderr is not None
    assert any("pending: the image registry/none:1 of the container ray-head" in line for line in client.stderr)
    client.send_signal(signal.SIGINT)
    _, said = client.communicate(timeout=100)
    assert client.returncode == 130, said
    assert "cancelling given-up" in said
    with pytest.raises(NotFound):
        find("given-up", backend="kuberay")


def test_a_run_waits_in_a_queue_and_may_be_taken_away_when_it_has_ended(server: Server, program: Path) -> None:
    fields = {"queue": "batch", "labels": {LABEL: "nothing"}, "ttl": 0, "keep": 0}
    run = submit(within(program, name="queued", **fields), backend="kuberay")
    job = server.call("GET", of("rayjobs", "queued"))
    assert len(job["spec"]["deletionStrategy"]["deletionRules"]) == 4
    job = server.call("PUT", of("rayjobs", "queued", "status"), {**job, "status": {"jobDeploymentStatus": "Suspended"}})
    assert (run.status().state, run.status().message) == (RunState.PENDING, "it waits in the queue batch of Kueue")
    job["status"] = {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}
    server.call("PUT", of("rayjobs", "queued", "status"), job)
    assert run.wait(30).state is RunState.SUCCEEDED
    # As KubeRay does by a deletion rule.
    server.call("DELETE", of("rayjobs", "queued"))
    assert run.status().state is RunState.SUCCEEDED


def test_a_run_that_the_operator_refuses(operator: StandIn, program: Path) -> None:
    run = submit(within(program, name="refused", labels={LABEL: "refused"}, retries=2), backend="kuberay")
    status = run.wait(60)
    assert (status.state, status.message) == (RunState.FAILED, "refused by a rule")
    assert list(run.logs(follow=True)) == []
    run.delete()


@pytest.mark.skipif(kubernetes.crd("rayjobs") is None, reason="needs KubeRay's definitions (RAYCELERY_KUBERAY_CRDS)")
def test_a_field_that_kubernetes_does_not_know_is_refused(server: Server, program: Path) -> None:
    wrong = {"spec": {"rayClusterSpec": {"headGroupSpec": {"rayStartParam": {"a": "b"}}}}}
    with pytest.raises(SpecError, match=r"knows no field spec\.rayClusterSpec\.headGroupSpec\.rayStartParam:"):
        submit(within(program, name="typo", manifest=wrong), backend="kuberay")
    with pytest.raises(NotFound):
        find("typo", backend="kuberay")
    with pytest.raises(SpecError, match=r"spec\.ttlSecondsAfterFinished"):
        submit(within(program, name="typo", manifest={"spec": {"ttlSecondsAfterFinished": "soon"}}), backend="kuberay")


def test_what_the_role_does_not_allow(server: Server, program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    api = Api()
    for kind in ("secrets", "rayservices"):
        api_path = of(kind)
        answer = api.request("GET", f"{api.server}/{api_path}")
        assert answer.status_code == 403
    monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig("nobody")))
    with pytest.raises(LaunchError, match="Kubernetes does not allow it") as raised:
        submit(within(program), backend="kuberay")
    assert raised.value.exit_code == 3
    monkeypatch.setenv("KUBECONFIG", str(program))
    with pytest.raises(SpecError, match="no usable configuration of Kubernetes"):
        submit(within(program), backend="kuberay")


def test_a_watch_that_has_expired_is_a_change(server: Server) -> None:
    server.call("POST", of("rayjobs"), {
        "apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": {"name": "old", "labels": {LABEL: "nothing"}},
        "spec": {"entrypoint": "x", "submissionMode": "HTTPMode"},
    })  # fmt: skip
    api = Api()
    begun = time.monotonic()
    api.await_change("rayjobs", "old", "1", 300)
    assert time.monotonic() - begun < 200
    server.call("DELETE", of("rayjobs", "old"))
