"""What a job will ask for, before it begins: an upper bound, or an estimate from a sample."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from swarm.agents.expert import Expert, Pool
from swarm.agents.messages import Usage
from swarm.agents.prompt import Position, PromptStyle
from swarm.agents.role import Role, find_role
from swarm.errors import EngineError, InputError
from swarm.graphs.decode import decode_swarm
from swarm.graphs.graph import Agent
from swarm.optimizers.base import Optimizer
from swarm.optimizers.budget import most_tokens
from swarm.runtime.cache import MemoryCache
from swarm.runtime.evaluate import Evaluator, select
from swarm.runtime.runtime import Runtime, default_runtime, run_sync
from swarm.store import AnswerRecord, BatchRecord
from swarm.tasks import Task

GRAPHS = 5
"""So many random graphs are sampled, at most."""


@dataclass(frozen=True)
class Plan:
    """What a job asks for at most.

    A prompt's own text counts a token a byte, which no tokenizer exceeds. A response counts
    `max_tokens`, for whoever reads it, too. What is known, or wanted twice, is not left out.
    """

    jobs: int
    iterations: int
    graphs: int
    """Scored an iteration."""
    agents: int
    """In a graph."""
    questions: int
    calls: int
    prompt_tokens: int
    completion_tokens: int
    cost: float
    """USD."""


@dataclass(frozen=True)
class Estimate:
    """What a job will ask for if all of it is like a sample.

    It is likely to be less: a search comes back to graphs it knows, and stops evaluations early.
    """

    calls: int
    prompt_tokens: int
    completion_tokens: int
    cost: float
    """USD."""
    seconds: float
    """On this machine, loading included."""
    sampled_questions: int
    sampled_graphs: int
    sampled_calls: int
    """How many requests the sample took."""
    sampled_cost: float


def plan(
    optimizer: Optimizer,
    task: Task,
    pool: Pool,
    *,
    split: str = "dev",
    limit: int | None = None,
    jobs: int = 1,
) -> Plan:
    """What `optimizer.fit` asks for at most, `jobs` times. No model is loaded.

    Raises:
        InputError: something that was given can't be used, or the optimizer can't say.
    """
    work = optimizer.workload(pool)
    examples = select(task, split, limit)
    n, questions = len(work.agents), len(examples)
    edges = sum(min(work.successors, others) for others in range(1, n)) * questions
    experts = list(pool.values())
    heard = _most_heard(experts)
    hearing = Usage(heard * edges, 0)
    listening = max(expert.price.of(hearing) for expert in experts)

    @functools.cache
    def read(role: str, style: PromptStyle) -> int:
        return _most_read(find_role(role, pool.roles), style, [e.prompt for e in examples])

    def own(agent: Agent, expert: Expert) -> Usage:
        """What an agent takes, but for others' responses, when this expert plays it."""
        written = questions * expert.sampling.max_tokens
        return Usage(read(agent.role, expert.style), written)

    def an_iteration(take: Callable[[Expert, Usage], float], to_hear: float) -> float:
        """In a graph every agent is played by its own expert, in a cast by the worst one."""
        graph = cast = to_hear
        for agent in work.agents:
            graph += take(pool[agent.expert], own(agent, pool[agent.expert]))
            cast += max(take(expert, own(agent, expert)) for expert in experts)
        return work.graphs * graph + work.casts * cast

    rounds = jobs * work.iterations
    return Plan(
        jobs=jobs,
        iterations=work.iterations,
        graphs=work.graphs + work.casts,
        agents=n,
        questions=questions,
        calls=rounds * (work.graphs + work.casts) * n * questions,
        prompt_tokens=rounds * int(an_iteration(lambda _, usage: usage[0], hearing[0])),
        completion_tokens=rounds * int(an_iteration(lambda _, usage: usage[1], 0)),
        cost=rounds * an_iteration(lambda expert, usage: expert.price.of(usage), listening),
    )


