"""What every optimizer is: `fit(task, pool) -> System`, recorded and resumable."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import BaseModel, ValidationError

from swarm.agents.expert import Pool
from swarm.errors import InputError
from swarm.graphs.graph import Agent
from swarm.optimizers.budget import Budget
from swarm.optimizers.job import Job, job_key, open_job
from swarm.runtime.progress import Progress
from swarm.runtime.recording import wording
from swarm.runtime.runtime import Runtime
from swarm.runtime.system import System
from swarm.settings_file import settings_error
from swarm.store import Store
from swarm.tasks import Task


@dataclass(frozen=True)
class Workload:
    """What an optimizer evaluates at most."""

    agents: tuple[Agent, ...]
    """Those of its graphs."""
    iterations: int
    graphs: int
    """An iteration's graphs of these agents."""
    casts: int = 0
    """An iteration's graphs in which any expert of the pool may play any of these agents."""
    successors: int = 1
    """How many others may read an agent."""
    seed: int = 0


class Optimizer(ABC):
    """Finds a system for a task.

    Settings are given when it is made and checked then; `fit` may be called for many tasks.
    """

    paths: ClassVar[tuple[str, ...]] = ()
    """Settings that may name a file or folder, ``a.b`` for `b` in the table `a`; in a job file it
    is looked for beside that."""

    @abstractmethod
    def fit(
        self,
        task: Task,
        pool: Pool,
        *,
        split: str = "dev",
        limit: int | None = None,
        store: str | Store | None = None,
        runtime: Runtime | None = None,
        progress: Progress | None = None,
        settings: Mapping[str, Any] | None = None,
        budget: Budget | None = None,
    ) -> System:
        """The best system found.

        With a store this is a job: it is recorded as it goes, and the same call goes on where an
        interrupted one stopped.

        Args:
            split: the questions that are searched on; `limit` takes the first so many.
            progress: is told how it goes; None draws a bar where stderr is a terminal.
            settings: kept with the run beside the optimizer's own; no part of what the job is.
            budget: limits of the job, over all its sessions; no part of what it is. One that is
                reached stops the job: the best so far is returned, the run's status is `stopped`,
                and the same call with a higher limit goes on there and ends as if never stopped.

        Raises:
            InputError: something that was given can't be used; nothing has been run.
            EngineError: every question of every graph failed.
            BusyError: another process is at this job.
            BudgetError: a limit was reached before anything was scored.
            StoreError: the store failed; what it holds is sound, and the job can be resumed.
        """

    def workload(self, pool: Pool) -> Workload:
        """What `fit` evaluates at most.

        Raises:
            InputError: something that was given can't be used, or there is no saying before.
        """
        raise InputError(f"`{type(self).__name__}` can't say beforehand what it will ask for")

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """All settings as JSON values: they are kept with the run and identify the job."""

    def given(self) -> dict[str, Any]:
        """The settings that were given when it was made, so that others can be put beside them."""
        return {key: value for key, value in self.settings().items() if key != "optimizer"}


class SettledOptimizer(Optimizer):
    """An optimizer whose settings are the fields of a model, checked when it is made.

    A member names itself and the model: `name`, as in job files, and `_type`.
    """

    name: ClassVar[str]
    _type: ClassVar[type[BaseModel]]

    def __init__(self, **settings: Any) -> None:
        """`settings` are the fields of `_type`.

        Raises:
            ConfigError: a setting that is unknown or out of range.
        """
        self._given = settings
        try:
            self._settings = self._type.model_validate(settings)
        except ValidationError as error:
            raise settings_error(type(self).__name__, error, self._type) from None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self._given.items())})"

    def settings(self) -> dict[str, Any]:
        return {"optimizer": self.name, **self._settings.model_dump(mode="json")}

    def given(self) -> dict[str, Any]:
        return dict(self._given)

    def _title(self, task: Task) -> str:
        return f"{self.name.replace('_', ' ')} on {task.name}"

    def _job(
        self,
        task: Task,
        pool: Pool,
        *,
        split: str,
        limit: int | None,
        store: str | Store | None,
        progress: Progress,
        settings: Mapping[str, Any] | None,
        budget: Budget | None,
        runtime: Runtime | None = None,
    ) -> AbstractContextManager[Job]:
        """The job that `fit` is asked for; see `open_job`."""
        description = {
            **self.settings(),
            "task": task.name,
            "pool": pool.name,
            **wording(pool, pool),
            "split": split,
            "limit": limit,
        }
        return open_job(
            store,
            key=job_key(description, task, pool),
            title=self._title(task),
            settings={**description, **(settings or {})},
            progress=progress,
            budget=budget,
            pool=pool,
            runtime=runtime,
        )
