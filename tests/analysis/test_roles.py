"""What agents do, as far as it can be seen without a judge."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

import swarm
from swarm.agents.messages import Response, Usage
from swarm.analysis import ACTS, role_heterogeneity
from swarm.store import AnswerRecord, CallView, QuestionRecord, TraceView

GRAPH = swarm.AgentGraph.from_json(
    '{"agents":[{"name":"a","expert":"a"},{"name":"b","expert":"b"},{"name":"c","expert":"c"}],'
    '"edges":[["a","c"],["b","c"]]}'
)


def trace(graph: swarm.AgentGraph = GRAPH, **said: str | None) -> TraceView:
    """A question to which each agent said so; None: its call failed."""

    def call(agent: swarm.Agent) -> CallView:
        text = said[agent.name]
        answer = text is not None and AnswerRecord(
            b"", b"", (), 0, Response(text, Usage(0, 0), "stop", 0.0)
        )
        return CallView(agent, None, False, None, answer or None, None)

    calls = tuple(call(agent) for agent in graph.agents)
    return TraceView(1, 1, 0, 0, QuestionRecord("0", "?"), graph, calls, "", 0.0, None)


def right(trace: TraceView, text: str) -> float:
    return float(text == "right")


def acts(found, name: str) -> dict[str, int]:
    [of_it] = [each for each in found.agents if each.agent.name == name]
    return {act: count for act, count in of_it.acts.items() if count}


@pytest.mark.parametrize(
    ("said", "act"),
    [
        ("right", "corrects"),
        ("wrong", "passes on"),
        ("also wrong", "rewrites"),
    ],
)
def test_after_wrong_responses(said: str, act: str) -> None:
    found = role_heterogeneity([trace(a="wrong", b="no", c=said)], right)
    assert acts(found, "c") == {act: 1}
    assert acts(found, "a") == acts(found, "b") == {"originates": 1}


@pytest.mark.parametrize(("said", "act"), [("right", "passes on"), ("no", "spoils")])
def test_after_a_right_response(said: str, act: str) -> None:
    assert acts(role_heterogeneity([trace(a="right", b="no", c=said)], right), "c") == {act: 1}


def test_without_scores_only_words_are_compared() -> None:
    traces = [trace(a="wrong", b="no", c="right"), trace(a="x", b="y", c=" y\n")]
    found = role_heterogeneity(traces)
    assert acts(found, "c") == {"rewrites": 1, "passes on": 1}
    assert all(agent.accuracy is None for agent in found.agents)


def test_failed_calls_do_not_count() -> None:
    found = role_heterogeneity([trace(a="right", b=None, c=None)], right)
    assert (acts(found, "a"), acts(found, "b"), acts(found, "c")) == ({"originates": 1}, {}, {})
    nothing = role_heterogeneity([trace(a=None, b=None, c=None)], right)
    assert (nothing.entropy, nothing.divergence) == (0, 0)
    assert role_heterogeneity([]).agents == ()


def test_agents_that_differ_differ() -> None:
    alike = role_heterogeneity([trace(swarm.AgentGraph(agents=GRAPH.agents[:1]), a="x")])
    assert alike.divergence == 0
    # Two originate, one corrects: H(2/3, 1/3) bits, since each of them always does the same.
    found = role_heterogeneity([trace(a="wrong", b="wrong", c="right")] * 3, right)
    expected = -(2 / 3 * math.log2(2 / 3) + 1 / 3 * math.log2(1 / 3))
    assert found.divergence == pytest.approx(expected)
    assert [agent.entropy for agent in found.agents] == [0, 0, 0]
    assert [agent.accuracy for agent in found.agents] == [0, 0, 1]


words = st.sampled_from(["right", "wrong", "no", None])


@given(st.lists(st.tuples(words, words, words), min_size=1, max_size=12))
def test_bounds(said) -> None:
    found = role_heterogeneity([trace(a=a, b=b, c=c) for a, b, c in said], right)
    assert 0 <= found.divergence <= found.entropy + 1e-9 <= math.log2(len(ACTS)) + 1e-9
    for agent in found.agents:
        answered = sum(row["abc".index(agent.agent.name)] is not None for row in said)
        assert sum(agent.acts.values()) == answered
