"""What a task asks of Ray: where it may be written, which of several wins, and what is refused."""

from __future__ import annotations

import os
import sys
import time
import types
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
from celery import Task, chord
from kombu import Exchange, Queue, binding
from kombu.common import Broadcast

from raycelery import Celery, batch
from raycelery.errors import OptionError
from raycelery.executor import request

pytestmark = pytest.mark.usefixtures("ray_session")
SECONDS = 60

app = Celery("options")
app.conf.update(
    ray_infeasible_seconds=2,
    ray_queues={"wide": {"num_cpus": 2, "memory": 50_000_000}, "narrow": {"max_concurrency": 1}},
    task_annotations={"tests.app.test_options.annotated": {"num_cpus": 0.5, "executor": "function"}},
)


def _mine() -> dict[str, Any]:
    """Return what this executor was started for, and how."""
    context = ray.get_runtime_context()
    return {
        # CPUs may be those of another application, of which Ray does not know.
        "cpus": request.get("CPU", 0),
        "memory": context.get_assigned_resources().get("memory", 0),
        "function": ", function]" in psutil.Process().cmdline()[0],  # Ray's name of the task
        "flavour": os.environ.get("FLAVOUR"),
        "pid": os.getpid(),
    }


@app.task
def plain() -> dict[str, Any]:
    return _mine()


@app.task(num_cpus=3)
def three() -> dict[str, Any]:
    return _mine()


@app.task(num_cpus=3)
def annotated() -> dict[str, Any]:
    return _mine()


@app.task(runtime_env={"env_vars": {"FLAVOUR": "sweet"}})
def flavoured() -> dict[str, Any]:
    return _mine()


@app.task(executor="function")
def add(x: int, y: int) -> int:
    return x + y


@app.task(executor="function")
def total(values: list[int]) -> int:
    return sum(values)


@app.task(executor="function")
def fail() -> None:
    raise LookupError("no such zone")


@app.task(bind=True, executor="function")
def retry_once(self: Task) -> int:
    if not self.request.retries:
        raise self.retry(countdown=0.01)
    return int(self.request.retries)


@app.task(max_concurrency=2)
def counted(folder: str, at_least: int = 1) -> int:
    """Return how many of these ran at once; the first wait for so many, whose executors may have to start."""
    mark, reached = Path(folder, f"{os.getpid()}"), Path(folder, f"at_least_{at_least}.reached")
    mark.touch()
    try:
        seen, deadline = 0, time.monotonic() + SECONDS / 2
        while seen < at_least and not reached.exists() and time.monotonic() < deadline:
            seen = max(seen, len(list(Path(folder).glob("[0-9]*"))))
            time.sleep(0.01)
        reached.touch()
        for _ in range(30):
            seen = max(seen, len(list(Path(folder).glob("[0-9]*"))))
            time.sleep(0.01)
        return seen
    finally:
        mark.unlink()


def _of(result: Any) -> Any:
    return result.get(timeout=SECONDS)


def test_the_app_default_is_one_cpu_and_an_executor_that_stays() -> None:
    got = _of(plain.delay())
    assert (got["cpus"], got["memory"], got["function"]) == (1, 0, False)


def test_an_exchange_leads_to_its_queue_and_so_does_a_retry() -> None:
    routed = Celery("routed", set_as_current=False)
    routed.conf.update(
        task_default_queue="other",
        task_queues=[
            Queue("feeds", Exchange("feeds", "topic"), routing_key="feed.#"),
            Queue("days", [binding(Exchange("days", "direct"), routing_key="day")]),
            Broadcast("all"),
            Queue("other"),
        ],
        ray_queues={"feeds": {"num_cpus": 2}, "days": {"num_cpus": 3}, "all": {"num_cpus": 4}},
    )

    @routed.task(bind=True)
    def cpus(self: Task, again: bool = False) -> float:
        if again and not self.request.retries:
            raise self.retry(countdown=0)
        return float(request["CPU"])

    topic = {"exchange": "feeds", "routing_key": "feed.us.east"}
    assert _of(cpus.apply_async(**topic)) == 2
    assert _of(cpus.apply_async((True,), **topic)) == 2
    assert _of(cpus.apply_async((True,), queue="feeds")) == 2
    assert _of(cpus.apply_async(exchange="days", routing_key="day")) == 3
    assert _of(cpus.apply_async(queue="all")) == 4
    assert _of(cpus.apply_async((True,))) == 1
    # To no queue that is known of: nothing is lost.
    assert _of(cpus.apply_async(exchange="feeds", routing_key="else")) == 1
    routed.control.cancel_consumer("feeds", reply=True)
    held = cpus.apply_async(**topic)
    assert _of(cpus.delay()) == 1
    assert held.state == "PENDING"
    routed.control.add_consumer("feeds", reply=True)
    assert _of(held) == 2


