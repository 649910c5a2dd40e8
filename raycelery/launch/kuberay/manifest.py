"""The RayJob that a specification becomes."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import Any

import yaml

from raycelery.launch import entrypoint
from raycelery.launch.errors import SpecError
from raycelery.launch.kuberay import rules
from raycelery.launch.nodes import Node, Workers
from raycelery.launch.spec import Spec

API_VERSION = "ray.io/v1"
#: Runs that were launched by raycelery.
MANAGED_BY = {"app.kubernetes.io/managed-by": "raycelery"}
#: The number of a try, from 1, where the launcher itself tries again.
TRY = "raycelery.io/try"


def of(spec: Spec, name: str, attempt: int = 1) -> dict[str, Any]:
    """Return the RayJob of a specification.

    Where a folder or file of this machine is to be sent along, the launcher hands the program over to Ray's Job API
    once the cluster is there (InteractiveMode). Otherwise KubeRay does so itself (HTTPMode), and tries again itself.

    Arguments:
        spec: what is launched.
        name: of the run, and of the RayJob.
        attempt: number of the try.

    Raises:
        SpecError: KubeRay would refuse it; names the field.
    """
    job: dict[str, Any] = {
        "entrypoint": entrypoint.of(spec.words),
        "submissionMode": "InteractiveMode" if spec.local else "HTTPMode",
        "metadata": {"launched_by": "raycelery"},
        "entrypointNumCpus": spec.num_cpus or None,
        "activeDeadlineSeconds": _seconds(spec.timeout),
        "preRunningDeadlineSeconds": _seconds(spec.start_timeout),
        **_ending(spec),
        "rayClusterSpec": _cluster(spec),
    }
    if not spec.local:
        job["backoffLimit"] = spec.retries
        # Every text in quotes, so that no reader of YAML takes one for a number, a date or a truth value.
        job["runtimeEnvYAML"] = yaml.safe_dump(spec.runtime_env, default_style='"', width=10**9)
    queue = {"kueue.x-k8s.io/queue-name": spec.queue, "kueue.x-k8s.io/priority-class": spec.priority}
    found: dict[str, Any] = {
        "apiVersion": API_VERSION,
        "kind": "RayJob",
        "metadata": {
            "name": name,
            "namespace": spec.namespace,
            "labels": {**spec.labels, **queue, **MANAGED_BY},
            "annotations": {TRY: str(attempt)},
        },
        "spec": job,
    }
    whole: dict[str, Any] = over(bare(found), spec.manifest)
    rules.check(whole)
    return whole


def text(found: Mapping[str, Any]) -> str:
    """Return it as YAML, as ``kubectl apply -f -`` takes it."""
    return str(yaml.safe_dump(dict(found), sort_keys=False, width=10**9))


def over(found: Any, changes: Any) -> Any:
    """Put changes over a manifest: mappings are merged, lists by the names that their parts have, null takes out."""
    if isinstance(changes, Mapping):
        merged = dict(found) if isinstance(found, Mapping) else {}
        for key, change in changes.items():
            merged[key] = over(merged.get(key), change)
        return {key: value for key, value in merged.items() if value is not None}
    new, old = _by_name(changes), _by_name(found)
    if new and old:
        return [over(old.get(name, {}), new.get(name, {})) for name in {**old, **new}]
    return changes


def _by_name(parts: Any) -> dict[str, Mapping[str, Any]]:
    """Return the parts of a list by their names; nothing where they have none."""
    if not (isinstance(parts, list) and all(isinstance(part, Mapping) for part in parts)):
        return {}
    found = {str(part.get("groupName") or part.get("name")): part for part in parts}
    return {} if "None" in found else found


def bare(found: Any) -> Any:
    """Return a manifest without what is None or empty, but for empty mappings that are named ``rayStartParams``."""
    if isinstance(found, dict):
        kept = {key: bare(value) for key, value in found.items()}
        return {key: value for key, value in kept.items() if key == "rayStartParams" or value not in (None, {}, [])}
    return [bare(one) for one in found] if isinstance(found, list) else found


def _seconds(seconds: float | None) -> int | None:
    return None if seconds is None else math.ceil(seconds)


def _ending(spec: Spec) -> dict[str, Any]:
    if spec.keep is None:
        return {"shutdownAfterJobFinishes": True, "ttlSecondsAfterFinished": spec.ttl}
    if spec.keep < spec.ttl:
        raise SpecError(f"keep={spec.keep} must be at least ttl={spec.ttl}: the cluster goes before the run does")
    return {
        "shutdownAfterJobFinishes": False,
        "deletionStrategy": {
            "deletionRules": [
                {"policy": policy, "condition": {"jobStatus": status, "ttlSeconds": seconds}}
                for status in ("SUCCEEDED", "FAILED")
                for policy, seconds in (("DeleteCluster", spec.ttl), ("DeleteSelf", spec.keep))
            ]
        },
    }


def _cluster(spec: Spec) -> dict[str, Any]:
    import ray

    grows = any(group.min != group.most for group in spec.workers.values())
    # With workers the head node has enough to do as it is.
    head = {"dashboard-host": "0.0.0.0", **({"num-cpus": "0"} if spec.workers else {}), **spec.head.ray_start_params}
    version = spec.ray_version or ray.__version__
    auth = spec.auth or ("token" if rules.has_tokens(version) else None)
    return {
        "rayVersion": version,
        "authOptions": {"mode": auth, "secretName": spec.auth_secret},
        "enableInTreeAutoscaling": True if grows else None,
        "autoscalerOptions": {"version": "v2"} if grows else None,
        "headGroupSpec": {"rayStartParams": head, "template": _pod(spec, spec.head, "ray-head")},
        "workerGroupSpecs": [_workers(spec, name, group) for name, group in spec.workers.items()],
    }


def _workers(spec: Spec, name: str, group: Workers) -> dict[str, Any]:
    return {
        "groupName": name,
        "replicas": group.min,
        "minReplicas": group.min,
        "maxReplicas": group.most,
        "idleTimeoutSeconds": group.idle_timeout,
        "rayStartParams": dict(group.ray_start_params),
        "template": _pod(spec, group, "ray-worker"),
    }


def default_image() -> str:
    """Return Ray's own image of this process's versions of Ray and Python."""
    import ray

    return f"rayproject/ray:{ray.__version__}-py{sys.version_info[0]}{sys.version_info[1]}"


def _pod(spec: Spec, node: Node, container: str) -> dict[str, Any]:
    limits = {"memory": node.memory, "nvidia.com/gpu": node.gpus or None, **node.resources}
    values = [
        {"name": name, "valueFrom": {"secretKeyRef": {"name": found.secret, "key": found.key}}}
        for name, found in spec.secrets.items()
    ]
    return {
        "metadata": {"labels": {**spec.labels, **MANAGED_BY}},
        "spec": {
            # Ray's second autoscaler demands it, and a head node that has lost its state is of no use.
            "restartPolicy": "Never",
            "serviceAccountName": spec.service_account,
            "imagePullSecrets": [{"name": name} for name in spec.image_pull_secrets],
            "nodeSelector": dict(node.node_selector),
            "tolerations": list(node.tolerations),
            "containers": [
                {
                    "name": container,
                    "image": node.image or spec.image or default_image(),
                    "env": values,
                    # No limit of CPUs: what is idle may be used.
                    "resources": {"requests": {"cpu": f"{node.cpus:g}", **limits}, "limits": limits},
                }
            ],
        },
    }
