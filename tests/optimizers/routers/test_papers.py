"""What is particular to each router: the property that its paper is about."""

from __future__ import annotations

import asyncio
import itertools

import numpy as np
import pytest

from swarm.agents.messages import Response, Usage
from swarm.analysis.routing import Routed
from swarm.errors import InputError, PoolError, RequestError
from swarm.optimizers.outcomes import Outcomes
from swarm.optimizers.routers.cascade import Cascade, agreement, best_threshold
from swarm.optimizers.routers.llm import LLMRouter
from swarm.optimizers.routers.select_llm import weighted_vote
from swarm.optimizers.routers.smoothie import _errors
from swarm.optimizers.routers.surface import SIZE, surface


def asks(answers):
    """An `Ask` that answers as it is told: expert and question → texts of its draws."""
    asked = []

    async def ask(expert, prompts, *, draws=1, about=None):
        asked.append((expert, len(prompts), draws))
        found = []
        for messages in prompts:
            texts = answers(expert, messages[-1].content)
            replies = [t if isinstance(t, Exception) else Response(t, Usage(1, 1)) for t in texts]
            found.append(list(itertools.islice(itertools.cycle(replies), draws)))
        return found

    ask.asked = asked
    return ask


# --- carrot: one pair of estimators serves every trade-off ---------------------------------------


def test_carrot_knows_that_long_questions_cost_more(make, fitted_on):
    lengths = np.array([len(question) for question in fitted_on.questions])
    costs = fitted_on.costs * (lengths / lengths.mean())[:, None]
    priced = Outcomes(fitted_on.questions, fitted_on.experts, fitted_on.scores, costs)
    router = make("carrot").fit(priced)
    estimated = router.cost_estimates(priced.questions)
    assert estimated.min() >= 0
    for expert in range(4):
        assert np.corrcoef(estimated[:, expert], costs[:, expert])[0, 1] > 0.7


# --- router_dc: the losses -----------------------------------------------------------------------


def test_the_sample_expert_loss_is_that_of_the_paper(make):
    torch = pytest.importorskip("torch")
    router = make("router_dc", positives=2, negatives=2, temperature=1.0)
    read = torch.nn.functional.normalize(torch.tensor([[1.0, 0.2], [0.3, 1.0]]), dim=1)
    experts = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0], [-1.0, 0.0]])
    grades = torch.tensor([[0.9, 0.6, 0.2, 0.0], [0.0, 0.0, 0.8, 0.7]])
    similar = (read @ torch.nn.functional.normalize(experts, dim=1).T).double().numpy()
    expected = 0.0
    for row, (plus, minus) in enumerate([((0, 1), (2, 3)), ((2, 3), (0, 1))]):
        for t in plus:
            others = np.exp(similar[row, list(minus)]).sum()
            expected -= np.log(np.exp(similar[row, t]) / (np.exp(similar[row, t]) + others)) / 2
    assert float(router._sample_expert_loss(read, experts, grades)) == pytest.approx(expected)
    # Who is right is never pushed away, nor is who is wrong pulled near.
    nobody = router._sample_expert_loss(read, experts, torch.zeros(2, 4))
    everybody = router._sample_expert_loss(read, experts, torch.ones(2, 4))
    assert float(nobody) == float(everybody) == 0


def test_the_sample_sample_loss_pulls_a_cluster_together(make):
    torch = pytest.importorskip("torch")
    router = make("router_dc", temperature=1.0)
    clusters = torch.tensor([0, 0, 1, 1])
    apart = torch.tensor([[1.0, 0], [1, 0], [-1, 0], [-1, 0]])
    mixed = torch.tensor([[1.0, 0], [-1, 0], [1, 0], [-1, 0]])
    generator = torch.Generator().manual_seed(0)
    near, far = (router._sample_sample_loss(x, clusters, generator) for x in (apart, mixed))
    assert float(near) == pytest.approx(-np.log(np.e / (np.e + 3 / np.e)))
    assert float(far) > float(near)
    assert float(router._sample_sample_loss(apart, torch.zeros(4).long(), generator)) == 0


def test_an_encoder_that_was_tuned_is_saved_with_the_router(make, fitted_on):
    few = fitted_on.take([0, 1, 80, 81, 160, 161])
    router = make("router_dc", fine_tune=True, steps=2, batch=4, fine_tune_rate=1e-3, clusters=2)
    router.fit(few)
    values, arrays = router.state()
    assert any(name.startswith("encoder.") for name in arrays)
    plain = make("router_dc").vectors(few.questions)
    assert np.abs(router.vectors(few.questions) - plain).max() > 1e-3
    again = type(router).from_state(values, arrays)
    np.testing.assert_allclose(again.estimates(few.questions), router.estimates(few.questions))


