"""Pools of processes, ended."""

import multiprocessing
import threading
import time
from concurrent.futures import ProcessPoolExecutor, process

import pytest

from common.processes import ended_on_exit


def test_nothing_is_left_of_a_pool_that_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    def slowly(manager: threading.Thread) -> None:
        time.sleep(0.3)
        join(manager)

    join = process._ExecutorManagerThread.join_executor_internals
    monkeypatch.setattr(process._ExecutorManagerThread, "join_executor_internals", slowly)
    threads, processes = set(threading.enumerate()), set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(2, multiprocessing.get_context("spawn"))
    with pytest.raises(KeyboardInterrupt), ended_on_exit(pool):
        waiting = [pool.submit(time.sleep, 600) for _ in range(8)]
        raise KeyboardInterrupt
    assert not [each for each in waiting if not each.done()]
    assert not set(multiprocessing.active_children()) - processes
    assert not [each for each in set(threading.enumerate()) - threads if each.is_alive()]