def test_a_queue_gives_defaults_and_the_task_overrides_them() -> None:
    got = _of(plain.apply_async(queue="wide"))
    assert (got["cpus"], got["memory"]) == (2, 50_000_000)
    got = _of(three.apply_async(queue="wide"))
    assert (got["cpus"], got["memory"]) == (3, 50_000_000)


def test_a_call_overrides_task_and_queue() -> None:
    got = _of(three.apply_async(queue="wide", num_cpus=1))
    assert (got["cpus"], got["memory"]) == (1, 50_000_000)
    assert _of(plain.apply_async(memory=70_000_000))["memory"] == 70_000_000
    assert _of(plain.apply_async(executor="function"))["function"]
    assert not _of(annotated.apply_async(executor="actor"))["function"]
    assert _of(three.s().set(num_cpus=2).apply_async())["cpus"] == 2
    assert _of(three.apply_async(num_cpus=0))["cpus"] == 0


def test_annotations_count_as_the_tasks_own() -> None:
    got = _of(annotated.apply_async(queue="wide"))
    assert (got["cpus"], got["function"]) == (0.5, True)


def test_runtime_env_of_task_and_call() -> None:
    assert _of(flavoured.delay())["flavour"] == "sweet"
    assert _of(flavoured.apply_async(runtime_env={"env_vars": {"FLAVOUR": "sour"}}))["flavour"] == "sour"
    assert _of(plain.delay())["flavour"] is None


def test_a_custom_resource_that_no_node_has_is_named() -> None:
    with pytest.raises(Exception, match="licence"):
        _of(plain.apply_async(resources={"licence": 1}))


def test_function_executors_have_the_same_semantics() -> None:
    assert _of(add.delay(1, 2)) == 3
    assert _of(chord([add.s(i, i) for i in range(4)], total.s()).apply_async()) == 12
    assert _of(retry_once.delay()) == 1
    with pytest.raises(LookupError, match="no such zone") as caught:
        _of(fail.delay())
    assert 'raise LookupError("no such zone")' in str(caught.value.__cause__)
    assert _of(add.apply_async((1, 2), link=add.s(10))) == 3


def test_max_concurrency_of_a_task_and_of_a_queue(tmp_path: Path) -> None:
    results = [counted.delay(str(tmp_path), 2) for _ in range(8)]
    assert max([_of(result) for result in results]) == 2
    results = [counted.apply_async((str(tmp_path),), queue="narrow") for _ in range(4)]
    assert max([_of(result) for result in results]) == 1


# -- refused where written ------------------------------------------------------------------------------------------

WRONG = [
    ({"num_cpu": 2}, "num_cpus"),
    ({"cpus": 2}, "num_cpus"),
    ({"num_gpu": 1}, "num_gpus"),
    ({"runtimeenv": {}}, "runtime_env"),
    ({"max_concurency": 2}, "max_concurrency"),
    ({"executer": "actor"}, "executor"),
    ({"num_cpus": "two"}, "num_cpus='two'"),
    ({"num_cpus": -1}, "num_cpus=-1"),
    ({"num_cpus": True}, "num_cpus=True"),
    ({"num_cpus": float("nan")}, "num_cpus=nan"),
    ({"num_cpus": float("inf")}, "num_cpus=inf"),
    ({"num_cpus": 0.00001}, "num_cpus=1e-05"),
    ({"num_gpus": 2.5}, "num_gpus=2.5"),
    ({"memory": "2GB"}, "memory='2GB'"),
    ({"resources": ["licence"]}, "resources="),
    ({"resources": {"CPU": 2}}, "use num_cpus"),
    ({"resources": {"licence": "one"}}, "licence"),
    ({"resources": {7: 1}}, "resources"),
    ({"runtime_env": "env.yml"}, "runtime_env="),
    ({"runtime_env": {"pipp": ["numpy"]}}, "pipp"),
    ({"runtime_env": {"env_vars": {"N": 1}}}, "env_vars"),
    ({"max_concurrency": 0}, "max_concurrency=0"),
    ({"executor": "thread"}, "executor='thread'"),
]


