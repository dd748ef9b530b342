"""Models behind HTTP: any OpenAI-compatible endpoint, and every hosted model that LiteLLM knows."""

from __future__ import annotations

import asyncio
import importlib.util
import itertools
import os
import random
import time
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

from swarm.agents.engines.base import Engine, Lengths
from swarm.agents.engines.client import Client, Reply, dispensable
from swarm.agents.engines.determinism import Determinism
from swarm.agents.engines.direct import DirectClient
from swarm.agents.engines.endpoint import ServerOptions, name_at_endpoint
from swarm.agents.engines.failures import Failure, MalformedError
from swarm.agents.engines.hosted import LiteLLMClient, litellm
from swarm.agents.engines.http_loop import in_pieces, on_its_loop
from swarm.agents.engines.limits import Throttle
from swarm.agents.engines.prices import listed, listed_context
from swarm.agents.engines.prompt_lengths import Endpoint, PromptLengths, estimate
from swarm.agents.engines.stops import Cut, cut
from swarm.agents.messages import Messages, Request, Response, Usage
from swarm.agents.served import require_up
from swarm.errors import ConfigError, EngineError, PoolError, RequestError

if TYPE_CHECKING:
    from swarm.agents.expert import Expert

LONGEST_WAIT = 30.0
"""Seconds between two attempts, where the server does not ask for more."""
SOON = 2.0
"""The same, while a server of the pool's own is being started again: that costs nobody anything."""

Finish = Literal["stop", "length", "other"]
_FINISH: dict[str, Finish] = {"stop": "stop", "length": "length"}

Say = Callable[[str], None]
"""Is told pieces of a text as they come."""


@dataclass
class _Endpoint:
    """Where experts with one model and the same options are asked, and what was learnt there."""

    options: ServerOptions
    client: Client
    throttle: Throttle
    is_direct: bool
    """Whether it is asked on its callers' loops, not on LiteLLM's."""
    left_out: frozenset[str] = field(default_factory=frozenset)
    """Parameters that it does not know."""


