"""MasRouter is fitted: a controller learns which mode, roles and models a question is worth.

MasRouter, arXiv 2502.11133. How the controller learns is in `train.py`; what is fitted is the
policy in `policy.py`, what it is told in `settings.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, ClassVar

import numpy as np

from swarm.agents.expert import Pool
from swarm.agents.messages import Response
from swarm.agents.role import STEP_BY_STEP, Role, domain_roles, find_role
from swarm.errors import InputError, MissingPackageError, TaskError
from swarm.graphs.graph import AgentGraph, name_agents
from swarm.graphs.topologies import single
from swarm.optimizers.base import Workload
from swarm.optimizers.masrouter.policy import (
    GENERAL,
    GIVEN,
    Domain,
    MasRouterPolicy,
    RoutingSettings,
    expert_text,
    make_controller,
    mode_texts,
    role_text,
)
from swarm.optimizers.masrouter.settings import MasRouterSettings
from swarm.optimizers.masrouter.train import (
    Answer,
    Floats,
    train,
)
from swarm.optimizers.outcomes import Outcomes
from swarm.optimizers.policy import Bench, PolicyOptimizer
from swarm.runtime.evaluate import Evaluation
from swarm.runtime.system import System
from swarm.tasks import Task

DESCRIPTIONS: dict[str | None, str] = {
    "math": "Questions that are answered by calculation: arithmetic, algebra, word problems.",
    "commonsense": "Questions about the world, answered by general knowledge and common sense.",
    "code": "Programs to be written: functions that do what a description or tests ask for.",
    None: "Questions of any kind.",
}
"""What the domains' embeddings are made of, beside their names."""


