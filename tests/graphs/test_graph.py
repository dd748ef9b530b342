"""AgentGraph: every rule, every way in and out."""

import copy
import json
import os
import pickle
import random
import subprocess
import sys
from graphlib import TopologicalSorter
from itertools import pairwise

import networkx as nx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from swarm.errors import (
    CycleError,
    DuplicateError,
    EndNodeError,
    GraphError,
    InputError,
    TooLargeError,
    UnknownAgentError,
)
from swarm.graphs import MAX_AGENTS, Agent, AgentGraph, chain, complete, name_agents


def graph(names, *edges):
    """`graph("abc", "ac", "bc")`: agents of one letter each, edges of two."""
    return AgentGraph(
        agents=tuple(Agent(name=name, expert=f"expert-{name}") for name in names),
        edges=tuple((edge[0], edge[1]) for edge in edges),
    )


@st.composite
def graphs(draw):
    """Any graph: a shuffled line of agents, all but the last pointing further down the line."""
    names = draw(
        st.lists(
            st.text("abcxyz<&\"'-é模 ", min_size=1), min_size=1, max_size=8, unique=True
        ).filter(lambda names: all(name.strip() for name in names))
    )
    line = draw(st.permutations(names))
    edges = []
    for i, name in enumerate(line[:-1]):
        later = line[i + 1 :]
        chosen = draw(st.sets(st.sampled_from(later), min_size=1))
        edges += [(name, other) for other in later if other in chosen]
    experts = st.sampled_from(["plus", "minus", "times"])
    agents = [Agent(name=name, expert=draw(experts), role=draw(experts)) for name in names]
    return AgentGraph(agents=tuple(agents), edges=tuple(draw(st.permutations(edges))))


@given(graphs())
def test_structure_agrees_with_the_edges(g):
    place = {agent.name: i for i, agent in enumerate(g.agents)}
    for agent in g.agents:
        before = [a.name for a in g.predecessors(agent.name)]
        after = [a.name for a in g.successors(agent.name)]
        assert sorted(before) == sorted(u for u, v in g.edges if v == agent.name)
        assert sorted(after) == sorted(v for u, v in g.edges if u == agent.name)
        assert before == sorted(before, key=place.__getitem__)
        assert after == sorted(after, key=place.__getitem__)
        assert g.position(agent.name) == place[agent.name]
        assert g.agent(agent.name) is agent
    assert [agent.name for agent in g.agents if not g.successors(agent.name)] == [g.end.name]


@given(graphs())
def test_waves_are_the_earliest_possible(g):
    wave = {agent.name: k for k, wave in enumerate(g.waves) for agent in wave}
    assert len(wave) == len(g.agents)
    for agent in g.agents:
        waits_for = [wave[a.name] for a in g.predecessors(agent.name)]
        assert wave[agent.name] == max(waits_for, default=-1) + 1
    assert [agent for wave in g.waves for agent in wave] == list(g.order)
    assert g.depth == len(g.waves)
    assert g.order[-1] == g.end
    # The standard library agrees that it is a topological order.
    sorter = TopologicalSorter({a.name: [p.name for p in g.predecessors(a.name)] for a in g.agents})
    assert set(sorter.static_order()) == {agent.name for agent in g.order}


@given(graphs())
def test_round_trips(g):
    assert AgentGraph.from_json(g.to_json()) == g
    assert AgentGraph.from_json(g.to_json(indent=2).encode()) == g
    assert AgentGraph.from_networkx(g.to_networkx()) == g
    assert AgentGraph.model_validate(g.model_dump()) == g
    assert pickle.loads(pickle.dumps(g)) == copy.deepcopy(g) == g


@given(graphs(), st.randoms())
def test_order_of_edges_is_not_part_of_a_graph(g, rng):
    edges = list(g.edges)
    rng.shuffle(edges)
    other = AgentGraph(agents=g.agents, edges=tuple(edges))
    # What was asked of one of them makes no difference either.
    other.waves, other.digest, other.end  # noqa: B018
    assert other == g
    assert hash(other) == hash(g)
    assert other.digest == g.digest
    assert pickle.dumps(other) == pickle.dumps(g)
    assert len(g.digest) == 32


def test_order_of_agents_is_part_of_a_graph():
    assert graph("abc", "ac", "bc") != graph("bac", "ac", "bc")
    assert graph("abc", "ac", "bc").digest != graph("bac", "ac", "bc").digest


def test_digest_is_the_same_in_another_process():
    program = "from swarm.graphs import complete; print(complete(['é', 'b', 'b']).digest.hex())"
    digests = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert digests == {complete(["é", "b", "b"]).digest.hex()}


def test_digest_never_changes():
    """Stores refer to graphs by digest: a new value here means that old records are lost."""
    assert graph("ab", "ab").to_json() == (
        '{"agents":[{"name":"a","expert":"expert-a","role":"solver"},'
        '{"name":"b","expert":"expert-b","role":"solver"}],"edges":[["a","b"]]}'
    )
    assert (
        graph("ab", "ab").digest.hex()
        == "5bd8764aa17cb80326ef78769c333003ce9f7730cee122013a10830fa645e4ce"
    )


@pytest.mark.parametrize(
    ("names", "edges", "error", "message"),
    [
        ("", [], GraphError, "at least one"),
        ("aba", [], DuplicateError, "two agents are called `a`"),
        ("abc", ["ab", "bc", "ab"], DuplicateError, "the edge `a -> b` is given twice"),
        ("ab", ["ab", "xb"], UnknownAgentError, "`x` in the edge `x -> b` is no agent"),
        ("ab", ["aa", "ab"], CycleError, "`a -> a`"),
        ("ab", ["ab", "ba"], CycleError, "`a -> b -> a`"),
        ("eabcd", ["ea", "cb", "ac", "ba", "cd"], CycleError, "`a -> c -> b -> a`"),
        ("abc", ["ab"], EndNodeError, "2 agents have no successors, `b`, `c`"),
        ("abc", [], EndNodeError, "3 agents have no successors"),
    ],
)
def test_broken_rules(names, edges, error, message):
    with pytest.raises(error) as caught:
        graph(names, *edges)
    assert type(caught.value) is error
    assert message in str(caught.value)


