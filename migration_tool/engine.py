"""Applies a function to many files, in several processes if there is enough to do."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, TypeVar

from .errors import UnreadableFile
from .model import Outcome
from .workspace import Source

#: A function of a file and of an object that is the same for all files.
Work = Callable[[Source, Any], Any]
Result = TypeVar("Result")
#: Bytes of source below which starting processes takes longer than the work.
_WORTH = 400_000
_shared: tuple[Work, Any] | None = None


def _start(work: Work, shared: Any) -> None:
    global _shared
    _shared = (work, shared)
    # A syntax tree is many objects that stay until its file is finished: collecting garbage meanwhile finds nothing.
    gc.freeze()
    gc.set_threshold(200_000, 50, 50)


def _one(source: Source) -> Any:
    assert _shared is not None
    work, shared = _shared
    return work(source, shared)


def each(
    work: Work, sources: Sequence[Source], shared: Any, jobs: int, progress: Callable[[int, int], None] | None = None
) -> Iterable[Any]:
    """Call ``work(source, shared)`` for each file; return the results in the order of the files.

    Arguments:
        work: a function at the top of a module, so that it can be sent to other processes.
        shared: passed to every call.
        jobs: most processes to use.
        progress: called with the number of finished files and the number of all files.
    """
    results: list[Any] = []
    size = sum(len(source.raw) for source in sources)
    if jobs > 1 and len(sources) > 1 and size > _WORTH:
        chunk = max(1, min(16, len(sources) // (jobs * 8)))
        with ProcessPoolExecutor(min(jobs, len(sources)), initializer=_start, initargs=(work, shared)) as pool:
            for result in pool.map(_one, sources, chunksize=chunk):
                results.append(result)
                if progress is not None:
                    progress(len(results), len(sources))
        return results
    for source in sources:
        results.append(work(source, shared))
        if progress is not None:
            progress(len(results), len(sources))
    return results


def guarded(source: Source, work: Callable[[Outcome], None]) -> Outcome:
    """Return an outcome that ``work`` has filled in, or one with the error that it raised."""
    outcome = Outcome(source.path, source.raw)
    if source.error is not None:
        outcome.error = source.error
        return outcome
    try:
        work(outcome)
    except UnreadableFile as error:
        outcome.after, outcome.diff, outcome.error = None, [], str(error)
    except Exception as error:  # whatever is wrong with this tool or the file, the other files are processed
        outcome.after, outcome.diff, outcome.error = None, [], failure(source, error)
    outcome.findings.sort(key=lambda one: (one.cell or 0, one.line, one.column))
    return outcome


def failure(source: Source, error: Exception) -> str:
    """Return what is said of a file for which this tool failed."""
    reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return f"{source.path}: raycelery-migrate failed on this file ({reason}); please report this"
