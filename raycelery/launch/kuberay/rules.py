"""KubeRay's rules that no schema has: its operator checks them after the API server has taken a RayJob.

Follows ``ValidateRayJobMetadata``, ``ValidateRayJobSpec`` and ``ValidateRayClusterSpec`` of KubeRay 1.7.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from raycelery.launch.errors import SpecError

_NAME = re.compile(r"[a-z]([a-z0-9-]*[a-z0-9])?")
_MODES = ("K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode")
_RESOURCES = ("num-cpus", "num-gpus", "memory", "resources")
_TOKENS_SINCE = (2, 52)


def check(job: Mapping[str, Any]) -> None:
    """See that KubeRay takes a RayJob.

    Raises:
        SpecError: it would not; names the field and the remedy.
    """
    for rule in (_name, _submission, _ending, _deadlines, _runtime_env, _selector, _cluster):
        try:
            said = next(rule(job), None)
        except (TypeError, AttributeError, KeyError):
            continue  # a wrong type, which the API server refuses by its schema
        if said is not None:
            raise SpecError(f"KubeRay refuses the RayJob: {said}")


def has_tokens(version: str) -> bool:
    """Whether KubeRay has clusters of a version of Ray demand a token."""
    found = re.match(r"(\d+)\.(\d+)", version)
    return found is not None and (int(found[1]), int(found[2])) >= _TOKENS_SINCE


def _name(job: Mapping[str, Any]) -> Iterator[str]:
    name = str(job["metadata"].get("name") or "")
    if len(name) > 47:
        yield f"metadata.name {name!r} is longer than 47 characters"
    if not _NAME.fullmatch(name):
        yield f"metadata.name {name!r} must begin with a letter, and have small letters, digits and dashes only"


def _submission(job: Mapping[str, Any]) -> Iterator[str]:
    spec = job["spec"]
    mode = spec.get("submissionMode", "K8sJobMode")
    if mode not in _MODES:
        yield f"spec.submissionMode {mode!r} must be one of {', '.join(_MODES)}"
    retries = spec.get("backoffLimit") or 0
    if retries < 0:
        yield f"spec.backoffLimit {retries} must not be below zero"
    if mode == "InteractiveMode" and retries > 0:
        yield "spec.backoffLimit excludes submissionMode InteractiveMode: the launcher tries again itself"
    if mode == "SidecarMode":
        for field in ("submitterPodTemplate", "submitterConfig", "clusterSelector"):
            if spec.get(field):
                yield f"spec.{field} excludes submissionMode SidecarMode"
        policy = _pod(spec.get("rayClusterSpec", {}).get("headGroupSpec", {})).get("restartPolicy")
        if policy not in (None, "", "Never"):
            yield (
                "spec.rayClusterSpec.headGroupSpec.template.spec.restartPolicy must be Never in submissionMode "
                "SidecarMode"
            )


def _ending(job: Mapping[str, Any]) -> Iterator[str]:
    spec = job["spec"]
    shutdown, ttl = bool(spec.get("shutdownAfterJobFinishes")), spec.get("ttlSecondsAfterFinished") or 0
    if ttl < 0:
        yield f"spec.ttlSecondsAfterFinished {ttl} must not be below zero"
    if ttl > 0 and not shutdown:
        yield "spec.ttlSecondsAfterFinished needs shutdownAfterJobFinishes"
    if spec.get("suspend") and not shutdown:
        yield "spec.suspend needs shutdownAfterJobFinishes"
    strategy = spec.get("deletionStrategy")
    if strategy is None:
        return
    rules = strategy.get("deletionRules") or []
    legacy = [name for name in ("onSuccess", "onFailure") if strategy.get(name)]
    if rules and shutdown:
        yield "spec.deletionStrategy.deletionRules excludes shutdownAfterJobFinishes"
    if rules and legacy:
        yield f"spec.deletionStrategy.deletionRules excludes {legacy[0]}"
    if not rules and len(legacy) < 2:
        yield "spec.deletionStrategy needs deletionRules, or both onSuccess and onFailure"
    grows = bool(spec.get("rayClusterSpec", {}).get("enableInTreeAutoscaling"))
    policies = [(f"deletionRules[{at}]", rule) for at, rule in enumerate(rules)]
    for where, rule in [*policies, *((name, strategy[name]) for name in legacy)]:
        policy = rule.get("policy")
        if policy == "DeleteWorkers" and grows:
            yield f"spec.deletionStrategy.{where}: DeleteWorkers excludes enableInTreeAutoscaling"
        if policy in ("DeleteWorkers", "DeleteCluster") and spec.get("clusterSelector"):
            yield f"spec.deletionStrategy.{where}: {policy} excludes clusterSelector"
    yield from _deletion_times(rules)


def _deletion_times(rules: list[Mapping[str, Any]]) -> Iterator[str]:
    order = ("DeleteWorkers", "DeleteCluster", "DeleteSelf")
    times: dict[tuple[str, str], dict[str, int]] = {}
    for at, rule in enumerate(rules):
        condition = rule.get("condition") or {}
        kinds = [kind for kind in ("jobStatus", "jobDeploymentStatus") if condition.get(kind)]
        where = f"spec.deletionStrategy.deletionRules[{at}]"
        if len(kinds) != 1:
            yield f"{where}.condition needs either jobStatus or jobDeploymentStatus"
            return
        seconds = condition.get("ttlSeconds") or 0
        if seconds < 0:
            yield f"{where}.condition.ttlSeconds {seconds} must not be below zero"
        of = times.setdefault((kinds[0], condition[kinds[0]]), {})
        if rule.get("policy") in of:
            yield f"{where} is there twice"
        of[str(rule.get("policy"))] = seconds
    for (_, status), of in times.items():
        known = [(policy, of[policy]) for policy in order if policy in of]
        for (early, first), (late, second) in itertools.pairwise(known):
            if first > second:
                yield (
                    f"spec.deletionStrategy.deletionRules: ttlSeconds of {late} for {status} ({second}) must be at "
                    f"least that of {early} ({first})"
                )


def _deadlines(job: Mapping[str, Any]) -> Iterator[str]:
    for field in ("activeDeadlineSeconds", "preRunningDeadlineSeconds"):
        seconds = job["spec"].get(field)
        if seconds is not None and not seconds > 0:
            yield f"spec.{field} {seconds} must be above zero"


def _runtime_env(job: Mapping[str, Any]) -> Iterator[str]:
    text = job["spec"].get("runtimeEnvYAML") or ""
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError as exc:
        yield f"spec.runtimeEnvYAML is no YAML: {str(exc).splitlines()[0]}"
        return
    if found is not None and not isinstance(found, dict):
        yield "spec.runtimeEnvYAML must have fields such as env_vars"


def _selector(job: Mapping[str, Any]) -> Iterator[str]:
    spec = job["spec"]
    selector = spec.get("clusterSelector")
    if not selector:
        if not spec.get("rayClusterSpec"):
            yield "spec.rayClusterSpec is missing"
        return
    if not selector.get("ray.io/cluster"):
        yield "spec.clusterSelector needs the name of a cluster in ray.io/cluster"
    if spec.get("suspend"):
        yield "spec.suspend excludes clusterSelector"
    if (spec.get("backoffLimit") or 0) > 0:
        yield "spec.backoffLimit excludes clusterSelector"


def _cluster(job: Mapping[str, Any]) -> Iterator[str]:
    cluster = job["spec"].get("rayClusterSpec")
    if not cluster:
        return
    where = "spec.rayClusterSpec"
    head = cluster.get("headGroupSpec") or {}
    groups = cluster.get("workerGroupSpecs") or []
    grows = bool(cluster.get("enableInTreeAutoscaling"))
    options = cluster.get("autoscalerOptions") or {}
    second = grows and options.get("version") == "v2"
    if cluster.get("upgradeStrategy"):
        yield f"{where}.upgradeStrategy has no meaning for a RayJob"
    named = [(f"{where}.headGroupSpec", head)]
    named += [(f"{where}.workerGroupSpecs[{group.get('groupName', at)}]", group) for at, group in enumerate(groups)]
    for place, group in named:
        yield from _group(place, group, second)
    for place, group in named[1:]:
        yield from _bounds(place, group, grows, second)
    if (options.get("idleTimeoutSeconds") or 0) < 0:
        yield f"{where}.autoscalerOptions.idleTimeoutSeconds must not be below zero"
    for rule in (_fault_tolerance, _tokens):
        yield from rule(where, cluster, job)
    env = _env(head)
    if not grows and env.get("RAY_enable_autoscaler_v2") in ("1", "true"):
        yield f"{where}.headGroupSpec: RAY_enable_autoscaler_v2 needs enableInTreeAutoscaling"
    if grows and options.get("version") and "RAY_enable_autoscaler_v2" in env:
        yield f"{where}.headGroupSpec: RAY_enable_autoscaler_v2 excludes autoscalerOptions.version"


def _group(where: str, group: Mapping[str, Any], second: bool) -> Iterator[str]:
    pod, params = _pod(group), group.get("rayStartParams") or {}
    if not pod.get("containers"):
        yield f"{where}.template.spec.containers is empty"
    doubled = [name for name in _RESOURCES if name in params]
    if doubled and group.get("resources"):
        yield f"{where}.resources excludes {doubled[0]!r} in rayStartParams"
    if "labels" in params:
        yield f"{where}.rayStartParams must not have 'labels': use {where}.labels"
    if second and pod.get("restartPolicy") not in (None, "", "Never"):
        yield f"{where}.template.spec.restartPolicy must be Never with autoscalerOptions.version v2"


def _bounds(where: str, group: Mapping[str, Any], grows: bool, second: bool) -> Iterator[str]:
    least, most = group.get("minReplicas"), group.get("maxReplicas")
    if not grows and (least is None or most is None):
        yield f"{where} needs both minReplicas and maxReplicas where enableInTreeAutoscaling is not set"
    for field, value in (("minReplicas", least), ("maxReplicas", most)):
        if value is not None and value < 0:
            yield f"{where}.{field} {value} must not be below zero"
    if least is not None and most is not None and least > most:
        yield f"{where}.minReplicas {least} is above maxReplicas {most}"
    idle = group.get("idleTimeoutSeconds")
    if idle is not None and not second:
        yield f"{where}.idleTimeoutSeconds needs autoscalerOptions.version v2, and enableInTreeAutoscaling"
    if idle is not None and idle < 0:
        yield f"{where}.idleTimeoutSeconds {idle} must not be below zero"
    if group.get("suspend") and grows:
        yield f"{where}.suspend excludes enableInTreeAutoscaling"


def _fault_tolerance(where: str, cluster: Mapping[str, Any], job: Mapping[str, Any]) -> Iterator[str]:
    head = cluster.get("headGroupSpec") or {}
    options, env = cluster.get("gcsFaultToleranceOptions"), _env(head)
    annotations = job["metadata"].get("annotations") or {}
    place = f"{where}.headGroupSpec"
    params = head.get("rayStartParams") or {}
    if options:
        for name in ("RAY_REDIS_ADDRESS", "REDIS_PASSWORD"):
            if name in env:
                yield f"{place}: {name} in env excludes gcsFaultToleranceOptions, which has a field for it"
        if "redis-password" in params:
            yield f"{place}.rayStartParams: redis-password excludes gcsFaultToleranceOptions: use its redisPassword"
        for name in ("ray.io/ft-enabled", "ray.io/external-storage-namespace"):
            if annotations.get(name):
                yield f"metadata.annotations: {name} excludes gcsFaultToleranceOptions"
    elif "RAY_REDIS_ADDRESS" in env and annotations.get("ray.io/ft-enabled") != "true":
        yield f"{place}: RAY_REDIS_ADDRESS in env needs gcsFaultToleranceOptions"
    if "redis-username" in params or "REDIS_USERNAME" in env:
        yield f"{place}: a Redis user name stands in gcsFaultToleranceOptions.redisUsername only"


def _tokens(where: str, cluster: Mapping[str, Any], job: Mapping[str, Any]) -> Iterator[str]:
    options = cluster.get("authOptions") or {}
    if options.get("enableK8sTokenAuth"):
        yield f"{where}.authOptions.enableK8sTokenAuth is not there for a RayJob"
    if options.get("mode") == "token" and not has_tokens(str(cluster.get("rayVersion") or "")):
        yield f"{where}.authOptions.mode token needs rayVersion 2.52 or later"


def _pod(group: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = (group.get("template") or {}).get("spec") or {}
    return found


def _env(group: Mapping[str, Any]) -> dict[str, Any]:
    containers = _pod(group).get("containers") or [{}]
    return {one["name"]: one.get("value") for one in containers[0].get("env") or []}
