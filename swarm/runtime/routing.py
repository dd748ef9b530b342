"""A policy at work: it chooses a graph a question, and all graphs run together over their own."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from swarm.agents.engines.determinism import Determinism
from swarm.agents.expert import Expert, Pool
from swarm.agents.messages import Messages, Response
from swarm.agents.prompt import WHOLE
from swarm.agents.role import Role
from swarm.agents.shortening import Cuts, write
from swarm.errors import EngineError, InputError
from swarm.graphs.graph import Agent, AgentGraph
from swarm.runtime.columns import Outcome
from swarm.runtime.compile import ColumnState, Texts, ask_fitted, resolve
from swarm.runtime.evaluate import Evaluation, Evaluator, Summary, interval
from swarm.runtime.fitting import Column, fit, fit_written
from swarm.runtime.policy import Policy
from swarm.runtime.program import Program, run_together
from swarm.runtime.runtime import gather, run_sync
from swarm.runtime.scheduler import Scheduler
from swarm.store import CallView, Store, TraceView

if TYPE_CHECKING:
    from langgraph.graph.state import CompiledStateGraph

POLICY_ROLE = "policy"
"""What is shown as the role of an expert that a policy asks: its prompts are the policy's own."""


class Asked(NamedTuple):
    """What a policy asked of one expert: lists with an entry a prompt, each with one a draw."""

    expert: Expert
    prompts: Sequence[Messages]
    about: Sequence[int | None]
    """The question that a prompt is about; None: none in particular."""
    outcomes: Sequence[Sequence[Outcome]]
    keys: Sequence[Sequence[bytes]] | None
    """Content addresses; None where nothing is recorded."""
    cached: Sequence[Sequence[bool]]
    cuts: Mapping[int, Cuts] = WHOLE
    """Prompt → how it was shortened to fit the expert's context."""

    @property
    def answered(self) -> list[tuple[Response, bool]]:
        """All responses, and whether each was known before."""
        return [
            (outcome, known)
            for row, flags in zip(self.outcomes, self.cached, strict=True)
            for outcome, known in zip(row, flags, strict=True)
            if isinstance(outcome, Response)
        ]


