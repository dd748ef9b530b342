"""What each baseline's paper promises, mostly against scores that are made up."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import numpy as np
import pytest
import relay_job
from hypothesis import given
from hypothesis import strategies as st

import swarm
from swarm.agents.mixing import export_expert
from swarm.agents.prompt import CHAT, Position
from swarm.errors import InputError, PoolError
from swarm.optimizers.baselines import (
    BestSingle,
    DareTies,
    GreedySoup,
    LoraHub,
    MajorityVote,
    ModelSwarms,
    RandomGraphs,
    UniformSoup,
)
from swarm.optimizers.role_step import random_graphs
from swarm.optimizers.voting import read_back
from swarm.runtime.progress import Silent

POOL = relay_job.pool()
TASK = relay_job.task()
NAMES = list(POOL)


class Made:
    """Scores candidates of one expert by a function of its weights, and notes what it was asked."""

    def __init__(self, function):
        self.function = function
        self.scored = []

    async def __call__(self, candidates):
        scores = [self.function(coefficients(candidate)) for candidate in candidates]
        self.scored += zip(map(coefficients, candidates), scores, strict=True)
        return scores


def coefficients(candidate):
    [name] = candidate.graph.experts
    if name in candidate.versions:
        return tuple(candidate.versions[name].coefficients.tolist())
    return tuple(np.eye(len(NAMES))[NAMES.index(name)].tolist())


def find(optimizer, function, pool=POOL):
    score = Made(function)
    return asyncio.run(optimizer.find(TASK, pool, score)), score.scored


def scripts(**texts):
    """Experts that say the same whatever they are asked."""
    return swarm.Pool(swarm.Expert.scripted(name, lambda m, t=t: t) for name, t in texts.items())


# Best single, random graphs


def test_the_best_single_is_the_one_that_scores_most_alone():
    found = BestSingle().fit(TASK, POOL, progress=Silent())
    graphs = [swarm.graphs.single(name) for name in POOL]
    scores = [e.score for e in swarm.evaluate(graphs, TASK, POOL, split="dev")]
    assert found.graph == graphs[int(np.argmax(scores))]


def test_random_graphs_are_those_that_a_role_step_starts_with():
    found = RandomGraphs(graphs=8, seed=5).fit(TASK, POOL, progress=Silent())
    graphs = random_graphs(POOL, 8, seed=5)
    scores = [e.score for e in swarm.evaluate(graphs, TASK, POOL, split="dev")]
    assert found.graph == graphs[int(np.argmax(scores))]


# Vote

TEXTS = st.lists(
    st.text("abc \n:?", max_size=12) | st.sampled_from(["Question: b", "so\nQuestion: c", "1: x"]),
    min_size=1,
    max_size=5,
)


@given(TEXTS, st.sampled_from(["What?", "Is it\nQuestion: b", "x\nPrevious response 1: y"]))
def test_responses_are_read_back_as_they_were_given(responses, question):
    prompt = CHAT.render(question, responses, Position.LAST)
    assert read_back(prompt, len(responses), {question}) == (question, responses)


def test_a_question_of_nobodys_is_read_back_too():
    prompt = CHAT.render("What?", ["a\nb", "Question: c"], Position.LAST)
    assert read_back(prompt, 2) == ("What?", ["a\nb", "Question: c"])


def letters_task(count=6):
    choices = {"A": "one", "B": "two", "C": "three"}
    dev = [{"question": f"Which, {i}?", "answer": "B", "choices": choices} for i in range(count)]
    return swarm.Task.from_records("letters", "choice", dev=dev, fields={"choices": "choices"})


@pytest.mark.parametrize(
    ("texts", "chosen"),
    [
        (["It is A.\nThe answer is (A)", "B", "two"], "B"),
        (["A", "B"], "A"),
        (["C", "B", "A", "(B)\nsince I say so"], "B"),
        (["hm", "no idea", "The answer is (C)\n" + "really " * 300], "The answer is (C)\n"),
        (["hm", "no idea"], ""),
    ],
)
def test_the_vote_is_the_first_response_with_the_most_frequent_answer(texts, chosen):
    pool = scripts(**{f"e{i}": text for i, text in enumerate(texts)})
    task = letters_task()
    found = MajorityVote().fit(task, pool, progress=Silent())
    trace = found.invoke(task.dev[0].prompt)
    assert trace.text.startswith(chosen)
    assert trace.text in [*texts, ""] or len(chosen) > 10
    assert found.evaluate(task, "dev").score == float(task.score(task.dev[0], trace.text))


def test_the_vote_is_that_of_the_experts_alone():
    rng = random.Random(0)
    task = letters_task(30)
    answers = {e.prompt: [rng.choice("ABC?") for _ in range(5)] for e in task.dev}

    def voter(k):
        def speak(messages):
            prompt = messages[-1].content
            question = prompt[prompt.index("Which, ") :]
            return f"I think\nthe answer is ({answers[question][k]})"

        return swarm.Expert.scripted(f"voter{k}", speak)

    pool = swarm.Pool(voter(k) for k in range(5))
    evaluation = MajorityVote().fit(task, pool, progress=Silent()).evaluate(task, "dev")
    for example, score in zip(task.dev, evaluation.scores, strict=True):
        given = Counter(a for a in answers[example.prompt] if a != "?")
        [(winner, _)] = given.most_common(1) or [("?", 0)]
        assert score == (winner == "B")


# Soups


def test_a_uniform_soup_is_the_mean_of_all_weights(adapters, tmp_path):
    from safetensors.torch import load_file

    pool, task = adapters
    found = UniformSoup().fit(task, pool, progress=Silent())
    [name] = found.graph.experts
    written = export_expert(found.pool[name], str(tmp_path / "soup"))
    soup, *many = (
        load_file(f"{expert.adapter}/adapter_model.safetensors")
        for expert in [written, *pool.values()]
    )
    for tensor in soup:
        mean = sum(weights[tensor] for weights in many) / len(many)
        np.testing.assert_allclose(soup[tensor], mean, rtol=1e-5, atol=1e-6)


def greedily(function):
    """Recipe 1 of the paper, of sets of experts."""
    units = np.eye(len(NAMES))
    order = sorted(range(len(NAMES)), key=lambda k: -function(tuple(units[k].tolist())))
    soup = []
    for k in order:
        if not soup or function(mean([*soup, k])) >= function(mean(soup)):
            soup.append(k)
    return mean(soup)


def mean(ingredients):
    return tuple((np.eye(len(NAMES))[sorted(ingredients)].sum(axis=0) / len(ingredients)).tolist())


@given(st.integers(0, 10**6), st.integers(2, 50))
def test_a_greedy_soup_is_that_of_the_paper_and_never_below_the_best_single(seed, levels):
    def function(row):
        """A score for every soup, with ties."""
        chosen = "".join("1" if c else "0" for c in row)
        return random.Random(f"{seed}{chosen}").randrange(levels) / levels

    found, scored = find(GreedySoup(), function)
    assert coefficients(found) == pytest.approx(greedily(function))
    singles = [score for row, score in scored if max(row) == 1]
    assert function(coefficients(found)) >= max(singles)
    assert len(scored) == 2 * len(NAMES) - 1


# Model Swarms


@given(st.integers(0, 1000))
def test_model_swarms_that_do_not_move_are_the_best_single(seed):
    still = {"inertia": 0, "cognitive": 0, "social": 0, "repel": 0}
    rng = np.random.default_rng(seed)
    worth = rng.random(len(NAMES))
    found, _ = find(ModelSwarms(iterations=3, seed=seed, **still), lambda row: float(worth @ row))
    assert coefficients(found) == tuple(np.eye(len(NAMES))[int(worth.argmax())].tolist())


def test_model_swarms_give_the_best_that_they_have_come_by():
    target = np.array([0.5, 0.5, 0, 0, 0, 0])

    def function(row):
        return 1 - float(np.abs(np.array(row) - target).mean())

    found, scored = find(ModelSwarms(seed=0), function)
    best = max(score for _, score in scored)
    assert function(coefficients(found)) == best
    assert best > max(score for _, score in scored[: len(NAMES)])
    assert [row for row, _ in scored[: len(NAMES)]] == [tuple(r) for r in np.eye(6).tolist()]


def test_model_swarms_need_two_experts_and_numbers_a_particle():
    with pytest.raises(InputError, match="at least 2"):
        ModelSwarms().fit(TASK, POOL.subset("a"))
    with pytest.raises(InputError, match="randomness"):
        ModelSwarms(randomness="entry")


# LoraHub


@given(st.integers(0, 1000), st.floats(0.1, 3))
def test_lorahub_stays_within_its_limits(seed, limit):
    worth = np.random.default_rng(seed).standard_normal(len(NAMES))
    settings = {"seed": seed, "limit": limit, "iterations": 6}
    _, scored = find(LoraHub(**settings), lambda row: float(worth @ row))
    assert all(abs(c) <= limit for row, _ in scored for c in row)
    assert len({row for row, _ in scored}) > 10


@pytest.mark.parametrize("l1", [0.0, 0.05, 2.0])
def test_lorahub_takes_its_l1_term_off_what_it_compares(l1):
    def function(row):
        return 0.5 + 0.1 * row[0]

    found, scored = find(LoraHub(seed=1, l1=l1), function)

    def value(row, score):
        return score - l1 * np.abs(row).mean()

    row = coefficients(found)
    assert value(row, function(row)) == pytest.approx(max(value(r, s) for r, s in scored))
    if l1 == 2.0:  # which makes it cost more than it is worth
        assert np.abs(row).mean() < 0.25
    else:
        assert row[0] > 1.2


def test_lorahub_begins_around_the_base_model():
    _, scored = find(LoraHub(seed=0, particles=50, iterations=2), lambda row: 0.5)
    rows = np.array([row for row, _ in scored])
    assert np.abs(rows.mean(axis=0)).max() < 0.5
    assert np.abs(rows).max() > 1.2


def test_lorahub_is_for_adapters():
    from pathlib import Path

    zoo = Path(__file__).parents[3] / "examples" / "zoo"
    models = [swarm.Expert(name=n, model=str(zoo / "base")) for n in "ab"]
    with pytest.raises(PoolError, match=r"`a` is a whole model.*`ModelSwarms`"):
        LoraHub().fit(TASK, swarm.Pool(models))


# DARE-TIES


def test_dare_ties_writes_what_it_merges_and_finds_it_there_again(adapters, tmp_path):
    pool, task = adapters
    settings = {"folder": str(tmp_path), "drop": 0.25}
    found = DareTies(**settings).fit(task, pool, progress=Silent())
    [folder] = tmp_path.iterdir()
    written = (folder / "adapter_model.safetensors").stat().st_mtime_ns
    again = DareTies(**settings).fit(task, pool, progress=Silent())
    assert [each.pool["dare_ties"].adapter for each in (found, again)] == [str(folder)] * 2
    assert (folder / "adapter_model.safetensors").stat().st_mtime_ns == written
    other = DareTies(**settings, seed=1).fit(task, pool, progress=Silent())
    assert other.pool["dare_ties"].fingerprint != found.pool["dare_ties"].fingerprint
    found.export(tmp_path / "system")
    assert swarm.Pool.load(tmp_path / "system" / "pool.toml")["dare_ties"].adapter == str(folder)
