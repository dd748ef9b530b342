"""What every optimizer of policies promises, of the simplest, and of one that asks to learn."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

import swarm
from swarm.agents.engines.scripted import ScriptedEngine
from swarm.agents.expert import Expert, Pool, Price
from swarm.agents.messages import Message
from swarm.errors import BudgetError, ConfigError, EngineError, InputError, PoolError
from swarm.graphs import chain, single
from swarm.optimizers import OPTIMIZERS, find_optimizer
from swarm.optimizers.budget import Budget
from swarm.optimizers.estimate import plan
from swarm.optimizers.outcomes import Outcomes
from swarm.optimizers.policy import PolicyOptimizer, fitted_policy
from swarm.optimizers.wording import Wording, WordingOptimizer
from swarm.replay import replay
from swarm.runtime.policy import load_policy
from swarm.runtime.progress import Silent
from swarm.runtime.routing import PolicyEvaluation

MEMBERS = [name for name in OPTIMIZERS if issubclass(find_optimizer(name), PolicyOptimizer)]


def knows(word):
    """An expert that answers questions with its word in them, and no others."""

    def say(messages):
        text = messages[-1].content
        return "yes" if word in text else "no"

    return say


WORDS = ("red", "green", "blue")
POOL = Pool(
    [Expert.scripted(word, knows(word), price=Price(output=k + 1)) for k, word in enumerate(WORDS)]
)


def examples(numbers):
    return [
        {"question": f"is {WORDS[n % 3]} the colour of thing {n}?", "answer": "yes"}
        for n in numbers
    ]


TASK = swarm.Task.from_records(
    "colours", "exact", dev=examples(range(24)), test=examples(range(100, 130))
)


class Asks(PolicyOptimizer):
    """Asks the first expert of every question, and runs a graph, before it learns."""

    name = "asks"

    def learn(self, outcomes):
        raise InputError("has to ask")

    async def alearn(self, outcomes, bench):
        prompts = [(Message("user", question),) for question in outcomes.questions]
        said = await bench.ask(outcomes.experts[0], prompts)
        assert [response.text for [response] in said[:2]] == ["yes", "no"]
        assert [example.prompt for example in bench.examples] == list(outcomes.questions)
        [found] = await bench.evaluate([(chain(outcomes.experts), [3, 5])])
        assert list(found.rows) == [3, 5]
        [quiet] = await bench.evaluate([(chain(outcomes.experts[::-1]), [1])], record=False)
        assert quiet.answers == ["no"] or quiet.answers == ["yes"]
        return WordingOptimizer().learn(outcomes)


class Scripts(ScriptedEngine):
    """Counts what it is asked, and is interrupted at call `stop`."""

    asked = calls = 0
    stop = None

    async def generate(self, requests):
        if self.calls == self.stop:
            raise KeyboardInterrupt
        self.calls += 1
        self.asked += len(requests)
        return await super().generate(requests)


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path / 'swarm.db'}"


def fit(store=None, engine=None, optimizer=None, pool=POOL, **how):
    runtime = swarm.Runtime({"scripted": engine or Scripts()})
    optimizer = optimizer or WordingOptimizer()
    return optimizer.fit(TASK, pool, store=store, runtime=runtime, progress=Silent(), **how)


def outcome(url):
    with swarm.Store.open(url) as store:
        [run] = store.runs()
        scored = [
            (view.graph.digest, view.score, view.size, view.info)
            for view in store.evaluations(run.id)
        ]
        spent = ("asked", "tokens", "seconds", "cost")
        summary = {k: v for k, v in (run.summary or {}).items() if k not in spent}
        return run.status, store.state(run.id), scored, summary


both = pytest.mark.parametrize("optimizer", [WordingOptimizer(), Asks()], ids=["learns", "asks"])


@pytest.mark.parametrize("name", MEMBERS)
def test_is_registered_under_its_name_and_takes_its_settings_back(name):
    optimizer = find_optimizer(name)()
    settings = optimizer.settings()
    assert settings.pop("optimizer") == name
    assert find_optimizer(name)(**settings).settings() == optimizer.settings()
    with pytest.raises(ConfigError, match=r"`rolle`.*`role`"):
        find_optimizer(name)(rolle="solver")


@both
def test_what_is_fitted_is_a_system_that_beats_the_best_single(url, optimizer):
    engine = Scripts()
    system = fit(url, engine, optimizer)
    assert isinstance(system.policy, Wording)
    evaluation = system.evaluate(TASK, "test", store=url)
    assert isinstance(evaluation, PolicyEvaluation)
    assert evaluation.score == 1
    with swarm.Store.open(url) as store:
        job = store.run(system.run)
        assert job.summary["best_single"] == pytest.approx(1 / 3)
        assert job.summary["score"] == system.evaluate(TASK, "dev").score == 1
        assert job.summary["policy"]["fingerprint"] == system.policy.fingerprint.hex()
        assert fitted_policy(store, job.id).fingerprint == system.policy.fingerprint
        alone = [view for view in store.evaluations(job.id) if "iteration" in view.info]
        assert [view.graph for view in alone] == [single(word) for word in WORDS]
        assert all(view.size == 24 for view in alone)
        replay(store, job.id, task=TASK)
        replay(store, evaluation.run, task=TASK)
        if isinstance(optimizer, Asks):
            learning = [v for v in store.evaluations(job.id) if "learning" in v.info]
            assert [view.size for view in learning] == [2]


@both
def test_the_same_call_again_asks_nothing_and_records_nothing(url, optimizer):
    first = fit(url, optimizer=optimizer)
    before, engine = outcome(url), Scripts()
    again = fit(url, engine, optimizer)
    assert again.run == first.run
    assert again.policy.fingerprint == first.policy.fingerprint
    assert engine.asked == 0
    assert outcome(url) == before
    assert fit(optimizer=optimizer).policy.fingerprint == first.policy.fingerprint


@both
@pytest.mark.parametrize("when", [0, 1, 3, 4])
def test_an_interrupted_job_goes_on_where_it_was(url, tmp_path, optimizer, when):
    whole = f"sqlite:///{tmp_path / 'whole.db'}"
    found = fit(whole, optimizer=optimizer)
    engine = Scripts()
    engine.stop = when
    try:
        fit(url, engine, optimizer)
    except KeyboardInterrupt:
        with swarm.Store.open(url) as store:
            assert store.runs()[0].status == "interrupted"
    assert fit(url, optimizer=optimizer).policy.fingerprint == found.policy.fingerprint
    assert outcome(url) == outcome(whole)


def test_a_budget_stops_it_and_a_higher_one_goes_on(url, tmp_path):
    whole = f"sqlite:///{tmp_path / 'whole.db'}"
    found = fit(whole, optimizer=Asks())
    with pytest.raises(BudgetError):
        fit(url, optimizer=Asks(), budget=Budget(max_calls=30))
    stopped = fit(url, optimizer=Asks(), budget=Budget(max_calls=75))
    assert stopped.graph == single("red")  # the experts are scored, what it asks itself is not
    assert outcome(url)[0] == "stopped"
    with swarm.Store.open(url) as store, pytest.raises(InputError, match="has fitted no policy"):
        fitted_policy(store, 1)
    again = fit(url, optimizer=Asks(), budget=Budget(max_calls=1000))
    assert again.policy.fingerprint == found.policy.fingerprint
    assert outcome(url) == outcome(whole)


def test_it_says_before_what_it_asks_for():
    engine = Scripts()
    fit(engine=engine)
    foreseen = plan(WordingOptimizer(), TASK, POOL)
    assert foreseen.calls == engine.asked == 24 * 3


def test_bad_input_is_refused_before_anything_is_recorded(url):
    with pytest.raises(PoolError, match="role"):
        fit(url, optimizer=WordingOptimizer(role="nobody"))
    with pytest.raises(InputError):
        fit(url, limit=0)
    with pytest.raises(InputError):
        fit(url, split="train")
    with swarm.Store.open(url) as store:
        assert store.runs() == []


def test_one_expert_may_fail_but_not_all(url):
    def broken(messages):
        raise ValueError("no answer today")

    some = Pool([*POOL.values(), Expert.scripted("broken", broken)])
    system = fit(url, pool=some)
    assert system.evaluate(TASK, "test").score == 1
    with pytest.raises(EngineError, match="every question of every expert failed"):
        fit(pool=Pool([Expert.scripted("broken", broken)]))


def test_not_measured_it_asks_no_more():
    engine = Scripts()
    system = fit(engine=engine, optimizer=WordingOptimizer(measure=False))
    assert engine.asked == 24 * 3
    assert system.evaluate(TASK, "test").score == 1


# Wording


def test_wording_gives_the_same_graphs_in_another_process(tmp_path):
    policy = fit().policy
    policy.save(tmp_path / "p")
    questions = [*(e.prompt for e in TASK.test), "", "never seen", "RED green"]
    program = (
        "import sys, json; from swarm.runtime.policy import load_policy\n"
        "graphs = load_policy(sys.argv[1]).graphs_for(json.loads(sys.argv[2]))\n"
        "print(json.dumps([g.experts[0] for g in graphs]))\n"
    )
    arguments = [str(tmp_path / "p"), json.dumps(questions)]
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == [g.experts[0] for g in policy.graphs_for(questions)]


def test_wording_without_an_expert():
    policy = fit().policy
    less = policy.without(["green"])
    assert less.experts == ("red", "blue")
    assert less.graphs_for(["is blue ?"]) == [single("blue")]
    with pytest.raises(PoolError, match="no expert left"):
        policy.without(list(WORDS))


def test_wording_knows_no_better_than_the_best_where_no_word_is_known():
    scores = np.array([[0.0, 1.0], [0.0, 1.0], [1.0, 0.0]])
    learned = Outcomes(["a b", "a c", "d"], ["x", "y"], scores, np.zeros((3, 2)))
    policy = WordingOptimizer().learn(learned)
    chosen = policy.graphs_for(["e f", "", "d", "a d"])
    assert [graph.experts[0] for graph in chosen] == ["y", "y", "x", "y"]


def test_a_wording_that_does_not_fit_its_arrays_is_refused(tmp_path):
    policy = fit().policy
    policy._words.pop("red")
    policy.save(tmp_path / "p")
    with pytest.raises(InputError, match="do not fit its experts"):
        load_policy(tmp_path / "p")
