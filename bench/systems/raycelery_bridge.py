"""The Celery deployment as it is, with Ray as its worker's pool."""

from __future__ import annotations

import os

from . import celery_prefork, ray_cluster


class System(celery_prefork.System):
    """The same Redis, producer and worker; only the worker's pool is another."""

    name = "bridge"
    arguments = ("-P", "custom")

    def start_worker(self) -> None:
        ray_cluster.start(self)
        import ray

        os.environ["CELERY_CUSTOM_WORKER_POOL"] = "raycelery.bridge:Pool"
        os.environ["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address
        super().start_worker()
