"""The usual graphs have the usual shapes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

import swarm.graphs
from swarm.errors import EndNodeError, GraphError
from swarm.graphs import chain, complete, debate, layered, name_agents, single, star, tree

experts = st.lists(st.sampled_from(["plus", "minus", "minus-2", "times"]), min_size=1, max_size=12)


def names(agents):
    return [agent.name for agent in agents]


def test_single():
    g = single("plus", role="critic")
    assert (g.end.name, g.end.expert, g.end.role, g.edges) == ("plus", "plus", "critic", ())


@given(experts)
def test_chain(experts):
    g = chain(experts)
    assert g.depth == len(experts)
    assert g.order == g.agents
    assert g.experts == tuple(experts)


@given(experts)
def test_star(experts):
    g = star(experts)
    assert g.predecessors(g.end.name) == g.agents[:-1]
    assert len(g.edges) == len(experts) - 1


@given(experts, st.integers(1, 4))
def test_tree(experts, branching):
    g = tree(experts, branching=branching)
    assert len(g.edges) == len(experts) - 1
    assert g.end == g.agents[-1]
    fans = [len(g.predecessors(agent.name)) for agent in g.agents]
    assert max(fans) <= branching
    # Complete: filled level by level, so at most one agent has some but not all of its branches.
    assert sum(0 < fan < branching for fan in fans) <= 1


def test_tree_of_seven():
    g = tree(list("gfedcba"))
    assert [names(wave) for wave in g.waves] == [["g", "f", "e", "d"], ["c", "b"], ["a"]]
    assert names(g.predecessors("a")) == ["c", "b"]


@given(experts)
def test_complete(experts):
    g = complete(experts)
    assert len(g.edges) == len(experts) * (len(experts) - 1) // 2
    assert g.predecessors(g.end.name) == g.agents[:-1]
    assert g.order == g.agents


@given(st.lists(experts, max_size=4))
def test_layered(layers):
    g = layered([*layers, ["judge"]])
    assert [len(wave) for wave in g.waves] == [*map(len, layers), 1]
    for wave, following in zip(g.waves, g.waves[1:], strict=False):
        assert all(g.predecessors(agent.name) == wave for agent in following)


def test_layered_needs_one_last_agent():
    with pytest.raises(EndNodeError):
        layered([["a"], ["b", "c"]])


def test_debate():
    g = debate(["plus", "plus", "minus"], 2, "times", roles=["solver", "critic", "solver"])
    assert [names(wave) for wave in g.waves] == [
        ["plus@1", "plus-2@1", "minus@1"],
        ["plus@2", "plus-2@2", "minus@2"],
        ["times"],
    ]
    assert g.predecessors("minus@2") == g.waves[0]
    assert g.predecessors("times") == g.waves[1]
    assert g.experts == ("plus", "plus", "minus") * 2 + ("times",)
    assert [agent.role for agent in g.agents] == ["solver", "critic", "solver"] * 2 + ["judge"]


@given(experts)
def test_agents_are_named_after_their_experts(experts):
    agents = name_agents(experts)
    assert len(set(names(agents))) == len(experts)
    assert all(agent.name.startswith(agent.expert) for agent in agents)
    assert agents[0].name == experts[0]


def test_names_that_look_numbered_already():
    assert names(name_agents(["minus", "minus", "minus-2", "minus"])) == [
        "minus",
        "minus-2",
        "minus-2-2",
        "minus-3",
    ]


def test_roles():
    assert [a.role for a in star(["a", "b"], roles=["critic", "judge"]).agents] == [
        "critic",
        "judge",
    ]
    assert [a.role for a in star(["a", "b"], roles="critic").agents] == ["critic"] * 2
    with pytest.raises(GraphError, match="1 roles for 2 experts"):
        star(["a", "b"], roles=["critic"])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: chain([]), "at least one"),
        (lambda: star([]), "at least one"),
        (lambda: tree([]), "at least one"),
        (lambda: complete([]), "at least one"),
        (lambda: layered([]), "at least one"),
        (lambda: layered([["a"], []]), "none of them empty"),
        (lambda: layered(["ab", "c"]), "list of lists"),
        (lambda: debate([], 2, "judge"), "without experts"),
        (lambda: debate(["a"], 0, "judge"), "`rounds` is 0"),
        (lambda: tree(["a"], branching=0), "`branching` is 0"),
        (lambda: chain("plus"), "is one expert"),
        (lambda: single(""), "`name` can't be ''"),
    ],
)
def test_refusals(make, message):
    with pytest.raises(GraphError, match=message):
        make()


def test_exports():
    assert swarm.graphs.__all__ == [
        "MAX_AGENTS",
        "Agent",
        "AgentGraph",
        "Decoded",
        "chain",
        "complete",
        "debate",
        "decode",
        "decode_parents",
        "decode_swarm",
        "layered",
        "name_agents",
        "single",
        "star",
        "tree",
    ]
    assert all(hasattr(swarm.graphs, name) for name in swarm.graphs.__all__)
