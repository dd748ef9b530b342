"""Models behind HTTP: any OpenAI-compatible endpoint, and every hosted model that LiteLLM knows."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import importlib
import importlib.util
import itertools
import logging
import os
import random
import re
import threading
import time
import warnings
from collections.abc import Coroutine, Iterator, Sequence
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, ValidationError, field_validator

from swarm.agents.engines.base import Engine, Lengths
from swarm.agents.engines.determinism import Determinism
from swarm.agents.engines.limits import Throttle
from swarm.agents.engines.prices import listed, listed_context
from swarm.agents.engines.prompt_lengths import Endpoint, PromptLengths, estimate
from swarm.agents.messages import Messages, Request, Response, Usage
from swarm.errors import ConfigError, EngineError, PoolError, RequestError
from swarm.settings_file import Settings, settings_error, shorten

if TYPE_CHECKING:
    from swarm.agents.expert import Expert, Sampling

T = TypeVar("T")

LONGEST_WAIT = 30.0
"""Seconds between two attempts, where the server does not ask for more."""


class ServerOptions(Settings):
    """What an expert of this engine may say under `options`."""

    url: str | None = None
    """Of an OpenAI-compatible endpoint: ``http://localhost:8000/v1``. None: the model's host, which
    LiteLLM knows by the model's name."""
    key: str | None = None
    """The name of the environment variable that holds the API key."""
    concurrency: int = Field(16, ge=1)
    """How many requests may be on their way at once, at most."""
    requests_per_minute: float | None = Field(None, gt=0)
    timeout: float = Field(60.0, gt=0)
    """Seconds one attempt may take."""
    deadline: float = Field(300.0, gt=0)
    """Seconds from the first attempt after which a request is given up."""
    determinism: Determinism | None = None
    """What an endpoint of one's own promises, where it is known: ``bitwise`` of one that computes
    every request as if it were alone (vLLM with `VLLM_BATCH_INVARIANT=1`), ``replay-only`` of one
    that hands requests on to somebody else's models. None: ``seeded``."""

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: str | None) -> str | None:
        parts = urlsplit(url or "http://localhost")
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError("must be the address of an endpoint, as in `http://localhost:8000/v1`")
        return url

    @classmethod
    def of(cls, expert: Expert, who: str) -> ServerOptions:
        """Those of `expert`, checked; raises `ConfigError`."""
        # These two may hold secrets, which no message may show: they are looked at before all else.
        key, url = expert.options.get("key"), expert.options.get("url")
        if isinstance(key, str) and not re.fullmatch(r"[A-Z_][A-Z0-9_]*", key):
            raise ConfigError(
                f"{who}: key `options.key` must be the name of an environment variable in capital "
                'letters, never the API key itself: `key = "MY_KEY"`, and MY_KEY set where it runs'
            )
        if isinstance(url, str) and re.search(r"[@?#]", url):
            raise ConfigError(
                f"{who}: key `options.url` must be an address only, without a user, a password or "
                "a query: an API key is given by `options.key`"
            )
        try:
            options = _Checked.model_validate({"options": expert.options}).options
        except ValidationError as error:
            raise settings_error(who.replace("`", ""), error, _Checked) from None
        if options.determinism is not None and options.url is None:
            raise ConfigError(
                f"{who}: key `options.determinism`: `{options.determinism}` can't be said of a "
                "hosted model, which is `replay-only`: give the `url` of an endpoint of your own"
            )
        return options


class _Checked(BaseModel):
    """Only there so that messages say ``options.url``."""

    options: ServerOptions


