"""Keeping a step to the resources that it may take, in the process that it runs in. Free of Prefect."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from prefect_mlops.blocks import StepResources

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "LOKY_MAX_CPU_COUNT")
"""What libraries read that are loaded later, and processes that are started meanwhile."""

_CPUS, _MEMORY = "PREFECT_MLOPS_CPUS", "PREFECT_MLOPS_MEMORY_MIB"
"""What a pod is sure of, which it cannot see for itself; set by the job template of our work pool."""


def may_ask_for_more() -> bool:
    """Whether this run is a Job of a work pool that gives every run the resources it is started with."""
    return _MEMORY in os.environ


def shortages(wanted: StepResources) -> Iterator[str]:
    """What is wanted and this machine does not have, a sentence each."""
    import joblib

    memory = int(os.environ.get(_MEMORY) or psutil.virtual_memory().total // 2**20)
    cpus, gpus = int(os.environ.get(_CPUS) or joblib.cpu_count()), len(list(Path("/dev").glob("nvidia[0-9]*")))
    if wanted.cpus > cpus:
        yield f"{wanted.cpus} CPUs are asked for, this machine gives {cpus}; the step runs on these"
    if wanted.memory_mib > memory:
        yield f"{wanted.memory_mib:,} MiB of memory are asked for, this machine has {memory:,}; the step may not fit"
    if wanted.gpus > gpus:
        yield f"{wanted.gpus} GPUs are asked for, {gpus} are seen on this machine; the step runs all the same"


@contextmanager
def limited(wanted: StepResources) -> Generator[None]:
    """Compute on no more than so many CPUs: threads of numerical libraries, and what joblib counts for `n_jobs=-1`.

    Who asks a library for a number by name, such as `n_jobs=8`, gets that.
    """
    if not wanted.cpus:
        yield
        return
    import joblib
    import sklearn  # noqa: F401  # pyright: ignore[reportUnusedImport]  # only what is loaded can be limited
    from threadpoolctl import threadpool_limits

    cpus = min(wanted.cpus, joblib.cpu_count())
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, str(cpus)))
    try:
        with threadpool_limits(limits=cpus):
            yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
