"""A pipeline: jobs in threads, their results in order, and a bounded number of them at a time."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def in_threads(jobs: Iterable[Callable[[], T]], threads: int, beside: Callable[[T], int]) -> Generator[T, None, None]:
    """Results of `jobs`, in their order; what a job raises is raised in its turn.

    beside: how many others may run or wait beside the next job, told by the last result; the first runs alone. Jobs are
    taken, by whoever waits for results, when there is room for them. Once closed, jobs that run are waited for and the
    others dropped.
    """
    waiting: deque[Future[T]] = deque()
    most = 0
    with ThreadPoolExecutor(threads) as pool:
        try:
            for job in jobs:
                waiting.append(pool.submit(job))
                while len(waiting) > most:
                    result = waiting.popleft().result()
                    most = beside(result)
                    yield result
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
