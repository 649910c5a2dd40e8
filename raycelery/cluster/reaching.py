"""Whether a cluster takes this process, asked before Ray tries to join, which goes on for minutes and says little.

One call of the head's own service (``NodeInfoGcsService.CheckAlive``) tells whether anything listens at the address,
whether that is Ray, of which version, and whether it demands a token. Tokens are Ray's:
https://docs.ray.io/en/latest/ray-security/token-auth.html.
"""

from __future__ import annotations

import os
import re
import socket
import sys
from pathlib import Path
from typing import Any

from raycelery.errors import DispatcherUnreachable

_CHECK_ALIVE = "/ray.rpc.NodeInfoGcsService/CheckAlive"
_MODE = "RAY_AUTH_MODE"
#: Seconds for the connection, and for the head to answer: it may be busy.
_CONNECT_SECONDS = 5.0
_ANSWER_SECONDS = 20.0


def knock(address: str) -> None:
    """See that something listens at ``host:port``.

    Raises:
        OSError: nothing does.
    """
    host, _, port = address.rpartition(":")
    socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS).close()


def by_ray_client() -> bool:
    """Whether this process uses Ray through Ray Client, which is not imported to find out."""
    client = sys.modules.get("ray.util.client")
    return client is not None and bool(client.ray.is_connected())


def see_that_it_takes_us(address: str, said: str) -> None:
    """See that a cluster takes this process; if it demands a token, one that is there is used unless that is forbidden.

    Arguments:
        address: of the cluster, ``host:port``.
        said: how it is called in errors.

    Raises:
        DispatcherUnreachable: it does not; in a sentence with the remedy.
    """
    try:
        knock(address)
    except OSError as exc:
        raise DispatcherUnreachable(
            f"no Ray cluster answers at ray_address={said} ({exc}): start one with 'ray start --head', correct the "
            "address, or unset it to run Ray inside this process"
        ) from exc
    version = _ask(address, said)
    if version is None and use_token():
        version = _ask(address, said)
    if version is None:
        raise DispatcherUnreachable(_refused(said))
    _see_that_versions_match(version, said)


def _ask(address: str, said: str) -> str | None:
    """Return the version of the Ray that runs there; None where it demands another token.

    Raises:
        DispatcherUnreachable: it does not answer, or is no Ray.
    """
    import grpc
    from ray.core.generated import gcs_service_pb2
    from ray.exceptions import RayError

    try:
        from ray._private.grpc_utils import init_grpc_channel
    except ImportError:  # before Ray 2.53
        from ray._private.utils import init_grpc_channel
    # Ray's own way to make a channel brings its TLS settings and, in token mode, the token.
    channel = init_grpc_channel(address, options=[("grpc.enable_http_proxy", 0)])
    try:
        answer = channel.unary_unary(_CHECK_ALIVE)(b"", timeout=_ANSWER_SECONDS)
    except RayError:
        return None  # in token mode with no token
    except grpc.RpcError as exc:
        code: Any = exc.code()
        if code == grpc.StatusCode.UNAUTHENTICATED:
            return None
        if code == grpc.StatusCode.DEADLINE_EXCEEDED:
            raise DispatcherUnreachable(
                f"the Ray cluster at ray_address={said} has not answered in {_ANSWER_SECONDS:g} s: it is busy or still "
                "starting; try again, or look at 'ray status' on its head node"
            ) from exc
        raise DispatcherUnreachable(
            f"what listens at ray_address={said} is not the head node of a Ray cluster ({exc.details()}): give the "
            "address that 'ray start --head' has printed, not that of a Redis, of Ray's dashboard or of Ray Client"
        ) from exc
    finally:
        channel.close()
    return str(gcs_service_pb2.CheckAliveReply.FromString(answer).ray_version)


def use_token() -> bool:
    """Have Ray use the token that is there, where no mode was chosen; return whether it does.

    Ray does so itself for addresses that it finds, but not for one that is given.
    """
    setup = _token_setup()
    if setup is None or not setup.AuthenticationTokenLoader.instance().has_token(ignore_auth_mode=True):
        return False
    os.environ[_MODE] = "token"
    setup.Config.initialize("")
    return True


def have_token() -> None:
    """Have a cluster that this process is about to start demand a token, made if there is none, as ``ray.init`` does.

    Where a mode was chosen, that holds.
    """
    setup = _token_setup()
    if setup is not None:
        os.environ[_MODE] = "token"
        setup.Config.initialize("")
        setup.ensure_token_if_auth_enabled(None, create_token_if_missing=True)


def _token_setup() -> Any:
    """Return Ray's module that sets tokens up; None where a mode was chosen, or Ray knows of no tokens."""
    if os.environ.get(_MODE):
        return None
    try:
        from ray._private.authentication import authentication_token_setup
    except ImportError:
        return None
    return authentication_token_setup


def _refused(said: str) -> str:
    mode = os.environ.get(_MODE)
    cluster = f"the Ray cluster at ray_address={said} demands a token"
    if mode and mode != "token":
        return f"{cluster}, and {_MODE}={mode} sends none: unset {_MODE}, or set it to 'token'"
    remedy = "the head node's ('ray get-auth-token' prints it there)"
    if os.environ.get("RAY_AUTH_TOKEN"):
        return f"{cluster}, and the one in RAY_AUTH_TOKEN ({_MODE}=token) is another: set {remedy}"
    path = os.environ.get("RAY_AUTH_TOKEN_PATH") or str(Path.home() / ".ray" / "auth_token")
    if os.path.exists(path):
        return f"{cluster}, and the one in {path} ({_MODE}=token) is another: write {remedy} to that file"
    if mode:
        return f"{_MODE}=token, and there is no token in {path}: write {remedy} to that file, or set RAY_AUTH_TOKEN"
    return (
        f"{cluster}, and there is none in {path}: write {remedy} to that file, or set RAY_AUTH_TOKEN; "
        f"{_MODE} may stay unset"
    )


def _see_that_versions_match(version: str, said: str) -> None:
    import ray

    if version and version != ray.__version__:
        raise DispatcherUnreachable(_other_version(said, f"Ray {version}", f"Ray {ray.__version__}"))


def _other_version(said: str, there: str, here: str) -> str:
    return (
        f"the cluster at ray_address={said} runs {there} and this process {here}, which must be the same: run this "
        "program with the cluster's, or start the cluster with this program's"
    )


def reason(exc: Exception, said: str) -> str:
    """Return in a sentence why Ray could not join a cluster that answers, with the remedy.

    Arguments:
        exc: what Ray raised.
        said: how the cluster is called.
    """
    text = str(exc)
    # "Version mismatch: The cluster was started with:\n Ray: 2.60.0\n Python: 3.11.2\nThis process ...", once each.
    versions = re.findall(r"^\s*(Ray|Python): (\S+)$", text, re.MULTILINE)
    if "ersion mismatch" in text and len(versions) == 4:
        there, here = (" on ".join(" ".join(one) for one in versions[at : at + 2]) for at in (0, 2))
        return _other_version(said, there, here)
    if "No node info found" in text or "IP address" in text:
        return (
            f"the cluster at ray_address={said} has no node on {socket.gethostname()}: run this program on one of its "
            "machines, join this one with 'ray start --address', or hand the program over with 'ray job submit'"
        )
    return f"the Ray cluster at ray_address={said} answers and could not be joined: {first_line(exc)}"


def first_line(exc: BaseException) -> str:
    """Return the first line of what an exception says, or its name where it says nothing."""
    return next((line.strip() for line in str(exc).splitlines() if line.strip()), type(exc).__name__)
