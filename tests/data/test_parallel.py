"""Threads change the speed and nothing else."""

import time
from collections.abc import Iterator
from threading import Event, Lock, get_ident

import pytest

from xray_lightning.data.parallel import AHEAD, in_order

MANY = range(4 * AHEAD)


class Work:
    """Doubles numbers, and keeps those that it was asked for."""

    def __init__(self, breaks_at: int | None = None) -> None:
        self.started: list[int] = []
        self.breaks_at = breaks_at
        self._lock = Lock()

    def __call__(self, number: int) -> int:
        with self._lock:
            self.started.append(number)
        if number == self.breaks_at:
            raise ValueError(f"no {number}")
        return 2 * number


@pytest.mark.parametrize("count", [0, 1, AHEAD - 1, AHEAD, AHEAD + 1, 3 * AHEAD])
def test_each_result_comes_once_in_the_order_of_the_items(count: int) -> None:
    work = Work()
    assert list(in_order(work, range(count), "Doubling")) == [2 * n for n in range(count)]
    assert sorted(work.started) == list(range(count))


def test_slow_items_are_waited_for() -> None:
    def late(number: int) -> int:
        time.sleep(0.002 * (number % 7 == 0))
        return number

    assert list(in_order(late, MANY, "Waiting")) == list(MANY)


def test_items_are_worked_on_at_the_same_time_by_other_threads() -> None:
    second = Event()

    def work(number: int) -> int:
        if number:
            second.set()
        return get_ident() if second.wait(10) else 0  # the first one ends when the second one has begun

    assert not {0, get_ident()} & set(in_order(work, range(2), "Meeting"))


@pytest.mark.parametrize("place", [0, 5, AHEAD, 4 * AHEAD - 1])
def test_an_error_comes_in_its_place_and_ends_the_work(place: int) -> None:
    work, found = Work(breaks_at=place), []
    with pytest.raises(ValueError, match=f"no {place}$"):
        for result in in_order(work, MANY, "Breaking"):
            found.append(result)
    assert found == [2 * n for n in range(place)]
    assert len(work.started) <= place + AHEAD


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, SystemExit])
def test_errors_of_any_kind_reach_the_caller(error: type[BaseException]) -> None:
    def work(number: int) -> int:
        raise error

    with pytest.raises(error):
        list(in_order(work, MANY, "Breaking"))


def test_no_more_results_wait_than_may() -> None:
    work = Work()
    results = in_order(work, MANY, "Doubling")
    assert not work.started
    for taken, result in enumerate(results):
        assert result == 2 * taken
        assert len(work.started) <= taken + AHEAD


def closed_after(results: Iterator[int], count: int) -> None:
    for _ in range(count):
        next(results)
    results.close()  # type: ignore[attr-defined]


def test_what_nobody_waits_for_any_more_is_not_begun() -> None:
    started, gate = [], Event()

    def work(number: int) -> int:
        started.append(number)
        if number:
            gate.wait(0.1)
        return number

    closed_after(in_order(work, MANY, "Waiting"), 1)
    seen = len(started)
    assert seen < AHEAD
    gate.set()
    time.sleep(0.01)
    assert len(started) == seen
