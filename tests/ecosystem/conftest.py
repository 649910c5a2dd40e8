"""What the applications here find in their environment; `tox -e ecosystem` installs the packages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bridge.conftest import bridge_worker, project, rabbitmq_url

__all__ = ["bridge_worker", "project", "rabbitmq_url"]


@pytest.fixture(scope="session", autouse=True)
def environment(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("ecosystem")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CELERY_ECOSYSTEM_REDIS", redis_url)
        patch.setenv("CELERY_ECOSYSTEM_DB", str(folder / "db.sqlite3"))
        patch.setenv("CELERY_ECOSYSTEM_EVENTS", str(folder))
        patch.setenv("CELERY_ECOSYSTEM_TICKS", str(folder / "ticks"))
        patch.setenv("DJANGO_SETTINGS_MODULE", "tests.ecosystem.settings")
        yield folder