def test_grades_are_soft_scores_where_there_are_any(make, fitted_on):
    from swarm.optimizers.routers.base import graded

    meta = [{"soft_scores": {"calculator": 0.25}}, *fitted_on.meta[1:]]
    grades = graded(
        Outcomes(
            fitted_on.questions, fitted_on.experts, fitted_on.scores, fitted_on.costs, None, meta
        )
    )
    assert grades[0, 0] == 0.25
    assert (grades[1:] == fitted_on.scores[1:]).all()


# --- domains: an integer program under a budget --------------------------------------------------


def test_a_budget_holds_the_experts_that_serve(make, fitted_on, judged_by):
    tagged = make("domains", tag="benchmark").fit(fitted_on)
    guessed = [tagged.facts["domains"][i] for i in tagged.guesses(judged_by.questions)[0]]
    assert np.mean(np.array(guessed) == judged_by.tags("benchmark")) > 0.95
    served = {}
    for budget in (1, 2, 3):
        router = make("domains", tag="benchmark", budget=budget).fit(fitted_on)
        served[budget] = {router.experts[j] for j in router.facts["serving"]}
        assert len(served[budget]) <= budget
        chosen = {graph.end.expert for graph in router.graphs_for(judged_by.questions)}
        assert chosen <= served[budget]
    assert served[1] == {"allrounder"}
    assert served[3] == {"calculator", "linguist", "programmer"}
    sized = make("domains", tag="benchmark", budget=3, sizes={"allrounder": 4}).fit(fitted_on)
    assert "allrounder" not in {sized.experts[j] for j in sized.facts["serving"]}
    with pytest.raises(InputError, match="at least the size of an expert"):
        make("domains", tag="benchmark", budget=0.5).fit(fitted_on)
    with pytest.raises(InputError, match="has no `subject`"):
        make("domains", tag="subject").fit(fitted_on)


def test_who_is_unsure_asks_the_best(make, fitted_on, judged_by):
    router = make("domains", tag="benchmark", unsure=1.1).fit(fitted_on)
    assert set(router.route(judged_by.questions)) == {fitted_on.best}


# --- matrix factorisation: a preference between two ----------------------------------------------


def test_wins_of_two_experts_are_complementary(make, fitted_on, judged_by):
    pair = fitted_on.of_experts(["calculator", "linguist"])
    wins = make("matrix_factorization").fit(pair).estimates(judged_by.questions)
    np.testing.assert_allclose(wins.sum(axis=1), 1)
    assert (wins[:30, 0] > 0.5).mean() > 0.9
    assert (wins[30:60, 1] > 0.5).mean() > 0.9


# --- bandit: it learns online, of the expert that it asked alone ---------------------------------


def test_a_bandit_learns_from_what_it_asks_alone(make, fitted_on):
    router = make("bandit").fit(fitted_on)
    pulls = router.learned["precision"][:, -1, -1] - 1
    assert pulls.sum() == len(fitted_on)  # one expert a question, not four
    question = "What is 3 plus 4 minus 5?"
    before = router.estimates([question])[0, 1]
    for _ in range(20):
        router.update(question, "linguist", 1.0, 0.001)
    assert router.estimates([question])[0, 1] > before
    assert router.estimates([question])[0, 1] > 0.8
    with pytest.raises(InputError, match="no expert `nobody`"):
        router.update(question, "nobody", 1.0)


def test_a_bandit_tries_what_it_knows_little_of(make, fitted_on):
    router = make("bandit", exploration=5.0).fit(fitted_on)
    question = "How do you say the words for apple, river and stone in French?"
    for _ in range(200):
        router.update(question, "linguist", 0.9)
    assert router.explore(question) != 1
    router.exploration = 0.0
    assert router.explore(question) == 1


def test_a_preference_can_be_changed_at_any_time(make, fitted_on, judged_by):
    router = make("bandit").fit(fitted_on)
    dear = Routed.of(router.route(judged_by.questions), judged_by).cost
    router.preference = 0.05
    assert Routed.of(router.route(judged_by.questions), judged_by).cost < dear
    assert set(router.route(judged_by.questions)) <= {0, 1}  # the cheapest two


# --- smoothie: quality without labels ------------------------------------------------------------


