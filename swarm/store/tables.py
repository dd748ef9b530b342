"""The tables, as they are read. A change here needs a revision in `migrations/versions`.

What has content (experts, graphs, prompts, questions, answers) is content-addressed and stored
once; what happened (runs, batches, evaluations, traces, calls) refers to it.

    runs ─┬─ batches ──── answers ── prompts, experts
          └─ evaluations ── graphs
                └─ traces ── questions
                      └─ calls ── answers
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from sqlalchemy import (
    BigInteger,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    LargeBinary,
    MetaData,
    SmallInteger,
    false,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from swarm.store.records import RunKind, RunStatus
from swarm.store.types import AnyJson, AnyText, UtcTime

REVISIONS = ("0001", "0002", "0003")
"""Every revision this version of the package can open, oldest first; the last is the current one.
Kept here so that opening a store that is up to date need not import Alembic."""

VERSION_TABLE = "swarm_version"
"""Where Alembic keeps the revision. Its presence is what makes a database a store."""


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_N_label)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 -- as SQLAlchemy declares it
        str: AnyText,
        float: Double,
        bytes: LargeBinary,
        datetime: UtcTime,
        dict[str, Any]: AnyJson,
        list[str]: AnyJson,
    }


class Run(Base):
    __tablename__ = "runs"

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[RunKind] = mapped_column(AnyText)
    name: Mapped[str]
    status: Mapped[RunStatus] = mapped_column(AnyText)
    settings: Mapped[dict[str, Any]]
    summary: Mapped[dict[str, Any] | None]
    state: Mapped[dict[str, Any] | None] = mapped_column(deferred=True)
    error: Mapped[str | None]
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("runs.id"))
    key: Mapped[bytes | None] = mapped_column(index=True)
    version: Mapped[str]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class Expert(Base):
    __tablename__ = "experts"

    fingerprint: Mapped[bytes] = mapped_column(primary_key=True)
    name: Mapped[str]
    config: Mapped[dict[str, Any]]


class Graph(Base):
    __tablename__ = "graphs"

    digest: Mapped[bytes] = mapped_column(primary_key=True)
    body: Mapped[str]


class Prompt(Base):
    __tablename__ = "prompts"

    digest: Mapped[bytes] = mapped_column(primary_key=True)
    messages: Mapped[list[Any]] = mapped_column(AnyJson)


class Question(Base):
    __tablename__ = "questions"

    digest: Mapped[bytes] = mapped_column(primary_key=True)
    example_id: Mapped[str]
    question: Mapped[str]
    gold: Mapped[Any] = mapped_column(AnyJson, nullable=True)


class Batch(Base):
    __tablename__ = "batches"

    id: Mapped[int] = mapped_column(primary_key=True)
    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id"), index=True)
    wave: Mapped[int]
    base: Mapped[str]
    experts: Mapped[list[str]]
    requests: Mapped[int]
    prompt_tokens: Mapped[int]
    completion_tokens: Mapped[int]
    seconds: Mapped[float]
    load_seconds: Mapped[float]
    loaded: Mapped[bool]
    started_at: Mapped[datetime]
    load_bytes: Mapped[int] = mapped_column(BigInteger, server_default="0")
    prefetched: Mapped[bool] = mapped_column(server_default=false())
    evicted: Mapped[list[str]] = mapped_column(server_default="[]")
    evict_seconds: Mapped[float] = mapped_column(server_default="0")
    seedless: Mapped[bool] = mapped_column(server_default=false())


class Answer(Base):
    __tablename__ = "answers"

    key: Mapped[bytes] = mapped_column(primary_key=True)
    expert: Mapped[bytes] = mapped_column(ForeignKey("experts.fingerprint"))
    prompt: Mapped[bytes] = mapped_column(ForeignKey("prompts.digest"))
    draw: Mapped[int]
    text: Mapped[str]
    prompt_tokens: Mapped[int]
    completion_tokens: Mapped[int]
    finish: Mapped[Literal["stop", "length", "other"]] = mapped_column(AnyText)
    seconds: Mapped[float]
    batch_id: Mapped[int | None] = mapped_column(ForeignKey("batches.id"))


class Evaluation(Base):
    __tablename__ = "evaluations"

    id: Mapped[int] = mapped_column(primary_key=True)
    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id"), index=True)
    graph: Mapped[bytes] = mapped_column(ForeignKey("graphs.digest"))
    split: Mapped[str]
    task: Mapped[bytes]
    score: Mapped[float]
    size: Mapped[int]
    info: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]


class Trace(Base):
    __tablename__ = "traces"
    # Rows are looked up by primary key only: in SQLite they live in its tree.
    __table_args__ = {"sqlite_with_rowid": False}  # noqa: RUF012 -- as SQLAlchemy declares it

    evaluation_id: Mapped[int] = mapped_column(ForeignKey("evaluations.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    position: Mapped[int]
    question: Mapped[bytes] = mapped_column(ForeignKey("questions.digest"))
    answer: Mapped[str | None]
    score: Mapped[float]
    error: Mapped[str | None]


class Call(Base):
    __tablename__ = "calls"
    __table_args__ = (
        ForeignKeyConstraint(
            ["evaluation_id", "number"], ["traces.evaluation_id", "traces.number"]
        ),
        {"sqlite_with_rowid": False},
    )

    evaluation_id: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    agent: Mapped[int] = mapped_column(SmallInteger, primary_key=True)
    key: Mapped[bytes | None]
    """No foreign key: a call that failed keeps the address of the answer it did not get."""
    cached: Mapped[bool]
    error: Mapped[str | None]
    shortened: Mapped[str | None]
    """How the prompt was shortened to fit; None: it was not."""


class Embedding(Base):
    __tablename__ = "embeddings"

    key: Mapped[bytes] = mapped_column(primary_key=True)
    """The content address of encoder and text."""
    vector: Mapped[bytes]
    """float32, little-endian."""
