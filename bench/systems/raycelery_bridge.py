"""raycelery's bridge: Celery's worker on Redis, with its pool on Ray."""

from __future__ import annotations

import os

from . import celery_prefork, ray_cluster


class System(celery_prefork.System):
    """Stock Celery with another worker pool."""

    name = "bridge"
    arguments = ("-P", "custom")

    def start_worker(self) -> None:
        ray_cluster.start(self)
        import ray

        os.environ["CELERY_CUSTOM_WORKER_POOL"] = "raycelery.bridge:Pool"
        os.environ["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address
        super().start_worker()