class ServerEngine(Engine):
    """Asks experts by their LiteLLM names (`openai/NAME` for an endpoint of one's own).

    A request is tried again on 429, 408, 5xx, timeouts and lost connections, after a wait that
    doubles and is jittered, or that the server asks for; never on another client error. (But where
    the error is that a seed, say, is not understood, it is asked without.) Experts with the same
    model and options share one `Throttle`. Endpoints of one's own are spoken to directly, hosted
    models by LiteLLM.

    Args:
        backoff: seconds to wait before the second attempt.
    """

    resident: ClassVar[bool] = False
    column: ClassVar[int | None] = 8

    def __init__(self, *, backoff: float = 0.5) -> None:
        self.backoff = backoff
        self._direct, self._litellm = DirectClient(), LiteLLMClient()
        self._prepared: set[Client] = set()
        self._endpoints: dict[tuple[str, ServerOptions], _Endpoint] = {}
        self._lengths: dict[tuple[str, ServerOptions], PromptLengths] = {}
        self._jitter = random.Random()

    @classmethod
    def unavailable(cls) -> str | None:
        missing = (name for name in ("litellm", "aiohttp") if not importlib.util.find_spec(name))
        return next(missing, None)

    @classmethod
    def check(cls, expert: Expert, who: str) -> None:
        if expert.adapter is not None or expert.mixture is not None:
            raise PoolError(
                f"{who}: the engine `server` loads no adapters: serve it under a name of its own, "
                "and give that as `model`"
            )
        ServerOptions.of(expert, who)

    @classmethod
    def require(cls, expert: Expert) -> None:
        name = expert.options.get("key")
        if name and not os.environ.get(name):
            raise PoolError(
                f"expert `{expert.name}`: the environment variable `{name}`, which must hold its "
                f"API key, is not set: `export {name}=…`"
            )
        require_up(expert)

    @classmethod
    def list_price(cls, expert: Expert) -> tuple[float, float] | None:
        # An endpoint of one's own may call a model what it likes, and charges what it likes.
        return None if "url" in expert.options else listed(expert.model)

    @classmethod
    def determinism(cls, expert: Expert) -> Determinism:
        """Of an endpoint of one's own what `options` say, else seeded; of hosted models nothing.

        What a server answers that was not told the seed (`Response.seedless`) is only recorded.
        """
        options = ServerOptions.of(expert, f"expert `{expert.name}`")
        if options.url is None:
            return Determinism.REPLAY_ONLY
        return options.determinism or Determinism.SEEDED

    async def context(self, expert: Expert) -> int | None:
        """What the expert says, else its endpoint, or LiteLLM's list of hosted models."""
        if expert.context is not None:
            return expert.context
        lengths = self._lengths_of(expert)
        found = listed_context(expert.model) if lengths is None else await lengths.context()
        if found is None and expert.overflow == "shorten":
            whose = "LiteLLM's list" if lengths is None else "its endpoint"
            raise EngineError(
                f"`{expert.name}`: its `overflow` is `shorten`, but {whose} does not say how many "
                "tokens it can hold: give it a `context`"
            )
        return found

    async def count(self, expert: Expert, prompts: Sequence[Messages]) -> Lengths:
        """By the endpoint, where it counts, else estimated: see `prompt_lengths`."""
        lengths = self._lengths_of(expert)
        if lengths is not None and (counted := await lengths.count(prompts)) is not None:
            return Lengths(counted, exact=True)
        return await asyncio.to_thread(estimate, prompts, _counted)

    def _lengths_of(self, expert: Expert) -> PromptLengths | None:
        """None for a hosted model."""
        options = ServerOptions.of(expert, f"expert `{expert.name}`")
        if options.url is None:
            return None
        if (expert.model, options) not in self._lengths:
            own = name_at_endpoint(expert.model)
            limits = (options.concurrency, options.timeout, options.deadline)
            endpoint = Endpoint(options.url, own, options.key, *limits)
            made = PromptLengths(endpoint, backoff=self.backoff)
            self._lengths[expert.model, options] = made
        return self._lengths[expert.model, options]

    async def generate(self, requests: Sequence[Request]) -> Sequence[Response | EngineError]:
        experts = {id(request.expert): request.expert for request in requests}
        found = {name: await self._endpoint(expert) for name, expert in experts.items()}
        answers: list[Response | EngineError | None] = [None] * len(requests)
        here: list[int] = []
        there: list[int] = []
        for i, request in enumerate(requests):
            endpoint = found[id(request.expert)]
            if isinstance(endpoint, EngineError):
                answers[i] = endpoint
            else:
                (here if endpoint.is_direct else there).append(i)

        async def answer(i: int) -> None:
            endpoint = found[id(requests[i].expert)]
            assert not isinstance(endpoint, EngineError)
            answers[i] = await self._answer(requests[i], endpoint)

        async with asyncio.TaskGroup() as group:
            if there:
                group.create_task(on_its_loop(_all(answer(i) for i in there)))
            for i in here:
                group.create_task(answer(i))
        return cast("list[Response | EngineError]", answers)

    async def stream(self, request: Request) -> AsyncIterator[str | Response]:
        endpoint = await self._endpoint(request.expert)
        if isinstance(endpoint, EngineError):
            raise endpoint

        async def work(say: Say) -> Response | EngineError:
            return await self._answer(request, endpoint, say)

        async with aclosing(in_pieces(work, here=endpoint.is_direct)) as steps:
            async for step in steps:
                if isinstance(step, EngineError):
                    raise step
                yield step

    async def close(self) -> None:
        self._endpoints.clear()
        self._lengths.clear()

    async def _endpoint(self, expert: Expert) -> _Endpoint | EngineError:
        """Where `expert` is asked, ready to be."""
        try:
            self.require(expert)
            options = ServerOptions.of(expert, f"expert `{expert.name}`")
        except (ConfigError, PoolError) as error:
            return EngineError(str(error))
        is_direct = options.is_direct(expert.model)
        client = self._direct if is_direct else self._litellm
        if client not in self._prepared:  # no request's time is spent on importing it
            await asyncio.to_thread(client.prepare)
            self._prepared.add(client)
        throttle = Throttle(options.concurrency, options.requests_per_minute)
        new = _Endpoint(options, client, throttle, is_direct)
        return self._endpoints.setdefault((expert.model, options), new)

    async def _answer(
        self, request: Request, endpoint: _Endpoint, say: Say | None = None
    ) -> Response | EngineError:
        """Asks until there is an answer, an error that will stay, or no time left.

        With `say`, the text is also given in pieces. Once one was, nothing is tried again: whoever
        has it can't be made to forget it.
        """
        options, throttle = endpoint.options, endpoint.throttle
        handing = _Handing(say, request) if say is not None else None
        unknown: frozenset[str] = frozenset()
        failure, tries = None, 0
        try:
            async with asyncio.timeout(None) as limit:
                for tries in itertools.count(1):
                    async with throttle.turn() as left:
                        if tries == 1:  # what it waited before is none of the server's
                            now = asyncio.get_running_loop().time()
                            limit.reschedule(now + options.deadline)
                        coming = False
                        try:
                            left_out = endpoint.left_out | unknown
                            answer = await _attempt(request, endpoint, left_out, handing)
                        except Exception as error:  # each of the libraries has its own
                            failure = endpoint.client.failure(error, options)
                            if failure.status is None and failure.passing and options.served:
                                # It is waited for as long as it is being started again, and no
                                # longer: the deadline is for servers that are up.
                                why, coming = options.served.supervision()
                                if why is not None:
                                    failure = Failure(why, passing=False)
                                elif coming:
                                    now = asyncio.get_running_loop().time()
                                    limit.reschedule(now + options.deadline)
                        else:
                            throttle.accepted()
                            endpoint.left_out |= unknown
                            return answer
                        if failure.status == 429:
                            throttle.refused(left)
                        if failure.wait is not None:
                            throttle.pause(min(failure.wait, options.deadline))
                    if handing is not None and handing.given:
                        break
                    if new := failure.not_taken(dispensable(request)) - left_out:
                        unknown |= new
                        continue
                    wait = self._wait(tries, failure)
                    if coming:
                        wait = min(wait, SOON, options.deadline / 2)
                    late = asyncio.get_running_loop().time() + wait >= (limit.when() or 0)
                    if late or not failure.passing:
                        break
                    await asyncio.sleep(wait)
        except TimeoutError:
            pass
        told = failure.told if failure is not None else "no answer"
        if handing is not None and handing.given:
            told = f"the answer broke off after {handing.given} characters: {told}"
        elif failure is None or failure.passing:
            attempts = f"{tries} attempt{'s' if tries > 1 else ''}"
            told += f"; given up after {attempts} in `deadline` {options.deadline:g} s"
        elif failure.status in {401, 403}:
            told += f"; see what `{options.key}` holds" if options.key else "; give it a `key`"
        expert = request.expert
        return RequestError(f"`{expert.name}` ({options.url or expert.model}): {told}")

    def _wait(self, tries: int, failure: Failure) -> float:
        """Seconds until the next attempt: jittered, or all who failed together come together."""
        wait = min(LONGEST_WAIT, self.backoff * 2.0 ** min(tries - 1, 16))
        return max(wait * self._jitter.uniform(0.5, 1.0), failure.wait or 0.0)


