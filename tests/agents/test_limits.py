"""The throttle: never more at once than allowed, in order, and no place is ever lost."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from swarm.agents.engines.limits import Throttle

TASKS = st.lists(
    st.tuples(
        st.integers(0, 5),  # how many turns of the loop before it comes
        st.integers(0, 5),  # how many it is on its way
        st.sampled_from(["accepted", "refused", "fails"]),
        st.none() | st.integers(0, 12),  # after how many it is cancelled
    ),
    max_size=20,
)


@given(tasks=TASKS, concurrency=st.integers(1, 5))
def test_whoever_comes_goes_or_is_cancelled(tasks, concurrency):
    throttle = Throttle(concurrency)
    on_their_way, came, left = 0, [], []

    async def one(name, before, during, outcome):
        nonlocal on_their_way
        for _ in range(before):
            await asyncio.sleep(0)
        came.append(name)
        async with throttle.turn() as time:
            left.append(name)
            on_their_way += 1
            try:
                assert on_their_way <= concurrency
                assert on_their_way <= throttle.in_flight
                for _ in range(during):
                    await asyncio.sleep(0)
                if outcome == "accepted":
                    throttle.accepted()
                elif outcome == "refused":
                    throttle.refused(time)
                else:
                    raise LookupError
            finally:
                on_their_way -= 1
                assert 1 <= throttle.allowed <= concurrency

    async def work():
        running = [asyncio.create_task(one(name, *task[:3])) for name, task in enumerate(tasks)]
        for step in range(13):
            for task, (*_, cancelled) in zip(running, tasks, strict=True):
                if step == cancelled:
                    task.cancel()
            await asyncio.sleep(0)
        results = await asyncio.gather(*running, return_exceptions=True)
        assert not any(isinstance(result, AssertionError) for result in results)
        assert throttle.in_flight == 0
        async with asyncio.timeout(5), throttle.turn():
            assert throttle.in_flight == 1

    asyncio.run(work())
    if concurrency == 1:  # else some leave at the same moment
        assert left == [name for name in came if name in left]


def test_it_halves_once_for_all_that_left_together_and_grows_back():
    throttle = Throttle(16)

    async def work():
        now = asyncio.get_running_loop().time()
        for _ in range(16):
            throttle.refused(now)
        assert throttle.allowed == 8
        throttle.refused(asyncio.get_running_loop().time() + 1)
        assert throttle.allowed == 4
        for _ in range(4):
            throttle.accepted()
        assert 4.8 < throttle.allowed <= 5
        for _ in range(300):
            throttle.accepted()
        assert throttle.allowed == 16

    asyncio.run(work())


@given(per_minute=st.sampled_from([30_000, 60_000]), n=st.integers(2, 8))
def test_they_leave_at_even_distances(per_minute, n):
    throttle = Throttle(n, per_minute)
    left = []

    async def one():
        async with throttle.turn() as time:
            left.append(time)

    async def work():
        await asyncio.gather(*(one() for _ in range(n)))

    asyncio.run(work())
    distances = [after - before for before, after in pairwise(left)]
    assert min(distances) >= 60 / per_minute * 0.999


def test_loops_of_several_threads_share_it():
    throttle, lock = Throttle(3), threading.Lock()
    now, most, went = 0, 0, []

    async def one(name):
        nonlocal now, most
        async with throttle.turn():
            with lock:
                now += 1
                most = max(most, now)
            try:
                await asyncio.sleep(0.001)
            finally:  # some are cancelled here, where the machine is slow
                with lock:
                    now -= 1
            went.append(name)

    async def work(thread):
        tasks = [asyncio.create_task(one((thread, i))) for i in range(20)]
        if thread == 0:  # some are cancelled while they wait
            await asyncio.sleep(0.005)
            for task in tasks[10:]:
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda thread: asyncio.run(work(thread)), range(4)))
    assert most <= 3
    assert {(thread, i) for thread in (1, 2, 3) for i in range(20)} <= set(went)
    assert throttle.in_flight == 0


def test_a_loop_that_ends_gives_its_places_back():
    throttle = Throttle(1)

    async def holds(waiter):
        async with throttle.turn():
            waiter.start()
            while not throttle._waiting:  # noqa: ASYNC110
                await asyncio.sleep(0.001)

    def waits_and_is_gone():
        loop = asyncio.new_event_loop()
        task = loop.create_task(throttle._enter())
        while not throttle._waiting:
            loop.run_until_complete(asyncio.sleep(0))
        left.wait(5)  # let in, but the loop runs no more
        task.cancel()
        task._log_destroy_pending = False
        loop.close()

    left = threading.Event()
    waiter = threading.Thread(target=waits_and_is_gone)
    asyncio.run(holds(waiter))
    assert throttle.in_flight == 1
    left.set()
    waiter.join()

    async def works():
        async with asyncio.timeout(5), throttle.turn():
            assert throttle.in_flight == 1

    asyncio.run(works())
    assert throttle.in_flight == 0
