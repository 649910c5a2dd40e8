"""Where a dispatcher listens, for a process forked from one that uses Ray: it asks by a process of its own.

``python -m raycelery.client.asking_ray ADDRESS ACTOR`` prints the endpoint.
"""

from __future__ import annotations

import json
import subprocess
import sys

from raycelery.errors import DispatcherUnreachable
from raycelery.names import NAMESPACE
from raycelery.protocol.framing import Endpoint

#: Seconds for a process to join the cluster, and for the dispatcher to answer: it may be about to be restarted.
SECONDS = 90.0


def ask(address: str, actor: str) -> Endpoint:
    """Return where a dispatcher listens.

    Arguments:
        address: of the cluster.
        actor: name of the dispatcher's.

    Raises:
        DispatcherUnreachable: it is not there, or does not answer in time.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-m", __name__, address, actor],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS, check=True,
        )  # fmt: skip
    except subprocess.TimeoutExpired as exc:
        raise DispatcherUnreachable(f"the application's dispatcher does not answer in {SECONDS:g} s") from exc
    except subprocess.CalledProcessError as exc:
        last = [line for line in str(exc.stderr).splitlines() if line.strip()][-1:]
        raise DispatcherUnreachable(f"the application's dispatcher does not answer: {''.join(last)}") from exc
    host, port, secret = json.loads(done.stdout.splitlines()[-1])
    return Endpoint(host, port, bytes.fromhex(secret))


def main(address: str, actor: str) -> None:
    """Print the endpoint."""
    import ray

    ray.init(address, namespace=NAMESPACE, log_to_driver=False, logging_level="ERROR")
    # Older versions of Ray call nothing through a handle that nobody holds.
    dispatcher = ray.get_actor(actor, namespace=NAMESPACE)
    host, port, secret = ray.get(dispatcher.endpoint.remote())
    print(json.dumps([host, port, secret.hex()]), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
