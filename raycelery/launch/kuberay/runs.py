"""Runs that are RayJobs of KubeRay."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from raycelery.launch.errors import LaunchError, NotFound
from raycelery.launch.kuberay import manifest
from raycelery.launch.kuberay.api import Api, ApiError
from raycelery.launch.kuberay.creating import Exists, create
from raycelery.launch.kuberay.why import why
from raycelery.launch.ray_jobs import JobRun
from raycelery.launch.run import Run, RunState, RunStatus
from raycelery.launch.spec import Spec, made

logger = logging.getLogger(__name__)

#: Seconds between looks at what no watch of the RayJob tells of: pods, events, the program's end.
_LOOK_SECONDS = 5.0
_SOON_SECONDS = 1.0
#: Seconds for a RayJob that is deleted to go: KubeRay stops its program first.
_GONE_SECONDS = 60.0
#: Seconds for KubeRay to take note of a program's end, at which it looks every three.
_NOTED_SECONDS = 10.0
#: Seconds in which the rest of a log is asked for after the end.
_REST_SECONDS = 20.0
#: Why a run has failed, where another try would be no use.
_FINAL = ("DeadlineExceeded", "JobStatusCheckTimeoutExceeded")
_ENDED = {"SUCCEEDED": RunState.SUCCEEDED, "STOPPED": RunState.CANCELLED}


class RayJobs:
    """The RayJobs of a namespace that raycelery has launched.

    Arguments:
        namespace: None: that of the configuration of Kubernetes.
        context: of the kubeconfig; None: the current one.

    Raises:
        SpecError: Kubernetes is not configured.
    """

    def __init__(self, namespace: str | None = None, context: str | None = None) -> None:
        self._api = Api(namespace, context)

    def submit(self, spec: Spec, name: str) -> RayJobRun:
        """Start a run.

        Raises:
            SpecError: Kubernetes or KubeRay would refuse it, or not know a field.
            LaunchError: there is one of that name, or Kubernetes is out of reach.
        """
        spec = _absolute(spec)
        create(self._api, manifest.of(spec, name))
        return RayJobRun(self._api, name, spec)

    def find(self, name: str, spec: Spec | None = None) -> RayJobRun:
        """Return a run.

        Arguments:
            name: of it.
            spec: of it, for what its launcher has still to do; None: it has nothing to do, or somebody else does it.

        Raises:
            NotFound: there is none of that name.
        """
        run = RayJobRun(self._api, name, spec)
        run.look()
        return run

    def all(self) -> list[RayJobRun]:
        """Return the runs, the latest first."""
        (label,) = manifest.MANAGED_BY.items()
        jobs = self._api.all("rayjobs", labelSelector="=".join(label))
        jobs.sort(key=lambda job: str(job["metadata"].get("creationTimestamp")), reverse=True)
        return [RayJobRun(self._api, job["metadata"]["name"]) for job in jobs]


class RayJobRun(Run):
    """A run that is a RayJob.

    Where a folder of this machine is sent along, this process hands the program over to the cluster once that is
    there, and tries again on a new one where that fails: while it waits for the run, or follows its logs. KubeRay does
    all that itself where nothing is sent along.

    Arguments:
        api: of Kubernetes.
        name: of the RayJob.
        spec: see :meth:`RayJobs.find`.
    """

    keeps_time = True

    def __init__(self, api: Api, name: str, spec: Spec | None = None) -> None:
        self._api = api
        self.name = name
        self._spec = spec if spec is not None and spec.local else None
        #: Whether there was such a RayJob: if there is none any more, it was deleted.
        self._seen = spec is not None
        self._told: RunStatus | None = None
        #: How it has ended, if it has.
        self._end: RunStatus | None = None
        self._trouble = ""

    def look(self) -> dict[str, Any] | None:
        """Return the RayJob; None: it was deleted.

        Raises:
            NotFound: there has never been one, as far as is known here.
        """
        try:
            job = self._api.get("rayjobs", self.name)
        except NotFound as exc:
            if self._seen:
                return None
            raise NotFound(
                f"there is no run {self.name!r} in the namespace {self._api.namespace}: "
                "'raycelery job list --backend kuberay' names those that there are"
            ) from exc
        self._seen = True
        return job

    def status(self) -> RunStatus:
        return self._status(self.look())

    def logs(self, follow: bool = False) -> Iterator[str]:
        if not follow:
            job = self.look()
            if job is None or not (found := self._job_run(job)):
                return
            yield from found.logs()
            return
        told: dict[tuple[str, str], int] = {}
        complete: set[tuple[str, str]] = set()
        last: tuple[str, str] | None = None
        rest_until: float | None = None
        for job, status in self._changes():
            key = _key(job)
            if key is not None and key != last:
                if last is not None and last not in complete:
                    self._warn()
                last = key
            if job is not None and key is not None and key not in complete:
                try:
                    found = self._job_run(job)
                    assert found is not None
                    position = 0
                    for piece in found.logs(follow=True):
                        new = piece[max(0, told.get(key, 0) - position) :]
                        position += len(piece)
                        if new:
                            told[key] = position
                            yield new
                    complete.add(key)
                except ApiError:
                    raise
                except LaunchError as exc:
                    logger.debug("the log of %s is asked for again: %s", self.name, exc)
            if not status.state.ended:
                continue
            if key is None or key in complete:
                if last is not None and last not in complete:
                    self._warn()
                return
            rest_until = rest_until or time.monotonic() + _REST_SECONDS
            if not self._has_cluster(key[0]) or time.monotonic() > rest_until:
                self._warn()
                return

    def _warn(self) -> None:
        # KubeRay deletes the cluster of a try that has failed at once where it tries again.
        logger.warning("the log of a try of %s may lack its end: its cluster went before that was read", self.name)

    def wait(self, timeout: float | None = None) -> RunStatus:
        deadline = None if timeout is None else time.monotonic() + timeout
        for _job, status in self._changes(deadline):
            if status.state.ended:
                return status
            if deadline is not None and time.monotonic() >= deadline:
                break
        raise TimeoutError(f"the run {self.name} has not ended in {timeout:g} s; it is {status.state.value}")

    def hand_over(self) -> None:
        for job, status in self._changes():
            if self._spec is None or status.state.ended or _key(job) is not None:
                return

    def release(self) -> None:
        job = self.look()
        key = _key(job)
        if key is not None and self._status(job).state.ended:
            self._api.delete("rayclusters", key[0])

    def cancel(self) -> None:
        job = self.look()
        if job is None or self._status(job).state.ended:
            return
        # A program gets SIGTERM from Ray. Where there is none yet, or it is out of reach, the RayJob goes at once.
        with contextlib.suppress(LaunchError):
            if found := self._job_run(job):
                found.cancel()
                self._await_end()
        self._remove(job)

    def _await_end(self) -> None:
        """Give KubeRay time to take note of the end, and those who follow the logs to read them."""
        with contextlib.suppress(TimeoutError):
            RayJobRun(self._api, self.name).wait(_NOTED_SECONDS)

    def delete(self) -> None:
        self.cancel()
        job = self.look()
        if job is not None:
            self._remove(job)

    def to_dict(self) -> dict[str, Any]:
        found = {
            "backend": "kuberay", "name": self.name, "namespace": self._api.namespace, "context": self._api.context,
        }  # fmt: skip
        return found if self._spec is None else {**found, "spec": msgspec.to_builtins(self._spec)}

    def _changes(self, deadline: float | None = None) -> Iterator[tuple[dict[str, Any] | None, RunStatus]]:
        """Yield what the run is, do what is to be done for it, and go on when it is something else; without end."""
        while True:
            job = self.look()
            if job is not None and self._advance(job):
                continue
            status = self._status(job)
            if self.on_change is not None and status != self._told:
                self.on_change(status)
            self._told = status
            yield job, status
            left = _LOOK_SECONDS if deadline is None else min(_LOOK_SECONDS, deadline - time.monotonic())
            if job is not None and left > 0:
                # Once it was handed over, there is something to read any moment.
                seconds = min(left, _SOON_SECONDS) if _key(job) is not None else left
                self._api.await_change("rayjobs", self.name, job["metadata"]["resourceVersion"], seconds)

    def _status(self, job: Mapping[str, Any] | None) -> RunStatus:
        if job is None:
            # KubeRay's deletion rules take what has ended away, too.
            return self._end or RunStatus(RunState.CANCELLED, "its RayJob was deleted")
        status = job.get("status") or {}
        state, message = self._state(status), str(status.get("message") or "")
        late = state is RunState.FAILED and status.get("reason") == "DeadlineExceeded"
        if state is RunState.FAILED and self._tries_again(job):
            state, message = RunState.PENDING, f"it has failed, and is tried again on a new cluster: {message}"
        elif state is RunState.PENDING:
            message = self._trouble or why(self._api, job)
        found = RunStatus(state, message, _seconds(status.get("startTime")), _seconds(status.get("endTime")), late)
        self._end = found if state.ended else None
        return found

    @staticmethod
    def _state(status: Mapping[str, Any]) -> RunState:
        deployment, job = status.get("jobDeploymentStatus") or "", status.get("jobStatus") or ""
        if deployment == "Complete":
            return _ENDED.get(job, RunState.FAILED)
        if deployment in ("Failed", "ValidationFailed"):
            return RunState.FAILED
        return RunState.RUNNING if deployment == "Running" and job not in ("", "PENDING") else RunState.PENDING

    def _advance(self, job: Mapping[str, Any]) -> bool:
        """Do what the launcher has to do for a run; return whether it is another one now."""
        status = job.get("status") or {}
        self._trouble = ""
        if status.get("reason") == "DeadlineExceeded" and (found := self._job_run(job, or_none=True)):
            # KubeRay leaves a program that took too long to itself, until its cluster goes.
            with contextlib.suppress(LaunchError):
                found.cancel()
        if self._spec is None:
            return False
        if status.get("jobDeploymentStatus") == "Waiting" and not job["spec"].get("jobId"):
            return self._hand_over(job, self._spec)
        if self._state(status) is RunState.FAILED and self._tries_again(job):
            self._remove(job)
            with contextlib.suppress(Exists):
                create(self._api, manifest.of(self._spec, self.name, _attempt(job) + 1))
            return True
        return False

    def _hand_over(self, job: Mapping[str, Any], spec: Spec) -> bool:
        from raycelery.launch.kuberay.proxied import ProxiedJobs

        try:
            jobs = ProxiedJobs(self._api, job)
        except ApiError:
            raise
        except LaunchError as exc:
            self._trouble = str(exc)
            return False
        try:
            try:
                jobs.info(self.name)  # whoever was to hand it over may have been killed after that
            except NotFound:
                jobs.submit(spec, self.name)
        except LaunchError:
            # Nobody else would end what waits for it.
            self._remove(job)
            raise
        self._api.patch("rayjobs", self.name, {"spec": {"jobId": self.name}})
        return True

    def _tries_again(self, job: Mapping[str, Any]) -> bool:
        status = job.get("status") or {}
        refused = status.get("jobDeploymentStatus") == "ValidationFailed"
        final = refused or status.get("reason") in _FINAL
        return self._spec is not None and not final and _attempt(job) <= self._spec.retries

    def _job_run(self, job: Mapping[str, Any], or_none: bool = False) -> JobRun | None:
        """Return the program's run in the cluster; None where it was not handed over.

        Raises:
            LaunchError: the cluster is out of reach, unless ``or_none``.
        """
        from raycelery.launch.kuberay.proxied import ProxiedJobs

        key = _key(job)
        if key is None:
            return None
        try:
            return ProxiedJobs(self._api, job).find(key[1])
        except LaunchError:
            if or_none:
                return None
            raise

    def _has_cluster(self, name: str) -> bool:
        try:
            self._api.get("rayclusters", name)
        except NotFound:
            return False
        return True

    def _remove(self, job: Mapping[str, Any]) -> None:
        uid = job["metadata"]["uid"]
        self._api.delete("rayjobs", self.name, uid)
        deadline = time.monotonic() + _GONE_SECONDS
        while (left := self.look()) is not None and left["metadata"]["uid"] == uid:
            if time.monotonic() > deadline:
                raise LaunchError(
                    f"the RayJob {self.name} was deleted and has not gone in {_GONE_SECONDS:g} s: look whether "
                    "KubeRay's operator runs"
                )
            self._api.await_change("rayjobs", self.name, left["metadata"]["resourceVersion"], 1.0)


def _key(job: Mapping[str, Any] | None) -> tuple[str, str] | None:
    """Return the names of the cluster and of the job in it; None: there are none (yet)."""
    status = (job or {}).get("status") or {}
    cluster, job_id, url = (str(status.get(field) or "") for field in ("rayClusterName", "jobId", "dashboardURL"))
    return (cluster, job_id) if cluster and job_id and url else None


def _attempt(job: Mapping[str, Any]) -> int:
    return int((job["metadata"].get("annotations") or {}).get(manifest.TRY, 1))


def _seconds(text: str | None) -> float | None:
    return None if not text else datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def _absolute(spec: Spec) -> Spec:
    """Return a specification that means the same in another process."""

    def whole(part: Any) -> Any:
        return str(Path(part).resolve()) if isinstance(part, str) and "://" not in part else part

    return msgspec.structs.replace(
        spec, working_dir=whole(spec.folder), py_modules=[whole(part) for part in spec.py_modules],
        pip=whole(spec.pip), uv=whole(spec.uv),
    )  # fmt: skip


def attached(run: Mapping[str, Any]) -> RayJobRun:
    """Find a run by what :meth:`RayJobRun.to_dict` has returned."""
    spec = run.get("spec")
    jobs = RayJobs(run.get("namespace"), run.get("context"))
    return jobs.find(str(run["name"]), None if spec is None else made(spec))
