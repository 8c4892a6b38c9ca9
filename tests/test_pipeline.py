"""Promises of the pipeline: results in order, few at a time, no exception lost, nothing begun that nobody wants."""

import threading
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from veduta.engine.pipeline import in_threads


def numbered(count: int, work: Callable[[int], object] = lambda number: None) -> list[Callable[[], int]]:
    def job(number: int) -> int:
        work(number)
        return number

    return [partial(job, number) for number in range(count)]


def test_results_come_in_the_order_of_the_jobs() -> None:
    slow_first = numbered(20, lambda number: time.sleep(0.02 * (number % 3 == 0)))
    assert list(in_threads(slow_first, 4, lambda _: 8)) == list(range(20))


def test_the_first_runs_alone_and_of_the_others_no_more_than_was_said() -> None:
    running, most, lock = 0, [0] * 12, threading.Lock()

    def work(number: int) -> None:
        nonlocal running
        with lock:
            running += 1
            most[number] = running
        time.sleep(0.02)
        with lock:
            running -= 1

    assert list(in_threads(numbered(12, work), 4, lambda number: 2 if number < 6 else 0)) == list(range(12))
    assert most[0] == 1 and 2 <= max(most[1:8]) <= 3 and max(most[10:]) == 1


def test_jobs_are_taken_when_there_is_room_for_them() -> None:
    taken = 0

    def jobs() -> Iterator[Callable[[], int]]:
        nonlocal taken
        for job in numbered(100):
            taken += 1
            yield job

    results = in_threads(jobs(), 2, lambda _: 3)
    next(results)
    next(results)
    assert taken <= 5
    results.close()


def test_what_a_job_raises_comes_in_its_turn_and_the_rest_is_dropped() -> None:
    done = []

    def work(number: int) -> None:
        if number == 3:
            raise ValueError("the third")
        done.append(number)
        time.sleep(0.01)

    results = in_threads(numbered(50, work), 2, lambda _: 2)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="the third"):
        next(results)
    assert max(done) < 10
