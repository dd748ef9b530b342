"""Budgets: a limit is never exceeded, stops a job with its best, and a higher one goes on."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
import relay_job
from hypothesis import given
from hypothesis import strategies as st

import swarm
from swarm.agents.engines.scripted import ScriptedEngine
from swarm.agents.messages import Message
from swarm.errors import BudgetError, InputError
from swarm.optimizers import budget as budget_module
from swarm.optimizers.budget import Account, Spent, busy_seconds, most_tokens, spent_before
from swarm.runtime.progress import Silent
from swarm.store import BatchRecord


class Small(ScriptedEngine):
    """Small batches, and a count of what was asked; `before` may raise."""

    def __init__(self, before=lambda requests: None):
        self.asked = 0
        self.before = before

    async def plan(self, requests):
        return [range(i, min(i + 5, len(requests))) for i in range(0, len(requests), 5)]

    async def generate(self, requests):
        self.before(requests)
        self.asked += len(requests)
        return await super().generate(requests)


class Hosted(Small):
    """Asked at once, by anybody."""

    resident = False
    column = 4

    async def generate(self, requests):
        for _ in range(len(requests[0].messages[-1].content) % 7):
            await asyncio.sleep(0)
        return await super().generate(requests)


def pool(scale=1.0):
    """Every expert at a price of its own."""
    prices = {
        name: swarm.Price(input=scale * (10 + k), output=scale * (30 + k))
        for k, name in enumerate(relay_job.LETTERS)
    }
    experts = relay_job.pool().values()
    small = swarm.Sampling(max_tokens=8)
    return swarm.Pool(
        [e.model_copy(update={"price": prices[e.name], "sampling": small}) for e in experts],
        name="letters",
    )


def fit(store, engine=None, *, experts=None, settings=None, **limits):
    return relay_job.job(**(settings or {})).fit(
        relay_job.task(),
        experts or pool(),
        store=store,
        runtime=swarm.Runtime({"scripted": engine or Small()}),
        progress=Silent(),
        budget=swarm.Budget(**limits),
    )


def url_in(folder, name):
    return f"sqlite:///{folder / name}.db"


def only_run(url):
    with swarm.Store.open(url) as store:
        [run] = store.runs()
        return run


def outcome(url):
    """What a job that was stopped must have in common with one that was not."""
    with swarm.Store.open(url) as store:
        [run] = store.runs()
        state = store.state(run.id)
        for entry in state["history"]:
            # What two asked for, and a stop came before the second got it, is known to the latter.
            entry["spared"] = sum(entry["spared"].values())
        scores = {view.graph.digest: view.score for view in store.evaluations(run.id)}
        return run.status, state, scores, spent(store, run.id)


def spent(store, run):
    found = spent_before(store, run, pool())
    return found.calls, found.tokens, pytest.approx(found.cost)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A job that nothing has stopped, and what it has used."""
    url = url_in(tmp_path_factory.mktemp("whole"), "whole")
    fit(url)
    return outcome(url), only_run(url).summary


@pytest.mark.parametrize("engine", [Small, Hosted])
@pytest.mark.parametrize(("limit", "used"), [("calls", "asked"), ("tokens",) * 2, ("cost",) * 2])
def test_stopped_again_and_again_it_ends_as_one_that_was_not(tmp_path, whole, limit, used, engine):
    expected, summary = whole
    url = url_in(tmp_path, "stopped")
    asked, stops, share = 0, 0, 0.5
    while True:
        allowed = summary[used] * share
        allowed = allowed if limit == "cost" else int(allowed)
        counting = engine()
        found = fit(url, counting, **{f"max_{limit}": allowed})
        asked += counting.asked
        run = only_run(url)
        if run.status == "done":
            break
        assert run.summary["stopped"] == f"max_{limit}"
        assert run.summary[used] <= allowed, "never exceeded"
        assert run.summary["asked"] == asked
        with swarm.Store.open(url) as store:
            best = store.state(run.id)["best"]["graph"]
        assert found.graph == swarm.AgentGraph.from_json(best)
        assert run.summary["score"] == found.evaluate(relay_job.task(), "dev").score
        stops += 1
        share *= 1.2
    assert stops >= 3
    assert "stopped" not in run.summary
    assert outcome(url) == expected
    assert asked == summary["asked"], "nothing was asked twice"


def test_calls_are_used_up_to_the_last(tmp_path):
    url = url_in(tmp_path, "calls")
    fit(url, max_calls=333)
    assert only_run(url).summary["asked"] == 333


def test_the_same_limit_again_asks_nothing_and_gives_the_same(tmp_path):
    url = url_in(tmp_path, "again")
    first = fit(url, max_calls=300)
    summary = only_run(url).summary
    engine = Small()
    again = fit(url, engine, max_calls=300)
    assert (again.graph, again.run, engine.asked) == (first.graph, first.run, 0)
    kept = only_run(url)
    assert kept.status == "stopped"
    assert {**kept.summary, "seconds": 0} == {**summary, "seconds": 0}


@pytest.mark.parametrize("engine", [Small, Hosted])
@pytest.mark.parametrize("limits", [{"max_calls": 7}, {"max_tokens": 400}, {"max_cost": 0.005}])
def test_a_limit_before_anything_is_scored(tmp_path, engine, limits):
    url = url_in(tmp_path, "early")
    [name] = limits
    first = engine()
    with pytest.raises(BudgetError, match=rf"`{name}` is .* nothing is scored yet: raise it"):
        fit(url, first, **limits)
    assert first.asked > 0
    run = only_run(url)
    assert (run.status, run.summary["stopped"], run.summary["asked"]) == (
        "stopped",
        name,
        first.asked,
    )
    second = engine()
    fit(url, second)
    assert first.asked + second.asked == only_run(url).summary["asked"]


