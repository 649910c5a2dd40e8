"""Starts runs, and finds them again."""

from __future__ import annotations

import contextlib
import os
import re
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from raycelery.errors import DispatcherUnreachable
from raycelery.launch import retrying
from raycelery.launch.errors import LaunchError, SpecError
from raycelery.launch.ray_jobs import Jobs
from raycelery.launch.run import Run
from raycelery.launch.spec import Spec


def name_of(spec: Spec) -> str:
    """Return the name of a new run: the specification's, or one made of the program's."""
    if spec.name is not None:
        return spec.name
    words = [word for word in spec.entrypoint if word not in ("python", "python3", "-m", "-u")]
    stem = re.sub(r"[^a-z0-9]+", "-", Path(words[0] if words else "run").stem.lower()).strip("-")[:32]
    # Kubernetes wants a letter at the beginning.
    return f"{stem if stem[:1].isalpha() else 'run'}-{uuid.uuid4().hex[:8]}"


def address_of(address: str | None) -> str | None:
    """Return the address that is meant: the one that is given, or ``RAY_ADDRESS``; None: a cluster of one's own."""
    return address or os.environ.get("RAY_ADDRESS") or None


def submit(
    spec: Spec,
    *,
    backend: Literal["ray", "kuberay"] = "ray",
    address: str | None = None,
    namespace: str | None = None,
    context: str | None = None,
) -> Run:
    """Start an application: on a Ray cluster that is there, or on Kubernetes, on one that KubeRay makes for it.

    Arguments:
        spec: what to start.
        backend: which of them.
        address: of Ray's dashboard (``http://host:8265``) or of the cluster; None: the one in ``RAY_ADDRESS``.
        namespace: of Kubernetes; None: that of the specification, or of the kubeconfig.
        context: of the kubeconfig; None: the current one.

    Raises:
        SpecError: no cluster is named; :func:`on_own_cluster` starts one. A field is wrong.
        LaunchError: the cluster does not answer, or refuses it.
    """
    if backend == "kuberay":
        from raycelery.launch.kuberay.runs import RayJobs

        return RayJobs(namespace or spec.namespace, context).submit(spec, name_of(spec))
    if spec.secrets:
        raise SpecError(
            "secrets cannot be given to a Ray cluster that is there already: whoever may use it could read them; "
            "choose another backend, or have its nodes know them"
        )
    return retrying.started(_jobs(address), spec, name_of(spec))


def _jobs(address: str | None) -> Jobs:
    where = address_of(address)
    if where is None:
        raise SpecError("no cluster is named: give its address, or set RAY_ADDRESS")
    return Jobs(where)


def find(
    name: str,
    address: str | None = None,
    *,
    backend: Literal["ray", "kuberay"] = "ray",
    namespace: str | None = None,
    context: str | None = None,
) -> Run:
    """Return a run by its name.

    Arguments:
        name: of the run.
        address: of Ray's dashboard or of the cluster; None: the one in ``RAY_ADDRESS``.
        backend, namespace, context: see :func:`submit`.

    Raises:
        SpecError: no cluster is named.
        NotFound: there is no such run.
        LaunchError: the cluster does not answer.
    """
    if backend == "kuberay":
        from raycelery.launch.kuberay.runs import RayJobs

        return RayJobs(namespace, context).find(name)
    return _jobs(address).find(name)


@contextlib.contextmanager
def on_own_cluster(spec: Spec, num_cpus: int | None = None) -> Iterator[Run]:
    """Start an application on a cluster of its own on this machine, which ends with the block.

    Arguments:
        spec: what to start.
        num_cpus: CPUs of the cluster; None: those of the machine.

    Raises:
        SpecError: a secret is not among this process's environment variables, from which the cluster has it.
        LaunchError: the cluster does not start.
    """
    from raycelery.cluster import head

    unknown = [name for name in spec.secrets if name not in os.environ]
    if unknown:
        raise SpecError(
            f"secrets: {unknown[0]} is no environment variable here, where a cluster on this machine has it from: "
            "set it"
        )
    try:
        with head.running(num_cpus) as found:
            run = retrying.started(Jobs(found.dashboard), spec, name_of(spec))
            try:
                yield run
            finally:
                with contextlib.suppress(LaunchError):  # the cluster ends, and with it the run
                    run.cancel()
    except DispatcherUnreachable as exc:
        raise LaunchError(str(exc)) from exc


def attach(run: Mapping[str, Any]) -> Run:
    """Find a run again.

    Arguments:
        run: what :meth:`Run.to_dict` has returned, here or in another process.

    Raises:
        SpecError: it is something else.
        NotFound: there is no such run any more.
        LaunchError: the cluster does not answer.
    """
    try:
        backend, name = run["backend"], str(run["name"])
        address = str(run["address"]) if backend == "ray" else ""
    except KeyError as exc:
        raise SpecError(f"it is no run: it has no {exc.args[0]!r}; give what Run.to_dict() has returned") from exc
    if backend == "kuberay":
        from raycelery.launch.kuberay.runs import attached

        return attached(run)
    if backend != "ray":
        raise SpecError(f"there is no backend {backend!r}")
    return find(name, address)


def runs(
    address: str | None = None,
    *,
    backend: Literal["ray", "kuberay"] = "ray",
    namespace: str | None = None,
    context: str | None = None,
) -> list[Run]:
    """Return the runs of a cluster, or of a namespace of Kubernetes, the latest first.

    Arguments:
        address, backend, namespace, context: see :func:`submit`.

    Raises:
        SpecError: no cluster is named.
        LaunchError: it does not answer.
    """
    if backend == "kuberay":
        from raycelery.launch.kuberay.runs import RayJobs

        return list(RayJobs(namespace, context).all())
    return list(_jobs(address).all())
