"""Plain Ray: one remote function per task; the baseline for raycelery's own overhead."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import ray

from ..calls import Call
from ..record import recorded
from . import base, ray_cluster

#: References per call of ``ray.get``.
_CHUNK = 100


class System(base.System):
    """Remote functions; large arguments are put into the object store once, as Ray users do."""

    name = "ray"

    def start(self) -> None:
        ray_cluster.start(self)
        self._functions = {target: ray.remote(recorded(target)) for target in self.setup["targets"]}
        self._asking: dict[Any, Any] = {}
        self._put: dict[int, tuple[Any, Any]] = {}

    def _argument(self, value: Any) -> Any:
        if not hasattr(value, "memory_usage"):
            return value
        if id(value) not in self._put:
            # Keep the value alive, so that its id() is not reused.
            self._put[id(value)] = (value, ray.put(value))
        return self._put[id(value)][1]

    def _remote(self, call: Call) -> Any:
        key = call.target, call.num_cpus, call.memory
        if key not in self._asking:
            options: dict[str, Any] = {"num_cpus": self.fleet.num_cpus_of(call)}
            if call.memory:
                options["memory"] = call.memory
            self._asking[key] = self._functions[call.target].options(**options)
        return self._asking[key]

    def submit(self, call: Call) -> Any:
        return self._remote(call).remote(*map(self._argument, call.args))

    def take(self, handle: Any) -> Any:
        return ray.get(handle, timeout=base.TIMEOUT)

    def take_all(self, handles: Sequence[Any]) -> Iterator[Any]:
        for begin in range(0, len(handles), _CHUNK):
            chunk = list(handles[begin : begin + _CHUNK])
            try:
                yield from ray.get(chunk, timeout=base.TIMEOUT)
            except ray.exceptions.RayError:
                yield from super().take_all(chunk)

    def chord(self, calls: list[Call], body: str) -> Any:
        header = [self.submit(call) for call in calls]
        gather = ray.remote(lambda *records: recorded(body)(list(records)))
        return self.take(gather.remote(*header))

    def chain(self, first: Call, length: int) -> Any:
        handle = self.submit(first)
        for _ in range(length - 1):
            handle = self._remote(first).remote(handle)
        return self.take(handle)
