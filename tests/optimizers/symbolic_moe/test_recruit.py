"""The policy of Symbolic-MoE: who is recruited for a question, and who aggregates."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from swarm.agents.expert import Expert
from swarm.agents.messages import Response, Usage
from swarm.agents.role import find_role
from swarm.errors import EngineError, InputError, PoolError
from swarm.optimizers.aggregation import aggregation_prompts, mix
from swarm.optimizers.outcomes import Outcomes
from swarm.optimizers.recruit import Recruiter, RecruitSettings, Source, annotate
from swarm.runtime.policy import load_policy

SKILLS = ("plus", "minus", "times")
# Each knows one skill, and the fourth nothing.
PROFILE = np.array([[9, -5, -5], [-5, 9, -5], [-5, -5, 9], [-9, -9, -9]], dtype=float)
# The second aggregates best on the whole, the first where `plus` is asked for.
AGGREGATION = np.array([[5, -5, 0], [4, 4, 4], [0, 0, 0], [-np.inf] * 3], dtype=float)
QUESTIONS = [f"{skill} {i}" for i in range(20) for skill in SKILLS]


def policy(source=None, **settings):
    settings = {"replacement": True, "aggregator": "task", **settings}
    return Recruiter(
        "abcd",
        SKILLS,
        PROFILE,
        AGGREGATION,
        source=source or Source(words=True),
        settings=RecruitSettings(**settings),
    )


def cast(graph):
    return [agent.expert for agent in graph.agents]


def test_those_who_have_the_skill_are_recruited_and_one_reads_them():
    for question, graph in zip(QUESTIONS, policy().graphs_for(QUESTIONS), strict=True):
        right = "abc"[SKILLS.index(question.split()[0])]
        assert cast(graph) == [right] * 3 + ["b"]
        assert graph.end.expert == "b"
        assert len(graph.predecessors(graph.end.name)) == 3


def test_without_replacement_everybody_is_another():
    for graph in policy(replacement=False, trim=0).graphs_for(QUESTIONS):
        recruited = cast(graph)[:-1]
        assert len(set(recruited)) == 3


def test_an_aggregator_for_each_question():
    ends = [graph.end.expert for graph in policy(aggregator="question").graphs_for(QUESTIONS)]
    assert ends == ["b" if not question.startswith("plus") else "a" for question in QUESTIONS]


def test_the_rarely_recruited_are_replaced():
    questions = ["plus 1"] + [f"minus {i}" for i in range(40)]
    untrimmed = policy(trim=0).graphs_for(questions)
    trimmed = policy(trim=0.05).graphs_for(questions)
    assert "a" in cast(untrimmed[0])
    assert Counter(e for graph in trimmed for e in cast(graph)).keys() == {"b"}
    assert trimmed[1:] == untrimmed[1:]


def test_the_same_choice_is_the_same_graph():
    graphs = policy().graphs_for(QUESTIONS)
    assert len(set(graphs)) == 3
    assert graphs == policy().graphs_for(QUESTIONS)
    assert policy(trim=0).graphs_for(QUESTIONS[::-1]) == policy(trim=0).graphs_for(QUESTIONS)[::-1]


def test_tags():
    tagged = Recruiter(
        "abcd",
        SKILLS,
        PROFILE,
        AGGREGATION,
        source=Source(tag="skill"),
        settings=RecruitSettings(replacement=True),
        tags={"what?": ["times"]},
    )
    [graph, unknown] = tagged.graphs_for(["what?", "who?"])
    assert cast(graph)[:-1] == ["c"] * 3
    assert len(cast(unknown)) == 4


def ask_by(answers):
    """Answers of an annotator, the k-th to the k-th draw; and what it was asked."""
    asked = []

    async def ask(expert, prompts, *, draws=1):
        asked.append((expert, list(prompts), draws))
        return [
            [
                answer if isinstance(answer, EngineError) else Response(answer, Usage(1, 1))
                for answer in answers(prompt[-1].content)[:draws]
            ]
            for prompt in prompts
        ]

    return ask, asked


def test_an_annotator_is_asked_about_every_question():
    asking = policy(Source(annotator="d"))
    with pytest.raises(InputError, match="asks `d`"):
        asking.graphs_for(QUESTIONS)
    ask, asked = ask_by(lambda prompt: ["times, minus", "times", "plus", "times", "numbers"])
    graphs = asyncio.run(asking.agraphs_for(QUESTIONS[:2], ask))
    assert [cast(graph)[:-1] for graph in graphs] == [["c"] * 3] * 2
    [(expert, prompts, draws)] = asked
    assert (expert, draws) == ("d", 5)
    assert [QUESTIONS[i] in prompt[-1].content for i, prompt in enumerate(prompts)] == [True] * 2


def test_an_annotator_that_fails():
    fails = EngineError("no room")
    ask, _ = ask_by(lambda prompt: [fails, "plus", "plus", fails, fails])
    assert asyncio.run(annotate(ask, "d", ["q"], times=5, said=2)) == [["plus"]]
    ask, _ = ask_by(lambda prompt: [fails] * 5)
    with pytest.raises(EngineError, match="no room"):
        asyncio.run(annotate(ask, "d", ["q"], times=5, said=2))


def encode(texts):
    rows = np.array([[text.count(c) + 1e-3 for c in "plusmintme"] for text in texts], np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_new_skills_stand_for_the_nearest_known():
    knowing = Recruiter(
        "abcd",
        SKILLS,
        PROFILE,
        AGGREGATION,
        source=Source(tag="skill"),
        settings=RecruitSettings(k=1),
        tags={"q": ["timess"], "r": ["minuss", "minus"]},
        vectors=encode(SKILLS),
        encode=encode,
    )
    assert knowing.known_skills([["timess"], ["minuss", "minus"], []]) == [[2], [1], []]
    assert [cast(g)[0] for g in knowing.graphs_for(["q", "r"])] == ["c", "b"]


def test_saved_and_loaded_in_a_new_process_it_recruits_the_same(tmp_path):
    recruiter = policy(trim=0, replacement=False, seed=3)
    recruiter.save(tmp_path / "policy")
    code = (
        "import json, sys; from swarm.runtime.policy import load_policy\n"
        "policy = load_policy(sys.argv[1])\n"
        "graphs = policy.graphs_for(json.loads(sys.argv[2]))\n"
        "print(json.dumps([graph.to_json() for graph in graphs]))"
    )
    out = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "policy"), json.dumps(QUESTIONS)],
        check=True,
        capture_output=True,
        text=True,
    )
    assert json.loads(out.stdout) == [g.to_json() for g in recruiter.graphs_for(QUESTIONS)]


def test_an_expert_that_is_gone(tmp_path):
    asking = policy(Source(annotator="e"))
    assert asking.experts == ("a", "b", "c", "d", "e")
    asking.save(tmp_path)
    with pytest.raises(PoolError, match="`e`"):
        load_policy(tmp_path).without(["e"])
    smaller = policy().without(["b"])
    graphs = smaller.graphs_for(QUESTIONS)
    assert smaller.experts == ("a", "c", "d")
    assert {graph.end.expert for graph in graphs} == {"a"}
    assert {e for graph in graphs for e in cast(graph)} <= {"a", "c", "d"}


OUTCOMES = Outcomes(
    questions=("q", "all right", "all wrong", "same"),
    experts=("a", "b", "c", "d"),
    scores=np.array([[1, 0, 0, 1], [1, 1, 1, 1], [0, 0, 0, 0], [1, 0, 0, 0]], dtype=float),
    costs=np.zeros((4, 4)),
    answers=(("4", "5", "6", "4."), ("1",) * 4, tuple("wxyz"), ("1", "2", "2", None)),
)


def test_the_synthetic_task_mixes_one_right_answer_with_wrong_ones():
    [mixed] = mix(OUTCOMES)
    assert mixed.row == 0
    assert len(mixed.responses) == 3
    assert set(mixed.responses) in ({"4", "5", "6"}, {"4.", "5", "6"})
    assert mix(OUTCOMES) == [mixed]
    assert [each.row for each in mix(OUTCOMES, wrong=1)] == [0, 3]
    orders = {mix(OUTCOMES, seed=seed)[0].responses for seed in range(30)}
    assert len(orders) > 4


def test_aggregators_are_asked_as_end_nodes():
    expert = Expert.scripted("a", {})
    mixed = mix(OUTCOMES)
    [prompt] = aggregation_prompts(expert, find_role("solver"), OUTCOMES.questions, mixed).prompts()
    text = prompt[-1].content
    places = [
        text.index(f"Previous response {k + 1}: {r}") for k, r in enumerate(mixed[0].responses)
    ]
    assert places == sorted(places)
    assert text.endswith("Question: q")
