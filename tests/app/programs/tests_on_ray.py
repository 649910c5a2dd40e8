import os

import project
import pytest


@pytest.fixture(scope="session")
def celery_worker_pool():
    return "ray"


def test_create_task(celery_app, celery_worker):
    @celery_app.task
    def mul(x, y):
        return x * y

    celery_worker.reload()
    assert mul.delay(4, 4).get(timeout=60) == 16
    assert project.where.delay().get(timeout=60) != os.getpid()


def test_session(celery_session_app, celery_session_worker):
    assert project.where.delay().get(timeout=60) != os.getpid()
    with pytest.raises(project.Hostile):
        project.fail.delay().get(timeout=60)