def test_smoothie_never_sees_a_score(make, fitted_on, judged_by):
    blind = Outcomes(
        fitted_on.questions,
        fitted_on.experts,
        1 - fitted_on.scores,
        fitted_on.costs,
        fitted_on.answers,
        fitted_on.meta,
    )
    seeing, not_seeing = make("smoothie").fit(fitted_on), make("smoothie").fit(blind)
    assert (seeing.route(judged_by.questions) == not_seeing.route(judged_by.questions)).all()
    with pytest.raises(InputError, match="learns from answers"):
        make("smoothie").fit(Outcomes(("a",), ("x",), np.ones((1, 1)), np.zeros((1, 1))))


def test_triplets_recover_the_errors_of_independent_experts():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(4000, 1, 8))
    deviation = np.array([0.2, 0.5, 1.0, 1.5])
    answers = truth + rng.normal(size=(4000, 4, 8)) * deviation[:, None]
    distances = ((answers[:, :, None] - answers[:, None]) ** 2).sum(axis=-1)
    found = _errors(distances).mean(axis=0)
    np.testing.assert_allclose(found, 8 * deviation**2, rtol=0.05, atol=0.1)


def test_answers_may_be_compared_as_vectors(make, fitted_on):
    few = fitted_on.take(range(0, 240, 12))
    errors = make("smoothie", compare="vectors").fit(few).learned["errors"]
    assert errors.mean(axis=0).argmin() == 3  # the allrounder agrees most with the others


# --- select_llm: a few experts, and a vote -------------------------------------------------------


def test_the_surest_are_asked_and_read_by_the_aggregator(make, fitted_on, judged_by):
    router = make("select_llm", calls=2, aggregator="judge", prior=1.0).fit(fitted_on)
    graphs = router.graphs_for(judged_by.questions)
    assert {len(graph.agents) for graph in graphs} == {3}
    assert {graph.end.expert for graph in graphs} == {"judge"}
    asked = [{agent.expert for agent in graph.agents} for graph in graphs]
    assert np.mean(["calculator" in each for each in asked[:30]]) > 0.9
    assert router.without(["linguist"]).experts == ("calculator", "programmer", "allrounder")
    with pytest.raises(PoolError, match="aggregator `judge` is gone"):
        router.without(["judge"])


def test_a_vote_weighs_the_surer_more():
    answers = [["a", "b", "b", None], ["a", "b", "c", "a"], [None] * 4]
    chosen = np.array([[0, 1, 2], [1, 2, 0], [0, 1, 2]])
    assert weighted_vote(answers, chosen, np.ones((3, 3))) == ["b", "b", None]
    assert weighted_vote(answers, chosen, np.array([[3.0, 1, 1]] * 3)) == ["a", "b", None]


# --- expertise trees: parted only where it helps -------------------------------------------------


def test_a_tree_grows_only_where_experts_differ(make, fitted_on):
    grown = make("expertise_tree", smallest=15).fit(fitted_on)
    assert len(grown.learned["nodes"]) > 1
    rng = np.random.default_rng(0)
    same = rng.random((240, 1)) < [[0.9, 0.5, 0.5, 0.5]]
    plain = Outcomes(fitted_on.questions, fitted_on.experts, same * 1.0, fitted_on.costs)
    assert len(make("expertise_tree", smallest=15).fit(plain).learned["nodes"]) == 1


# --- blend: form and subject ---------------------------------------------------------------------


def test_kinds_are_found_where_nothing_is_tagged(make, fitted_on, judged_by):
    bare = Outcomes(fitted_on.questions, fitted_on.experts, fitted_on.scores, fitted_on.costs)
    router = make("blend").fit(bare)
    assert Routed.of(router.route(judged_by.questions), judged_by).accuracy > judged_by.means.max()


def test_what_looks_like_no_kind_goes_to_who_is_good_at_all(make, fitted_on):
    router = make("blend").fit(fitted_on)
    odd = ["def f(x): # 3 plus 4 minus 5", "Write Python for the sum of 3 and 4, in French."]
    kinds = router.kinds(odd)
    np.testing.assert_allclose(kinds.sum(axis=1), 1)
    router.doubt = 100.0
    strange = router.kinds(odd)
    assert (strange.max(axis=1) <= kinds.max(axis=1) + 1e-12).all()


def test_the_surface_of_a_question():
    texts = ["", "汉字?", "a\nA. x\nB) y\n(C) z", "x" * 10_000 + "?", "\ud800", "$\\frac{1}{2}$"]
    seen = surface(texts)
    assert seen.shape == (6, SIZE)
    assert np.isfinite(seen).all()
    assert seen[1, 0] > 1
    assert seen[2, 5] == 1.5
    assert surface([]).shape == (0, SIZE)


# --- cascade: agreement of draws -----------------------------------------------------------------


