"""A server that is killed five times during a job: nothing is lost, nothing is asked twice."""

from __future__ import annotations

import asyncio
import json
import random
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
import relay_job

import swarm
from swarm.agents.engines.server import ServerEngine
from swarm.agents.messages import Message, Request, Response
from swarm.errors import PoolError
from swarm.runtime.progress import Silent
from swarm.serving import control

from .conftest import kill, until

KILLS = 5


def fit(pool, url):
    runtime = swarm.Runtime()
    job = relay_job.job(particles=8, iterations=8)
    try:
        return job.fit(relay_job.task(), pool, store=url, runtime=runtime, progress=Silent())
    finally:
        runtime.close()


def outcome(url):
    """All that a job has come to, but for times and who happened to ask first."""
    with swarm.Store.open(url) as store:
        [run] = store.runs()
        state = store.state(run.id)
        evaluations = [(e.graph.digest, e.score, e.info) for e in store.evaluations(run.id)]
        asked = sum(view.batch.requests for view in store.batches(run.id))
        history = [entry["role"] for entry in state["history"]]
        return run.status, state["search"], state["best"], history, evaluations, asked


class ServerLog:
    """What came to the server and what left it, in all its lives."""

    def __init__(self, path):
        entries = [json.loads(line) for line in path.read_text().splitlines()]
        self.lives = len({pid for _, pid, _ in entries})
        self.came = Counter(key for what, _, key in entries if what == "came")
        self.left = Counter(key for what, _, key in entries if what == "left")
        gone, self.again = set(), []
        for what, _, key in entries:
            if what == "left":
                gone.add(key)
            elif key in gone:
                self.again.append(key)


def undisturbed(world, log, url):
    world.write(log=log, seconds=0.05)
    world.up()
    found = fit(swarm.Pool.load(world.file), url)
    control.down(world.file)
    return found


@pytest.mark.parametrize("seed", [0])
def test_nothing_is_lost_and_nothing_asked_twice(world, tmp_path, seed):
    logs = tmp_path / "calm.log", tmp_path / "killed.log"
    urls = [f"sqlite:///{tmp_path / name}.db" for name in ("calm", "killed")]

    calm = undisturbed(world, logs[0], urls[0])
    world.write(log=logs[1], seconds=0.05)
    world.up()
    rng, killed, over = random.Random(seed), [], threading.Event()

    def done():
        return logs[1].read_text().count('"left"') if logs[1].exists() else 0

    def shoot():
        answered = 0
        while len(killed) < KILLS and not over.is_set():
            # Only a server that has answered something since the last time is in the job's midst.
            answered += rng.randint(2, 15)
            until(lambda goal=answered: over.is_set() or done() >= goal, "answers")
            time.sleep(rng.uniform(0, 0.08))
            pid = world.pid()
            if pid is not None and not over.is_set():
                kill(pid)
                killed.append(pid)
                until(
                    lambda pid=pid: (
                        (s := world.state.server("s0")).pid != pid and s.phase == "healthy"
                    ),
                    "the next server",
                )
                answered = done()

    shooting = threading.Thread(target=shoot)
    shooting.start()
    try:
        shaken = fit(swarm.Pool.load(world.file), urls[1])
    finally:
        over.set()
        shooting.join()

    assert len(set(killed)) == KILLS
    assert shaken.graph == calm.graph
    assert outcome(urls[1]) == outcome(urls[0])
    before, log = ServerLog(logs[0]), ServerLog(logs[1])
    assert before.lives == 1
    assert set(before.came.values()) == {1}
    assert log.lives == KILLS + 1
    assert log.again == []
    assert set(log.came) == set(before.came)
    # What was on its way when a server died is asked again, and no more than that.
    twice = sum(log.came.values()) - len(log.came)
    assert 0 < twice <= KILLS * 4 * len(relay_job.LETTERS)


def test_a_job_whose_servers_are_taken_down_ends_and_goes_on_when_they_are_up(world, tmp_path):
    logs = tmp_path / "calm.log", tmp_path / "downed.log"
    urls = [f"sqlite:///{tmp_path / name}.db" for name in ("calm", "downed")]
    undisturbed(world, logs[0], urls[0])
    world.write(log=logs[1], seconds=0.05)
    world.up()
    with ThreadPoolExecutor(1) as thread:
        job = thread.submit(fit, swarm.Pool.load(world.file), urls[1])
        until(lambda: logs[1].exists() and logs[1].read_text().count('"left"') > 20)
        control.down(world.file)
        with pytest.raises(PoolError, match=r"its server `s0` is (not up|being stopped): `swarm"):
            job.result(60)
    with swarm.Store.open(urls[1]) as store:
        [run] = store.runs()
        assert run.status == "failed"
        assert not any(e.info.get("errors") for e in store.evaluations(run.id))
    world.up()
    fit(swarm.Pool.load(world.file), urls[1])
    assert outcome(urls[1])[:-1] == outcome(urls[0])[:-1]
    assert ServerLog(logs[1]).again == []
    assert set(ServerLog(logs[1]).came) == set(ServerLog(logs[0]).came)


def test_a_restart_may_take_longer_than_a_deadline(world):
    world.write(start=2.5)
    world.file.write_text(
        world.file.read_text().replace("concurrency = 4", "concurrency = 4\ndeadline = 0.5")
    )
    world.up()
    expert = swarm.Pool.load(world.file)["a"]
    assert expert.options["deadline"] == 0.5
    first = world.pid()
    kill(first)
    until(lambda: world.state.servers[0].phase == "restarting")
    messages = (Message("user", "Question: abc\nAnswer:"),)
    [answer] = asyncio.run(ServerEngine().generate([Request(expert, messages)]))
    assert isinstance(answer, Response), answer
    assert answer.text == "a"


def test_one_that_has_given_up_is_not_waited_for(world):
    world.write(once=world.folder / "once")
    world.up()
    expert = swarm.Pool.load(world.file)["a"]
    kill(world.pid())
    messages = (Message("user", "Question: abc\nAnswer:"),)
    engine = ServerEngine()
    [answer] = asyncio.run(engine.generate([Request(expert, messages)]))
    assert "its server `s0` has given up (3 starts in a row have failed" in str(answer)
