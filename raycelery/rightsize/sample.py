"""What is measured of one run of a task."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sample:
    """One run of a task, measured in its executor.

    Arguments:
        task: its name.
        state: Celery's, at the end of the run.
        wall: seconds that it ran.
        cpu: CPU seconds of the executor's threads and child processes meanwhile.
        delayed: seconds of ``wall`` in which its thread could have run and the machine had no CPU for it; 0 where the
            system does not tell.
        peak: most bytes that the executor and its children held at once, less shared memory (Ray's object store).
        before: bytes that the executor held when the run began.
        num_cpus: CPUs that it had asked for.
        memory: bytes that it had asked for; 0 if none.
        process: host and number of the executor's process.
        first: whether it was the task's first run in that process, with its imports and its caches.
        started: when, in seconds since the epoch.
        batch: id of the chord whose header it was a part of; "" if it was none's.
        callbacks: names of the tasks that run once when that chord's header is done.
    """

    task: str
    state: str
    wall: float
    cpu: float
    delayed: float
    peak: int
    before: int
    num_cpus: float
    memory: int
    process: str
    first: bool
    started: float
    batch: str = ""
    callbacks: tuple[str, ...] = ()

    @property
    def own_wall(self) -> float:
        """Seconds that it would have run with a CPU whenever it wanted one.

        While a process starts, its other threads compute as this one waits for a CPU, so that is not told apart then.
        """
        return max(1e-6, self.wall if self.first else self.wall - self.delayed)

    @property
    def busy(self) -> float:
        """CPUs that it kept busy on average."""
        return self.cpu / self.own_wall
