"""Has Ray use a task's CPUs while the task waits for Ray Data.

Ray takes back the CPUs of a task whose main thread waits in ``ray.get`` or ``ray.wait``. What waits for Ray Data waits
for a thread that runs the data set, see ``ray.data._internal.execution.streaming_executor``: the tasks of the data set
would wait for CPUs that the task keeps. Here it waits in ``ray.wait`` meanwhile.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import logging
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from types import ModuleType
from typing import Any, TypeVar

import ray
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from raycelery import executor

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: Seconds between looks whether the wait is over, at first and at most: each has Ray give the CPUs back for a moment.
_FIRST_SECONDS, _MOST_SECONDS = 0.005, 0.1


class RayDataWaits:
    """Puts itself where Ray Data waits, as soon as its modules are imported.

    Arguments:
        dispatcher: handle of the dispatcher.
        executor_id: of this process.
    """

    def __init__(self, dispatcher: Any, executor_id: int) -> None:
        self._dispatcher = dispatcher
        self._executor_id = executor_id
        #: What is not there before this executor has ended.
        self._end: Any = None

    def wait(self, function: Callable[[], T]) -> T:
        """Call a function that waits for Ray Data."""
        if threading.current_thread() is not threading.main_thread():
            return function()
        if self._end is None:
            # In a list: Ray would wait for one that is returned by itself.
            (self._end,) = ray.get(self._dispatcher.end_of.remote(self._executor_id))
        future: Future[T] = Future()
        threading.Thread(target=_call, args=(future, function), name="raycelery-ray-data", daemon=True).start()
        seconds = _FIRST_SECONDS
        while not future.done():
            ray.wait([self._end], timeout=seconds, fetch_local=False)
            seconds = min(_MOST_SECONDS, seconds * 1.2)
        return future.result()


def _call(future: Future[T], function: Callable[[], T]) -> None:
    try:
        future.set_result(function())
    except BaseException as exc:  # the end of an iteration, for one; it is raised where the task waits
        future.set_exception(exc)


#: That of the executor that this process is; Ray may give the process to another one later.
_waits: RayDataWaits | None = None


def begin(dispatcher: Any, executor_id: int) -> None:
    """Have Ray use the CPUs of this executor while its tasks wait for Ray Data.

    Arguments:
        dispatcher: handle of the dispatcher.
        executor_id: of this process.
    """
    global _waits
    if _waits is None:
        for name in _CHANGES:
            if name in sys.modules:
                _change(sys.modules[name])
        sys.meta_path.insert(0, _Finder())
    elif "ray.data" in sys.modules:
        _change(sys.modules["ray.data"])
    _waits = RayDataWaits(dispatcher, executor_id)


def _wait(function: Callable[[], T]) -> T:
    return function() if _waits is None else _waits.wait(function)


def _blocks(module: Any) -> None:
    """Change how the blocks of a data set are waited for."""
    original = module.OpState.get_output_blocking

    def get_output_blocking(self: Any, *args: Any, **kwargs: Any) -> Any:
        return _wait(lambda: original(self, *args, **kwargs))

    module.OpState.get_output_blocking = get_output_blocking


def _batches(module: Any) -> None:
    """Change how the batches are waited for that threads make of them."""
    original = module._IterableFromIterator.__iter__

    def iterate(self: Any) -> Iterator[Any]:
        batches, over = original(self), object()
        while (batch := _wait(lambda: next(batches, over))) is not over:
            yield batch

    module._IterableFromIterator.__iter__ = iterate


def _defaults(module: Any) -> None:
    """Have data sets of a driver use what is reserved for it, and no more; and show no bars where nobody sees them."""
    # A process that Ray has used for a data set before has kept its context, and with it what is reserved no more.
    context = module.DataContext()
    module.DataContext._set_current(context)
    # They are lines of JSON for a terminal that Ray itself would write to.
    context.enable_progress_bars = False
    group = ray.util.get_current_placement_group()
    if group is None:
        return
    # Else Ray Data spreads its tasks over the cluster.
    context.scheduling_strategy = context.scheduling_strategy_large_args = PlacementGroupSchedulingStrategy(
        group, placement_group_capture_child_tasks=True
    )
    request = executor.request
    context.execution_options.resource_limits = module.ExecutionResources(
        cpu=request.get("CPU", 0), gpu=request.get("GPU", 0)
    )


_CHANGES: dict[str, Callable[[Any], None]] = {
    "ray.data": _defaults,
    "ray.data._internal.execution.streaming_executor_state": _blocks,
    "ray.data.iterator": _batches,
}


def _change(module: ModuleType) -> None:
    try:
        _CHANGES[module.__name__](module)
    except AttributeError as exc:  # it is Ray's own, and may go
        logger.warning("tasks keep their CPUs while they wait for Ray Data: %s", exc)


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports the modules of Ray Data that are changed, by the loader that finds them."""

    def __init__(self) -> None:
        self._loaders: dict[str, Any] = {}

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name not in _CHANGES:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if spec is not None and spec.loader is not None:
            self._loaders[name], spec.loader = spec.loader, self
        return spec

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._loaders[spec.name].create_module(spec)  # type: ignore[no-any-return]

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        loader = self._loaders.pop(module.__name__)
        module.__spec__.loader = module.__loader__ = loader
        loader.exec_module(module)
        _change(module)
