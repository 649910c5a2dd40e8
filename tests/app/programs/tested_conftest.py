import pytest

pytest_plugins = ("raycelery.contrib.pytest",)


@pytest.fixture(scope="session")
def celery_config():
    return {"broker_url": "amqp://", "result_backend": "redis://", "task_default_queue": "of-tests"}


@pytest.fixture(scope="session")
def celery_includes():
    return ["project"]


@pytest.fixture(scope="session")
def celery_enable_logging():
    return True
