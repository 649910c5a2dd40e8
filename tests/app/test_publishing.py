"""What handlers of signals see when a chord is completed: they are called within its last part, as on Redis."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from celery import chord

from tests import tenants
from tests.records import wait_for_file

pytestmark = pytest.mark.usefixtures("ray_session")
SECONDS = 60


@pytest.mark.parametrize("part", [tenants.part, tenants.lone])
def test_the_body_and_what_follows_have_the_context_of_the_last_part(part: Any) -> None:
    name = part.name.rpartition(".")[2]
    with tenants.tenant("blue"):
        result = (chord([part.s(1), part.s(2)], tenants.body.s()) | tenants.after.s()).delay()
    assert result.get(timeout=SECONDS) == [3, ["blue", name, "body"], ["blue", name, "body", "after"]]


def test_so_have_errbacks(tmp_path: Path) -> None:
    path = str(tmp_path / "mourned")
    body = tenants.body.s().on_error(tenants.mourn.s(path))
    with tenants.tenant("green"):
        chord([tenants.part.s(1), tenants.broken.s()], body).delay()
    wait_for_file(path)
    # The last part is either of the two.
    assert Path(path).read_text() in ("green part mourn", "green broken mourn")
