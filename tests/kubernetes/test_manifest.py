"""What `raycelery render` makes of specifications: golden manifests, valid by KubeRay's schema, and KubeRay's rules."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from raycelery.launch import SpecError
from raycelery.launch.kuberay import manifest, rules
from raycelery.launch.spec import made
from tests.kubernetes.server import crd
from tests.support import ROOT, hostile_words

GOLDEN = Path(__file__).parent / "golden"
HOSTILE = [*hostile_words("/tmp/x"), "1:30", "yes", "\x85"]


def strict(schema: Any) -> Any:
    """A schema of Kubernetes for the validator, which refuses fields that it does not name."""
    if isinstance(schema, list):
        return [strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"], **({"pattern": schema["pattern"]} if "pattern" in schema else {})}
    found = {key: strict(value) for key, value in schema.items() if key not in ("format", "default")}
    if "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
        found.setdefault("additionalProperties", False)
    return found


def validate(job: dict[str, Any]) -> None:
    found = crd("rayjobs")
    if found is None:
        return
    schema = strict(found["spec"]["versions"][0]["schema"]["openAPIV3Schema"])
    schema["properties"]["metadata"] = {"type": "object"}
    jsonschema.validate(job, schema)


def render(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "raycelery", "render", *arguments], cwd=folder, capture_output=True, text=True,
        timeout=100, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdin=subprocess.DEVNULL,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["image", "folder", "everything"])
def test_golden_manifests(name: str, tmp_path: Path) -> None:
    (tmp_path / "app.yaml").write_text((GOLDEN / f"{name}.app.yaml").read_text())
    done = render("-f", "app.yaml", "--set", "env.REGION=north", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    job = yaml.safe_load(done.stdout)
    validate(job)
    expected = GOLDEN / f"{name}.rayjob.yaml"
    if os.environ.get("RAYCELERY_WRITE_GOLDEN"):
        expected.write_text(done.stdout)
    assert done.stdout == expected.read_text()


def test_hostile_words_and_values_reach_the_program_as_they_are() -> None:
    env = {f"V{at}": value for at, value in enumerate(HOSTILE)}
    spec = made({"entrypoint": ["python", "x.py"], "args": HOSTILE, "image": "i", "env": env})
    job = yaml.safe_load(manifest.text(manifest.of(spec, "hostile")))["spec"]
    # Nothing that a shell would act on, whoever puts it into a script, but for quotes around what has none.
    assert re.fullmatch(r"python -c '[\w ,;=.*()\[\]\"+/]*'", job["entrypoint"])
    encoded = re.search(r'b64decode\("([\w+/=]*)"\)', job["entrypoint"])
    assert encoded is not None
    assert json.loads(base64.b64decode(encoded[1])) == ["python", "x.py", *HOSTILE]
    assert yaml.safe_load(job["runtimeEnvYAML"])["env_vars"] == env
    # Go's readers of YAML take other plain words for numbers than Python's does.
    assert not [line for line in job["runtimeEnvYAML"].splitlines() if re.match(r" *[^\" ]", line)]


def test_secrets_are_named_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "what-nobody-may-see")
    fields = {"entrypoint": "python x.py", "image": "i", "secrets": {"TOKEN": {"secret": "shop", "key": "token"}}}
    job = manifest.of(made({**fields, "workers": {"cpu": {}}}), "secrets")
    assert "what-nobody-may-see" not in manifest.text(job)
    cluster = job["spec"]["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], cluster["workerGroupSpecs"][0]):
        (value,) = group["template"]["spec"]["containers"][0]["env"]
        assert value == {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "shop", "key": "token"}}}
    with pytest.raises(SpecError, match="TOKEN is in both env and secrets"):
        made({**fields, "env": {"TOKEN": "x"}})


def cluster(**fields: Any) -> dict[str, Any]:
    return {"manifest": {"spec": {"rayClusterSpec": fields}}}


def group(**fields: Any) -> dict[str, Any]:
    return {"workers": {"cpu": {}}, **cluster(workerGroupSpecs=[{"groupName": "cpu", **fields}])}


def head(**fields: Any) -> dict[str, Any]:
    return cluster(headGroupSpec=fields)


def environ(name: str, value: str = "x") -> dict[str, Any]:
    return {"template": {"spec": {"containers": [{"name": "ray-head", "env": [{"name": name, "value": value}]}]}}}


def job(**fields: Any) -> dict[str, Any]:
    return {"manifest": {"spec": fields}}


def deletion(*rules: tuple[str, int]) -> dict[str, Any]:
    conditions = [
        {"policy": policy, "condition": {"jobStatus": "FAILED", "ttlSeconds": seconds}} for policy, seconds in rules
    ]
    return {"ttlSecondsAfterFinished": None, "shutdownAfterJobFinishes": False,
            "deletionStrategy": {"deletionRules": conditions}}  # fmt: skip


GROWS = {"enableInTreeAutoscaling": True, "autoscalerOptions": {"version": "v2"}}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"name": "n" * 48}, "metadata.name .* is longer than 47"),
        ({"name": "1st"}, "metadata.name '1st' must begin with a letter"),
        (job(submissionMode="Sideways"), "spec.submissionMode 'Sideways' must be one of"),
        (job(submissionMode="InteractiveMode", backoffLimit=1), "spec.backoffLimit excludes"),
        (job(submissionMode="SidecarMode", submitterPodTemplate={"spec": {}}), "spec.submitterPodTemplate excludes"),
        (job(submissionMode="SidecarMode", submitterConfig={"backoffLimit": 1}), "spec.submitterConfig excludes"),
        (job(submissionMode="SidecarMode", clusterSelector={"ray.io/cluster": "c"}), "spec.clusterSelector excludes"),
        (
            {"manifest": {"spec": {"submissionMode": "SidecarMode", "rayClusterSpec": {
                "headGroupSpec": {"template": {"spec": {"restartPolicy": "Always"}}}}}}},
            "headGroupSpec.template.spec.restartPolicy must be Never",
        ),
        ({**job(clusterSelector={"ray.io/cluster": "c"}), "retries": 1}, "spec.backoffLimit excludes cl"),
        (job(clusterSelector={"ray.io/cluster": "c"}, suspend=True), "spec.suspend excludes clusterSelector"),
        (job(suspend=True, shutdownAfterJobFinishes=False, ttlSecondsAfterFinished=None), "spec.suspend needs"),
        (job(shutdownAfterJobFinishes=False), "spec.ttlSecondsAfterFinished needs shutdownAfterJobFinishes"),
        (job(activeDeadlineSeconds=0), "spec.activeDeadlineSeconds 0 must be above zero"),
        (job(preRunningDeadlineSeconds=-1), "spec.preRunningDeadlineSeconds -1 must be above zero"),
        (job(backoffLimit=-1), "spec.backoffLimit -1 must not be below zero"),
        (job(runtimeEnvYAML="[1"), "spec.runtimeEnvYAML is no YAML"),
        (job(rayClusterSpec=None), "spec.rayClusterSpec is missing"),
        (job(deletionStrategy={"deletionRules": []}), "spec.deletionStrategy needs deletionRules"),
        ({**job(shutdownAfterJobFinishes=True), "keep": 500}, "deletionRules excludes shutdownAfterJobFinishes"),
        (job(**deletion(("DeleteCluster", 5), ("DeleteSelf", 4))), "ttlSeconds of DeleteSelf for FAILED"),
        (job(**deletion(("DeleteWorkers", 5), ("DeleteCluster", 4))), "ttlSeconds of DeleteCluster for FAILED"),
        (job(**deletion(("DeleteWorkers", 5)), rayClusterSpec=GROWS), "DeleteWorkers excludes enableInTreeAuto"),
        (job(**deletion(("DeleteSelf", 5), ("DeleteSelf", 6))), r"deletionRules\[1\] is there twice"),
        ({"keep": 5}, "keep=5 must be at least ttl=300"),
        (group(minReplicas=None), "needs both minReplicas and maxReplicas"),
        (group(minReplicas=3), "minReplicas 3 is above maxReplicas 1"),
        ({"workers": {"cpu": {"idle_timeout": 5}}}, "idleTimeoutSeconds needs autoscalerOptions.version v2"),
        (group(resources={"cpu": "1"}, rayStartParams={"num-cpus": "1"}), "resources excludes 'num-cpus'"),
        (head(rayStartParams={"labels": "a=b"}), "rayStartParams must not have 'labels'"),
        (
            {"workers": {"cpu": {"max": 3}}, **head(template={"spec": {"restartPolicy": "Always"}})},
            "restartPolicy must be Never with autoscalerOptions.version v2",
        ),
        (cluster(upgradeStrategy={"type": "Recreate"}), "upgradeStrategy has no meaning"),
        (cluster(authOptions={"enableK8sTokenAuth": True}), "authOptions.enableK8sTokenAuth is not there"),
        ({"ray_version": "2.51.0", "auth": "token"}, "authOptions.mode token needs rayVersion 2.52"),
        (
            cluster(gcsFaultToleranceOptions={"redisAddress": "r:6379"}, headGroupSpec=environ("RAY_REDIS_ADDRESS")),
            "RAY_REDIS_ADDRESS in env excludes gcsFaultToleranceOptions",
        ),
        (head(**environ("RAY_REDIS_ADDRESS")), "RAY_REDIS_ADDRESS in env needs gcsFaultToleranceOptions"),
        (head(**environ("RAY_enable_autoscaler_v2", "1")), "RAY_enable_autoscaler_v2 needs enableInTreeAutoscaling"),
        ({"retries": -1}, "retries=-1 must be a number not below zero"),
        ({"workers": {"cpu": {"min": 3, "max": 2}}}, "max=2 must be at least min=3"),
        ({"workers": {"cpu": {"memory": "lots"}}}, "memory='lots' is no amount"),
        ({"workers": {"cpu": {"cpu": 3}}}, "contains unknown field `cpu`"),
    ],
)  # fmt: skip
def test_what_kuberay_would_refuse_is_refused_by_its_field(fields: dict[str, Any], said: str) -> None:
    whole = {"entrypoint": "python x.py", "image": "i", "name": "app", **fields}
    with pytest.raises(SpecError, match=said) as raised:
        manifest.of(made(whole), whole["name"])
    assert raised.value.exit_code == 2


def test_what_kuberay_takes_is_not_refused() -> None:
    rules.check(manifest.of(made({"entrypoint": "python x.py", "image": "i", **job(**deletion(
        ("DeleteWorkers", 4), ("DeleteCluster", 5), ("DeleteSelf", 5)))}), "app"))  # fmt: skip


def test_settings_and_dates(tmp_path: Path) -> None:
    (tmp_path / "app.yaml").write_text(
        "entrypoint: python x.py\nargs: [--date, 2026-01-01]\nimage: i\nworkers: {cpu: {cpus: 2}}\n"
    )
    done = render("-f", "app.yaml", "--set", "workers.cpu.max=4", "--set", "args=[--day, 2026-01-02]",
                  "--set", "head.memory=2Gi", folder=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stderr
    job = yaml.safe_load(done.stdout)["spec"]
    (cpu,) = job["rayClusterSpec"]["workerGroupSpecs"]
    assert (cpu["minReplicas"], cpu["maxReplicas"]) == (1, 4)
    assert cpu["template"]["spec"]["containers"][0]["resources"]["requests"]["cpu"] == "2"
    encoded = re.search(r'b64decode\("([\w+/=]*)"\)', job["entrypoint"])
    assert encoded is not None
    assert json.loads(base64.b64decode(encoded[1])) == ["python", "x.py", "--day", "2026-01-02"]
    wrong = render("-f", "app.yaml", "--set", "workers", folder=tmp_path)
    assert wrong.returncode == 2
    assert "--set 'workers' is not of the form FIELD=VALUE" in wrong.stderr