def test_without_a_store(whole):
    found = fit(None, max_calls=300)
    assert found.run is None
    with pytest.raises(BudgetError):
        fit(None, max_calls=3)
    assert fit(None).graph == fit(None, max_calls=10**6).graph


def test_a_job_that_is_done_needs_no_budget(tmp_path):
    url = url_in(tmp_path, "done")
    graph = fit(url).graph
    assert fit(url, max_calls=1).graph == graph
    assert only_run(url).status == "done"


def test_nothing_is_loaded_for_what_may_not_be_asked(tmp_path):
    url = url_in(tmp_path, "load")
    fit(url, max_calls=300)

    class Unloadable(Small):
        async def load(self, base, experts):
            raise AssertionError("was loaded")

    assert fit(url, Unloadable(), max_calls=300).run == 1


@pytest.mark.parametrize("after", [1, 20, 70])
def test_what_an_interrupted_session_has_used_counts(tmp_path, whole, after):
    left = iter(range(10**6))

    def interrupt(requests):
        if next(left) == after:
            raise KeyboardInterrupt

    url = url_in(tmp_path, "interrupted")
    with pytest.raises(KeyboardInterrupt):
        fit(url, Small(interrupt))
    most = whole[1]["cost"]
    fit(url, max_cost=most * 0.8)
    run = only_run(url)
    assert run.status == "stopped"
    assert most * 0.7 < run.summary["cost"] <= most * 0.8
    with swarm.Store.open(url) as store:
        assert spent_before(store, run.id, pool()).cost == pytest.approx(run.summary["cost"])


def test_cost_is_by_the_prices_of_today(tmp_path):
    url = url_in(tmp_path, "prices")
    fit(url, experts=relay_job.pool().subset(*relay_job.LETTERS), max_calls=400)
    free = only_run(url).summary
    assert free["cost"] == 0
    other = url_in(tmp_path, "priced")
    fit(other, max_calls=400)
    cost = only_run(other).summary["cost"]
    assert cost > 0
    fit(other, experts=pool(scale=2.0), max_calls=400)
    assert only_run(other).summary["cost"] == pytest.approx(2 * cost)


def test_time_counts_by_the_clock_and_before_by_the_engines(tmp_path, monkeypatch, whole):
    now = [0.0]
    monkeypatch.setattr(budget_module.time, "monotonic", lambda: now[0])

    def tick(requests):
        now[0] += 1.0

    url = url_in(tmp_path, "time")
    fit(url, Small(tick), max_seconds=100)
    run = only_run(url)
    assert (run.status, run.summary["stopped"]) == ("stopped", "max_seconds")
    assert run.summary["seconds"] == 100
    with swarm.Store.open(url) as store:
        before = spent_before(store, run.id, pool()).seconds
    assert 0 < before < 100
    fit(url, Small(tick), max_seconds=10)
    assert 10 <= only_run(url).summary["seconds"] < 12
    fit(url, max_seconds=10**6)
    assert outcome(url) == whole[0]


def batch(start, seconds, load=0.0):
    at = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=start)
    return BatchRecord(1, "b", ("e",), 1, 1, 1, seconds, load, bool(load), at)


@given(st.lists(st.tuples(*[st.integers(0, 30)] * 3), min_size=1))
def test_what_ran_together_counts_once(spans):
    ticks = set()
    for start, seconds, load in spans:
        ticks.update(range(start - load, start + seconds))
    assert busy_seconds(batch(*span) for span in spans) == len(ticks)


@given(st.lists(st.text()))
def test_no_tokenizer_makes_more_of_a_prompt(texts):
    messages = tuple(Message("user", text) for text in texts)
    words = sum(text.count(" ") + 1 for text in texts)
    assert words <= most_tokens(messages)
    assert sum(len(text.encode()) for text in texts) <= most_tokens(messages)


async def test_who_does_not_fit_waits_for_those_who_are_being_asked():
    account = Account(swarm.Budget(max_calls=5))
    request = swarm.agents.messages.Request(pool()["a"], (Message("user", "x"),))
    order = []

    async def ask(name, count, pause):
        async with account.asking([request] * count) as allowed:
            order.append((name, allowed))
            await asyncio.sleep(pause)
            account.book(batch(0, 0), [])

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(ask("first", 5, 0.01))
        tasks.create_task(ask("second", 2, 0))
    assert order == [("first", 5), ("second", 2)]
    assert account.spent.calls == 2


@pytest.mark.parametrize("limits", [{"max_calls": 0}, {"max_cost": -1.0}, {"max_seconds": 0}])
def test_limits_are_above_0(limits):
    [name] = limits
    with pytest.raises(InputError, match=rf"`{name}` is {limits[name]}: a limit must be above 0"):
        swarm.Budget(**limits)


def test_a_limit_that_could_never_be_reached(tmp_path):
    with pytest.raises(InputError, match="no expert of pool `letters` has a price"):
        fit(url_in(tmp_path, "free"), experts=relay_job.pool(), max_cost=1.0)
    assert not (tmp_path / "free.db").exists()


def test_nothing_spent_is_nothing():
    assert Account().spent.calls == 0
    assert busy_seconds([]) == 0
    assert Spent() == Spent(0, 0, 0.0, 0.0)
