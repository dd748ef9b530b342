"""The contract of an engine: a batch in, a batch out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from swarm.agents.engines.determinism import Determinism
from swarm.agents.messages import Messages, Request, Response
from swarm.errors import EngineError

if TYPE_CHECKING:
    from swarm.agents.expert import Expert


class Lengths(NamedTuple):
    """How long prompts are, in tokens, what a chat template puts around them included."""

    tokens: Sequence[int]
    """One a prompt."""
    exact: bool
    """False: an estimate, and rather too high than too low."""


class Engine(ABC):
    """Answers requests.

    Of a `resident` engine, schedulers call `load` before they ask the experts of a base, and never
    make two calls at once (`prefetch` apart); calls may come from several event loops in turn. Of
    others they only call `plan` and `generate`, at any time. Implementations keep the event loop
    free: long work goes to a thread. If a call is cancelled its thread may go on, but must be done
    before the work of the next call begins.
    """

    resident: ClassVar[bool] = True
    """Whether bases take room on this machine: loaded one after the other under a budget, and asked
    wave by wave. If not (HTTP), requests are sent as soon as they come."""
    column: ClassVar[int | None] = None
    """How many questions one column through a graph should carry; None: all. Engines whose latency
    varies (HTTP) want few, so that one slow answer does not hold up the others."""

    @classmethod
    def unavailable(cls) -> str | None:
        """Why this engine can't be used here (a package is missing), or None."""
        return None

    @classmethod
    def runs_on(cls) -> str | None:
        """The kind of device that it would run on here, if it knows; may import slow packages.

        Raises:
            EngineError: all packages are there, but it can't run here.
        """
        return None

    @classmethod  # noqa: B027
    def check(cls, expert: Expert, who: str) -> None:
        """Whether `expert`, called `who` in messages, is one that this engine can understand.

        Nothing is loaded, and nothing is looked for outside of `expert`.

        Raises:
            InputError: it isn't.
        """

    @classmethod  # noqa: B027
    def require(cls, expert: Expert) -> None:
        """Whether all that is needed to ask `expert` (an API key) is there: asked before a run.

        Raises:
            InputError: something is missing; that ends the run, not a request.
        """

    @classmethod
    def list_price(cls, expert: Expert) -> tuple[float, float] | None:
        """USD per million tokens read and written, where it is known and `expert` does not say."""
        return None

    def device_of(self, expert: Expert) -> str:
        """Where the base of `expert` is loaded (``cuda:0``): bases on one device share its room.

        ``""``: there is but one.
        """
        return ""

    def size(self, base: str, experts: Sequence[Expert]) -> int | None:
        """How many bytes `base` takes on its device, ready for `experts`, whose overlays are in it.

        0: it takes no room that would have to be kept to. None: nobody knows; such an engine can be
        used with a number of models only. Called often: keep what is costly to find out.
        """
        return None

    async def prefetch(self, base: str, experts: Sequence[Expert]) -> bool:
        """Reads into host memory what `load` will need for `base`; whether it did.

        Called while the engine is at work on another base: it must not touch what that uses, and
        takes nothing on the device. One base is kept at most, until it is loaded, `forget` is
        called, or another is prefetched; it may also be another base that is loaded next. May be
        cancelled at any time. Whatever it raises is no error: the base is then loaded from scratch.
        """
        return False

    def forget(self) -> None:  # noqa: B027
        """Gives back what `prefetch` has read."""

    @classmethod
    def determinism(cls, expert: Expert) -> Determinism:
        """What asking `expert` the same again gives. An engine that says nothing promises nothing.

        It must follow from the expert's engine and options: a job that is resumed says it of what
        was asked before.
        """
        return Determinism.REPLAY_ONLY

    async def context(self, expert: Expert) -> int | None:
        """How many tokens a prompt and its answer may have together; None: nobody knows.

        Like `count` it may be called at any time, and needs no base to be loaded.

        Raises:
            EngineError: it must be known (`Expert.overflow` is `shorten`) and can't be.
        """
        return expert.context

    async def count(self, expert: Expert, prompts: Sequence[Messages]) -> Lengths | None:
        """How long `prompts` are for `expert`; None: this engine can't tell.

        It is asked only for prompts that may be too long. It needs the tokenizer, never the model.

        Raises:
            EngineError: it should be able to, and isn't. Those prompts are not asked.
        """
        return None

    async def load(self, base: str, experts: Sequence[Expert]) -> None:  # noqa: B027
        """Makes `base` (an `Expert.base`) ready; `experts` are those that will be asked next.

        Raises:
            EngineError: it can't be loaded. Every request that waits for it fails.
        """

    async def unload(self, base: str) -> None:  # noqa: B027
        """Gives back what `base` takes. Not an error if it is not loaded."""

    async def plan(self, requests: Sequence[Request]) -> Sequence[Sequence[int]]:
        """How to cut requests for one base into batches: indices, each exactly once.

        The scheduler calls `generate` once a batch and keeps the answers before the next.
        """
        return [range(len(requests))]

    @abstractmethod
    async def generate(self, requests: Sequence[Request]) -> Sequence[Response | EngineError]:
        """One answer or error a request, in their order; all requests have one base, now loaded.

        What a request is answered with does not depend on which others came along. One that can't
        be answered is answered with a `RequestError` (or another `EngineError`) in its place.

        Raises:
            EngineError: the engine failed; no request was answered.
        """

    async def stream(self, request: Request) -> AsyncIterator[str | Response]:
        """The answer to one request: its text in pieces as they are written, then all of it.

        The last that comes is the `Response`, whose text the pieces make up. By default it is in
        one piece. Whoever stops reading must close it (`aclose`).

        Raises:
            EngineError: there is no answer, or none after the pieces that came.
        """
        [answer] = await self.generate([request])
        if isinstance(answer, EngineError):
            raise answer
        if answer.text:
            yield answer.text
        yield answer

    async def close(self) -> None:  # noqa: B027
        """Gives everything back. The engine may be loaded again afterwards."""
