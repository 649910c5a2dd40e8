"""The node name that Celery's requests and signals carry in an executor."""

from __future__ import annotations

import socket

#: In Celery's form.
HOSTNAME = f"celery@{socket.gethostname()}"
