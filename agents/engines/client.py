"""The contract of a client: one request over HTTP, one reply, and what a failure means."""

from __future__ import annotations

import functools
import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Collection
from typing import Any, NamedTuple

from swarm.agents.engines.endpoint import ServerOptions
from swarm.agents.engines.failures import Failure
from swarm.agents.messages import Request, Usage

DISPENSABLE = ("seed", "top_p", "stop", "stream_options")
"""Parameters without which a request still means what it did, to a server that does not know them:
stop strings are also cut here; `top_p` where it is 1; seeds are a service."""


class Reply(NamedTuple):
    """What a server said to one request."""

    text: str | None
    finish: str | None
    """Its `finish_reason`."""
    usage: Usage | None
    """None: it did not count."""


class Client(ABC):
    """Makes single attempts, on one event loop; who waits how long and tries again is not for it.

    All methods raise whatever the libraries do, which `failure` makes sense of.
    """

    @abstractmethod
    def prepare(self) -> None:
        """Imports what it needs, which may take seconds. Called before all else, on any thread."""

    @abstractmethod
    async def ask(
        self, request: Request, options: ServerOptions, left_out: Collection[str]
    ) -> Reply:
        """One attempt, without these of the `DISPENSABLE` parameters."""

    @abstractmethod
    def stream(
        self, request: Request, options: ServerOptions, left_out: Collection[str]
    ) -> AsyncIterator[str | Reply]:
        """One attempt: pieces of the text as they come, then all of it."""

    def sends_seed(self, request: Request) -> bool:
        """Whether a seed that is not to be left out reaches the server."""
        return True

    @abstractmethod
    def failure(self, error: Exception, options: ServerOptions) -> Failure:
        """What `error`, raised by an attempt, means."""


def parameters(request: Request, left_out: Collection[str]) -> dict[str, Any]:
    """What a server is told: OpenAI's names."""
    sampling = request.expert.sampling
    told: dict[str, Any] = {
        # A lone surrogate has no bytes that could be sent.
        "messages": [
            {"role": role, "content": content.encode("utf-8", "replace").decode()}
            for role, content in request.messages
        ],
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_tokens": sampling.max_tokens,
        "seed": _seed(sampling.seed, request.draw),
    }
    if sampling.stop:
        told["stop"] = list(sampling.stop)
    for name in left_out:
        told.pop(name, None)
    return told


def dispensable(request: Request) -> list[str]:
    """Those of the `DISPENSABLE` parameters that this request can do without."""
    return [name for name in DISPENSABLE if name != "top_p" or request.expert.sampling.top_p == 1]


def key_of(options: ServerOptions) -> str | None:
    """The API key; None: LiteLLM knows where a host's is."""
    if options.key is not None:
        return os.environ[options.key]
    return "none" if options.url is not None else None  # no address gets another host's key


@functools.lru_cache(1024)
def _seed(seed: int, draw: int) -> int:
    """Of one draw, in [0, 2^31): what all servers take."""
    digest = hashlib.blake2b(f"{seed}/{draw}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") >> 1
