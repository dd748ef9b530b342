"""`Store`: what is recorded, written whole or not at all, and read back."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import chain, repeat
from operator import itemgetter
from os import PathLike, fspath
from types import TracebackType
from typing import Any, Self, cast

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Insert, Table, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from swarm.agents.messages import Response
from swarm.errors import StoreError
from swarm.store import database, reading, tables
from swarm.store.locks import file_lock, server_lock
from swarm.store.records import (
    AnswerRecord,
    BatchRecord,
    BatchView,
    EvaluationRecord,
    EvaluationView,
    ExpertRecord,
    QuestionRecord,
    RunKind,
    RunStatus,
    RunView,
    TraceView,
)
from swarm.store.types import dump_json, escape

_CONTENT_ADDRESSED = (
    tables.Expert,
    tables.Graph,
    tables.Prompt,
    tables.Question,
    tables.Answer,
    tables.Embedding,
)


class Store:
    """Everything that was run: who was asked what, what they answered, and what came of it.

    One store is one connection: use it from one thread at a time. Several processes may have the
    same store open; they write one after the other. All methods raise `StoreError`, with a one-line
    cause, if the database fails (disk full, locked, gone): the transaction is then rolled back and
    the store is as it was before it.
    """

    def __init__(self, connection: Connection) -> None:
        """Use `Store.open`."""
        self._connection = connection
        self._path = database.sqlite_path(connection.engine.url)
        self._identity = None if self._path is None else database.identity(self._path)
        self._writing = False
        self._failed = False
        self._stored: set[bytes] = set()
        """Digests of graphs and questions known to be there, which needn't be written again."""
        self._inserts: dict[type[tables.Base], tuple[str, list[str] | None]] = {}

    @classmethod
    def open(cls, url: str | PathLike[str], *, create: bool = True, timeout: float = 30.0) -> Store:
        """The store at `url`, brought up to date; made if there is none and `create` allows it.

        `url` is the path of an SQLite file or a URL: `sqlite:///swarm.db`, `sqlite://` (in memory),
        `postgresql://user@host/database`. `timeout`: seconds to wait for another process's write.

        Raises `StoreURLError` if there is no store to be had at `url`, `StoreVersionError` if it
        was written by a newer version, `MissingPackageError` if PostgreSQL's driver is missing.
        """
        parsed = database.parse_url(fspath(url))
        return cls(database.connect(parsed, create=create, timeout=timeout))

    def close(self) -> None:
        """Let go of the database. A transaction that was not completed is rolled back."""
        self._connection.close()
        self._connection.engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def url(self) -> str:
        """Where the store is, fit to be shown: without a password."""
        return self._connection.engine.url.render_as_string()

    # Writing

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything written inside is committed together or not at all; may be nested.

        If an inner transaction fails, so does the outermost, even if the error was caught between.
        """
        if self._writing:
            try:
                yield
            except BaseException:
                self._failed = True
                raise
            return
        self._writing, self._failed = True, False
        try:
            with self._failing(), database.begin(self._connection, writing=True):
                yield
                if self._failed:
                    raise StoreError("a part of this transaction failed, so nothing of it was kept")
                if self._path is not None and database.identity(self._path) != self._identity:
                    raise StoreError(
                        f"the store `{self._path}` was moved or deleted while in use: "
                        "put it back, or start again with a new one"
                    )
        except BaseException:
            self._stored.clear()
            raise
        finally:
            self._writing = False

    @contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            raise StoreError(f"the store `{self.url}` failed: {database.cause(error)}") from error

    def start_run(
        self,
        kind: RunKind,
        name: str,
        settings: Mapping[str, Any],
        *,
        parent: int | None = None,
        key: bytes | None = None,
    ) -> int:
        """Record that a run has begun; returns its id.

        `parent`: the run this one replays or forks. `key`: what makes a job the same job, so that
        `find_job` can find it to be resumed. Neither `settings` nor anything else may hold an API
        key: what is given is stored.
        """
        now = datetime.now(UTC)
        with self.transaction():
            return self._insert_one(
                tables.Run,
                kind=kind,
                name=name,
                status="running",
                settings=settings,
                parent_id=parent,
                key=key,
                version=version("agent-swarm"),
                created_at=now,
                updated_at=now,
            )

    def resume_run(self, run: int) -> None:
        """Record that a run which had ended goes on."""
        self._update_run(run, status="running", error=None)

    def save_state(self, run: int, state: Mapping[str, Any]) -> None:
        """Keep what is needed to go on (any JSON); the last one saved is the one `state` reads."""
        self._update_run(run, state=state)

    def finish_run(
        self,
        run: int,
        status: RunStatus,
        summary: Mapping[str, Any] | None = None,
        error: str | None = None,
    ) -> None:
        """Record how a run ended."""
        self._update_run(run, status=status, summary=summary, error=error)

    def _update_run(self, run: int, **values: Any) -> None:
        with self.transaction():
            statement = update(tables.Run).where(tables.Run.id == run)
            result = self._connection.execute(
                statement.values(updated_at=datetime.now(UTC), **values)
            )
            if result.rowcount == 0:
                self.run(run)  # says what is wrong

    def add_experts(self, experts: Iterable[ExpertRecord]) -> None:
        """Store experts that are not there yet. `config` must not hold an API key."""
        with self.transaction():
            self._bulk(
                tables.Expert,
                [
                    (expert.fingerprint, escape(expert.name), dump_json(expert.config))
                    for expert in experts
                ],
            )

    def add_batches(self, run: int, batches: Sequence[BatchRecord]) -> list[int]:
        """Record engine calls made for `run`; returns their ids in the same order."""
        if not batches:
            return []
        statement = insert(tables.Batch).returning(tables.Batch.id, sort_by_parameter_order=True)
        with self.transaction():
            return list(
                self._connection.scalars(
                    statement, [{"run_id": run, **batch._asdict()} for batch in batches]
                )
            )

    def add_answers(self, answers: Iterable[AnswerRecord]) -> None:
        """Store answers that are not there yet; the first one stored under a key stays.

        Their experts (`add_experts`) and batches (`add_batches`) are stored before them.
        """
        prompts = {}
        rows = []
        for key, expert, messages, draw, response, batch in answers:
            body = dump_json(messages)
            prompt = hashlib.blake2b(body.encode(), digest_size=32).digest()
            prompts[prompt] = body
            text, usage, finish, seconds, _ = response
            rows.append((key, expert, prompt, draw, escape(text), *usage, finish, seconds, batch))
        with self.transaction():
            # In the order of the keys: no deadlock with another process storing some of the same.
            self._bulk(tables.Prompt, sorted(prompts.items()))
            self._bulk(tables.Answer, sorted(rows, key=itemgetter(0)))

    def add_vectors(self, vectors: Mapping[bytes, NDArray[np.float32]]) -> None:
        """Store embeddings that are not there yet: content address of encoder and text → (d,)."""
        rows = [(key, np.asarray(vector, "<f4").tobytes()) for key, vector in vectors.items()]
        with self.transaction():
            self._bulk(tables.Embedding, sorted(rows))

    def add_evaluation(self, run: int, evaluation: EvaluationRecord) -> int:
        """Record an evaluation with its traces and calls; returns its id.

        The answers its keys name are stored before it or after it in the same transaction.
        """
        [number] = self.add_evaluations(run, [evaluation])
        return number

    def add_evaluations(self, run: int, evaluations: Sequence[EvaluationRecord]) -> list[int]:
        """Record many evaluations at once; returns their ids in the same order."""
        if not evaluations:
            return []
        statement = insert(tables.Evaluation).returning(
            tables.Evaluation.id, sort_by_parameter_order=True
        )
        now = datetime.now(UTC)
        rows = [
            {
                "run_id": run,
                "graph": evaluation.graph.digest,
                "split": evaluation.split,
                "task": evaluation.task,
                "score": float(evaluation.score),
                "size": len(evaluation.positions),
                "info": evaluation.info,
                "created_at": now,
            }
            for evaluation in evaluations
        ]
        with self.transaction():
            self._add_graphs_and_questions(evaluations)
            numbers = list(self._connection.scalars(statement, rows))
            numbered = list(zip(numbers, evaluations, strict=True))
            self._bulk(tables.Trace, [row for n, each in numbered for row in _trace_rows(n, each)])
            self._bulk(tables.Call, [row for n, each in numbered for row in _call_rows(n, each)])
        return numbers

    def _add_graphs_and_questions(self, evaluations: Sequence[EvaluationRecord]) -> None:
        graphs = {each.graph.digest: each.graph for each in evaluations}
        missing = sorted(graphs.keys() - self._stored)
        self._bulk(tables.Graph, [(key, escape(graphs[key].to_json())) for key in missing])
        new = {
            question.digest: question
            for each in evaluations
            for question in each.questions
            if question.digest not in self._stored
        }
        self._bulk(tables.Question, [_question_row(new[digest]) for digest in sorted(new)])
        self._stored.update(missing, new)

    def _insert_one(self, row: type[tables.Base], **values: Any) -> int:
        """Insert a row; returns the id the database gave it."""
        key = self._connection.execute(insert(_table(row)), values).inserted_primary_key
        assert key is not None
        return int(key[0])

    def _bulk(self, row: type[tables.Base], rows: list[tuple[Any, ...]]) -> None:
        """Insert whole rows; what is content-addressed and already there stays as it is.

        Rows are given in the form the driver takes, columns in the table's order: SQLAlchemy writes
        the statement, the values go past it straight to `executemany`.
        """
        if not rows:
            return
        if row not in self._inserts:
            self._inserts[row] = _compile_insert(self._connection, row)
        statement, names = self._inserts[row]
        if names is None:
            self._connection.exec_driver_sql(statement, rows)
        else:
            self._connection.exec_driver_sql(
                statement, [dict(zip(names, values, strict=True)) for values in rows]
            )

    @contextmanager
    def lock_run(self, run: int) -> Iterator[None]:
        """Keep other processes from working on `run`; `BusyError`, naming the one that does.

        The lock goes with the process, however it ends. A store in memory has no others.
        """
        if self._path is not None:
            with file_lock(self._path, run):
                yield
        elif self._connection.dialect.name == "postgresql":
            with self._failing(), server_lock(self._connection.engine, run):
                yield
        else:
            yield

    # Reading

    @contextmanager
    def _reading(self) -> Iterator[Session]:
        """A session that sees what the transaction it is in has written."""
        with self._failing():
            if self._connection.in_transaction():
                with Session(self._connection) as session:
                    yield session
            else:
                with (
                    database.begin(self._connection, writing=False),
                    Session(self._connection) as session,
                ):
                    yield session

    def runs(self, limit: int | None = None) -> list[RunView]:
        """The latest runs, the newest first."""
        with self._reading() as session:
            return reading.runs(session, limit)

    def run(self, run: int) -> RunView:
        """The run of that id; `InputError` if there is none."""
        with self._reading() as session:
            return reading.run(session, run)

    def find_job(self, key: bytes) -> RunView | None:
        """The latest run that was started under `key`, if there is one."""
        with self._reading() as session:
            return reading.job(session, key)

    def state(self, run: int) -> dict[str, Any] | None:
        """What `save_state` saved last; None if it never did."""
        with self._reading() as session:
            reading.run(session, run)
            return session.scalar(select(tables.Run.state).where(tables.Run.id == run))

    def known(self, keys: Collection[bytes]) -> dict[bytes, Response]:
        """The responses stored under any of `keys`."""
        with self._failing():
            if self._connection.in_transaction():
                return reading.known(self._connection, keys)
            with database.begin(self._connection, writing=False):
                return reading.known(self._connection, keys)

    def answers(self, keys: Collection[bytes]) -> dict[bytes, AnswerRecord]:
        """The answers stored under any of `keys`, with what was asked and of whom."""
        with self._reading() as session:
            return reading.answers(session, keys)

    def vectors(self, keys: Collection[bytes]) -> dict[bytes, NDArray[np.float32]]:
        """The embeddings stored under any of `keys`, each of shape (d,)."""
        with self._reading() as session:
            return reading.vectors(session, keys)

    def experts(self, fingerprints: Collection[bytes]) -> dict[bytes, ExpertRecord]:
        """The experts stored under any of `fingerprints`."""
        with self._reading() as session:
            return reading.experts(session, fingerprints)

    def batches(self, run: int) -> list[BatchView]:
        """The engine calls made for `run`, in the order they were recorded."""
        with self._reading() as session:
            reading.run(session, run)
            return reading.batches(session, run)

    def evaluations(self, run: int) -> list[EvaluationView]:
        """The evaluations of `run` without their traces, in the order they were recorded."""
        with self._reading() as session:
            reading.run(session, run)
            return reading.evaluations(session, run)

    def scores(self, run: int) -> dict[int, dict[int, float]]:
        """Of every evaluation of `run`, by its id: position in the split → score."""
        with self._reading() as session:
            reading.run(session, run)
            return reading.scores(session, run)

    def count_shortened(self, run: int) -> int:
        """How many calls of `run` had their prompts shortened."""
        with self._reading() as session:
            reading.run(session, run)
            return reading.count_shortened(session, run)

    def recorded(self, evaluation: int) -> EvaluationRecord:
        """The evaluation as it was given to `add_evaluation`; `InputError` if there is none."""
        with self._reading() as session:
            return reading.recorded(session, evaluation)

    def trace(self, run: int, number: int) -> TraceView:
        """The `number`-th trace of `run`, counted from 0 over all its evaluations, whole."""
        with self._reading() as session:
            reading.run(session, run)
            return reading.trace(session, run, number)

    def traces(self, run: int, evaluation: int | None = None) -> Iterator[TraceView]:
        """The traces of `run`, or of one of its evaluations, whole; one evaluation in memory.

        The store may be used between two traces, in any way.
        """
        with self._reading() as session:
            reading.run(session, run)
            spans = reading.spans(session, run, evaluation)
        return self._traces(run, spans)

    def _traces(self, run: int, spans: list[tuple[int, int]]) -> Iterator[TraceView]:
        for evaluation, before in spans:
            with self._reading() as session:
                views = reading.trace_views(session, run, evaluation, before)
            yield from views


def _table(row: type[tables.Base]) -> Table:
    return cast("Table", row.__table__)


def _compile_insert(connection: Connection, row: type[tables.Base]) -> tuple[str, list[str] | None]:
    """An insert of whole rows, and the parameters' names if the driver wants names."""
    table = _table(row)
    statement: Insert = insert(table)
    if row in _CONTENT_ADDRESSED:
        if connection.dialect.name == "postgresql":
            statement = postgresql.insert(table).on_conflict_do_nothing()
        else:
            statement = sqlite.insert(table).on_conflict_do_nothing()
    compiled = statement.compile(dialect=connection.dialect)
    return str(compiled), None if compiled.positional else table.columns.keys()


