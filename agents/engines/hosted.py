"""The client for hosted models, and whatever else LiteLLM can speak to."""

from __future__ import annotations

import functools
import importlib
import logging
import os
import re
import warnings
from collections.abc import AsyncIterator, Collection, Iterator
from typing import Any

from swarm.agents.engines.client import Client, Reply, key_of, parameters
from swarm.agents.engines.endpoint import ServerOptions
from swarm.agents.engines.failures import Failure, MalformedError, without_keys
from swarm.agents.messages import Request, Usage
from swarm.errors import EngineError
from swarm.settings_file import shorten

_PREFIXES = re.compile(r"^(litellm\.\w+: )?(\w+(Error|Timeout): )*(\w*Exception - )?")
"""Of LiteLLM's messages."""


class LiteLLMClient(Client):
    """Asks models by their LiteLLM names. What a model can't be told, LiteLLM leaves out."""

    def prepare(self) -> None:
        litellm()

    async def ask(
        self, request: Request, options: ServerOptions, left_out: Collection[str]
    ) -> Reply:
        reply = await litellm().acompletion(**_settings(request, options, left_out))
        choices = reply.choices
        if len(choices) != 1:
            raise MalformedError(f"{len(choices)} choices, where 1 was asked for")
        return Reply(choices[0].message.content, choices[0].finish_reason, _usage(reply))

    async def stream(
        self, request: Request, options: ServerOptions, left_out: Collection[str]
    ) -> AsyncIterator[str | Reply]:
        settings = _settings(request, options, left_out)
        settings["stream"] = True
        if "stream_options" not in left_out:
            settings["stream_options"] = {"include_usage": True}
        pieces: list[str] = []
        finish, usage = None, None
        chunks = await litellm().acompletion(**settings)
        try:
            async for chunk in chunks:
                usage = _usage(chunk) or usage
                for choice in chunk.choices:
                    finish = choice.finish_reason or finish
                    if choice.delta.content:
                        pieces.append(choice.delta.content)
                        yield choice.delta.content
        finally:
            await chunks.aclose()
        yield Reply("".join(pieces), finish, usage)

    def sends_seed(self, request: Request) -> bool:
        return _takes_seed(request.expert.model)

    def failure(self, error: Exception, options: ServerOptions) -> Failure:
        import httpx

        if isinstance(error, MalformedError):
            return Failure.malformed(error)
        causes = list(_causes(error))
        if any(isinstance(cause, TimeoutError | httpx.TimeoutException) for cause in causes):
            return Failure.late(options.timeout)
        if any(isinstance(cause, httpx.TransportError | OSError) for cause in causes):
            return Failure.lost()
        status: int | None = getattr(error, "status_code", None)
        headers = getattr(error, "litellm_response_headers", None)
        refused = any(isinstance(cause, httpx.HTTPStatusError) for cause in causes)
        said = re.sub(
            r"^(litellm\.\w+: )?(\w+(Error|Timeout): )*(\w*Exception - )?", "", str(error)
        )
        if status == 500 and headers is None and not refused:
            # What LiteLLM calls an error of the server, but is its own of not understanding it.
            return Failure.malformed(shorten(without_keys(said, options.key), 200))
        return Failure.refused(status, said, headers or {}, options.key)


def _settings(
    request: Request, options: ServerOptions, left_out: Collection[str]
) -> dict[str, Any]:
    """What LiteLLM's `acompletion` takes."""
    settings = parameters(request, left_out)
    settings |= {
        "model": request.expert.model,
        "timeout": options.timeout,
        "num_retries": 0,  # ours are under one deadline
        "max_retries": 0,
        "drop_params": True,
    }
    if options.url is not None:
        settings["api_base"] = options.url
    if (key := key_of(options)) is not None:
        settings["api_key"] = key
    return settings


@functools.lru_cache(1024)
def _takes_seed(model: str) -> bool:
    """Whether LiteLLM passes a seed on, or drops it (`drop_params`)."""
    return "seed" in (litellm().get_supported_openai_params(model=model) or ())


def _usage(reply: Any) -> Usage | None:
    usage = getattr(reply, "usage", None)
    read = getattr(usage, "prompt_tokens", None)
    return Usage(read, getattr(usage, "completion_tokens", None) or 0) if read else None


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__


def litellm() -> Any:
    """Imported when it is first needed: that takes seconds, and must not reach for the network."""
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    os.environ.setdefault("LITELLM_MODE", "PRODUCTION")  # else it reads `.env` into the environment
    try:
        module: Any = importlib.import_module("litellm")
    except ImportError as error:
        raise EngineError(f"the engine `server` needs the package `litellm`: {error}") from None
    if not module.suppress_debug_info:
        module.suppress_debug_info = True
        # Of an attempt that ends before LiteLLM has begun to send it.
        warnings.filterwarnings("ignore", r"coroutine '\S+\.acompletion' was never awaited")
        warnings.filterwarnings("ignore", "Item '.*' on TypedDict class")  # of its streams
        if "LITELLM_LOG" not in os.environ:
            logging.getLogger("LiteLLM").setLevel(logging.CRITICAL)
    return module
