"""The collector is given back as it was by whoever leaves last; new garbage is collected inside."""

from __future__ import annotations

import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import swarm
from swarm.runtime.garbage import sparing_the_old


class Cycle:
    def __init__(self):
        self.me = self


def test_what_is_new_is_collected_inside_and_what_was_there_afterwards():
    gc.collect()
    old = weakref.ref(Cycle())
    with sparing_the_old():
        assert gc.get_freeze_count() > 0
        new = weakref.ref(Cycle())
        gc.collect()
        assert new() is None
        assert old() is not None
    assert gc.get_freeze_count() == 0
    gc.collect()
    assert old() is None


def test_the_last_of_several_threads_ends_it():
    both_inside = threading.Barrier(2)
    first_is_out = threading.Event()

    def first():
        with sparing_the_old(), sparing_the_old():
            both_inside.wait(5)
        first_is_out.set()

    def second():
        with sparing_the_old():
            both_inside.wait(5)
            assert first_is_out.wait(5)
            return gc.get_freeze_count()

    with ThreadPoolExecutor(2) as threads:
        threads.submit(first)
        assert threads.submit(second).result() > 0
    assert gc.get_freeze_count() == 0


def test_a_run_gives_it_back_though_it_fails():
    def fails(messages):
        raise LookupError

    pool = swarm.Pool([swarm.Expert.scripted("e", fails)])
    [trace] = swarm.single("e", pool=pool).batch(["x"])
    assert trace.text is None
    assert gc.get_freeze_count() == 0
