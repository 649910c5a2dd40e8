"""Tasks that start Ray work themselves, while a backlog wants all CPUs; on a Ray that no other application uses."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import scripts

PROGRAM = """
from celery import group
from tests.executor import inside

inside.app.conf.ray_init = {"num_cpus": 4, "include_dashboard": False}
# More than all CPUs can do while this runs.
waiting = group(inside.busy.s(0.2) for _ in range(2000)).apply_async()
waiting[0].get(timeout=60)
"""
END = """
assert not waiting.ready()
inside.app.control.purge()
print("ok")
"""


@pytest.mark.parametrize("options", ["", "num_cpus=0", "executor='function'"])
def test_ray_tasks_of_a_task_find_room(options: str, tmp_path: Path) -> None:
    call = f"assert inside.doubled.apply_async((21,), priority=9, {options}).get(timeout=60) == 42"
    scripts.run(tmp_path, PROGRAM + call + END)


def test_ray_data_inside_a_task_finds_room(tmp_path: Path) -> None:
    scripts.run(tmp_path, PROGRAM + "assert inside.scored.apply_async(priority=9).get(timeout=60) == 1000" + END)
