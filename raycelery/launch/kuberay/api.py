"""Kubernetes' API server: objects as plain data, and the HTTP services of a cluster behind it.

lightkube reads the configuration (kubeconfig, or the pod's service account) and authenticates; the rest is HTTP, as
https://kubernetes.io/docs/reference/using-api/api-concepts/ has it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml

from raycelery.launch.errors import LaunchError, NotFound, SpecError

logger = logging.getLogger(__name__)

#: Seconds for which an API server that has answered before may be out of reach, and between two tries.
PATIENCE = 120.0
_AGAIN = 1.0
#: Seconds for an API server that has come back to know its own rules.
_STARTING_SECONDS = 30.0
#: Seconds for an answer. What is uploaded takes longer.
_ANSWER_SECONDS = 30.0
#: Where the objects are that the launcher works with.
PATHS = {
    "rayjobs": "apis/ray.io/v1",
    "rayclusters": "apis/ray.io/v1",
    "pods": "api/v1",
    "events": "api/v1",
    "secrets": "api/v1",
}


class ApiError(LaunchError):
    """The API server refuses a request.

    Arguments:
        said: its words.
        code: HTTP status.
    """

    def __init__(self, said: str, code: int) -> None:
        super().__init__(said)
        self.code = code


class Api:
    """A namespace of a Kubernetes cluster.

    Arguments:
        namespace: None: that of the configuration.
        context: of the kubeconfig; None: the current one.

    Raises:
        SpecError: there is no configuration, or lightkube is not installed.
    """

    def __init__(self, namespace: str | None = None, context: str | None = None) -> None:
        try:
            import httpx2
            from lightkube.config import client_adapter
            from lightkube.core.exceptions import ConfigError
        except ImportError as exc:
            raise SpecError("runs on KubeRay need lightkube: pip install 'raycelery[kuberay]'") from exc
        self._httpx: Any = httpx2
        self.context = context
        try:
            config = _config(context)
            # Since it is there to stay: the plug-ins of the clouds say v1, whose answer is the same.
            if config.user and config.user.exec and config.user.exec.apiVersion == "client.authentication.k8s.io/v1":
                config.user.exec.apiVersion = "client.authentication.k8s.io/v1beta1"
            self.auth: Any = client_adapter.user_auth(config.user)
            self.tls: Any = client_adapter.verify_cluster(config.cluster, config.user, config.abs_file)
        except (ConfigError, OSError, KeyError, TypeError, ValueError, yaml.YAMLError) as exc:
            raise SpecError(f"there is no usable configuration of Kubernetes: {exc}; see KUBECONFIG") from exc
        self.namespace = namespace or config.namespace
        self.server = str(config.cluster.server).rstrip("/")
        self._client: Any = self._httpx.Client(verify=self.tls, auth=self.auth, timeout=_ANSWER_SECONDS)
        self._answered = False
        #: When it was out of reach last.
        self._lost = -math.inf

    def get(self, kind: str, name: str) -> dict[str, Any]:
        """Return an object.

        Raises:
            NotFound: there is none.
        """
        found: dict[str, Any] = self._json("GET", self.path(kind, name))
        return found

    def all(self, kind: str, **selectors: str) -> list[dict[str, Any]]:
        """Return the objects of a kind.

        Arguments:
            kind: of them, such as ``pods``.
            selectors: ``labelSelector``, ``fieldSelector``.
        """
        found: list[dict[str, Any]] = self._json("GET", self.path(kind), params=selectors)["items"]
        return found

    def create(self, kind: str, body: Mapping[str, Any], *, dry: bool = False) -> dict[str, Any]:
        """Make an object, and return what the API server has made of it.

        Arguments:
            kind: of it.
            body: its manifest.
            dry: only have it checked.
        """
        # Once more might be a second one: not tried again.
        found: dict[str, Any] = self._json(
            "POST", self.path(kind), json=dict(body), params={"dryRun": "All"} if dry else {}, again=False
        )
        return found

    def patch(self, kind: str, name: str, changes: Mapping[str, Any]) -> None:
        """Merge changes into an object."""
        self._json("PATCH", self.path(kind, name), content=json.dumps(changes).encode(),
                   headers={"Content-Type": "application/merge-patch+json"})  # fmt: skip

    def delete(self, kind: str, name: str, uid: str | None = None) -> None:
        """Have an object deleted, and what it owns; one that is gone is no error.

        Arguments:
            kind: of it.
            name: of it.
            uid: of the one that is meant; another of that name stays. None: any.
        """
        body: dict[str, Any] = {"propagationPolicy": "Background"}
        if uid is not None:
            body["preconditions"] = {"uid": uid}
        try:
            self._json("DELETE", self.path(kind, name), json=body)
        except NotFound:
            pass
        except ApiError as exc:
            if exc.code != 409:
                raise

    def await_change(self, kind: str, name: str, version: str, seconds: float) -> None:
        """Wait until an object is another than it was, so many seconds at most.

        Arguments:
            kind: of it.
            name: of it.
            version: its ``resourceVersion``. One that the API server no longer knows (410) is a change.
            seconds: at most.
        """
        params = {"watch": "true", "fieldSelector": f"metadata.name={name}", "resourceVersion": version,
                  "timeoutSeconds": str(max(1, round(seconds)))}  # fmt: skip
        begun = time.monotonic()
        try:
            with self._client.stream("GET", self.path(kind), params=params, timeout=seconds + 5) as answer:
                if answer.status_code == 200:
                    for _ in answer.iter_lines():
                        return
                    return
        except self._httpx.HTTPError as exc:
            self._lost = time.monotonic()
            logger.debug("the watch of %s %s is begun again: %s", kind, name, exc)
        # A server that refuses, or is gone, is not asked at once again.
        time.sleep(min(_AGAIN, max(0.0, seconds - (time.monotonic() - begun))))

    def path(self, kind: str, name: str = "") -> str:
        """Return the URL of a kind's objects, or of one."""
        whole = f"{self.server}/{PATHS[kind]}/namespaces/{quote(self.namespace, safe='')}/{kind}"
        return f"{whole}/{quote(name, safe='')}" if name else whole

    def proxy(self, service: str, port: str) -> str:
        """Return the URL at which a service is reached through the API server."""
        return f"{self.server}/api/v1/namespaces/{quote(self.namespace, safe='')}/services/{service}:{port}/proxy"

    def request(self, method: str, url: str, *, again: bool = True, **options: Any) -> Any:
        """Return the answer to an HTTP request, whatever its status.

        Raises:
            LaunchError: there is none, in spite of all patience.
        """
        deadline = time.monotonic() + (PATIENCE if again and self._answered else 0)
        while True:
            try:
                answer = self._client.request(method, url, **options)
                if not self._passes(answer.status_code, again and time.monotonic() < deadline):
                    self._answered = True
                    return answer
            except self._httpx.HTTPError as exc:
                self._lost = time.monotonic()
                if time.monotonic() >= deadline:
                    raise LaunchError(f"Kubernetes' API server does not answer at {self.server}: {exc}") from exc
                logger.debug("asked again: %s", exc)
            time.sleep(_AGAIN)

    def _passes(self, code: int, again: bool) -> bool:
        """Whether an answer is one that becomes another one by itself."""
        if code in (401, 403):
            # A server that has just started does not know yet who may do what.
            return self._answered and time.monotonic() - self._lost < _STARTING_SECONDS
        return again and code in (429, 503)

    def headers(self) -> dict[str, str]:
        """Return what a request of another HTTP client authenticates itself by."""
        if self.auth is None:
            return {}
        request = self._httpx.Request("GET", self.server)
        flow = self.auth.sync_auth_flow(request)
        authenticated = next(flow)
        flow.close()
        return {"Authorization": authenticated.headers["Authorization"]}

    def _json(self, method: str, url: str, *, again: bool = True, **options: Any) -> Any:
        answer = self.request(method, url, again=again, **options)
        if answer.status_code < 300:
            return answer.json()
        words = said(answer.text)
        if answer.status_code == 404 and "could not find the requested resource" in words:
            raise ApiError(f"there is no KubeRay at {self.server} ({words}): install its operator", 404)
        if answer.status_code == 404:
            raise NotFound(words)
        if answer.status_code in (401, 403):
            raise ApiError(
                f"Kubernetes does not allow it: {words} (docs/launching.md has the role)", answer.status_code
            )
        raise ApiError(f"Kubernetes refuses it: {words}", answer.status_code)


def said(text: str) -> str:
    """Return what an answer of the API server says."""
    try:
        return str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError):
        return text.strip()[:300] or "no reason is given"


def _config(context: str | None) -> Any:
    """Return the configuration: KUBECONFIG, the pod's service account, or ``~/.kube/config``, as ``kubectl`` has it."""
    from lightkube.config.kubeconfig import KubeConfig
    from lightkube.core.exceptions import ConfigError

    named = [path for path in os.environ.get("KUBECONFIG", "").split(os.pathsep) if path]
    if not (named or context):
        with contextlib.suppress(ConfigError, KeyError):
            return KubeConfig.from_service_account().get()
    found = [KubeConfig.from_file(path) for path in named or ["~/.kube/config"] if Path(path).expanduser().is_file()]
    if not found:
        raise ConfigError(f"there is no file {' or '.join(named) or '~/.kube/config'}")
    for one in found:
        if (context or one.current_context) in one.contexts:
            return one.get(context)
    raise ConfigError(f"no context {context!r} is known" if context else "no current context is set")
