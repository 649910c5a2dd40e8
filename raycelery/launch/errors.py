"""What goes wrong when an application is launched, with the exit status that a command line returns for it."""

from __future__ import annotations

from raycelery.errors import RayCeleryError


class LaunchError(RayCeleryError):
    """The application cannot be started or followed: the cluster is out of reach, or refuses it."""

    exit_code = 3


class SpecError(LaunchError, ValueError):
    """The specification of the application is wrong; the text names the field and the remedy."""

    exit_code = 2


class NotFound(LaunchError, LookupError):
    """There is no run of that name."""

    exit_code = 5
