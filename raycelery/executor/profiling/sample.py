"""The measurements of one run of a task."""

from __future__ import annotations

from dataclasses import dataclass

from raycelery.protocol.codec import Decoder, encode


@dataclass(frozen=True)
class Sample:
    """One run of a task, measured in its executor.

    Arguments:
        task: its name.
        state: Celery's state at the end of the run.
        wall: seconds that it ran.
        cpu: CPU seconds of the executor's threads and child processes during the run.
        delayed: seconds of ``wall`` in which its thread waited for a CPU; 0 if the system does not tell.
        peak: largest number of bytes of the executor and its children, without shared memory (Ray's object store).
        before: bytes of the executor when the run began.
        num_cpus: CPUs that it asked for.
        memory: bytes of memory that it asked for; 0 if none.
        process: host name and pid of the executor's process.
        first: whether it was the task's first run in that process, which includes imports and filling caches.
        started: when, in seconds since the epoch.
        batch: id of the chord whose header it belonged to; "" if none.
        callbacks: names of the tasks in that chord's body.
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
        """Seconds that it would have run if a CPU had always been free.

        In the first run of a process its other threads also compute, so the delays are not subtracted then.
        """
        return max(1e-6, self.wall if self.first else self.wall - self.delayed)

    @property
    def busy(self) -> float:
        """Average number of CPUs that it kept busy."""
        return self.cpu / self.own_wall

    def packed(self) -> bytes:
        """Encode it for :class:`raycelery.protocol.frames.RunMeasured`."""
        return encode(self)

    @classmethod
    def opened(cls, data: bytes) -> Sample:
        """Undo :meth:`packed`."""
        return _decoder.decode(data)


_decoder: Decoder[Sample] = Decoder(Sample)
