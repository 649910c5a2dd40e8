"""Celery's remote control commands that are answered in direct mode."""

from __future__ import annotations

#: Their names, other names of Celery's for the same included.
NAMES = frozenset({
    "active", "active_queues", "add_consumer", "autoscale", "cancel_consumer", "clock", "conf", "disable_events",
    "dump_active", "dump_conf", "dump_reserved", "dump_revoked", "dump_schedule", "dump_tasks", "enable_events",
    "heartbeat", "hello", "ping", "pool_grow", "pool_restart", "pool_shrink", "query_task", "rate_limit",
    "registered", "report", "reserved", "revoke", "revoke_by_stamped_headers", "revoked", "scheduled", "shutdown",
    "stats", "terminate", "time_limit",
})  # fmt: skip
