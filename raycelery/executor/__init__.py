"""Runs messages: one process, one application, one message at a time, through Celery's own tracer."""

from __future__ import annotations

#: What this process was started for, in Ray's units; empty if it is no executor. Ray itself knows of no CPUs where they
#: are those of a task that waits for its subtasks, or another application's.
request: dict[str, float] = {}
