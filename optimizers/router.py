"""Fits any router to a task and pool, as a job like any other."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field, field_validator

from swarm.agents.expert import Pool
from swarm.errors import ConfigError, did_you_mean
from swarm.optimizers.outcomes import Outcomes
from swarm.optimizers.policy import PolicyOptimizer, PolicySettings
from swarm.optimizers.routers import ROUTERS, find_router
from swarm.optimizers.routers.base import Embedded, Router
from swarm.tasks import Task

FOR_TABLES = ("cascade", "oracle")
"""Not to be fitted by a job: one needs several draws an expert, the other only knows its table."""


class RouterSettings(PolicySettings):
    """The knobs of `RouterOptimizer`."""

    router: str = "blend"
    """A key of `ROUTERS`."""
    options: dict[str, Any] = Field(default_factory=dict)
    """That router's settings."""
    seed: int = 0

    @field_validator("router")
    @classmethod
    def _known(cls, name: str) -> str:
        able = [each for each in ROUTERS if each not in FOR_TABLES]
        if name not in able:
            raise ValueError(
                f"must be one of {', '.join(f'`{each}`' for each in able)}"
                f"{did_you_mean(name, able)}"
            )
        return name


class RouterOptimizer(PolicyOptimizer):
    """Asks every expert every question, then fits the router to what came of it."""

    name: ClassVar[str] = "router"
    paths: ClassVar[tuple[str, ...]] = ("options.model",)
    _type = RouterSettings
    _settings: RouterSettings

    def check(self, task: Task, pool: Pool, split: str) -> None:
        super().check(task, pool, split)
        router = self._make()
        if isinstance(router, Embedded):
            _ = router.encoder  # which must be there

    def learn(self, outcomes: Outcomes) -> Router:
        return self._make().fit(outcomes)

    def _make(self) -> Router:
        how = self._settings
        try:
            return find_router(how.router)(**{"seed": how.seed, "role": how.role, **how.options})
        except TypeError as error:
            raise ConfigError(
                f"`options` of router `{how.router}`: {str(error).partition(') ')[2] or error}: "
                "leave it out"
            ) from None
