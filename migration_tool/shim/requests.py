"""Resource requests for ``--annotate``, as ``raycelery rightsize`` measured them."""

from __future__ import annotations

import json
from pathlib import Path

from ..errors import MigrationError

#: Task options that are written, in this order.
OPTIONS = ("num_cpus", "num_gpus", "memory")


def read_requests(path: Path) -> dict[str, dict[str, float]]:
    """Read a result of ``raycelery rightsize``: ``{"tasks.train": {"num_cpus": 2.0, "memory": 1500000000}}``.

    Raises:
        MigrationError: it is not such a file.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MigrationError(
            f"--annotate {path}: {error}; give the JSON that 'raycelery rightsize --json' writes"
        ) from error
    if isinstance(found, dict) and isinstance(found.get("tasks"), dict):
        found = found["tasks"]
    requests = {}
    for name, values in found.items() if isinstance(found, dict) else ():
        if isinstance(values, dict) and values.get("written") is False:
            continue  # too few runs were measured to recommend anything
        wanted = {key: values[key] for key in OPTIONS if isinstance(values, dict) and values.get(key) is not None}
        if any(isinstance(value, bool) or not isinstance(value, int | float) or value < 0 for value in wanted.values()):
            raise MigrationError(f"--annotate {path}: the requests of {name} are not numbers: {wanted}")
        if wanted:
            requests[name] = wanted
    if not requests:
        raise MigrationError(f"--annotate {path}: it has no requests; it must map task names to num_cpus and memory")
    return requests
