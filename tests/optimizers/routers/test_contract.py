"""What every router promises, run against each of them."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from swarm.analysis.routing import Routed
from swarm.errors import InputError, PoolError
from swarm.optimizers.outcomes import Outcomes
from swarm.optimizers.routers import ROUTERS, find_router
from swarm.optimizers.routers.asking import Asking
from swarm.optimizers.routers.base import Estimator
from swarm.runtime.policy import POLICIES

TEXT_ONLY = sorted(name for name in ROUTERS if not issubclass(find_router(name), Asking))
LEARNING = sorted(set(TEXT_ONLY) - {"best_single", "random", "oracle"})
ALIKE = ("first", "second", "third")
SETTINGS = {"expertise_tree": {"smallest": 15}, "domains": {"clusters": 6}}


def fit(make, name, outcomes, **settings):
    return make(name, **SETTINGS.get(name, {}), **settings).fit(outcomes)


@pytest.fixture(scope="module")
def fitted(make, fitted_on):
    return {name: fit(make, name, fitted_on) for name in TEXT_ONLY}


def names(router, questions):
    return [graph.end.expert for graph in router.graphs_for(questions)]


def questions_of(name, fitted_on, judged_by):
    return (fitted_on if name == "oracle" else judged_by).questions


def test_all_can_be_loaded_as_policies():
    assert {name: POLICIES[name] for name in ROUTERS} == ROUTERS
    assert all(find_router(name).name == name for name in ROUTERS)


@pytest.mark.parametrize("name", LEARNING)
def test_it_finds_the_planted_rule(fitted, judged_by, name):
    chosen = Routed.of(fitted[name].route(judged_by.questions), judged_by)
    assert chosen.accuracy > judged_by.means.max() + 0.1


def test_best_single_random_and_oracle_frame_the_table(fitted, fitted_on, judged_by):
    best = Routed.of(fitted["best_single"].route(judged_by.questions), judged_by)
    assert best.accuracy == judged_by.scores[:, fitted_on.best].mean()
    drawn = fitted["random"].route(judged_by.questions)
    assert np.bincount(drawn, minlength=4).min() > 5
    known = Routed.of(fitted["oracle"].route(fitted_on.questions), fitted_on)
    assert known.accuracy == fitted_on.oracle
    cheapest = np.where(fitted_on.scores == fitted_on.scores.max(axis=1, keepdims=True), 1, np.inf)
    assert known.costs.sum() == pytest.approx((cheapest * fitted_on.costs).min(axis=1).sum())
    with pytest.raises(InputError, match="it is for tables"):
        fitted["oracle"].route(["never heard of"])


@pytest.mark.parametrize("name", TEXT_ONLY)
def test_the_same_seed_is_the_same_router(make, fitted, fitted_on, judged_by, name):
    asked = questions_of(name, fitted_on, judged_by)
    again = fit(make, name, fitted_on)
    assert (again.route(asked) == fitted[name].route(asked)).all()
    # Where a question stands among others, or whether it comes twice, does not matter.
    assert (again.route(asked[::-1])[::-1] == again.route(asked)).all()
    assert names(again, [asked[0], asked[0]]) == names(again, [asked[0]]) * 2
    assert again.graphs_for([]) == []


def test_other_seeds_draw_otherwise(make, fitted_on, judged_by, fitted):
    other = fit(make, "random", fitted_on, seed=1).route(judged_by.questions)
    assert (other != fitted["random"].route(judged_by.questions)).any()


def test_saved_and_loaded_in_another_process_they_route_alike(
    fitted, fitted_on, judged_by, tmp_path
):
    asked = {n: questions_of(n, fitted_on, judged_by)[::9] for n in TEXT_ONLY}
    for name, router in fitted.items():
        router.save(tmp_path / name)
        files = sorted(path.name for path in (tmp_path / name).iterdir())
        assert files == ["policy.json", "policy.safetensors"]
    (tmp_path / "asked.json").write_text(json.dumps(asked))
    code = (
        "import json, sys\n"
        "from pathlib import Path\n"
        "from swarm.runtime.policy import load_policy\n"
        "folder = Path(sys.argv[1])\n"
        "asked = json.loads((folder / 'asked.json').read_text())\n"
        "found = {n: load_policy(folder / n).graphs_for(q) for n, q in asked.items()}\n"
        "print(json.dumps({n: [g.to_json() for g in graphs] for n, graphs in found.items()}))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout.splitlines()[-1])
    for name, router in fitted.items():
        assert found[name] == [graph.to_json() for graph in router.graphs_for(asked[name])], name


@pytest.mark.parametrize("name", TEXT_ONLY)
def test_a_gone_expert_is_routed_around(fitted, fitted_on, judged_by, name):
    asked = questions_of(name, fitted_on, judged_by)
    router = fitted[name].without(["calculator"])
    assert router.experts == ("linguist", "programmer", "allrounder")
    assert {"calculator"}.isdisjoint(names(router, asked))
    # Who did not go to it goes where it went.
    if name not in ("random", "select_llm", "jury", "matrix_factorization", "domains"):
        before, after = names(fitted[name], asked), names(router, asked)
        assert all(b == a for b, a in zip(before, after, strict=True) if b != "calculator")
    with pytest.raises(PoolError, match="fit it"):
        fitted[name].without([*router.experts, "calculator"])


@pytest.mark.parametrize("name", TEXT_ONLY)
def test_a_single_expert_and_experts_that_are_all_alike(make, fitted_on, name):
    few = fitted_on.take(range(0, 240, 8))
    alone = fit(make, name, few.of_experts(["linguist"]))
    assert set(names(alone, few.questions)) == {"linguist"}
    scores, costs = np.full((30, 3), 0.5), np.zeros((30, 3))
    tied = Outcomes(few.questions, ALIKE, scores, costs, [["a"] * 3] * 30, few.meta)
    chosen = fit(make, name, tied).route(few.questions)
    # A bandit has tried some oftener than others; contrastive losses begin at random vectors.
    if name not in ("random", "bandit", "router_dc"):
        assert set(chosen) == {0}


@pytest.mark.parametrize("name", sorted(set(TEXT_ONLY) - {"random", "oracle"}))
def test_a_trade_off_turns_to_the_cheap(fitted, judged_by, name):
    router = fitted[name]
    assert isinstance(router, Estimator)
    spent = []
    for trade_off in (0.0, 20.0, 1e6):
        router.trade_off = trade_off
        spent.append(Routed.of(router.route(judged_by.questions), judged_by).cost)
    router.trade_off = 0.0
    assert spent[0] >= spent[1] >= spent[2] == pytest.approx(1.0)


def test_what_is_not_fitted_says_so(make):
    with pytest.raises(InputError, match="fit it first"):
        make("knn").graphs_for(["a"])
