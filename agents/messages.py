"""What goes to an engine and what comes back: immutable leaves that all else passes around."""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

if TYPE_CHECKING:
    from swarm.agents.expert import Expert


class Message(NamedTuple):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


Messages = tuple[Message, ...]


class Usage(NamedTuple):
    """Tokens read and written, as the engine counted them."""

    prompt_tokens: int
    completion_tokens: int

    @property
    def total(self) -> int:
        return self.prompt_tokens + self.completion_tokens


class Request(NamedTuple):
    """One thing to ask of one expert."""

    expert: Expert
    messages: Messages
    draw: int = 0
    """Which of several draws from the same prompt this is; only matters when sampling."""

    def key(self) -> bytes:
        """The content address of the answer: 32 bytes.

        Hash of the expert's fingerprint (weights and sampling included), the messages and the draw.
        Two requests with one key have the same answer, wherever and whenever they are asked.
        """
        return request_key(self.expert.fingerprint, self.messages, self.draw)


def request_key(fingerprint: bytes, messages: Messages, draw: int) -> bytes:
    """See `Request.key`. Lengths are hashed too, so that no two requests run into each other."""
    digest = hashlib.blake2b(fingerprint, digest_size=32)
    for role, content in messages:
        data = content.encode("utf-8", "surrogatepass")
        digest.update(b"%b\0%d\0%b" % (role.encode(), len(data), data))
    digest.update(b"\0draw%d" % draw)
    return digest.digest()


class Response(NamedTuple):
    """What an expert answered to one request."""

    text: str
    usage: Usage
    finish: Literal["stop", "length", "other"] = "stop"
    """`stop`: ended by itself or at a stop string; `length`: cut at `max_tokens`."""
    seconds: float = 0.0
    """This request's share of its batch's time: what it cost, not how long its user waited."""
    seedless: bool = False
    """Whether it was sampled without the seed that was asked for, which its server does not know:
    nothing but the record gives it again. Kept with its batch."""


Leaf = TypeVar("Leaf", Message, Usage, Request, Response)


def leaves(kind: type[Leaf], *fields: Iterable[Any]) -> list[Leaf]:
    """Many leaves at once, from a column for each field; those with defaults included.

    Spares the Python call that each constructor is, and the garbage collector: leaves are in no
    cycle that it would have to find, but every few hundred new ones wake it, and every few ten
    thousand it walks the whole process, LangGraph and all (`benchmarks/runtime_overhead.py`).
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        return list(map(partial(tuple.__new__, kind), zip(*fields)))  # noqa: B905 - some repeat
    finally:
        if was_on:
            gc.enable()