def test_unknown_agents_get_a_suggestion():
    agents = name_agents(["plus", "minus"])
    with pytest.raises(UnknownAgentError, match="did you mean `minus`"):
        AgentGraph(agents=agents, edges=(("plus", "minsu"),))
    g = AgentGraph(agents=agents, edges=(("plus", "minus"),))
    for method in (g.agent, g.position, g.predecessors, g.successors):
        with pytest.raises(UnknownAgentError, match="did you mean `plus`"):
            method("pluss")


def test_long_cycles_are_abbreviated():
    names = [f"agent-{i}" for i in range(100)]
    edges = [*pairwise(names), (names[-1], names[0])]
    with pytest.raises(CycleError, match=r"agent-0 -> agent-1 -> .* … .* -> agent-99 -> agent-0"):
        AgentGraph(agents=name_agents(names), edges=tuple(edges))


def test_size_limit():
    assert len(chain(["x"] * MAX_AGENTS).agents) == MAX_AGENTS
    with pytest.raises(TooLargeError, match=f"at most {MAX_AGENTS}"):
        chain(["x"] * (MAX_AGENTS + 1))


A = {"name": "a", "expert": "x"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "needs the key `agents`"),
        ([], "`graph` can't be []"),
        (None, "`graph` can't be None"),
        ({"agents": 5}, "`agents` can't be 5"),
        ({"agents": [A], "edgs": []}, "`edgs` is no key of the graph (did you mean `edges`?)"),
        ({"agents": [{"name": "a"}]}, "{'name': 'a'} is no agent: it needs the key `expert`"),
        ({"agents": [{**A, "rle": "x"}]}, "(did you mean `role`?)"),
        ({"agents": [{**A, "name": 5}]}, "`name` can't be 5"),
        ({"agents": [{**A, "name": " "}]}, "`name` can't be ' '"),
        ({"agents": [{**A, "role": "x\x1b[31m"}]}, "no control characters"),
        ({"agents": [A], "edges": [["a"]]}, "`edges.0"),
        ({"agents": [A], "edges": [["a", "b", "c"]]}, "`edges.0` can't be"),
        ({"agents": [A], "edges": [["a", 1]]}, "`edges.0.1` can't be 1"),
    ],
)
def test_malformed_content(content, message):
    for read in (AgentGraph.model_validate, lambda c: AgentGraph.from_json(json.dumps(c))):
        with pytest.raises(GraphError) as caught:
            read(content)
        assert message in str(caught.value)
    if isinstance(content, dict):
        with pytest.raises(GraphError):
            AgentGraph(**content)


@pytest.mark.parametrize("name", ["", "\ud800", "a\nb", "\u2028", "\uffff", "\x00", "\x7f"])
def test_names_that_cannot_be_shown(name):
    with pytest.raises(GraphError, match="no control characters"):
        Agent(name=name, expert="x")


@pytest.mark.parametrize("text", ["", "{", "nonsense", b"\xff", "[" * 10_000])
def test_malformed_json(text):
    with pytest.raises(GraphError, match="not JSON"):
        AgentGraph.from_json(text)


def test_from_networkx_refusals():
    with pytest.raises(GraphError, match="undirected"):
        AgentGraph.from_networkx(nx.path_graph(2))
    with pytest.raises(GraphError, match="needs the key `expert`"):
        AgentGraph.from_networkx(nx.DiGraph([("a", "b")]))


def test_from_networkx_leaves_other_attributes_behind():
    outside = nx.DiGraph()
    outside.add_node("a", expert="x", colour="red")
    assert AgentGraph.from_networkx(outside).agents == (Agent(name="a", expert="x"),)


def test_frozen():
    g = graph("ab", "ab")
    with pytest.raises(ValidationError):
        g.edges = ()
    with pytest.raises(ValidationError):
        g.agents[0].expert = "x"


def test_an_updated_copy_is_checked_and_forgets_what_was_cached():
    g = graph("abc", "ab", "bc")
    assert g.depth == 3
    assert g.model_copy() == g
    assert g.model_copy(update={"edges": (("a", "c"), ("b", "c"))}).depth == 2
    with pytest.raises(EndNodeError):
        g.model_copy(update={"edges": ()})


def test_with_experts():
    g = graph("abc", "ac", "bc")
    swapped = g.with_experts(["x", "y", "x"])
    assert swapped.experts == ("x", "y", "x")
    assert swapped.edges == g.edges
    assert g.with_experts({"b": "z"}).experts == ("expert-a", "z", "expert-c")
    assert g.with_experts(g.experts) == g
    with pytest.raises(UnknownAgentError):
        g.with_experts({"q": "z"})
    for wrong in (["x"], "abc", []):
        with pytest.raises(GraphError, match="3 agents"):
            g.with_experts(wrong)


def test_a_complete_graph_of_the_largest_size_is_fine():
    names = [f"agent-{i}" for i in range(MAX_AGENTS)]
    edges = [(u, v) for i, v in enumerate(names) for u in names[:i]]
    random.Random(0).shuffle(edges)
    g = AgentGraph(agents=name_agents(names), edges=tuple(edges))
    assert (g.depth, g.end.name) == (MAX_AGENTS, names[-1])


def test_errors_are_input_errors():
    assert issubclass(GraphError, InputError)