class ServerEngine(Engine):
    """Asks experts by their LiteLLM names (`openai/NAME` for an endpoint of one's own).

    A request is tried again on 429, 408, 5xx, timeouts and lost connections, after a wait that
    doubles and is jittered, or that the server asks for; never on another client error. Experts
    with the same model and options share one `Throttle`. Where a model can't be told something (a
    seed, for some), LiteLLM leaves it out.

    Args:
        backoff: seconds to wait before the second attempt.
    """

    resident: ClassVar[bool] = False
    column: ClassVar[int | None] = 8

    def __init__(self, *, backoff: float = 0.5) -> None:
        self.backoff = backoff
        self._throttles: dict[tuple[str, ServerOptions], Throttle] = {}
        self._lengths: dict[tuple[str, ServerOptions], PromptLengths] = {}
        self._jitter = random.Random()

    @classmethod
    def unavailable(cls) -> str | None:
        return None if importlib.util.find_spec("litellm") else "litellm"

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

    @classmethod
    def list_price(cls, expert: Expert) -> tuple[float, float] | None:
        # An endpoint of one's own may call a model what it likes, and charges what it likes.
        return None if "url" in expert.options else listed(expert.model)

    @classmethod
    def determinism(cls, expert: Expert) -> Determinism:
        """Of an endpoint of one's own what `options` say, else seeded; of hosted models nothing."""
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
        return await asyncio.to_thread(estimate, prompts, _estimate)

    def _lengths_of(self, expert: Expert) -> PromptLengths | None:
        """None for a hosted model."""
        options = ServerOptions.of(expert, f"expert `{expert.name}`")
        if options.url is None:
            return None
        if (expert.model, options) not in self._lengths:
            own = expert.model.partition("/")[2] or expert.model
            limits = (options.concurrency, options.timeout, options.deadline)
            endpoint = Endpoint(options.url, own, options.key, *limits)
            made = PromptLengths(endpoint, backoff=self.backoff)
            self._lengths[expert.model, options] = made
        return self._lengths[expert.model, options]

    async def generate(self, requests: Sequence[Request]) -> Sequence[Response | EngineError]:
        return await _on_its_loop(self._answer_all(requests)) if requests else []

    async def close(self) -> None:
        self._throttles.clear()
        self._lengths.clear()

    async def _answer_all(self, requests: Sequence[Request]) -> list[Response | EngineError]:
        _litellm()  # so that no request's time is spent on importing it
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._answer(request)) for request in requests]
        return [task.result() for task in tasks]

    async def _answer(self, request: Request) -> Response | EngineError:
        """Asks until there is an answer, an error that will stay, or no time left."""
        expert = request.expert
        try:
            self.require(expert)
            options = ServerOptions.of(expert, f"expert `{expert.name}`")
        except (ConfigError, PoolError) as error:
            return EngineError(str(error))
        throttle = self._throttle(expert, options)
        failure, tries = None, 0
        try:
            async with asyncio.timeout(None) as limit:
                for tries in itertools.count(1):
                    async with throttle.turn() as left:
                        if tries == 1:  # what it waited before is none of the server's
                            limit.reschedule(left + options.deadline)
                        try:
                            answer = await _ask(request, options)
                        except Exception as error:  # each of LiteLLM's providers has its own
                            failure = _Failure.of(error, options)
                        else:
                            throttle.accepted()
                            return answer
                        if failure.status == 429:
                            throttle.refused(left)
                        if failure.wait is not None:
                            throttle.pause(min(failure.wait, options.deadline))
                    wait = self._wait(tries, failure)
                    late = asyncio.get_running_loop().time() + wait >= (limit.when() or 0)
                    if late or not failure.passing:
                        break
                    await asyncio.sleep(wait)
        except TimeoutError:
            pass
        told = failure.told if failure is not None else "no answer"
        if failure is None or failure.passing:
            attempts = f"{tries} attempt{'s' if tries > 1 else ''}"
            told += f"; given up after {attempts} in `deadline` {options.deadline:g} s"
        elif failure.status in {401, 403}:
            told += f"; see what `{options.key}` holds" if options.key else "; give it a `key`"
        return RequestError(f"`{expert.name}` ({options.url or expert.model}): {told}")

    def _throttle(self, expert: Expert, options: ServerOptions) -> Throttle:
        name = (expert.model, options)
        if name not in self._throttles:
            self._throttles[name] = Throttle(options.concurrency, options.requests_per_minute)
        return self._throttles[name]

    def _wait(self, tries: int, failure: _Failure) -> float:
        """Seconds until the next attempt: jittered, or all who failed together come together."""
        wait = min(LONGEST_WAIT, self.backoff * 2.0 ** min(tries - 1, 16))
        return max(wait * self._jitter.uniform(0.5, 1.0), failure.wait or 0.0)


def _estimate(messages: list[dict[str, str]]) -> int:
    count: int = _litellm().token_counter(model="", messages=messages)
    return count


async def _ask(request: Request, options: ServerOptions) -> Response:
    """One attempt. Raises whatever LiteLLM does, and `_MalformedError`."""
    expert, sampling = request.expert, request.expert.sampling
    litellm = _litellm()
    settings: dict[str, Any] = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_tokens": sampling.max_tokens,
        "seed": _seed(sampling.seed, request.draw),
        "timeout": options.timeout,
        "num_retries": 0,  # ours are under one deadline
        "max_retries": 0,
        "drop_params": True,
    }
    if sampling.stop:
        settings["stop"] = list(sampling.stop)
    if options.url is not None:
        settings["api_base"] = options.url
    if options.key is not None:
        settings["api_key"] = os.environ[options.key]
    elif options.url is not None:
        settings["api_key"] = "none"  # else LiteLLM would send this address another host's key
    messages = [
        # A lone surrogate has no bytes that could be sent.
        {"role": role, "content": content.encode("utf-8", "replace").decode()}
        for role, content in request.messages
    ]
    started = time.perf_counter()
    async with asyncio.timeout(options.timeout):  # LiteLLM's is for each wait on the socket
        reply = await litellm.acompletion(model=expert.model, messages=messages, **settings)
    text, finish = _read(reply, sampling)
    usage = _usage(reply)
    if not usage.prompt_tokens:  # the server does not count: an estimate is better than 0
        usage = Usage(
            litellm.token_counter(model="", messages=messages),
            litellm.token_counter(model="", text=text),
        )
    return Response(text, usage, finish, time.perf_counter() - started)