class MasRouter(PolicyOptimizer):
    """Learns a graph per question: mode, number of agents, their roles and models.

    ```
    system = swarm.MasRouter(**{"lambda": 100}).fit(task, pool)
    ```

    Every expert answers the split once, in `role`; then the controller is trained, `samples` graphs
    a question and epoch. It is given as published by `reference=True`.
    """

    name: ClassVar[str] = "masrouter"
    paths: ClassVar[tuple[str, ...]] = ("graph", "encoder", "start")
    _type = MasRouterSettings
    _settings: MasRouterSettings

    def settings(self) -> dict[str, Any]:
        return {"optimizer": self.name, **self._settings.model_dump(mode="json", by_alias=True)}

    def front(
        self, lambdas: Iterable[float], task: Task, pool: Pool, **how: Any
    ) -> dict[float, System]:
        """What can be had at what cost: a system for each λ, from the lowest on.

        Each λ goes on from what was learned with the one before (`start`), so that what solves a
        question is learned once, and then to do it for less. Each is a job of its own.

        Args:
            how: as `fit` takes it. A limit of `budget` is each job's; one that is stopped by it
                before it has learned is the last, and not among what is returned.
        """
        found: dict[float, System] = {}
        given = {key: value for key, value in self._given.items() if key not in ("lam", "lambda")}
        for lam in sorted(set(lambdas)):
            system = MasRouter(**{**given, "lambda": lam}).fit(task, pool, **how)
            if not isinstance(system.policy, MasRouterPolicy):
                break
            found[lam] = system
            given["start"] = system.policy
        return found

    def check(self, task: Task, pool: Pool, split: str) -> None:
        how = self._settings
        super().check(task, pool, split)
        find_role(how.decision_role, pool.roles)
        for domain in self._domains(pool):
            for role in domain.roles:
                find_role(role.name, pool.roles)
        priced = any(expert.price.input or expert.price.output for expert in pool.values())
        if how.lam > 0 and how.cost == "usd" and not priced:
            raise InputError(
                f"`lambda` is {how.lam:g}, and no expert of pool `{pool.name}` has a price: give "
                'prices, or count `cost` in "tokens" or "calls"'
            )
        if len(how.domains) > 1:
            for example in task.split(split):
                if (named := example.meta.get(how.tag or "")) not in how.domains:
                    raise TaskError(
                        f"task `{task.name}`: example `{example.id}` has {named!r} under "
                        f"`{how.tag}`: must be one of `domains`, {', '.join(how.domains)}"
                    )
        if find_spec("torch") is None:
            raise MissingPackageError("torch", "routers", "training MasRouter's controller")
        from swarm.optimizers.embedding import Encoder

        Encoder(how.encoder)

    def workload(self, pool: Pool) -> Workload:
        # Every expert alone; then an epoch's graphs, and at last those of the policy, each as large
        # as can be: two rounds and a decision agent, or all reading one another.
        how = self._settings
        roles = [find_role(how.role, pool.roles)]
        for domain in self._domains(pool):
            roles += domain.roles
        longest = max(roles, key=lambda role: len(role.instructions)).name
        size = len(how.graph.agents) if how.graph is not None else 2 * how.max_agents + 1
        played = longest if how.graph is not None else longest + STEP_BY_STEP
        names = list(pool)
        trained = how.epochs * (how.samples + how.keep_best) + how.measure
        trained += how.keep_best and how.start is not None
        return Workload(
            name_agents([names[i % len(names)] for i in range(size)], played),
            iterations=1,
            graphs=-(-len(names) // size),
            casts=trained,
            successors=how.agents,
            seed=how.seed,
        )

    def steps_of_learning(self) -> int:
        return self._settings.epochs

    def learn(self, outcomes: Outcomes) -> MasRouterPolicy:
        raise InputError("`MasRouter` asks experts while it learns: use `fit`")

    async def alearn(self, outcomes: Outcomes, bench: Bench) -> MasRouterPolicy:
        import torch

        from swarm.optimizers.embedding import Encoder

        how, encode = self._settings, Encoder(self._settings.encoder)
        domains = self._domains(bench.pool)
        roles = list({role.name: role for d in domains for role in d.roles}.values())
        texts = {
            name: expert_text(bench.pool[name], score)
            for name, score in zip(outcomes.experts, outcomes.means, strict=True)
        }
        embedded = {
            "tasks": encode([f"{each.name} : {each.description}" for each in domains]),
            "modes": encode(mode_texts()),
            "roles": encode([role_text(role) for role in roles]),
            "models": encode(list(texts.values())),
        }
        kept = how.model_dump(include=set(RoutingSettings.model_fields))
        routing = RoutingSettings(**{**kept, "max_agents": how.agents})
        with _seeded(how.seed):
            controller = make_controller(embedded, domains, roles, routing)
        if how.start is not None:
            controller.load_state_dict(how.start.controller.state_dict())
        index = {each.name: i for i, each in enumerate(domains)}
        labels = [0] * len(outcomes)
        if len(domains) > 1:
            labels = [index[str(example.meta[how.tag or ""])] for example in bench.examples]
        answer = self._answers(bench)
        alone = None
        if how.warm:
            rows = range(len(outcomes))
            asked = [single(name, role=how.role) for name in outcomes.experts]
            scores, costs = await answer(
                [graph for graph in asked for _ in rows], list(rows) * len(asked)
            )
            alone = (scores - how.lam * costs).reshape(len(asked), len(rows)).T
        training = await train(
            controller,
            encode(list(outcomes.questions)),
            outcomes.questions,
            labels,
            roles,
            outcomes.experts,
            answer,
            how.model_copy(update={"max_agents": how.agents}),
            given=how.graph,
            alone=alone,
            trained=how.start is not None,
            epoch_done=lambda epoch: bench.step(epoch.score),
        )
        bench.tell(training.told())
        with torch.no_grad():
            parameters = {k: v.numpy().copy() for k, v in controller.state_dict().items()}
        return MasRouterPolicy(
            texts,
            domains,
            parameters,
            embedded,
            settings=routing,
            given=how.graph,
            encoder=how.encoder,
        )

    def _answers(self, bench: Bench) -> Answer:
        return _Answers(bench, self._settings.cost)

    def _domains(self, pool: Pool) -> list[Domain]:
        how = self._settings
        if how.graph is not None:
            names = dict.fromkeys(agent.role for agent in how.graph.agents)
            played: list[Role] = [find_role(name, pool.roles) for name in names]
            return [Domain(GIVEN, DESCRIPTIONS[None], tuple(played))]
        if not how.domains:
            return [Domain(GENERAL, DESCRIPTIONS[None], tuple(domain_roles()))]
        known = {name: tuple(domain_roles(name)) for name in how.domains}
        return [Domain(name, DESCRIPTIONS[name], roles) for name, roles in known.items()]


class _Answers:
    """Graphs and questions → scores and costs. Whatever comes again is not run again."""

    def __init__(self, bench: Bench, unit: str) -> None:
        self._bench = bench
        self._unit = unit
        self._known: dict[tuple[AgentGraph, int], tuple[float, float]] = {}

    async def __call__(
        self, graphs: Sequence[AgentGraph], rows: Sequence[int]
    ) -> tuple[Floats, Floats]:
        wanted = list(zip(graphs, rows, strict=True))
        work: dict[AgentGraph, list[int]] = {}
        for graph, row in dict.fromkeys(wanted):
            if (graph, row) not in self._known:
                work.setdefault(graph, []).append(row)
        for found in await self._bench.evaluate(list(work.items()), record=False):
            taken = costs_of(found, self._unit)
            for row, score, cost in zip(found.rows, found.scores, taken, strict=True):
                self._known[found.graph, row] = score, cost
        both = np.array([self._known[each] for each in wanted], dtype=np.float64)
        return both[:, 0], both[:, 1]


def costs_of(evaluation: Evaluation, unit: str) -> list[float]:
    """What each question of an evaluation took, as if nothing had been known before.

    Args:
        unit: `usd`, by the experts' prices; `tokens`, thousands of them; or `calls`.
    """
    costs = [0.0] * len(evaluation.scores)
    for places, run in evaluation.runs:
        for agent, entry in run.log.items():
            price = evaluation.prices[agent]
            where: Sequence[int] = places
            if entry.rows is not None:
                where = [places[i] for i in entry.rows]
            for place, outcome in zip(where, entry.outcomes, strict=True):
                if isinstance(outcome, Response):
                    usage = outcome.usage
                    taken = {"usd": price.of(usage), "tokens": usage.total / 1000, "calls": 1.0}
                    costs[place] += taken[unit]
    return costs


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """torch's global generator starts from `seed`, and is left as it was."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
