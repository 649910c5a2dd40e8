"""The Job API of a cluster in Kubernetes, through the API server: no ingress, port-forward or bucket is needed.

Kubernetes' own ``Authorization`` ends at the API server, so Ray's token goes in ``X-Ray-Authorization``:
https://docs.ray.io/en/latest/ray-security/token-auth.html.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator, Mapping
from typing import Any

import aiohttp
from ray.dashboard.modules.dashboard_sdk import SubmissionClient
from ray.job_submission import JobSubmissionClient

from raycelery.launch.errors import LaunchError, NotFound
from raycelery.launch.kuberay.api import Api, ApiError, said
from raycelery.launch.ray_jobs import Jobs, hush

#: Seconds for a package to be uploaded.
_UPLOAD_SECONDS = 600.0


class _Client(JobSubmissionClient):  # type: ignore[misc]
    """Ray's client, whose requests go out with the configuration of Kubernetes: its tokens, and its certificates."""

    def __init__(self, api: Api, url: str, token: str | None) -> None:
        import ray

        self._api = api
        self._token = {} if token is None else {"X-Ray-Authorization": f"Bearer {token}"}
        self._client_ray_version = ray.__version__
        # Not JobSubmissionClient's own: RAY_ADDRESS would be taken for the address.
        SubmissionClient.__init__(self, url, headers={"Authorization": ""})
        self._ssl_context = api.tls
        self._check_connection_and_version("2.0")

    @property
    def _headers(self) -> dict[str, str]:
        """What ``tail_job_logs`` sends; made for each connection, as Kubernetes' tokens do not last."""
        return {**self._api.headers(), **self._token}

    @_headers.setter
    def _headers(self, _value: Mapping[str, str]) -> None:
        """Ray's client sets them once."""

    def _do_request(
        self, method: str, endpoint: str, *, data: bytes | None = None, json_data: Any = None, **options: Any
    ) -> Any:
        if data is not None:
            options["timeout"] = _UPLOAD_SECONDS
        # Whoever follows a run looks first whether the cluster is still there.
        answer = self._api.request(
            method, self._address + endpoint, again=False, content=data, json=json_data, headers=self._token, **options
        )
        if answer.status_code >= 400 and '"kind":"Status"' in answer.text:  # Kubernetes' own words, not Ray's
            if answer.status_code == 403:
                raise ApiError(
                    f"Kubernetes does not allow it: {said(answer.text)} (docs/launching.md has the role)", 403
                )
            raise ConnectionError(said(answer.text))
        return answer


class ProxiedJobs(Jobs):
    """The Job API of a RayCluster.

    Arguments:
        api: of Kubernetes.
        job: the RayJob, as it is.

    Raises:
        LaunchError: it cannot be reached (yet, or any more).
    """

    def __init__(self, api: Api, job: Mapping[str, Any]) -> None:
        status = job.get("status") or {}
        host, _, port = str(status.get("dashboardURL") or "").removeprefix("http://").partition(":")
        if not host:
            raise LaunchError("its cluster is not there yet")
        self.address = f"the cluster {status.get('rayClusterName')}"
        url = api.proxy(host.split(".")[0], port or "8265")
        token = _token(api, job)
        hush()
        self._client: Any = self._said(lambda: _Client(api, url, token))

    def tail(self, name: str) -> Iterator[str]:
        try:
            yield from super().tail(name)
        except aiohttp.ClientError as exc:
            raise ConnectionError(str(exc)) from exc

    def _error(self, exc: Exception, name: str) -> LaunchError:
        text = str(exc)
        if "401" in text or "403" in text or "nauthor" in text:
            return LaunchError(f"{self.address} does not take the token of its Secret: {text}")
        if isinstance(exc, OSError):
            return LaunchError(f"{self.address} is out of reach: {text}")
        return super()._error(exc, name)


def _token(api: Api, job: Mapping[str, Any]) -> str | None:
    """Return the token that the cluster demands; None: it demands none."""
    options = job["spec"].get("rayClusterSpec", {}).get("authOptions") or {}
    if options.get("mode") != "token":
        return None
    name = options.get("secretName") or job["status"]["rayClusterName"]
    try:
        return base64.b64decode(api.get("secrets", name)["data"]["auth_token"]).decode()
    except (NotFound, KeyError, ApiError) as exc:
        # Who may read no Secrets may still have been given the token.
        if os.environ.get("RAY_AUTH_TOKEN"):
            return os.environ["RAY_AUTH_TOKEN"]
        raise LaunchError(f"the cluster's token cannot be read from the Secret {name}: {exc}") from exc
