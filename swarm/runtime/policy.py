"""A policy says, question by question, which graph of agents answers it.

A fitted policy is saved as a folder: `policy.json`, and `policy.safetensors` for its arrays.
"""

from __future__ import annotations

import base64
import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from types import NoneType
from typing import Any, ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from swarm.agents.expert import Pool
from swarm.agents.messages import Messages, Response
from swarm.errors import EngineError, InputError, PoolError, did_you_mean
from swarm.graphs.graph import AgentGraph
from swarm.imported import class_at
from swarm.runtime.fitting import Column

Arrays = Mapping[str, NDArray[Any]]

POLICIES: dict[str, str] = {
    "fixed": "swarm.runtime.policy:Fixed",
    "wording": "swarm.optimizers.wording:Wording",
    "bandit": "swarm.optimizers.routers.bandit:Bandit",
    "best_single": "swarm.optimizers.routers.best_single:BestSingle",
    "blend": "swarm.optimizers.routers.blend:Blend",
    "carrot": "swarm.optimizers.routers.carrot:Carrot",
    "cascade": "swarm.optimizers.routers.cascade:Cascade",
    "domains": "swarm.optimizers.routers.domains:Domains",
    "expertise_tree": "swarm.optimizers.routers.expertise_tree:ExpertiseTree",
    "jury": "swarm.optimizers.routers.jury:Jury",
    "knn": "swarm.optimizers.routers.knn:KNN",
    "llm": "swarm.optimizers.routers.llm:LLMRouter",
    "matrix_factorization": "swarm.optimizers.routers.matrix_factorization:MatrixFactorization",
    "oracle": "swarm.optimizers.routers.oracle:Oracle",
    "random": "swarm.optimizers.routers.random:Random",
    "router_dc": "swarm.optimizers.routers.router_dc:RouterDC",
    "select_llm": "swarm.optimizers.routers.select_llm:SelectLLM",
    "smoothie": "swarm.optimizers.routers.smoothie:Smoothie",
    "symbolic_moe": "swarm.optimizers.recruit:Recruiter",
    "masrouter": "swarm.optimizers.masrouter.policy:MasRouterPolicy",
}
"""Name → where its class is, known without importing it or the packages it needs."""

FORMAT = 1
FILE, ARRAYS = "policy.json", "policy.safetensors"


class Ask(Protocol):
    """Asks an expert of the pool, for a policy that has to before it can decide.

    What is asked is batched with all else, looked up in the record first and kept there.
    """

    async def __call__(
        self,
        expert: str,
        prompts: Sequence[Messages] | Column,
        *,
        draws: int = 1,
        about: Sequence[int] | None = None,
    ) -> list[list[Response | EngineError]]:
        """For each prompt its `draws` answers, in order; errors are returned, not raised.

        A prompt longer than the expert's `context` is answered with an error. Of a `Column`, what
        an agent would be asked, predecessors' responses are shortened if its `overflow` says so.

        Several experts are asked together where their calls are awaited together
        (`asyncio.gather`). An expert that does not sample is asked once, whatever `draws` is.

        Args:
            about: the question that each prompt is about, as its place among those that were given
                to the policy, so that it is shown with that question's trace. None: prompt i is
                about question i where there are as many of both, else about none in particular.
        """


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

    def extend(self, pool: Pool) -> Pool:
        """`pool` with the experts that the policy brings itself, such as one that counts votes; by
        default there are none. Extending twice adds nothing."""
        return pool

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
                "have: put it back, fit again, or go on without by `drop=True` "
                "(`--drop`)"
            )
        return self.without(gone)

    def settings(self) -> dict[str, Any]:
        """What a run's page says of it: small JSON values. Those of its state that are, if a
        subclass does not say otherwise."""
        values, _ = self.state()
        small = (str, int, float, bool, NoneType)
        return {key: value for key, value in values.items() if isinstance(value, small)}

    @property
    def fingerprint(self) -> bytes:
        """32 bytes, the same for policies that are the same in all that `state` says."""
        values, arrays = self.state()
        digest = hashlib.blake2b(digest_size=32)
        digest.update(json.dumps([self.name, values], sort_keys=True).encode())
        for name in sorted(arrays):
            array = np.asarray(arrays[name])
            digest.update(f"\0{name} {array.dtype.str} {array.shape}\0".encode())
            digest.update(array.tobytes())
        return digest.digest()

    def document(self) -> dict[str, Any]:
        """All of it as one JSON value, arrays as base64 of a safetensors file; see
        `policy_from_document`."""
        values, arrays = self.state()
        packed = base64.b64encode(_pack(arrays)).decode("ascii")
        return {"policy": self.name, "format": FORMAT, "state": values, "arrays": packed}

    def save(self, folder: str | PathLike[str]) -> None:
        """Writes it to `folder`, which is made if it is not there.

        Raises:
            InputError: the folder holds something else, or can't be written to.
        """
        folder = Path(folder)
        values, arrays = self.state()
        packed = _pack(arrays)
        document = {
            "policy": self.name,
            "format": FORMAT,
            "arrays": _digest(packed),
            "state": values,
        }
        text = json.dumps(document, indent=1) + "\n"
        try:
            if folder.exists() and any(folder.iterdir()) and not (folder / FILE).is_file():
                raise InputError(f"`{folder}` is not empty and holds no policy: give a new folder")
            folder.mkdir(parents=True, exist_ok=True)
            (folder / ARRAYS).write_bytes(packed)
            (folder / FILE).write_text(text, encoding="utf-8")
        except OSError as error:
            raise InputError(
                f"`{folder}`: no policy can be written there ({error.strerror}): "
                "give another folder"
            ) from None


