"""MasRouter as a policy: question → mode, roles and models → graph.

MasRouter, arXiv 2502.11133. The networks are in `controller.py`, the modes' graphs in `modes.py`.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from swarm.agents.expert import Expert
from swarm.agents.role import Role
from swarm.errors import InputError, PoolError
from swarm.graphs.graph import AgentGraph
from swarm.optimizers.draws import question_rng
from swarm.optimizers.masrouter.modes import MODES, mode_graph
from swarm.runtime.policy import Arrays, Policy

if TYPE_CHECKING:
    from swarm.optimizers.embedding import Encoder
    from swarm.optimizers.masrouter.controller import Controller, Draws, Given

Vectors = NDArray[np.float32]
GENERAL, GIVEN = "general", "given"
"""The names of domains that are none of the role library's: any task, and a given graph's roles."""


class RoutingSettings(BaseModel):
    """How a trained controller is used; the defaults are the paper's unless said otherwise."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_agents: int = Field(6, ge=1, le=100)
    """The largest number of agents that a mode is played with."""
    sample: bool = False
    """Whether mode, roles and models are drawn, as published. Ours takes the likeliest."""
    seed: int = Field(0, ge=0)
    """Of the draws. A question draws the same in any company."""
    sharpness: float = Field(8.0, gt=0)
    """See `Controller`; 1: as published."""
    draw_number: bool = True
    in_turn: bool = True
    """See `Controller`; both False as published."""
    decision_role: str = "judge"
    decide_alone: bool = False
    """Whether a decision agent also reads a single response, as published. Ours spares it."""


class Domain(NamedTuple):
    """A kind of question, and the roles that may work on it."""

    name: str
    description: str
    roles: tuple[Role, ...]


class MasRouterPolicy(Policy):
    """Embeds the questions, runs the controller once for all, and builds their graphs."""

    name: ClassVar[str] = "masrouter"

    def __init__(
        self,
        experts: Mapping[str, str],
        domains: Sequence[Domain],
        controller: Mapping[str, NDArray[Any]],
        embedded: Mapping[str, Vectors],
        *,
        settings: RoutingSettings | None = None,
        given: AgentGraph | None = None,
        encoder: str | None = None,
    ) -> None:
        """
        Args:
            experts: name → what its embedding was made of (`expert_text`).
            controller: the networks' parameters.
            embedded: `tasks`, `modes`, `roles` and `models`: embeddings in the order of `domains`,
                `MODES`, all domains' roles and `experts`.
            given: a graph whose agents, roles and edges stay: only its models are chosen.
            encoder: of the questions; see `Encoder`.
        """
        self._texts = dict(experts)
        self.domains = tuple(domains)
        self.roles = list({role.name: role for d in domains for role in d.roles}.values())
        self.routing = settings or RoutingSettings()
        self.given = given
        self.encoder = encoder
        self._parameters = dict(controller)
        self._embedded = dict(embedded)

    @property
    def experts(self) -> tuple[str, ...]:
        return tuple(self._texts)

    @functools.cached_property
    def controller(self) -> Controller:
        """The networks, for use."""
        import torch

        made = make_controller(self._embedded, self.domains, self.roles, self.routing)
        state = {k: torch.from_numpy(np.array(v)) for k, v in self._parameters.items()}
        made.load_state_dict(state)
        return made.eval().requires_grad_(False)

    @functools.cached_property
    def _encode(self) -> Encoder:
        from swarm.optimizers.embedding import Encoder

        return Encoder(self.encoder)

    def graphs_for(self, questions: Sequence[str]) -> list[AgentGraph]:
        return self.graphs_of(self._encode(list(questions)), questions) if questions else []

    def graphs_of(self, vectors: Vectors, questions: Sequence[str]) -> list[AgentGraph]:
        """The graphs of questions that are embedded already, (n, d)."""
        how = self.routing
        width = draws_of(how.max_agents)
        uniform = np.full((len(questions), width), np.nan, np.float32)
        if how.sample:
            uniform = uniform_numbers(how.seed, questions, width)
        draws = choose(self.controller, vectors, uniform, self.given, self.roles)
        return build_graphs(draws, self.experts, self.roles, how, self.given)

    def without(self, gone: Sequence[str]) -> MasRouterPolicy:
        # Models are known by their embeddings: the networks do not change with them.
        left = [i for i, name in enumerate(self._texts) if name not in gone]
        names = list(self._texts)
        return MasRouterPolicy(
            {names[i]: self._texts[names[i]] for i in left},
            self.domains,
            self._parameters,
            {**self._embedded, "models": self._embedded["models"][left]},
            settings=self.routing,
            given=self.given,
            encoder=self.encoder,
        )

    def state(self) -> tuple[dict[str, Any], Arrays]:
        values = {
            "experts": self._texts,
            "domains": [
                {
                    "name": domain.name,
                    "description": domain.description,
                    "roles": [role.model_dump() for role in domain.roles],
                }
                for domain in self.domains
            ],
            "settings": self.routing.model_dump(),
            "given": None if self.given is None else json.loads(self.given.to_json()),
            "encoder": self.encoder,
        }
        arrays = {f"embedded.{name}": array for name, array in self._embedded.items()}
        return values, arrays | {f"controller.{k}": v for k, v in self._parameters.items()}

    @classmethod
    def from_state(cls, values: Mapping[str, Any], arrays: Arrays) -> Self:
        def part(prefix: str) -> dict[str, NDArray[Any]]:
            return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}

        given = values["given"]
        return cls(
            values["experts"],
            [
                Domain(
                    each["name"],
                    each["description"],
                    tuple(Role.model_validate(role) for role in each["roles"]),
                )
                for each in values["domains"]
            ],
            part("controller."),
            part("embedded."),
            settings=RoutingSettings.model_validate(values["settings"]),
            given=None if given is None else AgentGraph.from_json(json.dumps(given)),
            encoder=values["encoder"],
        )


