"""What the store is given and what it gives back: frozen leaves that know nothing of a database.

Records are handed over by whoever runs things; views are what is read, with the ids they got.
JSON values (`settings`, `summary`, `state`, `config`, `info`, `gold`) come back as JSON has them:
tuples as lists, keys as strings; floats bit for bit, `inf` and `nan` included.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from math import isnan
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from swarm.agents.messages import Messages, Response
    from swarm.graphs.graph import Agent, AgentGraph

RunKind = Literal["evaluation", "job", "replay", "fork"]
RunStatus = Literal["running", "done", "failed", "interrupted", "stopped"]


class ExpertRecord(NamedTuple):
    """Who was asked. Stored once per fingerprint."""

    fingerprint: bytes
    """32 bytes."""
    name: str
    config: dict[str, Any]
    """Everything that makes the expert what it is; never an API key."""


class BatchRecord(NamedTuple):
    """One physical engine call."""

    wave: int
    base: str
    experts: tuple[str, ...]
    """Names of the experts that shared the batch."""
    requests: int
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    """Time in the engine, loading not included."""
    load_seconds: float
    loaded: bool
    """Whether the base had to be loaded for this batch."""
    started_at: datetime
    """With a time zone."""
    load_bytes: int = 0
    """Of weights that were brought to the device for it."""
    prefetched: bool = False
    """Whether they had been read into host memory while the device worked on other batches."""
    evicted: tuple[str, ...] = ()
    """The bases that were unloaded to make room for it."""
    evict_seconds: float = 0.0
    """What that took; part of `load_seconds`."""
    seedless: bool = False
    """Whether any of it was answered without its seed (`Response.seedless`)."""


class AnswerRecord(NamedTuple):
    """A response and what it answered. Stored once per key: this is the cache."""

    key: bytes
    """32 bytes: `Request.key`."""
    expert: bytes
    """Fingerprint; the expert is stored first (`Store.add_experts`)."""
    messages: Messages
    draw: int
    response: Response
    batch: int | None = None
    """Id from `Store.add_batches`."""


@dataclass(frozen=True)
class QuestionRecord:
    """What was asked and what was expected; stored once, whoever asks it.

    Keep the object and use it again: it remembers its digest.
    """

    example_id: str
    question: str
    gold: Any = None
    """Any JSON value."""

    @cached_property
    def digest(self) -> bytes:
        """The content address: 32 bytes."""
        content = [self.example_id, self.question, self.gold]
        text = json.dumps(content, sort_keys=True, ensure_ascii=False)
        return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=32).digest()


@dataclass(frozen=True)
class EvaluationRecord:
    """One graph scored on n questions, by columns: a list an agent, an entry a question."""

    graph: AgentGraph
    split: str
    task: bytes
    """The task's fingerprint."""
    score: float
    """What the metric makes of `scores`."""
    positions: Sequence[int]
    """n: where in the split each question stands."""
    questions: Sequence[QuestionRecord]
    """n."""
    scores: Sequence[float]
    """n."""
    keys: Sequence[Sequence[bytes | None]]
    """agents × n, agents in the graph's order: the key of the answer; None if nothing was asked."""
    cached: Sequence[Sequence[bool]]
    """agents × n: whether the answer was known before it was asked for."""
    answers: Sequence[str | None] | None = None
    """n: what was scored, where that is not the end agent's response as it stands. None: it is.
    Leaving out what equals the response keeps long texts from being stored once per trace."""
    errors: Mapping[int, str] = field(default_factory=dict)
    """question → why its trace came to nothing."""
    call_errors: Mapping[tuple[int, int], str] = field(default_factory=dict)
    """(agent, question) → why there is no answer."""
    shortened: Mapping[tuple[int, int], str] = field(default_factory=dict)
    """(agent, question) → how the prompt was shortened to fit the expert's context: as
    `swarm.agents.shortening` writes it, ``1: 0 of 512`` for a first response that was cut whole."""
    info: Mapping[str, Any] = field(default_factory=dict)
    """Where in the search this belongs, e.g. `{"iteration": 3, "particle": 7}`."""

    def __post_init__(self) -> None:
        agents, questions = len(self.graph.agents), len(self.positions)
        columns = [self.questions, self.scores, *self.keys, *self.cached]
        if self.answers is not None:
            columns.append(self.answers)
        if len(self.keys) != agents or len(self.cached) != agents:
            raise ValueError(
                f"`keys` has {len(self.keys)} columns and `cached` {len(self.cached)}: "
                f"give one for each of the graph's {agents} agents"
            )
        if any(len(column) != questions for column in columns):
            raise ValueError(
                f"every column must have one entry for each of {questions} `positions`"
            )
        if any(map(isnan, (self.score, *self.scores))):
            raise ValueError("a score is not a number (nan): a question that failed scores 0")


@dataclass(frozen=True, slots=True)
class RunView:
    """A run as recorded, without its state (`Store.state`)."""

    id: int
    kind: RunKind
    name: str
    status: RunStatus
    """`stopped`: a limit of its budget was reached. `running` may also be a run whose process was
    killed: try `Store.lock_run`."""
    settings: dict[str, Any]
    summary: dict[str, Any] | None
    error: str | None
    parent: int | None
    """The run this one replays or forks."""
    key: bytes | None
    """What identifies a job that can be resumed."""
    version: str
    """Of this package, when the run was started."""
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class EvaluationView:
    """An evaluation without its traces."""

    id: int
    run: int
    graph: AgentGraph
    split: str
    task: bytes
    score: float
    size: int
    """How many questions."""
    info: dict[str, Any]
    created_at: datetime


@dataclass(frozen=True, slots=True)
class BatchView:
    """A batch and the run it was made for."""

    id: int
    run: int
    batch: BatchRecord


@dataclass(frozen=True, slots=True)
class CallView:
    """One agent's answer within a trace, whole."""

    agent: Agent
    key: bytes | None
    cached: bool
    error: str | None
    answer: AnswerRecord | None
    """Prompt, response, tokens, seconds and batch; None if the call failed or never came about."""
    expert: ExpertRecord | None
    shortened: str | None = None
    """How the prompt was shortened to fit the expert's context; None: it was not."""


@dataclass(frozen=True, slots=True)
class TraceView:
    """One question's way through one graph, whole."""

    run: int
    evaluation: int
    number: int
    """Counts the traces of the run from 0."""
    position: int
    """Where in the split the question stands."""
    question: QuestionRecord
    graph: AgentGraph
    calls: tuple[CallView, ...]
    """In the order of the graph's agents."""
    answer: str | None
    """What was scored; None if there was no answer."""
    score: float
    error: str | None