def _counted(messages: list[dict[str, str]]) -> int:
    count: int = litellm().token_counter(model="", messages=messages)
    return count


async def _all(work: Iterable[Coroutine[Any, Any, None]]) -> None:
    async with asyncio.TaskGroup() as group:
        for each in work:
            group.create_task(each)


class _Handing:
    """Gives out the pieces of a text up to a stop string."""

    def __init__(self, say: Say, request: Request) -> None:
        self.given = 0
        """How many characters were."""
        self._say = say
        self._stops = request.expert.sampling.stop
        self._cut = Cut(self._stops)

    def begin(self) -> None:
        self._cut = Cut(self._stops)

    def piece(self, text: str) -> None:
        self._out(self._cut.feed(text))

    def end(self) -> None:
        self._out(self._cut.rest())

    def _out(self, text: str) -> None:
        if text:
            self.given += len(text)
            self._say(text)


async def _attempt(
    request: Request, endpoint: _Endpoint, left_out: Collection[str], handing: _Handing | None
) -> Response:
    """Raises whatever the client does, and `MalformedError`."""
    client, options = endpoint.client, endpoint.options
    started = time.perf_counter()
    if handing is None:
        async with asyncio.timeout(options.timeout):
            reply = await client.ask(request, options, left_out)
    else:
        handing.begin()
        reply = await _streamed(client.stream(request, options, left_out), options, handing)
    text, finish = _read(reply, request)
    usage = reply.usage
    if usage is None:  # the server does not count: an estimate is better than 0
        usage = await asyncio.to_thread(_estimate, request, text)
    if handing is not None:
        handing.end()
    seeded = "seed" not in left_out and client.sends_seed(request)
    seedless = not seeded and request.expert.sampling.temperature > 0  # greedy needs none
    return Response(text, usage, finish, time.perf_counter() - started, seedless)


async def _streamed(
    steps: AsyncIterator[str | Reply], options: ServerOptions, handing: _Handing
) -> Reply:
    """Hands out the pieces; returns the whole."""
    reply = None
    try:
        while reply is None:
            async with asyncio.timeout(options.timeout):  # for each piece
                step = await anext(steps)
            if isinstance(step, Reply):
                reply = step
            else:
                handing.piece(step)
    finally:
        await steps.aclose()  # type: ignore[attr-defined]
    return reply


def _read(reply: Reply, request: Request) -> tuple[str, Finish]:
    """The text, and why it ended."""
    text, reason, stops = reply.text, reply.finish, request.expert.sampling.stop
    finish = _FINISH.get(reason or "", "other")
    if not text and not (text == "" and finish == "stop" and stops):
        raise MalformedError(
            "an empty text, cut at `max_tokens`: raise it" if finish == "length" else
            f"an empty text (`finish_reason` {reason})"
        )  # fmt: skip
    text, stopped = cut(text, stops)  # some servers leave it at the end
    return text, "stop" if stopped else finish


def _estimate(request: Request, text: str) -> Usage:
    """Tokens by LiteLLM's counter for models it does not know."""
    count = litellm().token_counter
    messages = [{"role": role, "content": content} for role, content in request.messages]
    return Usage(count(model="", messages=messages), count(model="", text=text))
