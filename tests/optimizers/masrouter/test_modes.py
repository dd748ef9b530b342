"""The six modes as graphs: who hears whom, and who decides."""

from __future__ import annotations

import pytest

from swarm.optimizers.masrouter.modes import MODES, decision_expert, mode_graph
from swarm.optimizers.masrouter.policy import with_experts

CAST, ROLES = ["a", "b", "c"], ["solver", "critic", "planner"]


def edges(graph):
    place = {agent.name: i for i, agent in enumerate(graph.agents)}
    return sorted((place[u], place[v]) for u, v in graph.edges)


@pytest.mark.parametrize(
    ("mode", "count", "expected"),
    [
        ("io", 4, [(0, 3), (1, 3), (2, 3)]),
        ("cot", 4, [(0, 3), (1, 3), (2, 3)]),
        ("chain", 4, [(0, 1), (0, 3), (1, 2), (1, 3), (2, 3)]),
        ("full_connected", 4, [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]),
        # Two rounds: in a debate all read all, in reflection each its own.
        ("debate", 7, [*((u, v) for u in range(3) for v in (3, 4, 5)), (3, 6), (4, 6), (5, 6)]),
        ("reflection", 7, [(0, 3), (1, 4), (2, 5), (3, 6), (4, 6), (5, 6)]),
    ],
)
def test_the_modes_edges(mode, count, expected):
    graph = mode_graph(MODES[mode], CAST, ROLES)
    assert edges(graph) == sorted(expected)
    assert [agent.expert for agent in graph.agents[:-1]] == CAST * (2 if count == 7 else 1)
    assert (graph.end.expert, graph.end.role) == ("a", "judge")


def test_only_chain_of_thought_is_told_to_think_aloud():
    for name, mode in MODES.items():
        aloud = {a.role.endswith("step by step") for a in mode_graph(mode, CAST, ROLES).agents[:-1]}
        assert aloud == {name == "cot"}


def test_the_most_drawn_decides_the_first_of_several():
    assert decision_expert(["b", "a", "a"]) == "a"
    assert decision_expert(["b", "a", "c"]) == "b"


def test_who_works_alone_is_not_read_by_another_unless_as_published():
    assert len(mode_graph(MODES["io"], ["a"], ["solver"]).agents) == 1
    assert len(mode_graph(MODES["io"], ["a"], ["solver"], decide_alone=True).agents) == 2
    assert len(mode_graph(MODES["debate"], ["a"], ["solver"]).agents) == 2


def test_a_given_graph_changes_its_experts_only():
    graph = mode_graph(MODES["chain"], CAST, ROLES)
    other = with_experts(graph, ["x", "y", "z", "x"])
    assert other.edges == graph.edges
    assert [(a.name, a.role) for a in other.agents] == [(a.name, a.role) for a in graph.agents]
    assert [a.expert for a in other.agents] == ["x", "y", "z", "x"]
