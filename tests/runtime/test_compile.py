"""A graph as a LangGraph program: the same answers as running it by hand, wherever it is put."""

from __future__ import annotations

import asyncio
import hashlib
from typing import TypedDict

import pytest
from fakes import Fake
from hypothesis import given
from hypothesis import strategies as st
from langgraph.checkpoint.memory import MemorySaver
from langgraph.graph import END, START, StateGraph

from swarm.agents.expert import Expert, Pool, Sampling
from swarm.agents.messages import Message
from swarm.agents.prompt import STYLES, Position
from swarm.agents.role import Role
from swarm.errors import EngineError, PoolError
from swarm.graphs import topologies
from swarm.graphs.graph import Agent, AgentGraph
from swarm.runtime.runtime import Runtime
from swarm.runtime.system import System

EXPERTS = ("x", "y", "z")
ROLES = {name: Role(name=name, instructions=text) for name, text in [("p", "Be p."), ("q", "")]}


def script(name, messages):
    """A word that depends on all that was read. Refuses to read what is `bad`."""
    read = "".join(f"{role}:{content}" for role, content in messages)
    if f"bad for {name}" in read:
        raise ValueError("won't read that")
    return hashlib.blake2b(f"{name} {read}".encode(), digest_size=4).hexdigest()


def expert(name, **settings):
    return Expert.scripted(name, lambda messages: script(name, messages), **settings)


POOL = Pool([expert("x"), expert("y", prompt="compact"), expert("z")])


@st.composite
def dags(draw):
    """Any graph: edges go forward, and whoever is read by nobody is read by the last."""
    n = draw(st.integers(1, 6))
    agents = [
        Agent(
            name=f"a{i}",
            expert=draw(st.sampled_from(EXPERTS)),
            role=draw(st.sampled_from(sorted(ROLES))),
        )
        for i in range(n)
    ]
    pairs = [(i, j) for j in range(n) for i in range(j)]
    edges = set(draw(st.lists(st.sampled_from(pairs), unique=True)) if pairs else [])
    edges |= {(i, n - 1) for i in range(n - 1) if not any(u == i for u, _ in edges)}
    shuffled = draw(st.permutations(agents))
    return AgentGraph(agents=tuple(shuffled), edges=tuple((f"a{i}", f"a{j}") for i, j in edges))


questions = st.lists(st.text(max_size=8) | st.sampled_from(["bad for x", "bad for y"]), max_size=4)


def by_hand(graph, question):
    """The answer as plain Python gets it, one agent after the other; None where one fails."""
    said = {}
    for agent in graph.order:
        previous = [said[p.name] for p in graph.predecessors(agent.name)]
        if None in previous:
            said[agent.name] = None
            continue
        style, role = STYLES[POOL[agent.expert].prompt], ROLES[agent.role]
        position = Position.of(has_predecessors=bool(previous), is_end=agent == graph.end)
        messages = [Message("user", style.render(question, previous, position))]
        if style.with_role and role.instructions:
            messages.insert(0, Message("system", role.instructions))
        try:
            said[agent.name] = script(agent.expert, messages)
        except ValueError:
            said[agent.name] = None
    return said[graph.end.name]


@given(dags(), questions)
def test_any_graph_answers_as_if_run_by_hand(graph, asked):
    system = System(graph, POOL, roles=ROLES, runtime=Runtime())
    traces = system.batch(asked)
    assert [trace.text for trace in traces] == [by_hand(graph, question) for question in asked]
    assert [trace.question for trace in traces] == asked
    for trace in traces:
        assert (trace.text is None) == (trace.error is not None)


@given(dags(), questions.filter(bool))
def test_a_question_is_answered_alike_alone_and_in_a_column(graph, asked):
    system = System(graph, POOL, roles=ROLES, runtime=Runtime())
    together = system.batch(asked)
    alone = [
        System(graph, POOL, roles=ROLES, runtime=Runtime()).batch([question])[0]
        for question in asked
    ]
    for one, other in zip(together, alone, strict=True):
        assert one.text == other.text
        assert [call[:3] for call in one.calls] == [call[:3] for call in other.calls]


def test_a_program_answers_whether_called_or_awaited():
    graph = topologies.star(["x", "y", "z"])
    program = System(graph, POOL, runtime=Runtime()).as_langgraph()
    state = {"questions": ["one", "two"]}
    expected = [
        trace.text for trace in System(graph, POOL, runtime=Runtime()).batch(["one", "two"])
    ]
    assert program.invoke(state)["answers"] == expected
    assert asyncio.run(program.ainvoke(state))["answers"] == expected
    assert set(program.invoke(state)["responses"]) == {"x", "y", "z"}


@pytest.mark.parametrize("how", ["invoke", "ainvoke"])
def test_a_failed_call_gives_none_and_an_error_if_there_is_nothing_else(how):
    program = System(topologies.chain(["y", "x"]), POOL, runtime=Runtime()).as_langgraph()

    def call(*asked):
        result = getattr(program, how)({"questions": list(asked)})
        return (asyncio.run(result) if how == "ainvoke" else result)["answers"]

    fine, failed = call("fine", "bad for x")
    assert fine is not None
    assert failed is None
    with pytest.raises(EngineError, match="won't read that"):
        call("bad for x")


