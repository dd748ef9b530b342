"""Records for tests: small ones to write down, and strategies for any there can be."""

from __future__ import annotations

import hashlib
import itertools
from datetime import UTC, datetime, timedelta, timezone

from hypothesis import strategies as st

from swarm.agents.messages import Message, Response, Usage
from swarm.graphs import Agent, AgentGraph
from swarm.store import (
    AnswerRecord,
    BatchRecord,
    EvaluationRecord,
    ExpertRecord,
    QuestionRecord,
    Store,
)

EXPERT = ExpertRecord(b"\x01" * 32, "maths", {"engine": "scripted", "temperature": 0.7})
CHAIN = AgentGraph(
    agents=(Agent(name="a", expert="maths"), Agent(name="b", expert="maths", role="judge")),
    edges=(("a", "b"),),
)
_counter = itertools.count()


def key(name: object) -> bytes:
    return hashlib.blake2b(str(name).encode(), digest_size=32).digest()


def batch(**changes) -> BatchRecord:
    moment = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    return BatchRecord(0, "base", ("maths",), 2, 10, 4, 0.5, 1.5, True, moment)._replace(**changes)


def answer(name: object, text: str = "42", batch: int | None = None) -> AnswerRecord:
    messages = (Message("system", "Be brief."), Message("user", f"What is {name}?"))
    return AnswerRecord(
        key(name), EXPERT.fingerprint, messages, 0, Response(text, Usage(7, 2)), batch
    )


def evaluation(name: object = "x", questions: int = 3, **changes) -> EvaluationRecord:
    """Two agents in a chain; the keys are those of `answers_of(name, questions)`."""
    columns = {
        "graph": CHAIN,
        "split": "dev",
        "task": b"task",
        "score": 0.5,
        "positions": list(range(questions)),
        "questions": [QuestionRecord(f"q{i}", f"What is {i}?", [str(i)]) for i in range(questions)],
        "scores": [0.5] * questions,
        "keys": [[key(f"{name} {a} {i}") for i in range(questions)] for a in "ab"],
        "cached": [[False] * questions, [True] * questions],
    }
    return EvaluationRecord(**(columns | changes))


def answers_of(name: object = "x", questions: int = 3) -> list[AnswerRecord]:
    return [answer(f"{name} {a} {i}", text=f"{a} says {i}") for a in "ab" for i in range(questions)]


# Everything Python calls a string: NULs, lone surrogates and all.
texts = st.text(st.characters(), max_size=20)
naturals = st.integers(0, 2**31 - 1)
numbers = st.floats(allow_nan=False)
seconds = st.floats(0, 1e6)
digests = st.binary(min_size=32, max_size=32)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**130), 2**130) | numbers | texts,
    lambda values: st.lists(values, max_size=3) | st.dictionaries(texts, values, max_size=3),
    max_leaves=5,
)
json_objects = st.dictionaries(texts, json_values, max_size=3)
moments = st.datetimes(
    datetime(1970, 1, 2),
    timezones=st.integers(-720, 720).map(lambda m: timezone(timedelta(minutes=m))),
)
experts = st.builds(ExpertRecord, digests, texts, json_objects)
batches = st.builds(
    BatchRecord,
    wave=naturals,
    base=texts,
    experts=st.lists(texts, max_size=3).map(tuple),
    requests=naturals,
    prompt_tokens=naturals,
    completion_tokens=naturals,
    seconds=seconds,
    load_seconds=seconds,
    loaded=st.booleans(),
    started_at=moments,
    load_bytes=st.integers(0, 2**62),
    prefetched=st.booleans(),
    evicted=st.lists(texts, max_size=3).map(tuple),
    evict_seconds=seconds,
    seedless=st.booleans(),
)
messages = st.lists(
    st.builds(Message, st.sampled_from(["system", "user", "assistant"]), texts), max_size=3
).map(tuple)
responses = st.builds(
    Response,
    texts,
    st.builds(Usage, naturals, naturals),
    st.sampled_from(["stop", "length", "other"]),
    seconds,
    st.just(False),  # its batch has it
)
answers = st.builds(
    AnswerRecord,
    key=st.builds(lambda: key(f"new {next(_counter)}")),
    expert=st.just(EXPERT.fingerprint),
    messages=messages,
    draw=naturals,
    response=responses,
)
questions = st.builds(QuestionRecord, texts, texts, json_values)
names = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=8)


@st.composite
def graphs(draw) -> AgentGraph:
    agents = draw(
        st.lists(
            st.builds(Agent, name=names, expert=names, role=names),
            min_size=1,
            max_size=4,
            unique_by=lambda agent: agent.name,
        )
    )
    end = agents[-1].name
    return AgentGraph(agents=tuple(agents), edges=tuple((agent.name, end) for agent in agents[:-1]))


@st.composite
def evaluations(draw) -> EvaluationRecord:
    graph = draw(graphs())
    n = draw(st.integers(0, 4))

    def column(values):
        return draw(st.lists(values, min_size=n, max_size=n))

    scored = draw(st.none() | st.lists(st.none() | texts, min_size=n, max_size=n))
    some = st.integers(0, max(n - 1, 0))
    agents = st.integers(0, len(graph.agents) - 1)
    return EvaluationRecord(
        graph=graph,
        split=draw(texts),
        task=draw(st.binary(max_size=32)),
        score=draw(numbers),
        positions=column(naturals),
        questions=column(questions),
        scores=column(numbers),
        keys=[column(st.none() | digests) for _ in graph.agents],
        cached=[column(st.booleans()) for _ in graph.agents],
        answers=scored if scored and any(text is not None for text in scored) else None,
        errors=draw(st.dictionaries(some, texts, max_size=min(n, 2))),
        call_errors=draw(st.dictionaries(st.tuples(agents, some), texts, max_size=min(n, 2))),
        shortened=draw(st.dictionaries(st.tuples(agents, some), texts, max_size=min(n, 2))),
        info=draw(json_objects),
    )


# What `data/rev*.sql` hold, each written by the first version of the package with that revision
# (`sqlite3 swarm.db .dump` of a store filled by `write_first`). Not to be changed.
def first_evaluation() -> EvaluationRecord:
    return evaluation(
        "first",
        positions=[4, 5, 6],
        answers=[None, "b says 1\0", None],
        errors={2: "too long"},
        call_errors={(1, 2): "too long"},
        info={"iteration": 3, "particle": 7},
    )


def first_answers(batch: int) -> list[AnswerRecord]:
    return [answer._replace(batch=batch) for answer in answers_of("first")]


def write_first(store: Store) -> None:
    run = store.start_run("job", "first", {"particles": 10}, key=b"job")
    store.add_experts([EXPERT])
    [number] = store.add_batches(run, [batch()])
    store.add_answers(first_answers(number))
    store.add_evaluation(run, first_evaluation())
    store.save_state(run, {"iteration": 3, "best": float("inf")})
    store.finish_run(run, "done", {"score": 0.5})
