"""What a job will ask for: never more than the plan, about as much as the estimate."""

from __future__ import annotations

import pytest
import relay_job

import swarm
from swarm.agents.engines.scripted import ScriptedEngine
from swarm.errors import EngineError, InputError
from swarm.optimizers.base import Optimizer
from swarm.optimizers.estimate import plan, sample
from swarm.optimizers.hetero_swarm import HeterogeneousSwarm
from swarm.runtime.progress import Silent


class Loading(ScriptedEngine):
    """Counts what it is asked, and what is loaded."""

    def __init__(self):
        self.asked = 0
        self.loads = []

    async def load(self, base, experts):
        self.loads.append(base)

    async def generate(self, requests):
        self.asked += len(requests)
        return await super().generate(requests)


def length(messages):
    return str(len(messages[-1].content))


def chatty(messages):
    return "word " * 50


def score(example, text):
    return len(text) % 5 / 4


def task():
    dev = [{"question": word, "answer": word} for word in relay_job.WORDS]
    return swarm.Task.from_records("words", score, dev=dev)


def pool(prompt="compact", answer=length):
    """Every expert at a price, a length and with weights of its own."""
    experts = []
    for k, name in enumerate("abcd"):
        settings = {
            "prompt": prompt,
            "price": swarm.Price(input=5 + k, output=20 - k),
            "sampling": swarm.Sampling(max_tokens=3 + k),
        }
        experts.append(swarm.Expert.scripted(name, answer, **settings))
    return swarm.Pool(experts, name="letters")


JOBS = {
    "role": lambda **more: swarm.RoleStep(particles=3, iterations=3, patience=9, **more),
    "several roles": lambda **more: swarm.RoleStep(
        particles=3, iterations=3, patience=9, roles=["solver", "critic", "solver", "judge"], **more
    ),
    "dense": lambda **more: swarm.RoleStep(
        particles=3, iterations=2, patience=9, successors=3, **more
    ),
    "joint": lambda **more: HeterogeneousSwarm(
        particles=3, assignments=4, iterations=3, patience=9, **more
    ),
}


@pytest.mark.parametrize("prompt", ["compact", "chat"])
@pytest.mark.parametrize("answer", [length, chatty])
@pytest.mark.parametrize("kind", JOBS)
@pytest.mark.parametrize("reference", [True, False])
def test_no_job_asks_for_more_than_its_plan(tmp_path, kind, prompt, answer, reference):
    experts, words = pool(prompt, answer), task()
    job = JOBS[kind](reference=reference)
    planned = plan(job, words, experts, limit=7)
    with swarm.Store.open(tmp_path / "swarm.db") as store:
        job.fit(words, experts, limit=7, store=store, progress=Silent())
        [run] = store.runs()
        batches = [view.batch for view in store.batches(run.id)]
    read = sum(batch.prompt_tokens for batch in batches)
    written = sum(batch.completion_tokens for batch in batches)
    assert run.summary["asked"] <= planned.calls
    assert read <= planned.prompt_tokens
    assert written <= planned.completion_tokens
    assert 0 < run.summary["cost"] <= planned.cost
    if reference and kind != "joint":  # whose last casts may be fewer
        assert run.summary["asked"] == planned.calls
        if answer is chatty and kind == "role":
            assert written == planned.completion_tokens, "the bound is reached"


def test_plan_by_hand():
    planned = plan(JOBS["joint"](), task(), pool(), limit=5, jobs=2)
    assert (planned.jobs, planned.iterations, planned.graphs) == (2, 3, 7)
    assert (planned.agents, planned.questions) == (4, 5)
    assert planned.calls == 2 * 3 * (3 + 4) * 4 * 5
    graph, cast = 5 * (3 + 4 + 5 + 6), 5 * 4 * 6
    assert planned.completion_tokens == 2 * 3 * (3 * graph + 4 * cast)


def test_planning_loads_and_asks_nothing(monkeypatch):
    def refuse(*_):
        raise AssertionError("an engine was made")

    monkeypatch.setattr("swarm.runtime.residency.create_engine", refuse)
    assert plan(JOBS["role"](), task(), pool()).questions == len(relay_job.WORDS)


def test_a_sample_is_scaled_to_the_job():
    engine = Loading()
    job, words, experts = JOBS["role"](reference=True), task(), pool()
    planned = plan(job, words, experts)
    found = sample(job, words, experts, 6, runtime=swarm.Runtime({"scripted": engine}))
    assert found.sampled_calls == engine.asked <= 6 * 3 * 4
    assert (found.sampled_questions, found.sampled_graphs) == (6, 3)
    assert found.calls == pytest.approx(engine.asked * planned.calls / (6 * 3 * 4), abs=1)
    assert found.calls <= planned.calls
    assert found.prompt_tokens <= planned.prompt_tokens
    assert found.completion_tokens <= planned.completion_tokens
    assert 0 < found.sampled_cost < found.cost <= planned.cost
    assert found.seconds > 0


def test_a_sample_is_the_same_from_the_same_seed():
    def figures(seed):
        job = swarm.RoleStep(particles=3, iterations=3, seed=seed)
        found = sample(job, task(), pool(), 4, jobs=2)
        return found.calls, found.prompt_tokens, found.completion_tokens, found.cost

    assert figures(1) == figures(1)
    assert len({figures(seed) for seed in range(4)}) > 1


def test_a_sample_of_more_than_there_is_takes_all():
    found = sample(JOBS["role"](), task(), pool(), 100, limit=5)
    assert found.sampled_questions == 5


def test_what_can_not_be_sampled():
    def broken(messages):
        raise ValueError("no answer today")

    with pytest.raises(EngineError, match=r"every question failed.*no answer today"):
        sample(JOBS["role"](), task(), pool(answer=broken), 4)
    with pytest.raises(InputError, match="at least 1"):
        sample(JOBS["role"](), task(), pool(), 0)


def test_an_optimizer_that_can_not_say():
    class Guess(Optimizer):
        def fit(self, task, pool, **_):
            raise NotImplementedError

        def settings(self):
            return {}

    with pytest.raises(InputError, match="`Guess` can't say beforehand"):
        plan(Guess(), task(), pool())
