"""Calls of one task for very many arguments, on Ray Data: what projects do with ``chunks`` and ``chord``.

Arguments and results stream through the cluster block by block, so that neither has to fit into one process's memory.
The task runs in processes that load the application, and with it the task's model, once. See
https://docs.ray.io/en/latest/data/batch_inference.html.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from raycelery.app.options import check_amount, options_of
from raycelery.errors import OptionError

if TYPE_CHECKING:
    import ray.data

#: The column that holds what a call returns, and the one that holds arguments that were given as tuples.
RESULT, ARGUMENTS = "result", "arguments"


def map(  # as in `concurrent.futures` and in Celery's canvas
    task: Any,
    dataset: ray.data.Dataset | Iterable[tuple[Any, ...]],
    *,
    batch_size: int,
    num_cpus: float | None = None,
    num_gpus: float | None = None,
    concurrency: int | tuple[int, int] | None = None,
) -> ray.data.Dataset:
    """Call a task for each row of a data set.

    As in ``chunks``, the task's function is called directly, many times in one process: without retries, time limits,
    signals or states of its own, and an error ends all. Nothing runs before the returned data set is consumed:
    ``iter_rows``, ``take_all``, ``write_parquet``... It has the rows in the order of ``dataset``, with what the task
    returned in the column ``result``.

    Arguments:
        task: of a `raycelery.Celery` application. Its `num_cpus` and `num_gpus` are each process's.
        dataset: a Ray data set, whose columns are the task's keyword arguments, or tuples of positional arguments, as
            ``chunks`` takes them.
        batch_size: how many rows a process is handed at once.
        num_cpus: CPUs of each process, in place of the task's.
        num_gpus: GPUs of each process, in place of the task's.
        concurrency: how many processes there are, or the least and the most; by default one, and more while there is
            room.

    Raises:
        OptionError: `batch_size` or an amount is malformed, or the task is a plain function.
    """
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise OptionError(f"batch_size={batch_size!r} must be a whole number of at least 1")
    described = getattr(getattr(task, "app", None), "producer", None)
    if described is None:
        raise OptionError(f"{task!r} is no task of a raycelery application: pass what @app.task has made")
    own = options_of(task)
    cpus, gpus = own.get("num_cpus", 1) if num_cpus is None else num_cpus, own.get("num_gpus", 0)
    amounts = {"num_cpus": cpus, "num_gpus": gpus if num_gpus is None else num_gpus}
    for name, amount in amounts.items():
        check_amount(name, amount)
    # Connects to the application's Ray; Ray Data would start another.
    _, app = described.descriptions.app_definition()
    import ray.data
    from ray import cloudpickle

    if not isinstance(dataset, ray.data.Dataset):
        # Pickled, as columns of Arrow would make other values of some.
        dataset = ray.data.from_items([{ARGUMENTS: cloudpickle.dumps(tuple(one))} for one in dataset])
    if concurrency is None:
        room = ray.cluster_resources().get("CPU", 1) / max(cpus, 0.01)
        concurrency = (1, max(1, int(room)))
    least, most = concurrency if isinstance(concurrency, tuple) else (concurrency, concurrency)
    mapped = dataset.map_batches(
        _Calls,
        fn_constructor_args=(app.spec, task.name),
        batch_size=batch_size,
        batch_format="pandas",
        compute=ray.data.ActorPoolStrategy(min_size=least, max_size=most),
        **amounts,
    )
    mapped.context.execution_options.preserve_order = True
    return mapped


class _Calls:
    """Calls a task in a process of Ray Data.

    Arguments:
        spec: the pickled description of its application.
        name: the task's.
    """

    def __init__(self, spec: bytes, name: str) -> None:
        from celery import signals

        from raycelery.executor import loading
        from raycelery.executor.hostname import HOSTNAME

        app = loading.load(pickle.loads(spec), {})
        app.loader.init_worker_process()
        signals.worker_process_init.send(sender=HOSTNAME)
        if name not in app.tasks:
            raise OptionError(f"the task {name} is in no module that executors can import: move it to one")
        self._task = app.tasks[name]

    def __call__(self, batch: Any) -> Any:
        import pandas as pd

        if list(batch.columns) == [ARGUMENTS]:
            results = [self._task(*pickle.loads(arguments)) for arguments in batch[ARGUMENTS]]
        else:
            results = [self._task(**row) for row in batch.to_dict("records")]
        return pd.DataFrame({RESULT: pd.Series(results, dtype=None if _plain(results) else object)})


def _plain(results: list[Any]) -> bool:
    return all(isinstance(one, (bool, int, float, str)) for one in results)
