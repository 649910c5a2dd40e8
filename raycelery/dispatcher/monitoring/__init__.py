"""What the dispatcher tells Celery's tools: remote control, events, a worker per node, status and metrics."""
