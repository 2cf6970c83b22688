"""Work beside training: one piece at a time, its errors raised where it is taken."""

import threading

import pytest
import torch

from lyra_core.training.prefetch import Prefetch


def test_results_come_when_taken():
    beside = Prefetch(torch.device("cpu"))
    assert beside.take() is None
    free = threading.Event()
    beside.start(lambda: free.wait(10) and 7)
    free.set()  # it runs on a thread of its own, else it would wait in vain
    assert beside.take() == 7
    assert beside.take() is None
    beside.close()


def test_errors_are_raised_where_results_are_taken():
    beside = Prefetch(torch.device("cpu"))
    beside.start(lambda: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        beside.take()
    beside.close()


def test_settling_waits_and_leaves_the_result():
    beside = Prefetch(torch.device("cpu"))
    beside.settle()  # nothing runs
    free, begun = threading.Event(), threading.Event()
    beside.start(lambda: begun.set() or (free.wait(10) and 7))
    begun.wait(10)
    threading.Timer(0.1, free.set).start()
    beside.settle()
    assert free.is_set()
    assert beside.take() == 7
    beside.close()
