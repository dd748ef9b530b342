"""Rows to views: what a store is asked once something has been recorded."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, bindparam, func, select
from sqlalchemy.orm import Session

from swarm.agents.messages import Message, Response, Usage
from swarm.errors import InputError
from swarm.graphs.graph import AgentGraph
from swarm.store import tables
from swarm.store.records import (
    AnswerRecord,
    BatchRecord,
    BatchView,
    CallView,
    EvaluationRecord,
    EvaluationView,
    ExpertRecord,
    QuestionRecord,
    RunView,
    TraceView,
)

_CHUNK = 1000
"""Keys asked for in one query: databases limit the number of parameters."""


def _chunks(keys: Collection[bytes]) -> Iterator[list[bytes]]:
    unique = list(dict.fromkeys(keys))
    for start in range(0, len(unique), _CHUNK):
        yield unique[start : start + _CHUNK]


def runs(session: Session, limit: int | None) -> list[RunView]:
    rows = session.scalars(select(tables.Run).order_by(tables.Run.id.desc()).limit(limit))
    return [_run_view(row) for row in rows]


def run(session: Session, run: int) -> RunView:
    row = session.get(tables.Run, run)
    if row is None:
        latest = session.scalar(select(func.max(tables.Run.id)))
        remedy = "nothing has been recorded yet" if latest is None else f"the latest is {latest}"
        raise InputError(f"there is no run {run} in this store: {remedy}")
    return _run_view(row)


def job(session: Session, key: bytes) -> RunView | None:
    row = session.scalars(
        select(tables.Run).where(tables.Run.key == key).order_by(tables.Run.id.desc()).limit(1)
    ).first()
    return None if row is None else _run_view(row)


def _run_view(row: tables.Run) -> RunView:
    return RunView(
        id=row.id,
        kind=row.kind,
        name=row.name,
        status=row.status,
        settings=row.settings,
        summary=row.summary,
        error=row.error,
        parent=row.parent_id,
        key=row.key,
        version=row.version,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def evaluations(session: Session, run: int) -> list[EvaluationView]:
    rows = session.execute(
        select(tables.Evaluation, tables.Graph.body)
        .join(tables.Graph, tables.Graph.digest == tables.Evaluation.graph)
        .where(tables.Evaluation.run_id == run)
        .order_by(tables.Evaluation.id)
    )
    graphs: dict[str, AgentGraph] = {}
    views = []
    for row, body in rows:
        if body not in graphs:
            graphs[body] = AgentGraph.from_json(body)
        views.append(
            EvaluationView(
                id=row.id,
                run=row.run_id,
                graph=graphs[body],
                split=row.split,
                task=row.task,
                score=row.score,
                size=row.size,
                info=row.info,
                created_at=row.created_at,
            )
        )
    return views


def scores(session: Session, run: int) -> dict[int, dict[int, float]]:
    trace, evaluation = tables.Trace, tables.Evaluation
    rows = session.execute(
        select(trace.evaluation_id, trace.position, trace.score)
        .join(evaluation, evaluation.id == trace.evaluation_id)
        .where(evaluation.run_id == run)
        .order_by(trace.evaluation_id, trace.number)
    )
    found: dict[int, dict[int, float]] = {}
    for number, position, score in rows:
        found.setdefault(number, {})[position] = score
    return found


def count_shortened(session: Session, run: int) -> int:
    call, evaluation = tables.Call, tables.Evaluation
    return (
        session.scalar(
            select(func.count())
            .select_from(call)
            .join(evaluation, evaluation.id == call.evaluation_id)
            .where(evaluation.run_id == run, call.shortened.is_not(None))
        )
        or 0
    )


def batches(session: Session, run: int) -> list[BatchView]:
    rows = session.scalars(
        select(tables.Batch).where(tables.Batch.run_id == run).order_by(tables.Batch.id)
    )
    return [
        BatchView(
            row.id,
            row.run_id,
            BatchRecord(
                wave=row.wave,
                base=row.base,
                experts=tuple(row.experts),
                requests=row.requests,
                prompt_tokens=row.prompt_tokens,
                completion_tokens=row.completion_tokens,
                seconds=row.seconds,
                load_seconds=row.load_seconds,
                loaded=row.loaded,
                started_at=row.started_at,
                load_bytes=row.load_bytes,
                prefetched=row.prefetched,
                evicted=tuple(row.evicted),
                evict_seconds=row.evict_seconds,
                seedless=row.seedless,
            ),
        )
        for row in rows
    ]


_KNOWN = select(
    *(
        tables.Answer.__table__.c[name]
        for name in ("key", "text", "prompt_tokens", "completion_tokens", "finish", "seconds")
    )
).where(tables.Answer.__table__.c.key.in_(bindparam("keys", expanding=True)))
"""Made once: it is asked before every request, and making it takes longer than its answer."""


def known(connection: Connection, keys: Collection[bytes]) -> dict[bytes, Response]:
    found = {}
    for chunk in _chunks(keys):
        for key, text, read, written, finish, seconds in connection.execute(
            _KNOWN, {"keys": chunk}
        ):
            found[key] = Response(text, Usage(read, written), finish, seconds)
    return found


def answers(session: Session, keys: Collection[bytes]) -> dict[bytes, AnswerRecord]:
    answer, prompt = tables.Answer, tables.Prompt
    found = {}
    for chunk in _chunks(keys):
        rows = session.execute(
            select(
                answer.key,
                answer.expert,
                prompt.messages,
                answer.draw,
                answer.text,
                answer.prompt_tokens,
                answer.completion_tokens,
                answer.finish,
                answer.seconds,
                answer.batch_id,
            )
            .join(prompt, prompt.digest == answer.prompt)
            .where(answer.key.in_(chunk))
        )
        for key, expert, messages, draw, text, read, written, finish, seconds, batch in rows:
            found[key] = AnswerRecord(
                key,
                expert,
                tuple(Message(role, content) for role, content in messages),
                draw,
                Response(text, Usage(read, written), finish, seconds),
                batch,
            )
    return found


def experts(session: Session, fingerprints: Collection[bytes]) -> dict[bytes, ExpertRecord]:
    found = {}
    for chunk in _chunks(fingerprints):
        rows = session.scalars(select(tables.Expert).where(tables.Expert.fingerprint.in_(chunk)))
        for row in rows:
            found[row.fingerprint] = ExpertRecord(row.fingerprint, row.name, row.config)
    return found


def vectors(session: Session, keys: Collection[bytes]) -> dict[bytes, NDArray[np.float32]]:
    embedding = tables.Embedding
    found = {}
    for chunk in _chunks(keys):
        rows = session.execute(
            select(embedding.key, embedding.vector).where(embedding.key.in_(chunk))
        )
        for key, vector in rows:
            found[key] = np.frombuffer(vector, "<f4").astype(np.float32)
    return found


def recorded(session: Session, evaluation: int, number: int | None = None) -> EvaluationRecord:
    """The evaluation as it was written, or only its `number`-th question."""
    row = session.execute(
        select(tables.Evaluation, tables.Graph.body)
        .join(tables.Graph, tables.Graph.digest == tables.Evaluation.graph)
        .where(tables.Evaluation.id == evaluation)
    ).one_or_none()
    if row is None:
        raise InputError(f"there is no evaluation {evaluation} in this store: see its runs")
    head, body = row
    graph = AgentGraph.from_json(body)
    traces = _traces(session, evaluation, number)
    count = len(traces)
    keys: list[list[bytes | None]] = [[None] * count for _ in graph.agents]
    cached = [[False] * count for _ in graph.agents]
    call_errors, shortened = {}, {}
    for at, agent, key, was_cached, error, how in _calls(session, evaluation, number):
        question = at if number is None else 0
        keys[agent][question] = key
        cached[agent][question] = was_cached
        if error is not None:
            call_errors[agent, question] = error
        if how is not None:
            shortened[agent, question] = how
    answers = [trace.answer for trace, _ in traces]
    return EvaluationRecord(
        graph=graph,
        split=head.split,
        task=head.task,
        score=head.score,
        positions=[trace.position for trace, _ in traces],
        questions=[
            QuestionRecord(question.example_id, question.question, question.gold)
            for _, question in traces
        ],
        scores=[trace.score for trace, _ in traces],
        keys=keys,
        cached=cached,
        answers=None if answers.count(None) == count else answers,
        errors={i: trace.error for i, (trace, _) in enumerate(traces) if trace.error is not None},
        call_errors=call_errors,
        shortened=shortened,
        info=head.info,
    )


def _traces(
    session: Session, evaluation: int, number: int | None
) -> Sequence[tuple[tables.Trace, tables.Question]]:
    query = (
        select(tables.Trace, tables.Question)
        .join(tables.Question, tables.Question.digest == tables.Trace.question)
        .where(tables.Trace.evaluation_id == evaluation)
        .order_by(tables.Trace.number)
    )
    if number is not None:
        query = query.where(tables.Trace.number == number)
    return [(trace, question) for trace, question in session.execute(query)]


def _calls(
    session: Session, evaluation: int, number: int | None
) -> Iterator[tuple[int, int, bytes | None, bool, str | None, str | None]]:
    call = tables.Call
    query = select(
        call.number, call.agent, call.key, call.cached, call.error, call.shortened
    ).where(call.evaluation_id == evaluation)
    if number is not None:
        query = query.where(call.number == number)
    for row in session.execute(query):
        yield row[0], row[1], row[2], row[3], row[4], row[5]


def trace(session: Session, run: int, number: int) -> TraceView:
    evaluation = tables.Evaluation
    counted = (
        select(
            evaluation.id,
            evaluation.size,
            func.sum(evaluation.size).over(order_by=evaluation.id).label("end"),
        )
        .where(evaluation.run_id == run)
        .subquery()
    )
    row = session.execute(
        select(counted).where(counted.c.end > number).order_by(counted.c.id).limit(1)
    ).one_or_none()
    if row is None or number < 0:
        total = session.scalar(select(func.sum(evaluation.size)).where(evaluation.run_id == run))
        rule = f"it has the traces 0 to {total - 1}" if total else "it has no traces"
        raise InputError(f"run {run} has no trace {number}: {rule}")
    before = row.end - row.size
    return trace_views(session, run, row.id, before, number - before)[0]


def spans(session: Session, run: int, evaluation: int | None) -> list[tuple[int, int]]:
    """The run's evaluations (or only the one) and how many of its traces come before each."""
    rows = session.execute(
        select(tables.Evaluation.id, tables.Evaluation.size)
        .where(tables.Evaluation.run_id == run)
        .order_by(tables.Evaluation.id)
    ).all()
    if evaluation is not None and all(row[0] != evaluation for row in rows):
        raise InputError(f"evaluation {evaluation} is not one of run {run}: see its evaluations")
    before = accumulate((size for _, size in rows), initial=0)
    found = [(row[0], first) for row, first in zip(rows, before, strict=False)]
    return [span for span in found if evaluation in (None, span[0])]


