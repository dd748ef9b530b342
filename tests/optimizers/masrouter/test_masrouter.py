"""MasRouter as a job: it learns, is refused, is resumed, saved and loaded."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from typing import Any

import numpy as np
import pytest

import swarm
from swarm.agents.engines.scripted import ScriptedEngine
from swarm.agents.expert import Price
from swarm.errors import ConfigError, InputError, PoolError, TaskError
from swarm.optimizers import find_optimizer
from swarm.optimizers.budget import Budget
from swarm.optimizers.estimate import plan
from swarm.optimizers.masrouter.controller import Draws
from swarm.optimizers.wording import WordingOptimizer
from swarm.runtime.policy import load_policy
from swarm.runtime.progress import Silent

TOPICS = {
    "cooking": ["bake bread", "fry an onion", "boil rice", "season a soup", "roast a chicken"],
    "football": ["score a goal", "take a corner", "keep goal", "pass the ball", "foul a striker"],
    "music": ["tune a violin", "play a chord", "write a song", "conduct an orchestra", "sing bass"],
}
TEST = {
    "cooking": ["bake a cake", "boil an egg", "grill a fish"],
    "football": ["head the ball", "take a penalty", "win the match"],
    "music": ["play the piano", "sing a song", "tune a guitar"],
}


def expert(topic, price=1.0):
    known = {q for each in (TOPICS, TEST) for q in each[topic]}

    def speak(messages):
        return "yes" if any(q in messages[-1].content for q in known) else "no"

    return swarm.Expert.scripted(
        topic,
        speak,
        prompt="compact",
        description=f"knows about {topic}",
        price=Price(input=price, output=price),
    )


def pool(price=1.0):
    return swarm.Pool([expert(topic, price) for topic in TOPICS], name="topics")


def task():
    def records(topics):
        return [
            {"question": f"How do I {q}?", "answer": "yes", "topic": topic}
            for topic, questions in topics.items()
            for q in questions
        ]

    return swarm.Task.from_records("how", "exact", dev=records(TOPICS), test=records(TEST))


SMALL: dict[str, Any] = {
    "epochs": 2,
    "batch": 8,
    "samples": 2,
    "updates": 2,
    "max_agents": 3,
    "warm": 30,
    "seed": 3,
}


def fit(store=None, engine=None, on=None, measure=False, **settings):
    runtime = swarm.Runtime({"scripted": engine or ScriptedEngine()})
    job = swarm.MasRouter(**{**SMALL, "measure": measure, **settings})
    return job.fit(task(), on or pool(), store=store, runtime=runtime, progress=Silent())


@pytest.fixture(scope="module")
def fitted():
    return fit()


QUESTIONS = [example.prompt for split in ("dev", "test") for example in task().split(split)]


def test_a_question_gets_who_knows_it(fitted):
    found = fitted.evaluate(task(), "test")
    assert found.score > 0.7  # any one expert scores a third
    assert found.score > max(
        swarm.single(name, pool=pool()).evaluate(task(), "test").score for name in TOPICS
    )


def test_its_evaluation_is_recorded(fitted, tmp_path):
    found = fitted.evaluate(task(), "test", store=str(tmp_path / "swarm.db"))
    with swarm.Store.open(str(tmp_path / "swarm.db")) as store:
        assert store.run(found.run).status == "done"


def twins():
    def twin(name, price):
        return expert("music", price).model_copy(update={"name": name})

    return swarm.Pool([twin("dear", 50.0), twin("cheap", 1.0)])


def test_cost_matters_by_lambda():
    def calls(**settings):
        system = fit(on=twins(), epochs=8, **settings)
        graphs = system.policy.graphs_for(QUESTIONS)
        return Counter(agent.expert for graph in graphs for agent in graph.agents)

    free, frugal = calls(), calls(**{"lambda": 1000.0})
    assert frugal == {"cheap": len(QUESTIONS)}  # the one that costs less, once
    assert free["dear"]


def test_as_published():
    how = swarm.MasRouter(reference=True, **{"lambda": 200}).settings()
    expected = {
        "lambda": 200.0,
        "learning_rate": 0.01,
        "batch": 16,
        "epochs": 5,
        "samples": 1,
        "baseline": "none",
        "normalise": False,
        "settle": 0.0,
        "entropy": 0.0,
        "doubt": 0.0,
        "updates": 1,
        "keep_best": False,
        "vae": 0.001,
        "max_agents": 6,
        "sample": True,
        "sharpness": 1.0,
        "draw_number": False,
        "in_turn": False,
        "draw_codes": True,
        "warm": 0,
        "decide_alone": True,
    }
    assert {key: how[key] for key in expected} == expected
    assert swarm.MasRouter(reference=True, sharpness=4).settings()["sharpness"] == 4
    found = fit(reference=True)
    graphs = found.policy.graphs_for(QUESTIONS)
    assert all(graph.end.name == "decision" for graph in graphs)


@pytest.mark.parametrize("seed", range(2))
def test_of_all_epochs_the_best_is_kept(seed):
    shaky = {"epochs": 4, "learning_rate": 0.1, "seed": seed, "warm": 0}  # forgets what it knew
    scores = [
        [fit(**{**shaky, "epochs": k, "keep_best": kept}).evaluate(task(), "dev").score for k in ks]
        for kept, ks in ((False, (1, 2, 3, 4)), (True, (4,)))
    ]
    assert scores[1] == [max(scores[0])]


def test_a_graph_is_learned_from_until_its_probability_has_moved_enough():
    import torch

    from swarm.optimizers.masrouter.train import TrainingSettings, _loss

    settings = TrainingSettings(vae=0, entropy=0, doubt=0, clip=0.2)
    zero = torch.zeros(6)
    before = torch.log(torch.full((6,), 0.5))
    now = torch.log(torch.tensor([0.5, 0.55, 0.7, 0.7, 0.3, 0.3])).requires_grad_()
    gain = torch.tensor([2.0, 2.0, 2.0, -2.0, 2.0, -2.0])
    draws = Draws(*[zero] * 4, now, zero, torch.zeros(6, 1), zero[0], zero, zero)
    _loss(draws, before, gain, torch.zeros(6, dtype=torch.long), settings).backward()
    # -ratio · gain / n where more is wanted or the ratio is near 1; else nothing.
    expected = [-2 / 6, -1.1 * 2 / 6, 0.0, 1.4 * 2 / 6, -0.6 * 2 / 6, 0.0]
    assert now.grad.tolist() == pytest.approx(expected)


class Told(Silent):
    def __init__(self):
        self.iterations = []

    def start(self, title, iterations, done):
        self.last = iterations

    def iteration(self, number, best, mean):
        self.iterations.append(number)


def test_every_epoch_is_shown():
    told = Told()
    swarm.MasRouter(**SMALL).fit(task(), pool(), progress=told)
    assert told.iterations == [1, 2, 3, 4]  # experts alone, two epochs, the policy
    assert told.last == 4


def test_how_it_learned_can_be_seen(tmp_path):
    store = str(tmp_path / "swarm.db")
    found = fit(store, epochs=3, **{"lambda": 50.0})
    with swarm.Store.open(store) as opened:
        told = opened.run(found.run).summary["learning"]
    assert [row["epoch"] for row in told] == [1, 2, 3]
    utilities = [row["utility of the likeliest"] for row in told]
    [kept] = [utility for utility, row in zip(utilities, told, strict=True) if row["kept"]]
    assert kept == max(utilities)
    summary = found.evaluate(task(), "dev").summary()
    assert summary.score - 50.0 * summary.cost / summary.questions == pytest.approx(kept)


def test_the_same_seed_trains_the_same_and_touches_no_global_generator(fitted):
    import torch

    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002 - that it is left alone is what is tested
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    again = fit()
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()  # noqa: NPY002
    assert again.policy.fingerprint == fitted.policy.fingerprint
    assert fit(seed=4).policy.fingerprint != fitted.policy.fingerprint


class Dying(ScriptedEngine):
    """Ends the session when it is asked for the k-th time, and counts what it has answered."""

    def __init__(self, k=0):
        self.k, self.asked = k, 0

    async def generate(self, requests):
        self.k -= 1
        if self.k == 0:
            raise KeyboardInterrupt
        self.asked += len(requests)
        return await super().generate(requests)


@pytest.mark.parametrize("k", [2, 5, 9])
def test_a_killed_job_ends_as_one_that_was_not(fitted, tmp_path, k):
    store, whole, dying, second = str(tmp_path / "swarm.db"), Dying(), Dying(k), Dying()
    fit(str(tmp_path / "whole.db"), whole)
    with pytest.raises(KeyboardInterrupt):
        fit(store, dying)
    resumed = fit(store, second)
    assert resumed.policy.fingerprint == fitted.policy.fingerprint
    assert dying.asked + second.asked == whole.asked
    third = Dying()
    assert fit(store, third).policy.fingerprint == fitted.policy.fingerprint
    assert third.asked == 0


LOAD = """
import json, sys
from swarm.runtime.policy import load_policy
graphs = load_policy(sys.argv[1]).graphs_for(json.loads(sys.argv[2]))
print(json.dumps([graph.to_json() for graph in graphs]))
"""


def test_saved_and_loaded_in_a_new_process(tmp_path):
    policy = fit(sample=True).policy
    policy.save(tmp_path / "policy")
    out = subprocess.run(
        [sys.executable, "-c", LOAD, str(tmp_path / "policy"), json.dumps(QUESTIONS)],
        check=True,
        capture_output=True,
        text=True,
    )
    graphs = [graph.to_json() for graph in policy.graphs_for(QUESTIONS)]
    assert json.loads(out.stdout) == graphs
    assert len(set(graphs)) > 3
    # A question draws the same in any company.
    assert [g.to_json() for g in policy.graphs_for(QUESTIONS[::-1])] == graphs[::-1]
    assert policy.graphs_for(QUESTIONS[:1])[0].to_json() == graphs[0]


def test_an_expert_that_is_gone(fitted, tmp_path):
    fitted.policy.save(tmp_path / "policy")
    left = pool().subset("cooking", "football")
    with pytest.raises(PoolError, match=r"`music`.*`drop=True`"):
        load_policy(tmp_path / "policy", left)
    smaller = load_policy(tmp_path / "policy", left, drop=True)
    graphs = smaller.graphs_for(QUESTIONS)
    assert {agent.expert for graph in graphs for agent in graph.agents} <= set(left)
    # The others' questions still get who knows them.
    found = swarm.System(smaller, left).evaluate(task(), "test")
    assert found.score >= 0.5


def test_a_given_graph_gets_models_only(tmp_path):
    chain = swarm.chain("music", "music", pool=pool()).graph
    path = tmp_path / "graph.json"
    path.write_text(chain.to_json())
    found = fit(graph=str(path))
    assert found.policy.fingerprint == fit(graph=chain).policy.fingerprint
    graphs = found.policy.graphs_for(QUESTIONS)
    assert {graph.edges for graph in graphs} == {chain.edges}
    for graph in graphs:
        assert [(a.name, a.role) for a in graph.agents] == [(a.name, a.role) for a in chain.agents]
    assert len(set(graphs)) > 1


def test_domains_are_told_apart(tmp_path):
    examples = [
        {"question": q, "answer": "yes", "kind": kind}
        for kind, questions in {
            "math": ["What is 2 plus 3?", "Solve x squared is 4.", "How many are 7 times 6?"],
            "code": ["Write a function that sorts.", "Fix this loop.", "Parse a file in Python."],
        }.items()
        for q in questions
    ]
    mixed = swarm.Task.from_records("mixed", "exact", dev=examples)
    job = swarm.MasRouter(**{**SMALL, "domains": ["math", "code"], "tag": "kind"})
    found = job.fit(mixed, pool(), progress=Silent())
    questions = [example["question"] for example in examples]
    for example, graph in zip(examples, found.policy.graphs_for(questions), strict=True):
        workers = graph.agents[:-1] if graph.end.name == "decision" else graph.agents
        assert {a.role.partition("/")[0] for a in workers} == {example["kind"]}
    with pytest.raises(TaskError, match=r"None under `topic`: must be one of"):
        swarm.MasRouter(domains=["math", "code"], tag="topic").fit(mixed, pool())


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"domains": ["math", "code"]}, "say by `tag`"),
        ({"graph": "nowhere.json"}, "can't be read"),
        ({"lambda": -1}, "lambda"),
        ({"lambada": 1}, "did you mean `lambda`"),
    ],
)
def test_settings_that_are_refused(settings, said):
    with pytest.raises(ConfigError, match=said):
        swarm.MasRouter(**settings)


def same(a, b):
    return a.fingerprint == b.fingerprint


@pytest.mark.parametrize("saved", [True, False])
def test_learning_goes_on_from_a_fitted_policy(fitted, tmp_path, saved):
    start = fitted.policy
    if saved:
        fitted.policy.save(tmp_path / "start")
        start = str(tmp_path / "start")
    small = {key: SMALL[key] for key in ("batch", "samples", "updates", "seed")}
    job = swarm.MasRouter(start=start, **small)
    how = job.settings()
    assert how["start"] == fitted.policy.fingerprint.hex()
    # Nothing is learned anew, and how it routes stays.
    assert (how["epochs"], how["settle"], how["warm"], how["max_agents"]) == (5, 0, 0, 3)
    unmoved = fit(start=start, learning_rate=1e-12, keep_best=False, warm=0)
    assert unmoved.policy.graphs_for(QUESTIONS) == fitted.policy.graphs_for(QUESTIONS)
    assert not same(unmoved.policy, fit(learning_rate=1e-12, keep_best=False, warm=0).policy)


def test_what_a_start_forgets_is_not_kept(fitted, tmp_path):
    store = str(tmp_path / "swarm.db")
    shaky = fit(store, start=fitted.policy, learning_rate=3.0, warm=0)
    assert same(shaky.policy, fitted.policy)
    with swarm.Store.open(store) as opened:
        told = opened.run(shaky.run).summary["learning"]
    assert [row["epoch"] for row in told] == [0, 1, 2]
    assert [row["kept"] for row in told] == [True, False, False]
    assert plan(swarm.MasRouter(**SMALL, start=fitted.policy), task(), pool()).calls > (
        plan(swarm.MasRouter(**SMALL), task(), pool()).calls
    )


def test_a_start_learns_the_experts_of_another_pool(fitted):
    other = swarm.Pool([*pool().values(), expert("music", 9.0).model_copy(update={"name": "m"})])
    again = fit(on=other, start=fitted.policy)
    assert "m" in again.policy.experts
    assert again.evaluate(task(), "test").score > 0.7


def test_a_start_keeps_its_domains_and_its_graph(fitted):
    graph = swarm.AgentGraph(agents=(swarm.Agent(name="one", expert="music"),))
    given = swarm.MasRouter(start=fit(graph=graph).policy).settings()
    assert given["graph"]["agents"][0]["name"] == "one"
    assert swarm.MasRouter(start=fit(domains=["math"]).policy).settings()["domains"] == ["math"]
    assert swarm.MasRouter(start=fitted.policy).settings()["domains"] == []


def test_a_start_that_does_not_fit_is_refused(fitted, tmp_path):
    with pytest.raises(ConfigError, match=r"`max_agents` is 4, and `start` was fitted with 3"):
        swarm.MasRouter(start=fitted.policy, max_agents=4)
    with pytest.raises(ConfigError, match=r"`sharpness` is 1.0, and `start` was fitted with 8"):
        swarm.MasRouter(start=fitted.policy, reference=True)
    with pytest.raises(ConfigError, match=r"key `start`.*no policy is there"):
        swarm.MasRouter(start=str(tmp_path / "nowhere"))
    WordingOptimizer().fit(task(), pool(), progress=Silent()).policy.save(tmp_path / "wording")
    with pytest.raises(ConfigError, match=r"key `start`.*that MasRouter has fitted"):
        swarm.MasRouter(start=tmp_path / "wording")
    graph = swarm.AgentGraph(agents=(swarm.Agent(name="one", expert="music"),))
    with pytest.raises(ConfigError, match=r"`graph` is not that of `start`"):
        swarm.MasRouter(start=fitted.policy, graph=graph)


def test_a_front_goes_on_from_lambda_to_lambda(tmp_path):
    store = str(tmp_path / "swarm.db")
    router = swarm.MasRouter(**{**SMALL, "epochs": 6, "measure": False})
    front = router.front([1000.0, 0.0], task(), twins(), store=store, progress=Silent())
    assert list(front) == [0.0, 1000.0]
    costs = [system.evaluate(task()).summary().cost for system in front.values()]
    assert costs[1] < costs[0]
    with swarm.Store.open(store) as kept:
        told = [kept.run(system.run).settings for system in front.values()]
    assert [each["lambda"] for each in told] == [0.0, 1000.0]
    assert [each["start"] for each in told] == [None, front[0.0].policy.fingerprint.hex()]
    again = router.front([0.0, 1000.0], task(), twins(), store=store, progress=Silent())
    assert [system.run for system in again.values()] == [system.run for system in front.values()]


def test_a_front_ends_where_a_budget_does():
    router = swarm.MasRouter(**{**SMALL, "measure": False})
    limit = Budget(max_calls=len(TOPICS) * 15 + 1)  # all experts alone, and no more
    assert router.front([0.0, 1.0], task(), pool(), budget=limit, progress=Silent()) == {}


def test_what_is_refused_before_anything_is_asked():
    engine = Dying()
    with pytest.raises(InputError, match=r"`lambda` is 3, and no expert .* has a price"):
        fit(engine=engine, on=pool(price=0.0), **{"lambda": 3})
    with pytest.raises(PoolError, match="`maths` has no roles"):
        fit(engine=engine, domains=["maths"])
    assert engine.asked == 0


def test_a_plan_is_an_upper_bound_and_names_are_known():
    engine = Dying()
    fit(engine=engine, measure=True)
    job = swarm.MasRouter(**SMALL)
    assert plan(job, task(), pool()).calls >= engine.asked > 0
    assert find_optimizer("masrouter") is swarm.MasRouter