def _question_row(question: QuestionRecord) -> tuple[Any, ...]:
    gold = None if question.gold is None else dump_json(question.gold)
    return question.digest, escape(question.example_id), escape(question.question), gold


def _trace_rows(number: int, evaluation: EvaluationRecord) -> list[tuple[Any, ...]]:
    count = len(evaluation.positions)
    answers = evaluation.answers or repeat(None, count)
    return list(
        zip(
            repeat(number, count),
            range(count),
            map(int, evaluation.positions),
            (question.digest for question in evaluation.questions),
            (None if answer is None else escape(answer) for answer in answers),
            map(float, evaluation.scores),
            _sparse(evaluation.errors, count),
            strict=True,
        )
    )


def _call_rows(number: int, evaluation: EvaluationRecord) -> list[tuple[Any, ...]]:
    """Rows in the order of the primary key, put together without a Python step for each."""
    count = len(evaluation.positions)
    errors, shortened = _by_agent(evaluation.call_errors), _by_agent(evaluation.shortened)
    agents = [
        zip(
            repeat(number, count),
            range(count),
            repeat(agent, count),
            keys,
            cached,
            _sparse(errors.get(agent, {}), count),
            _sparse(shortened.get(agent, {}), count),
            strict=True,
        )
        for agent, (keys, cached) in enumerate(zip(evaluation.keys, evaluation.cached, strict=True))
    ]
    return list(chain.from_iterable(zip(*agents, strict=True)))


def _by_agent(texts: Mapping[tuple[int, int], str]) -> dict[int, dict[int, str]]:
    """agent → question → text, of (agent, question) → text."""
    found: dict[int, dict[int, str]] = {}
    for (agent, question), text in texts.items():
        found.setdefault(agent, {})[question] = text
    return found


def _sparse(texts: Mapping[int, str], count: int) -> Iterable[str | None]:
    """`texts` as a column of `count`, None where there is none."""
    if not texts:
        return repeat(None, count)
    return [escape(texts[i]) if i in texts else None for i in range(count)]