def expert_text(expert: Expert, score: float | None = None) -> str:
    """What an expert's embedding is made of: its name, description, prices, and its score alone."""
    told = f"{expert.name} : {expert.description or expert.model}"
    if expert.price.input or expert.price.output:
        told += f" ; ${expert.price.input} read, ${expert.price.output} written per million tokens"
    return told if score is None else f"{told} ; answers {100 * score:.0f} % right alone"


def role_text(role: Role) -> str:
    """What a role's embedding is made of."""
    return json.dumps(role.model_dump())


def mode_texts() -> list[str]:
    """What the modes' embeddings are made of, in their order."""
    return [f"{mode.name} : {mode.description}" for mode in MODES.values()]


def make_controller(
    embedded: Mapping[str, Vectors],
    domains: Sequence[Domain],
    roles: Sequence[Role],
    settings: RoutingSettings,
) -> Controller:
    """New networks; torch's generator draws their first parameters."""
    import torch

    from swarm.optimizers.masrouter.controller import Controller

    index = {role.name: i for i, role in enumerate(roles)}
    return Controller(
        *(torch.from_numpy(np.array(embedded[k])) for k in ("tasks", "modes", "roles", "models")),
        domains=[[index[role.name] for role in domain.roles] for domain in domains],
        max_agents=settings.max_agents,
        sharpness=settings.sharpness,
        draw_number=settings.draw_number,
        in_turn=settings.in_turn,
    )


def draws_of(max_agents: int) -> int:
    """How many numbers decide a question's draws: of mode, roles, models, and number of agents."""
    return 2 + 2 * max_agents


def uniform_numbers(
    seed: int, questions: Sequence[str], width: int, purpose: str = "masrouter"
) -> NDArray[np.float32]:
    """What decides each question's draws, (n, width) in [0, 1): hashed from it and the seed."""
    rows = [question_rng(seed, q, purpose).random(width, dtype=np.float32) for q in questions]
    return np.stack(rows) if rows else np.zeros((0, width), np.float32)


def choose(
    controller: Controller,
    vectors: Vectors,
    uniform: NDArray[np.float32],
    graph: AgentGraph | None,
    roles: Sequence[Role],
    **options: Any,
) -> Draws:
    """The controller's choices; for a given graph, of its agents' models only."""
    import torch

    given = None if graph is None else given_of(graph, len(vectors), controller, roles)
    draws: Draws = controller(
        torch.from_numpy(vectors),
        torch.from_numpy(uniform),
        given=given,
        each_role=graph is not None,
        **options,
    )
    return draws


def given_of(graph: AgentGraph, n: int, controller: Controller, roles: Sequence[Role]) -> Given:
    """What is not to be chosen for n questions that all get this graph.

    Raises:
        InputError: the graph has more agents than the controller can have.
        PoolError: an agent's role is not one of `roles`.
    """
    import torch

    from swarm.optimizers.masrouter.controller import Given

    index = {role.name: i for i, role in enumerate(roles)}
    if len(graph.agents) > controller.max_agents:
        raise InputError(
            f"the graph has {len(graph.agents)} agents, and `max_agents` is "
            f"{controller.max_agents}: raise it, and fit again"
        )
    unknown = [agent.role for agent in graph.agents if agent.role not in index]
    if unknown:
        raise PoolError(f"the controller does not know role `{unknown[0]}`: fit it with it")
    played = [index[agent.role] for agent in graph.agents]
    played += [0] * (controller.max_agents - len(played))
    return Given(
        modes=torch.zeros(n, dtype=torch.long),
        numbers=torch.full((n,), len(graph.agents)),
        roles=torch.tensor(played).expand(n, -1),
    )


def build_graphs(
    draws: Draws,
    experts: Sequence[str],
    roles: Sequence[Role],
    settings: RoutingSettings,
    given: AgentGraph | None = None,
) -> list[AgentGraph]:
    """One graph a question; equal choices are the same object."""
    modes = list(MODES.values())
    made: dict[tuple[Any, ...], AgentGraph] = {}
    graphs = []
    rows = zip(
        draws.modes.tolist(),
        draws.numbers.tolist(),
        draws.roles.tolist(),
        draws.models.tolist(),
        strict=True,
    )
    for mode, number, role, model in rows:
        key = (mode, tuple(role[:number]), tuple(model[:number]))
        if key not in made:
            cast = [experts[i] for i in model[:number]]
            if given is not None:
                made[key] = with_experts(given, cast)
            else:
                made[key] = mode_graph(
                    modes[mode],
                    cast,
                    [roles[i].name for i in role[:number]],
                    decision_role=settings.decision_role,
                    decide_alone=settings.decide_alone,
                )
        graphs.append(made[key])
    return graphs


def with_experts(graph: AgentGraph, experts: Sequence[str]) -> AgentGraph:
    """The same agents, roles and edges, played by these experts, in the order of its agents."""
    agents = tuple(
        agent.model_copy(update={"expert": expert})
        for agent, expert in zip(graph.agents, experts, strict=True)
    )
    return AgentGraph(agents=agents, edges=graph.edges)
