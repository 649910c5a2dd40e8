"""What Ray and raycelery do with one GPU: `python -m tests.gpu.run`; prints one JSON line per check.

Four tasks of a quarter GPU run at once on one GPU, tasks without GPU run beside them and see none, a task runs Ray's
TorchTrainer. `--pretend` gives Ray a GPU that is not there, to try the placement on a machine without one; what needs
PyTorch is left out, and said to be, where it is not installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from typing import Any

from tests import support
from tests.gpu.tasks import beside, quarter, train_with_ray

#: Seconds that tasks hold what they asked for, and that a result may take.
HOLD_SECONDS = 3.0
SECONDS = 240


def _at_once(results: list[dict[str, Any]]) -> int:
    """Return how many ran at once, at most."""
    return max(sum(other["began"] <= one["began"] < other["ended"] for other in results) for one in results)


def _say(check: str, passed: bool | None, **seen: Any) -> bool:
    print(json.dumps({"check": check, "passed": passed, **seen}), flush=True)
    return passed is not False


def main() -> int:
    """Run the checks; the exit status is 1 where one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pretend", action="store_true", help="on a machine without a GPU")
    pretend = parser.parse_args().pretend
    support.prepare_environment()
    options = {"num_gpus": 1} if pretend else {}
    good = True
    with support.ray_cluster(num_cpus=4, **options):
        warm = [quarter.delay(0) for _ in range(4)] + [beside.delay(0) for _ in range(2)]
        for result in warm:
            result.get(timeout=SECONDS)
        quarters = [quarter.delay(HOLD_SECONDS) for _ in range(8)]
        others = [beside.delay(HOLD_SECONDS) for _ in range(2)]
        on_gpu = [result.get(timeout=SECONDS) for result in quarters]
        beside_it = [result.get(timeout=SECONDS) for result in others]
        good &= _say(
            "four tasks of num_gpus=0.25 at once on one GPU",
            _at_once(on_gpu) == 4 and {tuple(one["ids"]) for one in on_gpu} == {("0",)},
            at_once=_at_once(on_gpu),
            ids=sorted({one for seen in on_gpu for one in seen["ids"]}),
            device=on_gpu[0].get("device"),
        )
        good &= _say(
            "tasks without GPU run beside them",
            max(one["began"] for one in beside_it) < max(one["ended"] for one in on_gpu)
            and all(one["ids"] == [] for one in beside_it),
            ids=[one["ids"] for one in beside_it],
            visible=[one["visible"] for one in beside_it],
        )
        if importlib.util.find_spec("torch") is None:
            _say("a TorchTrainer from a task", None, left_out="PyTorch is not installed")
        else:
            metrics = train_with_ray.delay(not pretend).get(timeout=SECONDS)
            good &= _say("a TorchTrainer from a task", metrics.get("loss", 1.0) < 0.1, **metrics)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