def _most_read(role: Role, style: PromptStyle, questions: Sequence[str]) -> int:
    """Tokens of all prompts of an agent at most, but for others' responses."""
    columns = [style.messages(role, position, questions, []) for position in Position]
    return sum(max(map(most_tokens, prompts)) for prompts in zip(*columns, strict=True))


def _most_heard(experts: Collection[Expert]) -> int:
    """Tokens that one response adds to a prompt at most."""
    number = len(experts)  # of predecessors: as many digits as it may have
    lines = (expert.style.previous.format(k=number, response="") + "\n" for expert in experts)
    return max(len(line.encode()) for line in lines) + max(e.sampling.max_tokens for e in experts)


def sample(
    optimizer: Optimizer,
    task: Task,
    pool: Pool,
    questions: int,
    *,
    split: str = "dev",
    limit: int | None = None,
    jobs: int = 1,
    runtime: Runtime | None = None,
) -> Estimate:
    """Asks so many questions of a few random graphs, and scales what that takes to the whole job.

    Graphs and questions are drawn by the optimizer's seed. Nothing is recorded.

    Raises:
        InputError: see `plan`; or no question.
        EngineError: every question failed.
    """
    if questions < 1:
        raise InputError(f"a sample of {questions} questions: must be at least 1")
    runtime = runtime or default_runtime(pool.memory)
    whole = plan(optimizer, task, pool, split=split, limit=limit, jobs=jobs)
    work = optimizer.workload(pool)
    rng = np.random.default_rng(work.seed)
    n, count = len(work.agents), min(GRAPHS, whole.graphs)
    adjacency = rng.random((count, n, n)) * (1 - np.eye(n))
    graphs = decode_swarm(adjacency, work.agents, p=0.0, rng=rng, successors=work.successors)
    examples = select(task, split, limit)
    chosen = sorted(rng.permutation(len(examples))[:questions])
    part = replace(task, splits={split: tuple(examples[i] for i in chosen)})
    notes = _Notes({expert.fingerprint: expert for expert in pool.values()})

    async def ask() -> None:
        evaluations = await Evaluator(part, split, pool, runtime.scheduler(notes))(graphs)
        if all(len(e.errors) == len(e.scores) for e in evaluations):
            raise EngineError(f"every question failed; the first error: {evaluations[0].errors[0]}")

    run_sync(ask())
    wanted = count * n * len(chosen)
    scale = whole.calls / wanted
    rounds = whole.jobs * whole.iterations
    return Estimate(
        calls=round(notes.calls * scale),
        prompt_tokens=round(notes.read * scale),
        completion_tokens=round(notes.written * scale),
        cost=notes.cost * scale,
        seconds=notes.seconds * scale + notes.first_load + notes.later_load * rounds,
        sampled_questions=len(chosen),
        sampled_graphs=count,
        sampled_calls=notes.calls,
        sampled_cost=notes.cost,
    )


class _Notes(MemoryCache):
    """Remembers answers, and what they took."""

    def __init__(self, experts: Mapping[bytes, Expert]) -> None:
        super().__init__()
        self._experts = experts
        self.calls = self.read = self.written = 0
        self.cost = self.seconds = 0.0
        self.first_load = self.later_load = 0.0
        """Seconds. What does not stay loaded is loaded again in every iteration."""
        self._loaded: set[str] = set()

    def record(
        self, batch: BatchRecord, experts: Sequence[Expert], answers: Sequence[AnswerRecord]
    ) -> None:
        super().record(batch, experts, answers)
        self.calls += batch.requests
        self.read += batch.prompt_tokens
        self.written += batch.completion_tokens
        self.seconds += batch.seconds
        self.cost += sum(self._experts[a.expert].price.of(a.response.usage) for a in answers)
        if batch.base in self._loaded:
            self.later_load += batch.load_seconds
        else:
            self.first_load += batch.load_seconds
        self._loaded.add(batch.base)