def drawn(right):
    """Outcomes of a cheap expert that is right where its draws agree, and a dear one."""
    n = len(right)
    scores = np.stack([np.array(right, float), np.ones(n)], axis=1)
    meta = [
        {"sample_answers": {"cheap": ["7"] * 5 if r else list("12345")}, "gold": "7"} for r in right
    ]
    questions = tuple(f"question {i}" for i in range(n))
    return Outcomes(questions, ("cheap", "dear"), scores, np.tile([0.1, 1.0], (n, 1)), None, meta)


def test_a_cascade_goes_up_where_draws_differ_and_within_its_budget():
    router = Cascade(escalate=0.5).fit(drawn([True] * 6 + [False] * 4))
    assert router.facts["first"] == ["cheap"]
    assert router.decide([["7", "7", "7", "7", "7"]]) == (False, "7")
    assert router.decide([list("12345")])[0]
    tight = Cascade(escalate=0.1).fit(drawn([True] * 6 + [False] * 4))
    assert not tight.decide([["1", "2", "3", "4", "5"]])[0]


def test_a_cascade_asks_first_and_says_so(tmp_path):
    router = Cascade(answer=r"(\d+)", draws=3).fit(drawn([True] * 6 + [False] * 4))
    with pytest.raises(InputError, match="use `agraphs_for`"):
        router.graphs_for(["easy"])
    ask = asks(lambda expert, q: ["is 7", "so 7", "7"] if q == "easy" else ["1", "2", "3"])
    graphs = asyncio.run(router.agraphs_for(["easy", "hard"], ask))
    assert [graph.end.expert for graph in graphs] == ["cheap", "dear"]
    assert ask.asked == [("cheap", 2, 3)]
    failing = asks(lambda expert, q: [RequestError("gone")])
    assert asyncio.run(router.agraphs_for(["easy"], failing))[0].end.expert == "dear"
    from swarm.runtime.policy import load_policy

    router.save(tmp_path / "saved")
    again = asyncio.run(load_policy(tmp_path / "saved").agraphs_for(["easy", "hard"], ask))
    assert again == graphs
    with pytest.raises(PoolError, match="both its levels"):
        router.without(["cheap"])
    with pytest.raises(InputError, match="fitted with several draws"):
        Cascade().fit(Outcomes(("a",), ("x", "y"), np.ones((1, 2)), np.zeros((1, 2))))


def test_agreement_and_the_best_threshold():
    assert agreement([]) == agreement([None, None]) == (0.0, None)
    assert agreement(["a", "b", "a", None]) == (0.5, "a")
    shares, first, then = np.array([1, 0.8, 0.4, 0.2]), np.array([1.0, 1, 0, 0]), np.ones(4)
    assert 0.4 < best_threshold(shares, first, then, 0.5) < 0.8
    assert best_threshold(shares, first, then, 0.0) <= 0.2
    assert best_threshold(shares, first, np.zeros(4), 1.0) <= 0.2  # the dear one is of no use


# --- an LLM as router ----------------------------------------------------------------------------


def test_an_expert_names_who_is_asked(fitted_on):
    router = LLMRouter(judge="allrounder", tag="benchmark").fit(fitted_on)
    seen = []

    def answer(expert, prompt):
        seen.append((expert, prompt))
        replies = {"one": "2", "two": "I'd say programmer.", "three": "nobody", "four": "No 99"}
        return [replies[prompt.partition("Question:\n")[2].split("\n")[0]]]

    graphs = asyncio.run(router.agraphs_for(["one", "two", "three", "four"], asks(answer)))
    chosen = [graph.end.expert for graph in graphs]
    assert chosen == ["linguist", "programmer", "allrounder", "allrounder"]
    assert {expert for expert, _ in seen} == {"allrounder"}
    assert "1. calculator: answers" in seen[0][1]
    assert "sums" in seen[0][1]
    failing = asks(lambda expert, prompt: [RequestError("gone")])
    [graph] = asyncio.run(router.agraphs_for(["{experts} {question}"], failing))
    assert graph.end.expert == "allrounder"


def test_an_llm_router_without_its_judge_or_some_experts(fitted_on):
    router = LLMRouter(judge="judge").fit(fitted_on)
    assert router.experts[-1] == "judge"
    assert router.without(["linguist"]).routed == ("calculator", "programmer", "allrounder")
    with pytest.raises(PoolError, match="its judge `judge` is gone"):
        router.without(["judge"])
    with pytest.raises(InputError, match=r"has no \{question\}"):
        LLMRouter(prompt="{experts}").fit(fitted_on)
