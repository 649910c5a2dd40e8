"""Addresses of Ray clusters, as ``ray_address`` and ``RAY_ADDRESS`` give them."""

from __future__ import annotations

from raycelery.errors import OptionError
from raycelery.masking import masked

AUTO = "auto"
LOCAL = "local"
#: The remedy for who comes by Ray Client.
NO_CLIENT = (
    "run this program on a machine of the cluster and name it as 'host:6379', or hand the program over with "
    "'ray job submit'"
)
#: What is wrong with an address, by its scheme.
_SCHEMES = {
    "ray": f"is an address of Ray Client, through which an application's dispatcher cannot be reached: {NO_CLIENT}",
    "http": "is an address of Ray's dashboard: use the address that 'ray start' has printed",
}
_SCHEMES["https"] = _SCHEMES["http"]


def check(name: str, value: str) -> None:
    """Refuse what is no address of a cluster: ``"host:port"``, ``"auto"`` or ``"local"``.

    Arguments:
        name: of the setting or environment variable, for the error.
        value: the address.

    Raises:
        OptionError: with the remedy.
    """
    if value in (AUTO, LOCAL):
        return
    scheme, separator, rest = value.rpartition("://")
    if scheme in _SCHEMES:
        raise OptionError(f"{name}={masked(value)!r} {_SCHEMES[scheme]}")
    host, _, port = rest.rpartition(":")
    if separator or not host or not port.isdigit() or not 0 < int(port) < 1 << 16:
        raise OptionError(
            f"{name}={masked(value)!r} is not the address of a Ray cluster: give the 'host:port' that 'ray start' has "
            f"printed, {AUTO!r} for the cluster on this machine, or {LOCAL!r} to run Ray inside this process"
        )
