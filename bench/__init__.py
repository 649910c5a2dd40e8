"""Benchmarks: compare raycelery with Celery and other queues. A module with your own tasks needs only :func:`call`."""

from .calls import Call, call

__all__ = ["Call", "call"]