def trace_views(
    session: Session, run: int, evaluation: int, before: int, number: int | None = None
) -> list[TraceView]:
    """The evaluation's traces, or only the `number`-th; `before` others of the run precede them."""
    record = recorded(session, evaluation, number)
    found = answers(session, [key for column in record.keys for key in column if key is not None])
    asked = experts(session, {answer.expert for answer in found.values()})
    end = record.graph.position(record.graph.end.name)
    views = []
    for i, question in enumerate(record.questions):
        calls = []
        for position, agent in enumerate(record.graph.agents):
            key = record.keys[position][i]
            answer = None if key is None else found.get(key)
            calls.append(
                CallView(
                    agent=agent,
                    key=key,
                    cached=record.cached[position][i],
                    error=record.call_errors.get((position, i)),
                    answer=answer,
                    expert=None if answer is None else asked[answer.expert],
                    shortened=record.shortened.get((position, i)),
                )
            )
        scored = None if record.answers is None else record.answers[i]
        if scored is None and (last := calls[end].answer) is not None:
            scored = last.response.text
        views.append(
            TraceView(
                run=run,
                evaluation=evaluation,
                number=before + (i if number is None else number),
                position=record.positions[i],
                question=question,
                graph=record.graph,
                calls=tuple(calls),
                answer=scored,
                score=record.scores[i],
                error=record.errors.get(i),
            )
        )
    return views