@pytest.fixture
def private() -> Celery:
    return Celery("private", set_as_current=False)


@pytest.mark.parametrize(("options", "named"), WRONG)
def test_a_wrong_option_is_refused_by_the_decorator(private: Celery, options: dict[str, Any], named: str) -> None:
    with pytest.raises(OptionError, match=named.replace(".", r"\.")):

        @private.task(**options)
        def task() -> None: ...


@pytest.mark.parametrize(("options", "named"), WRONG)
def test_a_wrong_option_is_refused_by_the_call(options: dict[str, Any], named: str) -> None:
    with pytest.raises(OptionError, match=named.replace(".", r"\.")):
        plain.apply_async(**options)


@pytest.mark.parametrize(("options", "named"), WRONG)
def test_a_wrong_option_is_refused_in_ray_queues(options: dict[str, Any], named: str) -> None:
    with pytest.raises(OptionError, match=named.replace(".", r"\.")):
        Celery("q", set_as_current=False, ray_queues={"forecasts": options})


def test_a_wrong_option_is_refused_in_annotations_and_class_based_tasks(private: Celery) -> None:
    with pytest.raises(OptionError, match=r"task_annotations\['\*'\].*num_cpus"):
        private.conf.task_annotations = {"*": {"num_cpu": 2}}

    class Train(Task):
        name = "train"
        num_cpus = "two"

    with pytest.raises(OptionError, match="num_cpus='two'"):
        Celery("p2", set_as_current=False).register_task(Train())


def test_a_limit_is_not_a_calls_to_set() -> None:
    with pytest.raises(OptionError, match=r"max_concurrency.*task or queue"):
        plain.apply_async(max_concurrency=2)


def test_attributes_of_ones_own_are_allowed(private: Celery) -> None:
    @private.task(env="production", model="arima", cpu_hint="low", resource_owner="north", memory_profile=True)
    def task() -> None: ...

    assert (task.env, task.model, task.resource_owner, task.memory_profile) == ("production", "arima", "north", True)


SETTINGS = [
    ({"ray_adress": "auto"}, "ray_address"),
    ({"ray_queues": ["forecasts"]}, "ray_queues"),
    ({"ray_queues": {"forecasts": 2}}, "forecasts"),
    ({"ray_mode": "broker"}, "ray_mode='broker'"),
    ({"ray_debug": "yes"}, "ray_debug='yes'"),
    ({"ray_num_cpus": "1"}, "ray_num_cpus='1'"),
    ({"ray_max_pending": -5}, "ray_max_pending=-5"),
    # With none nothing would ever run.
    ({"ray_max_executors": 0}, "ray_max_executors=0"),
    ({"ray_max_pending": 0}, "ray_max_pending=0"),
    ({"ray_max_deliveries": float("inf")}, "ray_max_deliveries=inf"),
    ({"ray_address": 6379}, "ray_address=6379"),
    ({"ray_init": "num_cpus=2"}, "ray_init="),
    ({"ray_submit_timeout": "soon"}, "ray_submit_timeout="),
    ({"ray_keep_result_backend": "yes"}, "ray_keep_result_backend="),
    ({"ray_runtime_env": []}, r"ray_runtime_env=\[\]"),
    ({"ray_runtime_env": {"env_vars": {"KEY": 5, "TOKEN": "hunter2"}}}, r"'KEY': '\*+', 'TOKEN': '\*+'"),
    ({"ray_init": [{"_redis_password": "hunter2"}]}, r"ray_init=\[\{'_redis_password': '\*+'\}\]"),
    ({"ray_log_level": "LOUD"}, "ray_log_level='LOUD'"),
    ({"ray_idle_seconds": None}, "ray_idle_seconds=None"),
]


