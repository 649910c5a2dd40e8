"""Examples begin alike: the project is used on stock Celery, and on raycelery each way that it is taken over.

A test file says which project it is about (``NAME``), what its workers load (``WORKER``), whether the programs of the
project share a cluster (``SHARED``, False where it does not say so), and how it is used (``use``).
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.legacy_examples import projects


@pytest.fixture(scope="module")
def stock(request: pytest.FixtureRequest, redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What the file's ``use`` returns of the project on stock Celery."""
    file = request.module
    with projects.on_celery(file.NAME, tmp_path_factory.mktemp("stock"), redis_url, file.WORKER) as project:
        return file.use(project)


@pytest.fixture(scope="module", params=projects.WAYS)
def ray(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The same of the project on raycelery."""
    file, environ = request.module, {}
    if getattr(file, "SHARED", False):
        environ["RAY_ADDRESS"] = request.getfixturevalue("ray_session").address
    return file.use(projects.on_raycelery(file.NAME, tmp_path_factory.mktemp("ray"), request.param, **environ))
