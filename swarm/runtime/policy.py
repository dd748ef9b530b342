"""A policy says, question by question, which graph of agents answers it.

A fitted policy is saved as a folder: `policy.json`, and `policy.safetensors` for its arrays.
"""

from __future__ import annotations

import importlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from swarm.agents.expert import Pool
from swarm.agents.messages import Messages, Response
from swarm.errors import EngineError, InputError, PoolError, did_you_mean
from swarm.graphs.graph import AgentGraph

Arrays = Mapping[str, NDArray[Any]]

POLICIES: dict[str, str] = {
    "fixed": "swarm.runtime.policy:Fixed",
}
"""Name → where its class is, known without importing it or the packages it needs."""

FORMAT = 1


class Ask(Protocol):
    """Asks an expert of the pool, for a policy that has to before it can decide.

    What is asked is batched with all else, looked up in the record first and kept there.
    """

    async def __call__(
        self, expert: str, prompts: Sequence[Messages], *, draws: int = 1
    ) -> list[list[Response | EngineError]]:
        """For each prompt its `draws` answers, in order; errors are returned, not raised."""


class Policy(ABC):
    """Question → graph.

    A subclass has a `name`, under which it stands in `POLICIES`. It is deterministic: the same
    questions get the same graphs, in any process. Where it draws, it draws from generators seeded
    by its own seed (and the question), never from a global one.
    """

    name: ClassVar[str]

    @property
    @abstractmethod
    def experts(self) -> tuple[str, ...]:
        """The names of all experts that its graphs may have, or that it asks."""

    @abstractmethod
    def graphs_for(self, questions: Sequence[str]) -> list[AgentGraph]:
        """One graph a question, in their order.

        Raises:
            InputError: it has to ask experts to decide: only `agraphs_for` can.
        """

    async def agraphs_for(self, questions: Sequence[str], ask: Ask) -> list[AgentGraph]:
        """The same, for those that ask experts first; all others never use `ask`."""
        return self.graphs_for(questions)

    @abstractmethod
    def state(self) -> tuple[dict[str, Any], Arrays]:
        """All that it is: JSON values, and arrays by name."""

    @classmethod
    @abstractmethod
    def from_state(cls, values: Mapping[str, Any], arrays: Arrays) -> Self:
        """The inverse of `state`."""

    def without(self, gone: Sequence[str]) -> Policy:
        """The policy for a pool that lacks these of its `experts`.

        Raises:
            PoolError: it can't do without them.
        """
        raise PoolError(
            f"policy `{self.name}` can't do without {', '.join(f'`{name}`' for name in gone)}: "
            "fit it again with this pool"
        )

    def fits(self, pool: Pool, *, drop: bool = False) -> Policy:
        """The policy for `pool`: itself, if the pool has all its experts.

        Args:
            drop: goes on without experts that are gone.

        Raises:
            PoolError: experts are gone; they are named.
        """
        gone = [name for name in self.experts if name not in pool]
        if not gone:
            return self
        named = ", ".join(f"`{name}`" for name in gone)
        if len(gone) == len(self.experts):
            raise PoolError(
                f"policy `{self.name}`: pool `{pool.name}` has none of its experts ({named}): "
                "give the pool it was fitted with"
            )
        if not drop:
            raise PoolError(
                f"policy `{self.name}` was fitted with {named}, which pool `{pool.name}` does not "
                "have: put it back, fit again, or go on without by `drop=True`"
            )
        return self.without(gone)

    def save(self, folder: str | PathLike[str]) -> None:
        """Writes it to `folder`, which is made if it is not there.

        Raises:
            InputError: the folder holds something else.
        """
        from safetensors.numpy import save_file

        folder = Path(folder)
        if folder.exists() and any(folder.iterdir()) and not (folder / "policy.json").is_file():
            raise InputError(f"`{folder}` is not empty and holds no policy: give a new folder")
        folder.mkdir(parents=True, exist_ok=True)
        values, arrays = self.state()
        document = {"policy": self.name, "format": FORMAT, **values}
        save_file(
            {name: np.ascontiguousarray(array) for name, array in arrays.items()},
            folder / "policy.safetensors",
        )
        (folder / "policy.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def load_policy(
    folder: str | PathLike[str], pool: Pool | None = None, *, drop: bool = False
) -> Policy:
    """The policy that was saved to `folder`; with a pool, one that fits it (`Policy.fits`).

    Raises:
        InputError: there is no policy, or one this version can't read.
        PoolError: the pool lacks experts; they are named.
    """
    from safetensors.numpy import load_file

    path = Path(folder) / "policy.json"
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"`{path}`: no policy can be read there ({error.strerror})") from None
    except ValueError as error:
        raise InputError(f"`{path}` is not JSON ({error}): save the policy again") from None
    name = document.pop("policy", None) if isinstance(document, dict) else None
    if name not in POLICIES:
        raise InputError(
            f"`{path}`: key `policy`: `{name}` is not a policy{did_you_mean(str(name), POLICIES)}: "
            f"it must be one of {', '.join(f'`{each}`' for each in POLICIES)}"
        )
    if (written := document.pop("format", None)) != FORMAT:
        raise InputError(
            f"`{path}`: key `format`: `{written}` is not {FORMAT}, which this version reads: "
            "fit the policy again, or use the version that wrote it"
        )
    arrays = load_file(path.with_name("policy.safetensors"))
    policy = find_policy(name).from_state(document, arrays)
    return policy if pool is None else policy.fits(pool, drop=drop)


def find_policy(name: str) -> type[Policy]:
    """The class behind `name`, a key of `POLICIES`."""
    module, _, cls = POLICIES[name].partition(":")
    found: type[Policy] = getattr(importlib.import_module(module), cls)
    return found


class Fixed(Policy):
    """One graph for every question."""

    name: ClassVar[str] = "fixed"

    def __init__(self, graph: AgentGraph) -> None:
        self.graph = graph

    @property
    def experts(self) -> tuple[str, ...]:
        return tuple(sorted(self.graph.experts))

    def graphs_for(self, questions: Sequence[str]) -> list[AgentGraph]:
        return [self.graph] * len(questions)

    def state(self) -> tuple[dict[str, Any], Arrays]:
        return {"graph": json.loads(self.graph.to_json())}, {}

    @classmethod
    def from_state(cls, values: Mapping[str, Any], arrays: Arrays) -> Self:
        return cls(AgentGraph.from_json(json.dumps(values["graph"])))
