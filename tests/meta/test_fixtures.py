"""The shared fixtures give what they promise."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path

import celery
import pytest
import redis

from tests import support


def test_redis_answers(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as connection:
        assert connection.ping()
        assert connection.config_get("save") == {"save": ""}


def test_ray_runs_in_this_process(ray_session: support.RaySession) -> None:
    import ray

    assert ray.is_initialized()
    assert ray.cluster_resources()["CPU"] == ray_session.num_cpus
    assert ray.get(ray.remote(lambda: 2).remote()) == 2


def test_a_stock_worker_runs_tasks(
    redis_url: str, tmp_path: Path, celery_stock_worker: Callable[..., support.StockWorker]
) -> None:
    (tmp_path / "stock_tasks.py").write_text(
        textwrap.dedent("""
            from celery import Celery

            app = Celery("stock_tasks")

            @app.task
            def double(x):
                return 2 * x
        """)
    )
    worker = celery_stock_worker("stock_tasks", concurrency=2)
    with celery.Celery(broker=redis_url, backend=redis_url, set_as_current=False) as app:
        result = app.send_task("stock_tasks.double", (21,))
        assert result.get(timeout=30) == 42
        assert app.control.inspect([worker.node]).stats()[worker.node]["pool"]["max-concurrency"] == 2


def test_a_stock_worker_that_cannot_start_shows_its_log(
    celery_stock_worker: Callable[..., support.StockWorker],
) -> None:
    with pytest.raises(RuntimeError, match="no_such_module"):
        celery_stock_worker("no_such_module")