def load_policy(
    folder: str | PathLike[str], pool: Pool | None = None, *, drop: bool = False
) -> Policy:
    """The policy that was saved to `folder`; with a pool, one that fits it (`Policy.fits`).

    Raises:
        InputError: there is no policy, or one this version can't read.
        PoolError: the pool lacks experts; they are named.
    """
    path = Path(folder) / FILE
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        packed = path.with_name(ARRAYS).read_bytes()
    except OSError as error:
        raise InputError(f"`{error.filename}`: no policy is there ({error.strerror})") from None
    except ValueError as error:
        raise InputError(f"`{path}` is not JSON ({error}): save the policy again") from None
    if isinstance(document, dict) and document.get("arrays") != _digest(packed):
        raise InputError(
            f"`{path.with_name(ARRAYS)}` is not the file that was written with `{path}`: "
            "save the policy again"
        )
    policy = _read(document, packed, str(path))
    return policy if pool is None else policy.fits(pool, drop=drop)


def policy_from_document(
    document: Mapping[str, Any], pool: Pool | None = None, *, drop: bool = False
) -> Policy:
    """The inverse of `Policy.document`; raises like `load_policy`."""
    try:
        packed = base64.b64decode(document["arrays"], validate=True)
    except (KeyError, TypeError, ValueError):
        raise InputError("a policy's document: key `arrays` is not base64: fit it again") from None
    policy = _read(document, packed, "a policy's document")
    return policy if pool is None else policy.fits(pool, drop=drop)


def _read(document: Any, packed: bytes, where: str) -> Policy:
    where = f"`{where}`"
    if not isinstance(document, Mapping):
        raise InputError(f"{where} must hold a JSON object: save the policy again")
    name = document.get("policy")
    if not isinstance(name, str) or name not in POLICIES:
        raise InputError(
            f"{where}: key `policy`: `{name}` is not a policy{did_you_mean(str(name), POLICIES)}: "
            f"it must be one of {', '.join(f'`{each}`' for each in POLICIES)}"
        )
    if (written := document.get("format")) != FORMAT:
        raise InputError(
            f"{where}: key `format`: `{written}` is not {FORMAT}, which this version reads: "
            "fit the policy again, or use the version that wrote it"
        )
    try:
        return find_policy(name).from_state(document["state"], _unpack(packed))
    except InputError as error:
        raise type(error)(f"{where}: {error}") from None
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{where}: not what policy `{name}` writes ({type(error).__name__}: {error}): "
            "fit it again"
        ) from None


def _pack(arrays: Arrays) -> bytes:
    from safetensors.numpy import save

    packed: bytes = save({name: np.array(arrays[name], order="C") for name in sorted(arrays)})
    return packed


def _unpack(packed: bytes) -> Arrays:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        found: Arrays = load(packed)
    except SafetensorError as error:
        raise ValueError(f"its arrays: {error}") from None
    return found


def _digest(packed: bytes) -> str:
    return hashlib.blake2b(packed, digest_size=32).hexdigest()


def find_policy(name: str) -> type[Policy]:
    """The class behind `name`, a key of `POLICIES`."""
    found: type[Policy] = class_at(POLICIES[name])
    return found


def described_policy(policy: Policy) -> dict[str, Any]:
    """What a run's settings say of the policy that was run."""
    return {
        "name": policy.name,
        "fingerprint": policy.fingerprint.hex(),
        "settings": policy.settings(),
    }


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
