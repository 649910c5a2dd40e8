"""Gives numeric libraries as many threads as the task asked CPUs.

Ray sets ``OMP_NUM_THREADS=1`` in a worker where nothing is said and may reuse a worker process for another request, so
both the variables (for libraries yet to be loaded) and the loaded libraries are set, each time.
See https://docs.ray.io/en/latest/ray-core/configure.html#omp-num-threads.
"""

from __future__ import annotations

import os

from threadpoolctl import threadpool_limits

VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "LOKY_MAX_CPU_COUNT",
)


def limit(count: int) -> None:
    """Let numeric libraries of this process use ``count`` threads."""
    for name in VARIABLES:
        os.environ[name] = str(count)
    threadpool_limits(count)
