"""Counterparts of ``celery.contrib`` where direct mode needs its own; the rest is Celery's under this name."""
