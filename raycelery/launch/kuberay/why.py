"""Why a run does not start, in words: from what Kubernetes says of its cluster, pods and events."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from raycelery.launch.kuberay.api import Api, ApiError

_PULLING = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable")
#: Reasons of containers that wait for nothing out of the ordinary.
_USUAL = ("ContainerCreating", "PodInitializing")


def why(api: Api, job: Mapping[str, Any]) -> str:
    """Return why a RayJob's program does not run yet; "" where nothing is known.

    Arguments:
        api: of Kubernetes. What it does not allow to be looked at is left out.
        job: the RayJob.
    """
    status = job.get("status") or {}
    state = status.get("jobDeploymentStatus") or ""
    queue = (job["metadata"].get("labels") or {}).get("kueue.x-k8s.io/queue-name")
    if state in ("Suspended", "Suspending") or (queue and job["spec"].get("suspend")):
        return f"it waits in the queue {queue} of Kueue" if queue else "it is suspended"
    cluster = status.get("rayClusterName")
    words = [*_pods(api, cluster), *_cluster(api, cluster)] if cluster else []
    if not words:
        words = list(_events(api, job["metadata"]["name"]))
    if not words and state == "Retrying":
        words = [f"it has failed, and is tried again on a new cluster: {status.get('message') or status.get('reason')}"]
    if not words and not state:
        words = ["KubeRay's operator has not taken note of it yet"]
    return words[0] if words else ""


def _all(api: Api, kind: str, **selectors: str) -> list[dict[str, Any]]:
    try:
        return api.all(kind, **selectors)
    except ApiError as exc:
        if exc.code == 403:
            return []
        raise


def _pods(api: Api, cluster: str) -> Iterator[str]:
    for pod in _all(api, "pods", labelSelector=f"ray.io/cluster={cluster}"):
        name, status = pod["metadata"]["name"], pod.get("status") or {}
        for condition in status.get("conditions") or []:
            if condition["type"] == "PodScheduled" and condition["status"] == "False":
                yield f"no machine takes the pod {name}: {condition.get('message') or condition.get('reason')}"
        for kind in ("initContainerStatuses", "containerStatuses"):
            for container in status.get(kind) or []:
                yield from _container(name, container, first=kind == "initContainerStatuses")
        if status.get("phase") == "Failed":
            yield f"the pod {name} has failed: {status.get('message') or status.get('reason') or 'no reason is given'}"


def _container(pod: str, container: Mapping[str, Any], first: bool) -> Iterator[str]:
    state = container.get("state") or {}
    waiting = state.get("waiting") or {}
    reason, words = waiting.get("reason"), waiting.get("message") or ""
    named = f"the {'init ' if first else ''}container {container['name']} of the pod {pod}"
    if reason in _PULLING:
        yield f"the image {container.get('image')} of {named} cannot be pulled: {words or reason}"
    elif reason and reason not in _USUAL:
        last = (container.get("lastState") or {}).get("terminated") or {}
        ended = f", it has ended with status {last['exitCode']} ({last.get('reason')})" if "exitCode" in last else ""
        yield f"{named} does not start: {reason}{': ' if words else ''}{words}{ended}"
    ended_now = state.get("terminated") or {}
    if ended_now.get("exitCode"):
        yield f"{named} has ended with status {ended_now['exitCode']} ({ended_now.get('reason') or 'Error'})"


def _cluster(api: Api, name: str) -> Iterator[str]:
    for found in _all(api, "rayclusters", fieldSelector=f"metadata.name={name}"):
        status = found.get("status") or {}
        for condition in status.get("conditions") or []:
            failed = condition["type"] == "ReplicaFailure" and condition["status"] == "True"
            if failed and condition.get("message"):
                yield f"its cluster {name} cannot make its pods: {condition['message']}"
        if status.get("reason"):
            yield f"its cluster {name}: {status['reason']}"
    yield from _events(api, name)


def _events(api: Api, name: str) -> Iterator[str]:
    found = _all(api, "events", fieldSelector=f"involvedObject.name={name},type=Warning")
    found.sort(key=lambda event: str(event.get("lastTimestamp") or event.get("eventTime") or ""), reverse=True)
    for event in found:
        yield f"{event['involvedObject'].get('kind')} {name}: {event.get('message') or event.get('reason')}"