def test_a_checkpointer_keeps_the_state_and_takes_up_where_it_was_left():
    graph = topologies.chain(["x", "y", "z"])
    system = System(graph, POOL, runtime=Runtime())
    program = system.as_langgraph(checkpointer=MemorySaver(), interrupt_before=["z"])
    thread = {"configurable": {"thread_id": "1"}}
    program.invoke({"questions": ["a", "b"]}, thread)
    assert "answers" not in program.get_state(thread).values
    assert program.get_state(thread).next == ("z",)
    answers = program.invoke(None, thread)["answers"]
    assert answers == [trace.text for trace in system.batch(["a", "b"])]
    program.invoke({"questions": ["c"]}, thread)  # the same thread, another column
    assert program.invoke(None, thread)["answers"] == [system.invoke("c").text]


class State(TypedDict, total=False):
    questions: list[str]
    answers: list[str]
    shouted: list[str]


@pytest.mark.parametrize("checkpointer", [None, MemorySaver()])
def test_a_system_is_a_subgraph_of_anybodys_program(checkpointer):
    system = System(topologies.star(["x", "y", "z"]), POOL, runtime=Runtime())
    builder = StateGraph(State)
    builder.add_node("swarm", system.as_langgraph())
    builder.add_node("shout", lambda state: {"shouted": [a.upper() for a in state["answers"]]})
    builder.add_edge(START, "swarm")
    builder.add_edge("swarm", "shout")
    builder.add_edge("shout", END)
    program = builder.compile(checkpointer=checkpointer)
    thread = {"configurable": {"thread_id": "1"}}
    expected = [trace.text.upper() for trace in system.batch(["a", "b"])]
    assert program.invoke({"questions": ["a", "b"]}, thread)["shouted"] == expected
    result = asyncio.run(program.ainvoke({"questions": ["a", "b"]}, thread))
    assert result["shouted"] == expected


@pytest.mark.parametrize("limit", [None, 1])
def test_a_system_may_be_called_inside_anybodys_node(limit):
    """Neither the checkpointer nor the limits of the program around it are its own."""
    graph = topologies.layered([["x", "y"], ["x"], ["y"], ["z"]])
    system = System(graph, POOL, runtime=Runtime())

    async def node(state):
        first = await system.ainvoke(state["questions"][0])
        rest = await system.abatch(state["questions"][1:])
        return {"answers": [first.text, *(trace.text for trace in rest)]}

    builder = StateGraph(State)
    builder.add_node("ask", node)
    builder.add_edge(START, "ask")
    builder.add_edge("ask", END)
    saver = MemorySaver()
    program = builder.compile(checkpointer=saver)
    config = {"configurable": {"thread_id": "1"}, "recursion_limit": 3}
    if limit:
        config["max_concurrency"] = limit

    async def work():
        async with asyncio.timeout(60):
            return await program.ainvoke({"questions": ["a", "b", "c"]}, config)

    expected = [trace.text for trace in system.batch(["a", "b", "c"])]
    assert asyncio.run(work())["answers"] == expected
    assert {kept.config["configurable"]["checkpoint_ns"] for kept in saver.list(None)} == {""}


ODD = ["a:b", "a|b", "a_b", "__x", "agent a_b", "questions", "answers", "responses", "agent  __x"]


def test_agents_may_be_called_anything():
    agents = tuple(Agent(name=name, expert="x") for name in [*ODD, "🐝 end"])
    graph = AgentGraph(agents=agents, edges=tuple((name, "🐝 end") for name in ODD))
    system = System(graph, POOL, runtime=Runtime())
    assert [call.agent.name for call in system.invoke("q").calls] == [*ODD, "🐝 end"]
    assert set(system.as_langgraph().invoke({"questions": ["q"]})["responses"]) == {*ODD, "🐝 end"}


def test_a_chain_may_be_longer_than_langgraph_likes():
    graph = topologies.chain(["x", "y"] * 100)
    system = System(graph, POOL, roles=ROLES, runtime=Runtime())
    assert len(system.invoke("q").calls) == 200
    assert system.as_langgraph().invoke({"questions": ["q"]})["answers"] == [
        system.invoke("q").text
    ]


def test_an_expert_that_samples_and_plays_twice_draws_twice():
    warm = Expert(name="w", engine="scripted", model="one", sampling=Sampling(temperature=1))
    cold = Expert(name="c", engine="scripted", model="one")
    pool = Pool([warm, cold])
    system = System(
        topologies.star(["w", "w", "c", "c", "w"]), pool, runtime=Runtime({"scripted": Fake()})
    )
    draws = [call.response.text.rpartition(" ")[2] for call in system.invoke("q").calls]
    assert draws == ["0", "1", "0", "0", "2"]


def test_who_is_not_there_is_refused_before_anything_is_run():
    with pytest.raises(PoolError, match="expert `xx` is not in pool `pool`"):
        System(topologies.single("xx"), POOL)
    with pytest.raises(PoolError, match=r"role `solvr` is not known \(did you mean `solver`\?\)"):
        System(topologies.single("x", role="solvr"), POOL)
