"""Runs messages: one process, one application, one message at a time, through Celery's own tracer."""