def _seed(seed: int, draw: int) -> int:
    """Of one draw, in [0, 2^31): what all servers take."""
    digest = hashlib.blake2b(f"{seed}/{draw}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") >> 1


class _MalformedError(Exception):
    """An answer that is none."""


def _read(reply: Any, sampling: Sampling) -> tuple[str, Literal["stop", "length", "other"]]:
    """The text, and why it ended."""
    choices = reply.choices
    if len(choices) != 1:
        raise _MalformedError(f"{len(choices)} choices, where 1 was asked for")
    text, reason = choices[0].message.content, choices[0].finish_reason
    finish: Literal["stop", "length", "other"] = reason if reason in {"stop", "length"} else "other"
    if not text and not (text == "" and finish == "stop" and sampling.stop):
        raise _MalformedError(
            "an empty text, cut at `max_tokens`: raise it" if finish == "length" else
            f"an empty text (`finish_reason` {reason})"
        )  # fmt: skip
    for stop in sampling.stop:  # some servers leave it at the end
        if stop in text:
            text, finish = text.partition(stop)[0], "stop"
    return text, finish


def _usage(reply: Any) -> Usage:
    usage = getattr(reply, "usage", None)
    return Usage(
        getattr(usage, "prompt_tokens", None) or 0, getattr(usage, "completion_tokens", None) or 0
    )


class _Failure(NamedTuple):
    """What one attempt came to, if not to an answer."""

    told: str
    passing: bool
    """Whether another attempt may do better."""
    status: int | None = None
    """HTTP's; None: there was no HTTP answer."""
    wait: float | None = None
    """Seconds that the server asks to wait."""

    @classmethod
    def of(cls, error: Exception, options: ServerOptions) -> _Failure:
        import httpx

        if isinstance(error, _MalformedError):
            return cls(f"malformed answer: {error}", passing=False)
        causes = list(_causes(error))
        if any(isinstance(cause, TimeoutError | httpx.TimeoutException) for cause in causes):
            return cls(f"no answer in `timeout` {options.timeout:g} s", passing=True)
        if any(isinstance(cause, httpx.TransportError | OSError) for cause in causes):
            return cls("connection lost or refused", passing=True)
        status: int | None = getattr(error, "status_code", None)
        headers = getattr(error, "litellm_response_headers", None)
        refused = any(isinstance(cause, httpx.HTTPStatusError) for cause in causes)
        said = _said(error, options.key)
        if status == 500 and headers is None and not refused:
            # What LiteLLM calls an error of the server, but is its own of not understanding it.
            return cls(f"malformed answer: {said}", passing=False)
        passing = status is not None and (status in {408, 429} or status >= 500)
        return cls(f"{status or 'error'}: {said}", passing, status, _retry_after(headers or {}))


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__


def _said(error: Exception, key: str | None) -> str:
    """The message in one line, without LiteLLM's prefixes, and without the keys that a server may
    repeat."""
    text = str(error)
    for name, value in os.environ.items():
        likely = len(value) >= 8 and re.search("(KEY|TOKEN|SECRET|PASSWORD)$", name.upper())
        if value and (name == key or likely):
            text = text.replace(value, f"${name}")
    text = re.sub(r"^(litellm\.\w+: )?(\w+(Error|Timeout): )*(\w*Exception - )?", "", text)
    return shorten(text, 200)


def _retry_after(headers: Any) -> float | None:
    """The header `Retry-After`, in seconds: it may also be a date (RFC 9110, section 10.2.3)."""
    value = headers.get("retry-after")
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except ValueError:
            return None
    return max(0.0, seconds) if seconds < float("inf") else None


def _litellm() -> Any:
    """Imported when it is first needed: that takes seconds, and must not reach for the network."""
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    os.environ.setdefault("LITELLM_MODE", "PRODUCTION")  # else it reads `.env` into the environment
    try:
        litellm: Any = importlib.import_module("litellm")
    except ImportError as error:
        raise EngineError(f"the engine `server` needs the package `litellm`: {error}") from None
    if not litellm.suppress_debug_info:
        litellm.suppress_debug_info = True
        # Of an attempt that ends before LiteLLM has begun to send it.
        warnings.filterwarnings("ignore", r"coroutine '\S+\.acompletion' was never awaited")
        if "LITELLM_LOG" not in os.environ:
            logging.getLogger("LiteLLM").setLevel(logging.CRITICAL)
    return litellm


async def _on_its_loop(work: Coroutine[Any, Any, T]) -> T:
    """Runs `work` on the one event loop that LiteLLM is used on, and ends it if this is cancelled.

    LiteLLM keeps connections and tasks of its own by event loop, and callers come from many, some
    of which end at once.
    """
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, _loop()))


_starting = threading.Lock()


def _loop() -> asyncio.AbstractEventLoop:
    with _starting:
        return _started()


@functools.cache
def _started() -> asyncio.AbstractEventLoop:
    """It lives as long as the process."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="litellm", daemon=True).start()
    return loop
