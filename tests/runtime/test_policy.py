"""Policies: saved and loaded, at work in a system, and what is kept of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import policies
import pytest
from fakes import Fake, FakeHTTP
from hypothesis import given, settings
from hypothesis import strategies as st
from policies import Asking, Listed, Short

from swarm.agents.expert import Expert, Pool, Price, Sampling
from swarm.errors import EngineError, InputError, PoolError
from swarm.graphs import AgentGraph, chain, debate, single, star
from swarm.replay import replay
from swarm.runtime.policy import Fixed, load_policy, policy_from_document
from swarm.runtime.routing import Asker, calls_about
from swarm.runtime.runtime import Runtime, run_sync
from swarm.runtime.system import System, evaluate, evaluate_policy
from swarm.store import Store
from swarm.tasks import Task


def expert(name, engine="fake", **given):
    return Expert(name=name, engine=engine, model=f"base-{name[0]}", prompt="chat", **given)


class Cast(Pool):
    """A pool of experts on fake engines, which no pool may name."""

    def __init__(self, experts):
        self.name = "cast"
        self.roles = {}
        self.memory = None
        self._experts = {each.name: each for each in experts}


POOL = Cast(
    [
        expert("a", price=Price(input=1, output=2)),
        expert("b"),
        expert("c", sampling=Sampling(temperature=1)),
        expert("c2"),
        expert("h", engine="http"),
        expert("d", price=Price(input=3)),
    ]
)
GRAPHS = [
    single("a"),
    single("b"),
    chain(["c", "a"]),
    star(["a", "b", "d"]),
    star(["b", "c", "d"]),
    debate(["a", "h"], 2, "b"),
    chain(["h", "d"]),
    star(["c", "c", "c2"]),
]


def runtime(resident=1):
    engine = Fake(limit=resident)
    return Runtime({"fake": engine, "http": FakeHTTP()}, memory=resident), engine


@pytest.fixture(autouse=True)
def known(monkeypatch):
    policies.register(monkeypatch)


def task(questions, score=lambda example, text: float(len(text) % 2)):
    return Task.from_records("t", score, test=[{"question": q, "answer": "x"} for q in questions])


# Saved and loaded


def test_what_is_loaded_in_another_process_gives_the_same_graphs(tmp_path):
    policy = Listed(GRAPHS)
    policy.save(tmp_path / "policy")
    questions = [f"what {k % len(GRAPHS)}" for k in range(30)]
    program = (
        "import sys, json; sys.path.append(sys.argv[1])\n"
        "from swarm.runtime import policy\n"
        "policy.POLICIES['listed'] = 'policies:Listed'\n"
        "found = policy.load_policy(sys.argv[2])\n"
        "graphs = found.graphs_for(json.loads(sys.argv[3]))\n"
        "print(json.dumps([found.fingerprint.hex(), [g.digest.hex() for g in graphs]]))\n"
    )
    here = str(Path(policies.__file__).parent)
    arguments = [here, str(tmp_path / "policy"), json.dumps(questions)]
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True
    )
    fingerprint, digests = json.loads(done.stdout)
    assert fingerprint == policy.fingerprint.hex()
    assert digests == [graph.digest.hex() for graph in policy.graphs_for(questions)]


def test_a_document_is_json_and_read_back():
    policy = Asking(GRAPHS, ["b"], draws=3)
    again = policy_from_document(json.loads(json.dumps(policy.document())))
    assert isinstance(again, Asking)
    assert again.fingerprint == policy.fingerprint
    assert again.fingerprint != Asking(GRAPHS, ["b"], draws=2).fingerprint
    assert policy.settings() == {"count": len(GRAPHS), "draws": 3}


def test_it_is_saved_again_over_itself_but_over_nothing_else(tmp_path):
    Listed(GRAPHS).save(tmp_path / "p")
    Listed(GRAPHS[:1]).save(tmp_path / "p")
    assert len(load_policy(tmp_path / "p").graphs) == 1
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "letter.txt").write_text("dear")
    with pytest.raises(InputError, match="holds no policy"):
        Listed(GRAPHS).save(tmp_path / "else")
    with pytest.raises(InputError, match="can be written there"):
        Listed(GRAPHS).save(tmp_path / "else" / "letter.txt")


def _edit(folder, **changes):
    path = folder / "policy.json"
    document = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({k: v for k, v in document.items() if v is not None}))


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda f: (f / "policy.json").unlink(), "no policy is there"),
        (lambda f: (f / "policy.safetensors").unlink(), "policy.safetensors`: no policy is there"),
        (lambda f: (f / "policy.json").write_text("{"), "is not JSON"),
        (lambda f: (f / "policy.json").write_text("[]"), "must hold a JSON object"),
        (lambda f: (f / "policy.json").write_bytes(b"\xff"), "is not JSON"),
        (
            lambda f: (f / "policy.safetensors").write_bytes(b"x"),
            "is not the file that was written",
        ),
        (lambda f: _edit(f, policy="listd"), r"did you mean `listed`"),
        (lambda f: _edit(f, policy=["listed"]), "is not a policy"),
        (lambda f: _edit(f, format=2), "`2` is not 1"),
        (lambda f: _edit(f, state=None), r"not what policy `listed` writes \(KeyError"),
        (lambda f: _edit(f, state={"graphs": 3}), r"not what policy `listed` writes \(TypeError"),
        (lambda f: _edit(f, state={"graphs": [{"agents": []}]}), "agent"),
    ],
)
def test_what_can_not_be_read_is_named(tmp_path, spoil, told):
    folder = tmp_path / "policy"
    Listed(GRAPHS).save(folder)
    spoil(folder)
    with pytest.raises(InputError, match=told) as error:
        load_policy(folder)
    assert str(folder) in str(error.value)


def test_a_damaged_document_is_refused():
    document = Listed(GRAPHS).document()
    for arrays in ("?", None, "AAAA"):
        with pytest.raises(InputError, match="fit it again"):
            policy_from_document({**document, "arrays": arrays})


def test_an_expert_that_is_gone_is_named_and_can_be_dropped(tmp_path):
    policy = Listed(GRAPHS)
    policy.save(tmp_path / "p")
    smaller = Cast([POOL[name] for name in ("a", "b", "c", "c2", "d")])
    with pytest.raises(PoolError, match=r"was fitted with `h`.*`drop=True`"):
        System(policy, smaller)
    with pytest.raises(PoolError, match="`h`"):
        load_policy(tmp_path / "p", smaller)
    with pytest.raises(PoolError, match="has none of its experts"):
        System(policy, Cast([expert("z")]), drop=True)
    with pytest.raises(PoolError, match="can't do without `a`"):
        Fixed(GRAPHS[0]).without(["a"])
    made, _ = runtime()
    system = System(policy, smaller, drop=True, runtime=made)
    assert "h" not in system.policy.experts
    assert all(trace.text for trace in system.batch([f"q {k}" for k in range(8)]))
    assert load_policy(tmp_path / "p", smaller, drop=True).fingerprint == system.policy.fingerprint


# At work


def test_a_system_of_a_policy_says_so():
    system = System(Listed(GRAPHS), POOL)
    assert not system.fixed
    with pytest.raises(InputError, match="chooses one for each question"):
        system.graph  # noqa: B018
    assert System(GRAPHS[3], POOL).graph == GRAPHS[3] == System(Fixed(GRAPHS[3]), POOL).graph


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["x", "bad y", "z"]), st.integers(0, 7)), max_size=12),
    st.integers(1, 3),
)
def test_together_every_question_is_answered_as_if_alone(asked, resident):
    questions = [f"{text} {k}" for text, k in asked]
    made, engine = runtime(resident)
    system = System(Listed(GRAPHS), POOL, runtime=made)
    together = system.batch(questions)
    assert len(engine.batches) <= len(questions) * 7
    for question, trace in zip(questions, together, strict=True):
        graph = GRAPHS[int(question.split()[-1])]
        alone, _ = runtime()
        [expected] = System(graph, POOL, runtime=alone).batch([question])
        assert trace.graph == graph
        assert (trace.question, trace.text, trace.error) == (*expected[:2], expected.error)
        assert [(c.agent, c.prompt, c.response) for c in trace.calls] == [
            (c.agent, c.prompt, c.response) for c in expected.calls
        ]


def test_each_expert_is_loaded_once_for_all_questions_that_recruited_it():
    experts = [expert(f"{letter}{k}") for letter in "abcdef" for k in range(2)]
    pool = Cast(experts)
    rng = np.random.default_rng(0)
    names = [each.name for each in experts]
    one_layer = [single(str(name)) for name in rng.permutation(names)]
    made, engine = runtime()
    System(Listed(one_layer), pool, runtime=made).batch([f"q{k} {k % 12}" for k in range(300)])
    assert len(engine.loads) == 6 == len(set(engine.loads))

    # Another layer of aggregators, each of one of three bases: these are loaded once more.
    two_layers = [
        star([*rng.permutation(names[:8])[:3].tolist(), str(rng.choice(names[6:]))])
        for _ in range(100)
    ]
    recruited = {name[0] for graph in two_layers for name in graph.experts[:-1]}
    ends = {graph.end.expert[0] for graph in two_layers}
    made, engine = runtime()
    traces = System(Listed(two_layers), pool, runtime=made).batch([f"q {k}" for k in range(100)])
    assert all(trace.text for trace in traces)
    assert len(recruited) + len(ends) - 1 <= len(engine.loads) <= len(recruited) + len(ends)


def test_stream_gives_the_chosen_graph_step_by_step():
    made, _ = runtime()
    system = System(Listed(GRAPHS), POOL, runtime=made)
    assert [agent for agent, _ in system.stream("q 2")] == [a.name for a in GRAPHS[2].order]
    assert system.invoke("q 2").text == list(system.stream("q 2"))[-1][1]
    with pytest.raises(EngineError, match="won't answer bad"):
        System(Listed([single("a")]), POOL, runtime=Runtime({"fake": Refusing()})).invoke("bad 0")


class Refusing(Fake):
    async def generate(self, requests):
        return [EngineError("won't answer bad")] * len(requests)


def test_a_policy_that_chooses_wrongly_is_refused():
    made, engine = runtime()
    with pytest.raises(InputError, match="gave 1 graphs for 2 questions"):
        System(Short(GRAPHS), POOL, runtime=made).batch(["x 0", "y 0"])

    class Lying(Listed):
        experts = ("a",)

    lying = Lying([single("a"), single("nobody")])
    with pytest.raises(PoolError, match="nobody"):
        System(lying, POOL, runtime=made).batch(["x 0", "y 1"])
    assert engine.batches == []


def test_as_langgraph_routes_then_answers():
    from langgraph.checkpoint.memory import MemorySaver

    made, _ = runtime()
    system = System(Listed(GRAPHS), POOL, runtime=made)
    questions = ["x 0", "y 3", "z 3", "u 5"]
    expected = [trace.text for trace in system.batch(questions)]
    found = system.as_langgraph().invoke({"questions": questions})
    assert found["answers"] == expected
    assert [AgentGraph.from_json(text) for text in found["graphs"]] == [
        GRAPHS[k] for k in (0, 3, 3, 5)
    ]
    only_in_the_last = {a.name for a in GRAPHS[5].agents} - {a.name for a in GRAPHS[3].agents}
    for name in only_in_the_last:
        assert found["responses"][name][1:3] == [None, None] != found["responses"][name][3:]
    for agent in GRAPHS[3].agents:
        assert found["responses"][agent.name][1] is not None

    program = system.as_langgraph(checkpointer=MemorySaver(), interrupt_before=["answer"])
    thread = {"configurable": {"thread_id": "1"}}
    state = program.invoke({"questions": questions}, thread)
    assert "answers" not in state
    program.update_state(thread, {"graphs": [GRAPHS[1].to_json()] * 4})
    answers = program.invoke(None, thread)["answers"]
    assert answers == [
        trace.text for trace in System(GRAPHS[1], POOL, runtime=made).batch(questions)
    ]

    refusing = System(Listed([single("a")]), POOL, runtime=Runtime({"fake": Refusing()}))
    with pytest.raises(EngineError, match="won't answer"):
        refusing.as_langgraph().invoke({"questions": ["x 0"]})


# Asking


def test_what_a_policy_asks_is_batched_shared_and_shown():
    made, engine = runtime()
    system = System(Asking(GRAPHS, ["b", "c", "d"], draws=3), POOL, runtime=made)
    traces = system.batch(["x 0", "y 1", "x 0"])
    assert [trace.graph for trace in traces] == [GRAPHS[0], GRAPHS[0], GRAPHS[0]]
    own = [request for batch in engine.batches for request in batch][:12]
    assert engine.loads[:3] == ["fake:base-b", "fake:base-c", "fake:base-d"]
    # An expert that samples is asked three times, others once; what is asked twice, is asked once.
    assert len([r for r in own if r.messages[0].content.startswith("route")]) == 2 + 6 + 2
    assert [call.agent.expert for call in traces[1].routing] == ["b", "c", "c", "c", "d"]
    assert all("y 1" in call.prompt[0].content for call in traces[1].routing)


def ask(expert, prompts, questions=3, **how):
    made, _ = runtime()

    async def work():
        asker = Asker(made.scheduler(), POOL, questions)
        return asker, await asker(expert, [(swarm_message(p),) for p in prompts], **how)

    return run_sync(work())


def swarm_message(text):
    from swarm.agents.messages import Message

    return Message("user", text)


def test_ask_gives_each_draw_and_returns_errors():
    _, [[one, two]] = ask("c", ["x"], draws=2)
    assert one.text != two.text
    _, [[one, two], [bad, _]] = ask("b", ["x", "bad y"], draws=2)
    assert one == two
    assert isinstance(bad, EngineError)
    asker, answers = ask("b", [])
    assert (asker.asked, answers) == ([], [])


def test_ask_says_what_a_prompt_is_about():
    assert ask("b", ["x", "y", "z"])[0].asked[0].about == [0, 1, 2]
    assert ask("b", ["x", "y"])[0].asked[0].about == [None, None]
    assert ask("b", ["x", "y"], about=[2, 2])[0].asked[0].about == [2, 2]
    for about in ([0], [0, 3], [-1, 0]):
        with pytest.raises(InputError, match="`about` must name one of 3"):
            ask("b", ["x", "y"], about=about)
    with pytest.raises(InputError, match="`draws` is 0"):
        ask("b", ["x"], draws=0)
    with pytest.raises(PoolError, match="nobody"):
        ask("nobody", ["x"])


# Recorded


QUESTIONS = ["x 0", "bad y 1", "z 2", "u 3", "v 3", "w 0", "bad t 3"]


def test_an_evaluation_is_what_its_questions_score_alone():
    made, _ = runtime()
    evaluation = System(Listed(GRAPHS), POOL, runtime=made).evaluate(task(QUESTIONS))
    summary = evaluation.summary()
    for i, question in enumerate(QUESTIONS):
        graph = GRAPHS[int(question.split()[-1])]
        [alone] = evaluate([graph], task([question]), POOL, runtime=runtime()[0])
        assert evaluation.scores[i] == alone.score
        assert evaluation.answers[i] == alone.answers[0]
        assert evaluation.errors.get(i) == alone.errors.get(0)
        assert evaluation.graphs[i] == graph
    assert summary.graphs == len(evaluation.parts) == 4
    parts = [part.summary() for part in evaluation.parts]
    for name in ("calls", "asked", "tokens", "failures"):
        assert getattr(summary, name) == sum(getattr(part, name) for part in parts)
    assert summary.cost == pytest.approx(sum(part.cost for part in parts))
    assert summary.cost > 0
    assert summary.score == sum(evaluation.scores) / len(QUESTIONS)
    assert "4 different graphs" in str(summary)


def test_it_is_recorded_as_one_run_and_replayed_from_the_record_alone(tmp_path):
    url = f"sqlite:///{tmp_path / 'swarm.db'}"
    made, engine = runtime()
    policy = Asking(GRAPHS, ["b", "c"], draws=2)
    asked = [q.replace("bad", "good") for q in QUESTIONS]
    work = task(asked)
    # `b` answers `b to route x 0, draw 0`: its last word is always 0.
    evaluation = evaluate_policy(policy, work, POOL, store=url, runtime=made)
    summary = evaluation.summary()
    assert summary.graphs == 1
    assert summary.policy_calls == 3 * len(asked)
    assert summary.calls == summary.policy_calls + len(asked)
    calls = len(engine.batches)
    again = evaluate_policy(policy, work, POOL, store=url, runtime=made)
    assert again.summary().asked == 0
    assert len(engine.batches) == calls
    assert again.scores == evaluation.scores
    with Store.open(url) as store:
        run = store.run(evaluation.run)
        assert run.summary["policy_calls"] == summary.policy_calls
        assert run.summary["score"] == evaluation.score
        assert run.settings["policy"]["name"] == "asking"
        assert run.settings["policy"]["settings"] == {"count": len(GRAPHS), "draws": 2}
        assert run.settings["policy"]["fingerprint"] == policy.fingerprint.hex()
        assert sum(view.batch.requests for view in store.batches(run.id)) == summary.asked
        trace = store.trace(run.id, 2)
        own = calls_about(store, trace)
        assert [call.agent.expert for call in own] == ["b", "c", "c"]
        assert all("route z 2" in call.answer.messages[0].content for call in own)
        report = replay(store, run.id, task=work)
        assert report.traces == len(asked)
        assert report.prompts == len(asked) + summary.policy_calls
        assert any("how the policy chose" in note for note in report.notes)
        replay(store, again.run, task=work)


def test_a_run_of_many_graphs_is_replayed_whole(tmp_path):
    url = f"sqlite:///{tmp_path / 'swarm.db'}"
    work = task(QUESTIONS)
    evaluation = evaluate_policy(Listed(GRAPHS), work, POOL, store=url, runtime=runtime()[0])
    with Store.open(url) as store:
        views = store.evaluations(evaluation.run)
        assert [view.graph for view in views] == [part.graph for part in evaluation.parts]
        positions = [store.recorded(view.id).positions for view in views]
        assert sorted(row for rows in positions for row in rows) == list(range(len(QUESTIONS)))
        report = replay(store, evaluation.run, task=work)
        assert (report.evaluations, report.traces) == (4, len(QUESTIONS))


def test_a_policy_that_can_not_choose_fails_its_run(tmp_path):
    url = f"sqlite:///{tmp_path / 'swarm.db'}"
    failing = Runtime({"fake": Refusing()})
    with pytest.raises(EngineError, match="won't answer"):
        evaluate_policy(Asking(GRAPHS[:2], ["b"]), task(["x 0"]), POOL, store=url, runtime=failing)
    with Store.open(url) as store:
        [run] = store.runs()
        assert run.status == "failed"
        assert store.evaluations(run.id) == []
