"""What MasRouter is told: what is chosen from, how it learns, and where it starts."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, PlainSerializer, field_validator, model_validator

from swarm.errors import GraphError, InputError
from swarm.graphs.graph import AgentGraph
from swarm.optimizers.masrouter.policy import GENERAL, GIVEN, MasRouterPolicy
from swarm.optimizers.masrouter.train import AS_PUBLISHED, TrainingSettings
from swarm.optimizers.policy import PolicySettings
from swarm.runtime.policy import load_policy

AFTER_START: Mapping[str, Any] = {"epochs": 5, "settle": 0.0, "warm": 0}
"""What `start` sets: who has learned to solve questions need not learn that first, nor as long."""
_OF_NETWORKS = ("max_agents", "sharpness", "draw_number", "in_turn", "encoder")
"""Settings that a trained controller has for good."""


class MasRouterSettings(TrainingSettings, PolicySettings):
    """What is chosen from, how the controller learns, and how it is used."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    domains: tuple[str, ...] = ()
    """Domains of the role library (`math`, `commonsense`, `code`) whose roles may be played. None:
    the roles for any task."""
    tag: str | None = None
    """Where there are several domains: the key of the examples' `meta` that names a question's. The
    controller learns from it to tell the domain of a new question."""
    encoder: str | None = None
    """The embeddings' model: a folder or a hub's name; None: all-MiniLM-L6-v2."""
    graph: AgentGraph | None = None
    """A graph whose agents, roles and edges stay: only their models are chosen. It may be given as
    the path of a JSON file; `max_agents` is then its number of agents."""
    start: Annotated[
        MasRouterPolicy | None,
        PlainSerializer(lambda policy: policy and policy.fingerprint.hex()),
    ] = None
    """A fitted policy whose controller goes on learning, on other questions, with another pool or
    another λ. It may be given as the folder it was saved or exported to. Unless they are given,
    `epochs` is 5 then, `settle` and `warm` are 0, and what says how it routes stays."""
    reference: bool = False
    """Trains and routes as published. What is beyond the paper is off unless it is set."""

    @field_validator("graph", mode="before")
    @classmethod
    def _read_graph(cls, given: Any) -> Any:
        if not isinstance(given, str | Path):
            return given
        try:
            return AgentGraph.from_json(Path(given).read_bytes())
        except OSError as error:
            raise ValueError(f"can't be read: {error.strerror}") from None
        except GraphError as error:
            raise ValueError(str(error)) from None

    @field_validator("start", mode="before")
    @classmethod
    def _read_start(cls, given: Any) -> Any:
        return _policy(given)

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, given: Any) -> Any:
        """With what `start` and `reference` set."""
        if not isinstance(given, dict):
            return given
        implied: dict[str, Any] = {}
        with suppress(ValueError):  # it is told by the field's own check
            if (start := _policy(given.get("start"))) is not None:
                given = {**given, "start": start}
                implied = {**AFTER_START, **_kept(start)}
        if given.get("reference") is True:
            implied |= AS_PUBLISHED
        return {**implied, **given}

    @model_validator(mode="after")
    def _check(self) -> MasRouterSettings:
        if self.graph is not None and self.domains:
            raise ValueError(
                "`graph` and `domains` exclude each other: a given graph has roles of its own"
            )
        if len(set(self.domains)) < len(self.domains):
            raise ValueError("`domains` names one twice")
        if len(self.domains) > 1 and self.tag is None:
            raise ValueError(
                f"`domains` are {len(self.domains)}: say by `tag` under which key of their `meta` "
                "the examples name theirs"
            )
        if self.start is not None:
            self._check_start(self.start)
        return self

    def _check_start(self, start: MasRouterPolicy) -> None:
        if self.graph != start.given:
            raise ValueError("`graph` is not that of `start`: leave it out, or start anew")
        kept = _kept(start)
        for name in _OF_NETWORKS:
            if name == "max_agents" and self.graph is not None:
                continue  # the graph says how many
            if (here := getattr(self, name)) != kept[name]:
                raise ValueError(
                    f"`{name}` is {here}, and `start` was fitted with {kept[name]}: "
                    "leave it out, or start anew"
                )

    @property
    def agents(self) -> int:
        """How many agents there may be."""
        return self.max_agents if self.graph is None else len(self.graph.agents)


def _policy(given: Any) -> MasRouterPolicy | None:
    """What was given as `start`.

    Raises:
        ValueError: it is no policy of MasRouter.
    """
    if isinstance(given, str | Path):
        try:
            given = load_policy(given)
        except InputError as error:
            raise ValueError(str(error)) from None
    if given is None or isinstance(given, MasRouterPolicy):
        return given
    raise ValueError("must be a policy that MasRouter has fitted, or the folder of one")


def _kept(start: MasRouterPolicy) -> dict[str, Any]:
    """The settings that stay what they were, unless they are given."""
    kept = start.routing.model_dump(exclude={"seed"})
    named = tuple(each.name for each in start.domains if each.name not in (GENERAL, GIVEN))
    return {**kept, "domains": named, "graph": start.given, "encoder": start.encoder}
