"""Pools of workers that run tasks: local processes, or a Dask cluster."""

from __future__ import annotations

import logging
import multiprocessing
import os
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice

from jaxff.errors import InputError

# Largest number of tasks that are submitted at once: more than any cluster has cores.
AHEAD = 2000
CONNECT = 30.0  # s, time limit for the connection to a scheduler
PATIENCE = 60.0  # s, time limit for the first worker
AGAIN = "repeat the command to continue from the finished frames"


@dataclass(frozen=True)
class Pool:
    """An executor of tasks.

    Attributes:
        executor: runs the tasks.
        workers: number of simultaneous tasks.
        shares_disk: whether tasks can write files on this machine.
        remedy: function of an exception. It returns an error message if the pool failed, and None
            if a task raised the exception.
    """

    executor: Executor
    workers: int
    shares_disk: bool
    remedy: Callable[[Exception], str | None]


def run_tasks(function: Callable, tasks: Iterable, pool: Pool) -> Iterator:
    """Yield the results of ``function(task)`` as soon as they are available.

    Args:
        function: an importable function of a task. It returns a result, and a task that continues
            the work (None: the work is complete). Tasks and results must be picklable.
        tasks: independent tasks.
        pool: executor of the tasks.

    Raises:
        InputError: the pool failed.
    """
    waiting, ended = iter(tasks), queue.SimpleQueue()
    running = 0

    def submit(some) -> int:
        futures = [pool.executor.submit(function, task) for task in some]
        for future in futures:
            future.add_done_callback(ended.put)
        return len(futures)

    try:
        while running := running + submit(islice(waiting, AHEAD - running)):
            result, rest = ended.get().result()
            running -= 1
            running += submit([] if rest is None else [rest])
            yield result
    except InputError:
        raise
    except Exception as error:
        if (sentence := pool.remedy(error)) is None:
            raise
        raise InputError(sentence) from error


@contextmanager
def open_pool(scheduler: str | None, workers: int) -> Iterator[Pool]:
    """Open a pool of local processes, or of Dask workers if `scheduler` is not None."""
    with processes(workers) if scheduler is None else dask(scheduler, workers) as pool:
        yield pool


@contextmanager
def processes(workers: int) -> Iterator[Pool]:
    """Open a pool of local processes with one thread each; they end with this process."""
    context = multiprocessing.get_context("spawn")
    with _one_thread_each():
        executor = ProcessPoolExecutor(workers, mp_context=context, initializer=_end_with_parent)
        try:
            yield Pool(executor, workers, True, _process_died)
        finally:
            executor.shutdown(wait=True, cancel_futures=True)


def _process_died(error: Exception) -> str | None:
    if not isinstance(error, BrokenProcessPool):
        return None
    return f"a worker process died (no memory left, or a crash of the calculator); {AGAIN}"


@contextmanager
def dask(scheduler: str, workers: int) -> Iterator[Pool]:
    """Open a pool of the workers of a Dask scheduler.

    If a worker dies, another worker repeats its tasks. If four workers die during one task, the
    run ends (Dask's ``distributed.scheduler.allowed-failures``).

    Args:
        scheduler: address of the scheduler; "local" starts a cluster on this machine.
        workers: number of processes of the local cluster.

    Raises:
        InputError: Dask is not installed, or the scheduler or its workers do not respond.
    """
    try:
        from distributed import Client, LocalCluster
    except ImportError as error:
        raise InputError(f'Dask cannot be imported ({error}): pip install "jaxff[dask]"') from error
    with ExitStack() as stack:
        address = scheduler
        if scheduler == "local":
            address = stack.enter_context(
                LocalCluster(
                    n_workers=workers,
                    threads_per_worker=1,
                    processes=True,
                    host="127.0.0.1",
                    dashboard_address="127.0.0.1:0",
                    silence_logs=logging.CRITICAL,
                )
            )
        try:
            client = Client(address, timeout=CONNECT, set_as_default=False)
        except (OSError, ValueError) as error:
            raise InputError(
                f"no Dask scheduler responds at {scheduler!r} ({error}): start a scheduler with "
                '"dask scheduler" and give its address'
            ) from error
        stack.enter_context(client)
        try:
            client.wait_for_workers(1, timeout=PATIENCE)
        except TimeoutError as error:
            raise InputError(
                f"the Dask scheduler at {scheduler} has no workers: start workers with "
                f'"dask worker {scheduler} --nthreads 1"'
            ) from error
        executor = client.get_executor(pure=False)
        # Do not wait for running tasks at the end.
        stack.callback(executor.shutdown, wait=False)
        workers = sum(client.nthreads().values())  # pyright: ignore[reportAttributeAccessIssue]
        yield Pool(executor, workers, False, _cluster_failed)


def _cluster_failed(error: Exception) -> str:
    from distributed import KilledWorker

    if isinstance(error, KilledWorker):
        return (
            "several Dask workers died at the same frames (no memory left, or a crash of the "
            f"calculator); {AGAIN}"
        )
    if isinstance(error, CancelledError | OSError):
        return f"the connection to the Dask scheduler is lost ({type(error).__name__}); {AGAIN}"
    return (
        f"a Dask worker failed ({type(error).__name__}: {error}): install this version of jaxff "
        f"and the package of the calculator on all workers, and {AGAIN}"
    )


@contextmanager
def _one_thread_each() -> Iterator[None]:
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))  # libraries read them when they are loaded
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch():
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