class Asker:
    """Asks experts for a policy, through the run's scheduler, and remembers what; see `Ask`."""

    def __init__(self, scheduler: Scheduler, pool: Pool, questions: int) -> None:
        """`questions`: how many the policy was given."""
        self.asked: list[Asked] = []
        self._scheduler = scheduler
        self._pool = pool
        self._questions = questions

    async def __call__(
        self,
        expert: str,
        prompts: Sequence[Messages] | Column,
        *,
        draws: int = 1,
        about: Sequence[int] | None = None,
    ) -> list[list[Response | EngineError]]:
        """See `Ask`.

        Raises:
            PoolError: there is no such expert.
            InputError: no draw, or `about` does not fit.
        """
        who = self._pool[expert]
        if draws < 1:
            raise InputError(f"`draws` is {draws}: must be at least 1")
        count = len(prompts.questions if isinstance(prompts, Column) else prompts)
        if about is None:
            one_each = count == self._questions
            places: list[int | None] = list(range(count)) if one_each else [None] * count
        else:
            places = [int(place) for place in about]
            if len(places) != count or not set(places) <= set(range(self._questions)):
                raise InputError(
                    f"`about` must name one of {self._questions} questions for each of "
                    f"{count} prompts"
                )
        if not count:
            return []
        engine = self._scheduler.residency.engine(who.engine)
        if isinstance(prompts, Column):
            fitted = await fit(engine, who, prompts)
        else:
            fitted = await fit_written(engine, who, prompts)
        different = draws if who.sampling.temperature > 0 else 1
        answers = await gather(
            ask_fitted(self._scheduler, who, fitted, draw=draw) for draw in range(different)
        )
        outcomes = list(zip(*(each.outcomes for each in answers), strict=True))
        keys = [each.keys for each in answers if each.keys is not None]
        self.asked.append(
            Asked(
                who,
                fitted.prompts,
                places,
                outcomes,
                list(zip(*keys, strict=True)) if keys else None,
                list(zip(*(each.cached for each in answers), strict=True)),
                fitted.cuts,
            )
        )
        return [list(row) * (draws // different) for row in outcomes]


class Chosen(NamedTuple):
    """What a policy has chosen for n questions."""

    graphs: Sequence[AgentGraph]
    """n."""
    asked: Sequence[Asked]

    def groups(self) -> list[tuple[AgentGraph, list[int]]]:
        """The different graphs, as they come, each with its questions."""
        same: dict[int, list[int]] = {}  # most graphs are one object that is given many times
        for i, graph in enumerate(self.graphs):
            same.setdefault(id(graph), []).append(i)
        groups: dict[AgentGraph, list[int]] = {}
        for rows in same.values():
            groups.setdefault(self.graphs[rows[0]], []).extend(rows)
        return [(graph, sorted(rows)) for graph, rows in groups.items()]


async def choose(
    policy: Policy,
    questions: Sequence[str],
    scheduler: Scheduler,
    pool: Pool,
    roles: Mapping[str, Role] | None = None,
) -> Chosen:
    """Has the policy choose, and checks what it has chosen before any of it is run.

    Raises:
        PoolError: the pool lacks an expert of a graph, or nobody knows a role.
        EngineError: the policy can't choose since experts that it asks fail.
        InputError: the policy does not give one graph a question.
    """
    ask = Asker(scheduler, pool, len(questions))
    graphs = list(await policy.agraphs_for(questions, ask))
    if len(graphs) != len(questions) or not all(isinstance(g, AgentGraph) for g in graphs):
        raise InputError(
            f"policy `{policy.name}` gave {len(graphs)} graphs for {len(questions)} questions: "
            "`graphs_for` must return one `AgentGraph` each"
        )
    chosen = Chosen(graphs, ask.asked)
    for graph, _ in chosen.groups():
        resolve(graph, pool, roles)
    return chosen


@dataclass(frozen=True)
class PolicySummary(Summary):
    """The figures of a policy's evaluation. Calls, tokens and cost count its own calls, too."""

    graphs: int
    """Different ones."""
    policy_calls: int
    """Of `calls`, those that the policy made to choose."""
    policy_cost: float
    """USD: of `cost`, what these took."""

    def __str__(self) -> str:
        own = f" ({self.policy_calls} the policy's own)" if self.policy_calls else ""
        return f"{super().__str__()}; {self.graphs} different graphs{own}"


@dataclass(eq=False)
class PolicyEvaluation:
    """A policy scored on (part of) a split. Lists have one entry a question, in order."""

    policy: Policy
    split: str
    parts: Sequence[Evaluation]
    """One a different graph, on the questions that it was chosen for."""
    asked: Sequence[Asked]
    """What the policy asked to choose."""
    rows: Sequence[int]
    """Which questions of the split these are."""
    seconds: float
    run: int | None = None
    """The id of the run in the store, where it was recorded."""
    determinism: Determinism = Determinism.BITWISE
    """The weakest of what was asked."""

    def __post_init__(self) -> None:
        self._place = {row: i for i, row in enumerate(self.rows)}

    @cached_property
    def graphs(self) -> list[AgentGraph]:
        found = dict(self._spread([part.graph] * len(part.rows) for part in self.parts))
        return [found[i] for i in range(len(self.rows))]

    @cached_property
    def answers(self) -> list[str | None]:
        found = dict(self._spread(part.answers for part in self.parts))
        return [found[i] for i in range(len(self.rows))]

    @cached_property
    def scores(self) -> list[float]:
        found = dict(self._spread(part.scores for part in self.parts))
        return [found[i] for i in range(len(self.rows))]

    def _spread(self, columns: Iterable[Sequence[Any]]) -> Iterator[tuple[int, Any]]:
        for part, column in zip(self.parts, columns, strict=True):
            for row, value in zip(part.rows, column, strict=True):
                yield self._place[row], value

    @cached_property
    def errors(self) -> dict[int, str]:
        """Question → why its trace failed: the first error on its way."""
        found = {
            self._place[part.rows[i]]: error
            for part in self.parts
            for i, error in part.errors.items()
        }
        return dict(sorted(found.items()))

    @property
    def score(self) -> float:
        return math.fsum(self.scores) / len(self.scores)

    def summary(self) -> PolicySummary:
        parts = [part.summary() for part in self.parts]
        own = [
            (response, known, asked.expert.price.of(response.usage))
            for asked in self.asked
            for response, known in asked.answered
        ]
        low, high = interval(self.scores)
        own_cost = math.fsum(cost for _, _, cost in own)
        return PolicySummary(
            score=self.score,
            low=low,
            high=high,
            questions=len(self.scores),
            failures=len(self.errors),
            calls=sum(part.calls for part in parts) + len(own),
            asked=sum(part.asked for part in parts) + sum(not known for _, known, _ in own),
            tokens=sum(part.tokens for part in parts) + sum(r.usage.total for r, _, _ in own),
            cost=math.fsum([*(part.cost for part in parts), own_cost]),
            seconds=self.seconds,
            shortened=sum(part.shortened for part in parts)
            + sum(len(each.cuts) * len(each.outcomes[0]) for each in self.asked),
            determinism=self.determinism.value,
            graphs=len(parts),
            policy_calls=len(own),
            policy_cost=own_cost,
        )


async def route(
    evaluator: Evaluator, policy: Policy, rows: Sequence[int] | None = None
) -> PolicyEvaluation:
    """Scores a policy on the evaluator's questions, or only these of them."""
    started = time.perf_counter()
    rows = range(len(evaluator.examples)) if rows is None else rows
    chosen = await choose(
        policy,
        [evaluator.questions[i] for i in rows],
        evaluator.scheduler,
        evaluator.pool,
        evaluator.roles,
    )
    parts = await evaluator.each(
        [(graph, [rows[i] for i in places]) for graph, places in chosen.groups()]
    )
    seconds = time.perf_counter() - started
    engine = evaluator.scheduler.residency.engine
    own = [
        engine(each.expert.engine)
        .determinism(each.expert)
        .of_asked(seedless=any(response.seedless for response in fresh))
        for each in chosen.asked
        if (fresh := [response for response, known in each.answered if not known])
    ]
    determinism = Determinism.weakest([*(part.determinism for part in parts), *own])
    return PolicyEvaluation(
        policy, evaluator.split, parts, chosen.asked, rows, seconds, determinism=determinism
    )


class PolicyState(ColumnState, total=False):
    """The LangGraph state of a policy at work: give `questions`, get `graphs`, then `answers`."""

    graphs: list[str]
    """n graphs as JSON. An agent has no response where the question's graph has no such agent."""


def compile_policy(
    policy: Policy,
    pool: Pool,
    roles: Mapping[str, Role],
    scheduler: Callable[[], Scheduler],
    **options: Any,
) -> CompiledStateGraph[PolicyState, None, PolicyState, PolicyState]:
    """The LangGraph program of a policy: a node `route` that chooses graphs, and a node `answer`
    that runs them. See `System.as_langgraph`; the arguments are those of `compile_graph`."""
    from langchain_core.runnables import RunnableLambda
    from langgraph.graph import END, START, StateGraph

    async def route(state: PolicyState) -> PolicyState:
        chosen = await choose(policy, state["questions"], scheduler(), pool, roles)
        texts = {id(graph): graph.to_json() for graph, _ in chosen.groups()}
        texts |= {id(g): g.to_json() for g in chosen.graphs if id(g) not in texts}
        return {"graphs": [texts[id(graph)] for graph in chosen.graphs]}

    async def answer(state: PolicyState) -> PolicyState:
        return await _answer(state, pool, roles, scheduler)

    def node(act: Callable[[PolicyState], Coroutine[Any, Any, PolicyState]]) -> Any:
        return RunnableLambda(lambda state: run_sync(act(state)), afunc=act)

    builder: StateGraph[PolicyState, None, PolicyState, PolicyState] = StateGraph(PolicyState)
    builder.add_node("route", node(route))
    builder.add_node("answer", node(answer))
    builder.add_edge(START, "route")
    builder.add_edge("route", "answer")
    builder.add_edge("answer", END)
    return builder.compile(**options)


async def _answer(
    state: PolicyState,
    pool: Pool,
    roles: Mapping[str, Role],
    scheduler: Callable[[], Scheduler],
) -> PolicyState:
    questions, texts = state["questions"], state["graphs"]
    if len(texts) != len(questions):
        raise InputError(f"{len(texts)} `graphs` for {len(questions)} `questions`: give one each")
    graphs = {text: AgentGraph.from_json(text) for text in dict.fromkeys(texts)}
    groups = Chosen([graphs[text] for text in texts], ()).groups()
    programs = [Program(graph, resolve(graph, pool, roles), scheduler) for graph, _ in groups]
    columns = await run_together(
        [
            (program, [questions[i] for i in rows])
            for program, (_, rows) in zip(programs, groups, strict=True)
        ]
    )
    responses: dict[str, Texts] = {}
    answers: Texts = [None] * len(questions)
    errors: list[EngineError] = []
    for (_, rows), runs in zip(groups, columns, strict=True):
        for places, run in runs:
            for agent, entry in run.log.items():
                column = responses.setdefault(agent, [None] * len(questions))
                within = places if entry.rows is None else [places[i] for i in entry.rows]
                for place, outcome in zip(within, entry.outcomes, strict=True):
                    if isinstance(outcome, Response):
                        column[rows[place]] = outcome.text
                    else:
                        errors.append(outcome)
            for place, text in zip(places, run.answers, strict=True):
                answers[rows[place]] = text
    if errors and not any(text is not None for text in answers):
        raise errors[0]  # in somebody's own program nobody reads our log
    return {"responses": responses, "answers": answers}


def asked_state(evaluation: PolicyEvaluation) -> list[dict[str, Any]]:
    """What a policy asked, as JSON values: addresses, under which the store has the rest."""
    rows = evaluation.rows
    return [
        {
            "expert": asked.expert.name,
            "about": [None if place is None else rows[place] for place in asked.about],
            "keys": [[key.hex() for key in row] for row in asked.keys or ()],
            "cached": [list(row) for row in asked.cached],
            "shortened": {str(i): write(cuts) for i, cuts in asked.cuts.items()},
            "errors": [
                [i, draw, str(outcome)]
                for i, row in enumerate(asked.outcomes)
                for draw, outcome in enumerate(row)
                if isinstance(outcome, EngineError)
            ],
        }
        for asked in evaluation.asked
    ]


def calls_about(store: Store, trace: TraceView) -> list[CallView]:
    """The calls that the policy of a trace's run made about its question, as far as it is known."""
    view = store.run(trace.run)
    if "policy" not in view.settings or view.kind != "evaluation":
        return []
    calls: list[tuple[str, bytes, bool, str | None, str | None]] = []
    for asked in (store.state(trace.run) or {}).get("asked", ()):
        errors = {(i, draw): text for i, draw, text in asked["errors"]}
        for i, about in enumerate(asked["about"]):
            if about != trace.position:
                continue
            for draw, key in enumerate(asked["keys"][i]):
                known, error = asked["cached"][i][draw], errors.get((i, draw))
                cut = asked.get("shortened", {}).get(str(i))
                calls.append((asked["expert"], bytes.fromhex(key), known, error, cut))
    answers = store.answers([key for _, key, _, error, _ in calls if error is None])
    experts = store.experts({answer.expert for answer in answers.values()})
    found = []
    for name, key, known, error, cut in calls:
        answer = None if error else answers.get(key)
        expert = None if answer is None else experts.get(answer.expert)
        agent = Agent(name=name, expert=name, role=POLICY_ROLE)
        found.append(CallView(agent, key, known, error, answer, expert, cut))
    return found
