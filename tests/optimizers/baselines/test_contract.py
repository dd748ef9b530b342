"""What `Optimizer` promises, of every baseline, on scripted experts and on tiny adapters."""

from __future__ import annotations

from dataclasses import replace

import pytest
import relay_job

import swarm
from swarm.agents.engines.scripted import ScriptedEngine
from swarm.app.graph_argument import best_graph, with_found_experts
from swarm.errors import BudgetError, ConfigError, InputError, PoolError, TaskError
from swarm.optimizers import OPTIMIZERS, find_optimizer
from swarm.optimizers.baselines import Baseline
from swarm.optimizers.budget import Budget
from swarm.optimizers.estimate import plan
from swarm.replay import replay
from swarm.runtime.progress import Silent

BASELINES = [name for name in OPTIMIZERS if issubclass(find_optimizer(name), Baseline)]
MERGING = ["uniform_soup", "greedy_soup", "dare_ties", "lorahub", "model_swarms"]
SHORT = {
    "lorahub": {"particles": 4, "iterations": 3},
    "model_swarms": {"iterations": 3},
    "random_graphs": {"graphs": 5},
}
CASES = [(name, "scripts") for name in BASELINES if name != "dare_ties"]
CASES += [(name, "adapters") for name in MERGING]
cases = pytest.mark.parametrize("case", CASES, ids="-".join, indirect=True)
each = pytest.mark.parametrize("name", BASELINES)


class Counting:
    """Counts what an engine is asked; at call `stop` it is interrupted."""

    asked = 0
    calls = 0
    stop: int | None = None

    async def generate(self, requests):
        if self.calls == self.stop:
            raise KeyboardInterrupt
        self.calls += 1
        self.asked += len(requests)
        return await super().generate(requests)


class CountingScripts(Counting, ScriptedEngine):
    pass


class Case:
    """One baseline on one pool."""

    def __init__(self, name, pool, task, engine, settings):
        self.name = name
        self.pool = pool
        self.task = task
        self.new_engine = engine
        self.settings = settings

    def optimizer(self, **settings):
        return find_optimizer(self.name)(**{**self.settings, **settings})

    def fit(self, store=None, engine=None, **how):
        engine = engine or self.new_engine()
        runtime = swarm.Runtime({expert.engine: engine for expert in self.pool.values()})
        return self.optimizer().fit(
            self.task, self.pool, store=store, runtime=runtime, progress=Silent(), **how
        )


@pytest.fixture
def case(request, tmp_path):
    name, kind = request.param
    settings = dict(SHORT.get(name, {}))
    if name == "dare_ties":
        settings["folder"] = str(tmp_path / "merged")
    if kind == "scripts":
        return Case(name, relay_job.pool(), relay_job.task(), CountingScripts, settings)
    pool, task = request.getfixturevalue("adapters")
    from swarm.agents.engines.transformers import TransformersEngine

    class CountingModels(Counting, TransformersEngine):
        pass

    return Case(name, pool, task, lambda: CountingModels(device="cpu"), settings)


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path / 'swarm.db'}"


def outcome(url):
    """What an interrupted job must have in common with one that was not."""
    with swarm.Store.open(url) as store:
        [run] = [run for run in store.runs() if run.kind == "job"]
        asked = sum(view.batch.requests for view in store.batches(run.id))
        scored = [
            (view.graph.digest, view.score, view.size, view.info)
            for view in store.evaluations(run.id)
        ]
        kept = ("score", "iterations", "questions", "failures", "calls", "graph")
        summary = {key: (run.summary or {}).get(key) for key in kept}
        return run.status, store.state(run.id), scored, summary, asked


def weights(system):
    """What was found, whatever it is called."""
    return system.graph, [system.pool[name].fingerprint for name in system.graph.experts]


@each
def test_is_registered_under_its_name_and_takes_its_settings_back(name):
    optimizer = find_optimizer(name)(**SHORT.get(name, {}))
    settings = optimizer.settings()
    assert settings.pop("optimizer") == name
    assert find_optimizer(name)(**settings).settings() == optimizer.settings()


@each
def test_refuses_a_setting_that_it_does_not_have(name):
    with pytest.raises(ConfigError, match=r"`rolle`.*`role`"):
        find_optimizer(name)(rolle="solver")


@cases
def test_finds_what_scores_what_it_says(case, url):
    engine = case.new_engine()
    found = case.fit(url, engine)
    status, state, scored, summary, asked = outcome(url)
    assert status == "done"
    assert summary["score"] == found.evaluate(case.task, "dev", store=url).score
    assert summary["score"] == state["best"]["score"]
    assert summary["graph"] == state["best"]["graph"]
    assert (found.graph.digest, summary["score"]) in [entry[:2] for entry in scored]
    assert asked == engine.asked > 0
    assert summary["questions"] == len(case.task.dev)


@cases
def test_the_same_call_again_asks_nothing_and_records_nothing(case, url):
    engine = case.new_engine()
    first = case.fit(url, engine)
    before, asked = outcome(url), engine.asked
    again = case.fit(url, engine)
    assert weights(again) == weights(first)
    assert again.run == first.run
    assert engine.asked == asked
    assert outcome(url) == before


