"""Benchmarks: the old queue and Ray, side by side. A module of one's own tasks needs only :func:`call`."""

from .calls import Call, call

__all__ = ["Call", "call"]
