"""The nodes of a cluster that is made for one application, and where its secrets are kept."""

from __future__ import annotations

import re
from typing import Any

import msgspec

#: https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
_QUANTITY = re.compile(r"[0-9]+(\.[0-9]*)?([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]+)?")


class Secret(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A value that is named, and stays where it is.

    Arguments:
        secret: name of the Kubernetes Secret.
        key: in it.
    """

    secret: str
    key: str


class Node(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a node of the cluster, which is a pod, asks for.

    Arguments:
        cpus: CPUs that it asks for.
        memory: that it asks for and may use, such as ``4Gi``.
        gpus: of NVIDIA.
        resources: further ones of Kubernetes, by name.
        image: another than the application's.
        node_selector: labels of the machines that it may run on.
        tolerations: of taints of machines, as Kubernetes has them.
        ray_start_params: further options of ``ray start``, without the dashes.
    """

    cpus: float = 1
    memory: str = "4Gi"
    gpus: int = 0
    resources: dict[str, str] = {}
    image: str | None = None
    node_selector: dict[str, str] = {}
    tolerations: list[dict[str, Any]] = []
    ray_start_params: dict[str, str] = {}

    def __post_init__(self) -> None:
        if not self.cpus > 0:
            raise ValueError(f"cpus={self.cpus!r} must be above zero")
        if self.gpus < 0:
            raise ValueError(f"gpus={self.gpus!r} must be zero or more")
        for name, amount in {"memory": self.memory, **self.resources}.items():
            if not _QUANTITY.fullmatch(amount):
                raise ValueError(f"{name}={amount!r} is no amount of Kubernetes, such as '4Gi' or '2'")


class Workers(Node, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A group of equal worker nodes. Where its bounds differ, Ray's autoscaler chooses between them.

    Arguments:
        min: how many there are at least.
        max: how many there may be; None: as many as ``min``.
        idle_timeout: seconds after which the autoscaler removes a node that nothing runs on; None: its own default.
    """

    min: int = 1
    max: int | None = None
    idle_timeout: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.min < 0:
            raise ValueError(f"min={self.min!r} must be zero or more")
        if self.most < max(self.min, 1):
            raise ValueError(f"max={self.max!r} must be at least min={self.min!r}, and one")
        if self.idle_timeout is not None and self.idle_timeout < 0:
            raise ValueError(f"idle_timeout={self.idle_timeout!r} must be zero or more")

    @property
    def most(self) -> int:
        """How many there may be."""
        return self.min if self.max is None else self.max
