"""Ray work inside tasks, and beside them, on a Ray of two CPUs: a program that is told on its input what to try.

:func:`attempts` starts it.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ray
from celery import group

from raycelery import Celery

app = Celery("inside")
other = Celery("inside-other", set_as_current=False)
SECONDS = 80


@ray.remote
def double(value: int) -> int:
    return 2 * value


@ray.remote(num_cpus=1)
class Doubler:
    def double(self, value: int) -> int:
        return 2 * value


@ray.remote(num_cpus=1)
class Outer:
    def double(self, value: int) -> Any:
        """Have an actor of its own do it, while a third holds a CPU."""
        inner = Doubler.options(num_cpus=0.5).remote()
        return ray.get(inner.double.remote(value))


@app.task
def doubled(value: int) -> Any:
    """Have a plain Ray task do it."""
    return ray.get(double.remote(value))


@ray.remote
def double_within(value: int, group: Any) -> int:
    """Do it within what is reserved for a task."""
    here = ray.util.get_current_placement_group()
    assert here is not None
    assert here.id.hex() == group
    return 2 * value


@app.task(executor="driver", num_cpus=2)
def doubled_by_driver(value: int) -> Any:
    """Have two at once do it with the CPUs that are reserved for this."""
    reserved = ray.util.get_current_placement_group()
    assert reserved is not None
    assert reserved.bundle_specs == [{"CPU": 2.0}]
    return sum(ray.get([double_within.remote(part, reserved.id.hex()) for part in (value, 0)]))


@app.task
def doubled_when_ready(value: int) -> Any:
    """Wait in ``ray.wait``, several times."""
    ref, seconds = double.remote(value), 0.01
    while not ray.wait([ref], timeout=seconds)[0]:
        seconds *= 2
    return ray.get(ref)


@app.task
def doubled_by_actors(value: int) -> Any:
    outer = Outer.remote()  # older versions of Ray lose a handle that nobody holds
    return ray.get(outer.double.remote(value))


@app.task
def counted() -> int:
    """Have Ray Data do something."""
    import ray.data

    return int(ray.data.range(1000).map_batches(lambda batch: batch).count())


@app.task
def summed() -> int:
    """Take what Ray Data makes, batch by batch."""
    import ray.data

    batches = ray.data.range(1000).map_batches(lambda batch: batch).iter_batches(batch_size=100)
    return int(sum(batch["id"].sum() for batch in batches))


@app.task
def trained(value: int) -> int:
    """Have two workers of Ray Train at work, which need both CPUs."""
    from ray.train import RunConfig, ScalingConfig
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

    with tempfile.TemporaryDirectory() as folder:
        met = Path(folder, "met")
        met.mkdir()

        def loop() -> None:
            import ray.train

            me = ray.train.get_context().get_world_rank()
            Path(met, str(me)).touch()
            while len(list(met.iterdir())) < 2:
                time.sleep(0.01)

        scaling = ScalingConfig(num_workers=2, resources_per_worker={"CPU": 1})
        DataParallelTrainer(loop, scaling_config=scaling, run_config=RunConfig(storage_path=folder)).fit()
        return value * len(list(met.iterdir()))


@app.task
def tuned(value: int) -> int:
    """Have Ray Tune try two values."""
    from ray import tune

    def objective(config: dict[str, Any]) -> dict[str, int]:
        return {"score": config["value"] * config["factor"]}

    space = {"factor": tune.grid_search([1, 2]), "value": value}
    with tempfile.TemporaryDirectory() as folder:
        found = tune.Tuner(objective, param_space=space, run_config=tune.RunConfig(storage_path=folder)).fit()
        return max(one.metrics["score"] for one in found if one.metrics)


@app.task
def times_two(id: int) -> int:  # the column of `ray.data.range`
    return 2 * id


@app.task
def described(number: int, text: str) -> dict[str, Any]:
    """Return what Arrow could take for something else."""
    return {"number": number, "text": text, "list": [number, 0.5], "none": None, "pair": (number, text)}


@app.task
def busy(seconds: float) -> None:
    time.sleep(seconds)


@other.task
def also_busy(seconds: float) -> None:
    time.sleep(seconds)


def _beside(check: Callable[[], None]) -> None:
    """Check something while there is more to be done than ends meanwhile."""
    # The first ones end, so that all executors are up.
    waiting = group(busy.s(0.2) for _ in range(2000)).apply_async()
    try:
        waiting[3].get(timeout=SECONDS)
        check()
        assert not waiting.ready()
    finally:
        app.control.purge()


def _of(task: Any, many: int = 2, **options: Any) -> Callable[[], None]:
    """Return what checks so many calls at once of a task that doubles."""

    def check() -> None:
        calls = [task.apply_async((number,), priority=9, **options) for number in range(many)]
        assert [call.get(timeout=SECONDS) for call in calls] == [2 * number for number in range(many)]

    return check


def _data(task: Any, value: int, **options: Any) -> Callable[[], None]:
    def check() -> None:
        calls = [task.apply_async(priority=9, **options) for _ in range(2)]
        assert [call.get(timeout=SECONDS) for call in calls] == [value, value]

    return check


def _two_applications() -> None:
    """Check something while another application has more to be done, too."""
    waiting = group(also_busy.s(0.2) for _ in range(2000)).apply_async()
    try:
        waiting[1].get(timeout=SECONDS)
        _of(doubled, num_cpus=0)()
        assert not waiting.ready()
    finally:
        other.control.purge()


def _another_program() -> None:
    assert ray.get([double.remote(number) for number in range(4)], timeout=SECONDS) == [0, 2, 4, 6]


def _served() -> None:
    from ray import serve

    deployed = serve.deployment(ray_actor_options={"num_cpus": 1})(Doubler.__ray_metadata__.modified_class)
    handle = serve.run(deployed.bind(), route_prefix=None)
    try:
        assert handle.double.remote(21).result(timeout_s=SECONDS) == 42
    finally:
        serve.shutdown()


def _mapped() -> None:
    """Compare what a task returns on Ray Data with what it does in ``chunks``."""
    import ray.data

    from raycelery import batch

    calls = [(number, str(number)) for number in range(30)]
    chunks = described.chunks(calls, 10).apply_async().get(timeout=SECONDS)
    rows = batch.map(described, calls, batch_size=10).iter_rows()
    assert [row[batch.RESULT] for row in rows] == [one for chunk in chunks for one in chunk]
    rows = batch.map(times_two, ray.data.range(30), batch_size=7, num_cpus=0.5).iter_rows()
    assert [row[batch.RESULT] for row in rows] == [2 * number for number in range(30)]


ALONE: dict[str, Callable[[], None]] = {
    "ray.get": _of(doubled, 4),
    "ray.wait": _of(doubled_when_ready),
    "functions": _of(doubled, executor="function"),
    "actors": _of(doubled_by_actors, 1),
    "Ray Data": _data(counted, 1000),
    "Ray Data's batches": _data(summed, 499500),
    "drivers": _of(doubled_by_driver),
    "Ray Data in drivers": _data(counted, 1000, executor="driver", num_cpus=2),
    "Ray Data in functions": _data(counted, 1000, executor="function"),
    "batch.map": _mapped,
    "Ray Train": _of(trained),
    "Ray Tune": _of(tuned),
}
BESIDE: dict[str, Callable[[], None]] = {
    "ray.get": _of(doubled, 1),
    "no CPU": _of(doubled, num_cpus=0),
    "functions": _of(doubled, executor="function"),
    "actors": _of(doubled_by_actors, 1),
    "drivers": _of(doubled_by_driver, 1),
    "two applications": _two_applications,
    "another program": _another_program,
    "Ray Data": _data(counted, 1000),
    "Ray Train": _of(trained, 1),
    "Ray Serve": _served,
}
#: What these need is not part of Ray itself.
MORE = ("Ray Train", "Ray Tune", "Ray Serve")


@contextlib.contextmanager
def attempts() -> Iterator[Callable[[str], None]]:
    """Start the program; yield what has it try something, such as ``beside ray.get``."""
    from tests import support

    with tempfile.NamedTemporaryFile("r") as written:
        with open(written.name, "w") as errors:
            program = subprocess.Popen(
                [sys.executable, "-m", "tests.executor.inside"],
                cwd=support.ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True,
            )  # fmt: skip

        def attempt(what: str) -> None:
            assert program.stdin is not None
            print(what, file=program.stdin, flush=True)
            lines: list[str] = []
            for line in program.stdout or ():
                lines.append(line)
                if line in ("passed\n", "failed\n"):
                    break
            text = "".join(lines) + written.read()
            assert lines[-1:] == ["passed\n"], text
            assert "__ray_tqdm_magic_token__" not in text, "progress bars are for terminals"

        try:
            yield attempt
        finally:
            assert program.stdin is not None
            program.stdin.close()
            program.wait(60)


def main() -> None:
    app.conf.ray_init = other.conf.ray_init = {"num_cpus": 2, "include_dashboard": False}
    for line in sys.stdin:
        beside, _, name = line.rstrip("\n").partition(" ")
        try:
            if beside == "beside":
                _beside(BESIDE[name])
            else:
                ALONE[name]()
        except Exception:
            traceback.print_exc()
            print("failed", flush=True)
        else:
            print("passed", flush=True)


if __name__ == "__main__":
    from tests.executor import inside

    inside.main()
