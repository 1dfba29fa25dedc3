"""Where tasks run: here, in local processes, or on a Dask cluster; each behind one interface."""

from __future__ import annotations

import logging
import multiprocessing
import os
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice

from jaxff.errors import InputError

# Tasks handed over at once: more than any cluster has cores, few enough to lie in memory.
AHEAD = 2000
# Waiting for a scheduler to answer, and for its first worker, s.
CONNECT = 30.0
PATIENCE = 60.0


@dataclass(frozen=True)
class Pool:
    """An executor, and what whoever cuts the work into tasks must know of it.

    Attributes:
        executor: takes tasks; whatever it lost on the way it runs again by itself, or fails.
        workers: tasks that run at a time.
        ahead: tasks to hand over at a time.
        shares_disk: whether tasks may write the files of this machine.
        remedy: the sentence for an exception of the pool itself; None for one of the task's own.
    """

    executor: Executor
    workers: int
    ahead: int
    shares_disk: bool
    remedy: Callable[[Exception], str | None]


def run_tasks(function: Callable, tasks: Iterable, pool: Pool) -> Iterator:
    """Yield the results of ``function(task)`` as they come, until nothing is left to do.

    Args:
        function: gives a result, and the task that continues this one or None; importable, with
            picklable task and result.
        tasks: the tasks to begin with, independent of each other.
        pool: where they run.

    Raises:
        InputError: the pool broke down.
    """
    waiting, ended = iter(tasks), queue.SimpleQueue()
    running = 0

    def submit(some) -> int:
        futures = [pool.executor.submit(function, task) for task in some]
        for future in futures:
            future.add_done_callback(ended.put)
        return len(futures)

    try:
        while running := running + submit(islice(waiting, pool.ahead - running)):
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
    """Local processes, or the Dask cluster of `scheduler` ("local": one made here for this run)."""
    with processes(workers) if scheduler is None else dask(scheduler, workers) as pool:
        yield pool


@contextmanager
def here() -> Iterator[Pool]:
    """This process itself: for work that uses all of the machine as it is."""
    yield Pool(_Here(), 1, 1, True, lambda error: None)


class _Here(Executor):
    def submit(self, function, /, *arguments):
        future: Future = Future()
        try:
            future.set_result(function(*arguments))
        except Exception as error:
            future.set_exception(error)
        return future


@contextmanager
def processes(workers: int) -> Iterator[Pool]:
    """Processes of one thread each, which end when this process ends, however it ends."""
    context = multiprocessing.get_context("spawn")
    with _one_thread_each():
        executor = ProcessPoolExecutor(workers, mp_context=context, initializer=_end_with_parent)
        try:
            yield Pool(executor, workers, AHEAD, True, _process_died)
        finally:
            executor.shutdown(wait=True, cancel_futures=True)


def _process_died(error: Exception) -> str | None:
    if not isinstance(error, BrokenProcessPool):
        return None
    return (
        "a worker process died (out of memory, or a crash of the calculator); "
        "run the same command again to continue from what is done"
    )


@contextmanager
def dask(scheduler: str, workers: int) -> Iterator[Pool]:
    """The workers of a Dask scheduler, or with "local" as many processes of a cluster made here.

    The work of a lost worker goes to another; work that four workers did not survive ends the run
    (Dask's ``distributed.scheduler.allowed-failures``).
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
                f"no Dask scheduler answers at {scheduler!r} ({error}); start one with "
                '"dask scheduler" and give the address it prints'
            ) from error
        stack.enter_context(client)
        try:
            client.wait_for_workers(1, timeout=PATIENCE)
        except TimeoutError as error:
            raise InputError(
                f"the Dask scheduler at {scheduler} has no workers; start some with "
                f'"dask worker {scheduler} --nthreads 1"'
            ) from error
        executor = client.get_executor(pure=False)
        # Without this, whatever is under way would be waited for.
        stack.callback(executor.shutdown, wait=False)
        yield Pool(executor, sum(client.nthreads().values()), AHEAD, False, _cluster_failed)


def _cluster_failed(error: Exception) -> str:
    from distributed import KilledWorker

    again = "run the same command again to continue from what is done"
    if isinstance(error, KilledWorker):
        return (
            "several Dask workers died over the same frames (out of memory, or a crash of the "
            f"calculator); {again}"
        )
    if isinstance(error, CancelledError | OSError):
        return f"the Dask scheduler is lost ({type(error).__name__}); {again}"
    return (
        f"a Dask worker cannot do its task ({type(error).__name__}: {error}); the workers need "
        f"this version of jaxff and the calculator's package; {again}"
    )


@contextmanager
def _one_thread_each():
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))  # the libraries read it when they are loaded
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

    def watch():
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