@pytest.mark.parametrize(("settings", "named"), SETTINGS)
def test_a_wrong_setting_is_refused_where_it_is_written(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(OptionError, match=named):
        Celery("bad", set_as_current=False, **settings)
    name, value = next(iter(settings.items()))
    configured = Celery("bad", set_as_current=False)
    assert configured.conf.ray_mode == "direct"
    with pytest.raises(OptionError, match=named):
        setattr(configured.conf, name, value)
    with pytest.raises(OptionError, match=named):
        configured.conf.update(settings)
    assert configured.conf.ray_mode == "direct", "a refused setting leaves no trace"
    early = Celery("bad", set_as_current=False)  # whose settings nobody has read yet
    with pytest.raises(OptionError, match=named):
        early.conf[name] = value


@pytest.mark.parametrize(("settings", "named"), SETTINGS)
def test_a_wrong_setting_is_refused_from_modules_and_namespaces(
    settings: dict[str, Any], named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = types.ModuleType("wrong_settings")
    vars(module).update({f"CELERY_{key.upper()}": value for key, value in settings.items()})
    monkeypatch.setitem(sys.modules, "wrong_settings", module)
    plainly, spaced = Celery("m", set_as_current=False), Celery("n", set_as_current=False)
    with pytest.raises(OptionError, match=named):
        plainly.config_from_object(types.SimpleNamespace(**settings), force=True)
    spaced.config_from_object("wrong_settings", namespace="CELERY")
    with pytest.raises(OptionError, match=named):
        spaced.conf.ray_mode  # noqa: B018  (the module is read now)


def test_a_broker_without_a_consumer_timeout_is_said_with_none() -> None:
    app = Celery("m", set_as_current=False)
    app.conf.ray_consumer_timeout = None
    assert app.conf.ray_consumer_timeout is None


def test_what_else_a_settings_module_holds_is_not_looked_at() -> None:
    settings = types.SimpleNamespace(
        RAY_SERVE_URL="http://x", CELERY_RAY_NUM_CPUS=0.5, ray_helpers=types, ray_start=print
    )
    plainly, spaced = Celery("m", set_as_current=False), Celery("n", set_as_current=False)
    spaced.config_from_object(settings, namespace="CELERY")
    assert spaced.conf.ray_num_cpus == 0.5
    plainly.config_from_object(settings)
    assert plainly.conf.ray_num_cpus == 1


def test_environments_of_app_queue_task_and_call_add_up_by_rays_rule() -> None:
    from raycelery.app.environment import merged

    base = {"pip": ["a"], "env_vars": {"A": "1", "B": "1"}, "working_dir": "/x"}
    over = {"conda": "env", "env_vars": {"B": "2"}}
    assert merged(base, over) == {"conda": "env", "env_vars": {"A": "1", "B": "2"}, "working_dir": "/x"}
    assert merged(None, over) == over
    assert merged(base, None) == base


@pytest.mark.parametrize(
    "options",
    [
        {"backend": "rpc://", "ray_keep_result_backend": True},
        {"backend": "rpc", "ray_keep_result_backend": True},
    ],
)
def test_results_cannot_be_sent_through_a_broker_that_is_not_used(options: dict[str, Any]) -> None:
    kept = Celery("kept", set_as_current=False, **options)
    for use in (lambda: kept.send_task("any"), lambda: kept.AsyncResult("any").state):
        with pytest.raises(OptionError, match=r"(?i)rpc.*ray_mode='bridge'"):
            use()
    assert Celery("kept", set_as_current=False, backend="rpc://").AsyncResult("any").state == "PENDING"


@pytest.mark.parametrize(
    ("task", "asked", "words"),
    [
        (add, {"batch_size": 0}, "batch_size=0 must be a whole number of at least 1"),
        (add, {"batch_size": 1, "num_gpus": -1}, "num_gpus=-1 is not an amount"),
        (max, {"batch_size": 1}, "pass what @app.task has made"),
    ],
)
def test_what_batch_map_cannot_do_is_refused(task: Any, asked: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        batch.map(task, [], **asked)