@cases
def test_without_a_store_it_finds_the_same(case, url):
    assert weights(case.fit()) == weights(case.fit(url))


@cases
@pytest.mark.parametrize("when", [0, 1, 4])
def test_an_interrupted_job_goes_on_where_it_was(case, url, tmp_path, when):
    whole = f"sqlite:///{tmp_path / 'whole.db'}"
    found = case.fit(whole)
    engine = case.new_engine()
    engine.stop = when
    try:
        case.fit(url, engine)
    except KeyboardInterrupt:
        with swarm.Store.open(url) as store:
            assert store.runs()[0].status == "interrupted"
    assert weights(case.fit(url)) == weights(found)
    assert outcome(url) == outcome(whole)


@cases
def test_a_budget_stops_it_and_a_higher_one_goes_on(case, url, tmp_path):
    whole = f"sqlite:///{tmp_path / 'whole.db'}"
    found = case.fit(whole)
    calls = outcome(whole)[-1]
    with pytest.raises(BudgetError):
        case.fit(url, budget=Budget(max_calls=1))
    for limit in range(calls // 3, calls, max(1, calls // 3)):
        try:
            stopped = case.fit(url, budget=Budget(max_calls=limit))
        except BudgetError:
            continue
        status, state, scored, _, asked = outcome(url)
        assert status == "stopped"
        assert asked <= limit
        assert state["best"]["score"] == max(entry[1] for entry in scored)
        assert stopped.evaluate(case.task, "dev", store=url).score == state["best"]["score"]
    assert weights(case.fit(url, budget=Budget(max_calls=calls))) == weights(found)
    assert outcome(url)[0] == "done"
    assert outcome(url)[1:4] == outcome(whole)[1:4]


@cases
def test_asks_for_no_more_than_it_says_before(case, url):
    case.fit(url)
    _, _, _, summary, asked = outcome(url)
    at_most = plan(case.optimizer(), case.task, case.pool)
    assert asked <= summary["calls"] <= at_most.calls
    assert summary["iterations"] <= case.optimizer().steps(case.pool)


@cases
def test_can_be_replayed_without_models(case, url):
    found = case.fit(url)
    report = replay(url, found.run, task=case.task)
    assert report.evaluations == len(outcome(url)[2])


@cases
def test_what_it_has_found_is_found_again_by_the_number_of_its_run(case, url):
    found = case.fit(url)
    with swarm.Store.open(url) as store:
        view = store.run(found.run)
        graph, pool = best_graph(store, view), with_found_experts(store, view, case.pool)
    assert graph == found.graph
    if case.name != "majority_vote":  # which is counted by a function: that is in no record
        assert weights(swarm.System(graph, pool)) == weights(found)


@cases
def test_what_it_is_given_is_checked_before_anything_is_recorded(case, url):
    wrong = (
        (InputError, "`limit` is 0", {}, {"limit": 0}),
        (TaskError, "tset", {}, {"split": "tset"}),
        (PoolError, "`sover`.*`solver`", {"role": "sover"}, {}),
    )
    for error, message, settings, how in wrong:
        with pytest.raises(error, match=message):
            case.optimizer(**settings).fit(case.task, case.pool, store=url, **how)
    with swarm.Store.open(url) as store:
        assert not store.runs()


@cases
def test_a_name_that_is_taken_is_no_obstacle(case):
    """Experts that a baseline makes are called after what they are."""
    found = case.fit()
    [*_, made] = found.graph.experts
    given = list(case.pool)
    renamed = [made if made not in given else given[0], *given[1:]]
    experts = [
        expert.model_copy(update={"name": name})
        for expert, name in zip(case.pool.values(), renamed, strict=True)
    ]
    case.pool = swarm.Pool(experts)
    again = case.fit()
    scores = [each.evaluate(case.task, "dev").score for each in (found, again)]
    assert scores[0] == scores[1]


@pytest.mark.parametrize("name", MERGING)
def test_experts_that_do_not_fit_together_are_refused_before_anything_is_recorded(
    name, url, adapters
):
    pool, task = adapters
    scripts = [swarm.Expert.scripted("s", lambda m: "")]
    with pytest.raises(PoolError, match="`s`"):
        find_optimizer(name)().fit(task, swarm.Pool([*pool.values(), *scripts]), store=url)
    with swarm.Store.open(url) as store:
        assert not store.runs()


def test_scripts_have_no_weights_to_merge(url):
    with pytest.raises(PoolError, match="scripted"):
        find_optimizer("dare_ties")().fit(relay_job.task(), relay_job.pool(), store=url)


def test_a_question_that_fails_scores_nothing_and_counts_once(url):
    def speak(messages):
        if "abcdef" in messages[-1].content:
            raise RuntimeError("no such word")
        return relay_job.expert("f").script(messages)

    pool = relay_job.pool().subset(*"abcde")
    pool = swarm.Pool([*pool.values(), swarm.Expert.scripted("f", speak, prompt="compact")])
    task = replace(relay_job.task())
    for _ in range(2):
        find_optimizer("best_single")().fit(task, pool, store=url, progress=Silent())
        assert outcome(url)[3]["failures"] == 1
