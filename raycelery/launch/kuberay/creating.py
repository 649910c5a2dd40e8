"""Makes a RayJob, of which Kubernetes takes every field."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from raycelery.launch.errors import LaunchError, SpecError
from raycelery.launch.kuberay.api import Api, ApiError


class Exists(LaunchError):
    """There is a RayJob of that name."""


def create(api: Api, body: Mapping[str, Any]) -> None:
    """Make a RayJob.

    Raises:
        Exists: there is one of that name.
        SpecError: Kubernetes refuses a field, or does not know it.
    """
    name = body["metadata"]["name"]
    try:
        # Kubernetes drops fields that it does not know without a word.
        lost = next(_lost(body, api.create("rayjobs", body, dry=True)), None)
        if lost is not None:
            raise SpecError(f"the KubeRay of this cluster knows no field {lost}: correct it, or update KubeRay")
        api.create("rayjobs", body)
    except ApiError as exc:
        if exc.code == 409:
            raise Exists(
                f"there is a run {name!r} in the namespace {api.namespace} already: choose another name, or delete "
                "that one"
            ) from exc
        if exc.code in (400, 422):
            raise SpecError(str(exc)) from exc
        raise


def _lost(sent: Any, taken: Any, path: str = "") -> Iterator[str]:
    if isinstance(sent, Mapping):
        for key, value in sent.items():
            if not isinstance(taken, Mapping) or key not in taken:
                yield f"{path}.{key}".lstrip(".")
            else:
                yield from _lost(value, taken[key], f"{path}.{key}")
    elif isinstance(sent, list) and isinstance(taken, list):
        for at, (value, found) in enumerate(zip(sent, taken, strict=False)):
            yield from _lost(value, found, f"{path}[{at}]")
