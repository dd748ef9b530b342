"""The direct client: an OpenAI-compatible endpoint of one's own, spoken to by aiohttp."""

from __future__ import annotations

import asyncio
import functools
import json
import ssl
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from swarm.agents.engines.client import Client, Reply, key_of, parameters
from swarm.agents.engines.endpoint import ServerOptions, name_at_endpoint
from swarm.agents.engines.failures import Failure, MalformedError, without_keys
from swarm.agents.messages import Request, Usage
from swarm.settings_file import shorten

if TYPE_CHECKING:
    import aiohttp

IDLE = 4.0
"""Seconds an unused connection is kept: less than servers do (uvicorn, and so vLLM: 5), or requests
would be sent into connections that are just being closed."""


class DirectClient(Client):
    """Sends JSON and reads JSON, or server-sent events.

    LiteLLM does the same for hundreds of hosts and takes milliseconds of CPU time a request
    (`benchmarks/http_engine.py`), which is more than an engine of small models takes to answer.
    """

    def prepare(self) -> None:
        import aiohttp  # noqa: F401

    async def ask(
        self, request: Request, options: ServerOptions, left_out: Collection[str]
    ) -> Reply:
        async with self._posted(request, options, parameters(request, left_out)) as reply:
            body = await reply.read()
        data = _object(body)
        choice = _choice(data, options)
        message = choice.get("message")
        if not isinstance(message, dict):
            raise MalformedError("a choice without a `message`")
        return Reply(_text(message), choice.get("finish_reason"), _usage(data))

    async def stream(
        self, request: Request, options: ServerOptions, left_out: Collection[str]
    ) -> AsyncIterator[str | Reply]:
        told = parameters(request, left_out)
        told["stream"] = True
        if "stream_options" not in left_out:
            told["stream_options"] = {"include_usage": True}
        pieces: list[str] = []
        finish, usage, whole = None, None, False
        async with self._posted(request, options, told) as reply:
            async for event in _events(reply.content):
                if event == b"[DONE]":
                    whole = True
                    break
                data = _object(event)
                usage = _usage(data) or usage
                if not data.get("choices"):  # the one that only counts, or the like
                    _raise_error(data, options)
                    continue
                choice = _choice(data, options)
                if choice.get("finish_reason"):
                    finish, whole = choice["finish_reason"], True
                delta = choice.get("delta")
                if isinstance(delta, dict) and (piece := _text(delta)):
                    pieces.append(piece)
                    yield piece
        if not whole:
            raise ConnectionError("the stream ended before the answer")
        yield Reply("".join(pieces), finish, usage)

    def failure(self, error: Exception, options: ServerOptions) -> Failure:
        import aiohttp

        if isinstance(error, MalformedError):
            return Failure.malformed(without_keys(str(error), options.key))
        if isinstance(error, _RefusedError):
            return Failure.refused(error.status, error.said, error.headers, options.key)
        if isinstance(error, TimeoutError):
            return Failure.late(options.timeout)
        if isinstance(error, ssl.CertificateError):  # it will be the same next time
            return Failure(f"its certificate is refused: {shorten(str(error), 200)}", passing=False)
        if isinstance(error, aiohttp.ClientConnectionError | aiohttp.ClientPayloadError | OSError):
            return Failure.lost()
        said = shorten(without_keys(f"{type(error).__name__}: {error}", options.key), 200)
        return Failure.malformed(said)

    @asynccontextmanager
    async def _posted(
        self, request: Request, options: ServerOptions, told: dict[str, Any]
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        told["model"] = name_at_endpoint(request.expert.model)
        assert options.url is not None
        address, proxy = _way(options.url)
        session = await _session()
        async with session.post(
            address,
            data=json.dumps(told).encode(),
            headers={
                "Content-Type": "application/json",
                "Authorization": f"Bearer {key_of(options)}",
            },
            proxy=proxy,
            allow_redirects=False,  # a key goes where it was meant to go
        ) as reply:
            if reply.status != 200:
                raise _RefusedError(reply.status, await reply.read(), reply.headers)
            yield reply


class _RefusedError(Exception):
    """An HTTP answer that is an error."""

    def __init__(self, status: int | None, body: bytes, headers: Mapping[str, str]) -> None:
        self.status = status
        self.said = _said(body)
        if status is not None and 300 <= status < 400:
            self.said = f"moved to {headers.get('Location')}: give that address"
        self.headers = headers


def _said(body: bytes) -> str:
    """The message of an error, wherever a server puts it."""
    text = body.decode("utf-8", "replace")
    try:
        found = json.loads(text)
    except ValueError:
        return text
    for name in ("error", "detail", "message"):
        while isinstance(found, dict) and name in found:
            found = found[name]
    return found if isinstance(found, str) else json.dumps(found, ensure_ascii=False)


def _object(body: bytes) -> dict[str, Any]:
    try:
        data = json.loads(body)
    except ValueError as error:
        raise MalformedError(f"no JSON ({error})") from None
    if not isinstance(data, dict):
        raise MalformedError("JSON, but no object")
    return data


def _raise_error(data: Mapping[str, Any], options: ServerOptions) -> None:
    """Some servers say 200 first and what is wrong then."""
    error = data.get("error")
    if error:
        code = error.get("code") if isinstance(error, dict) else None
        status = code if isinstance(code, int) and 400 <= code < 600 else None
        raise _RefusedError(status, json.dumps(data).encode(), {})


def _choice(data: Mapping[str, Any], options: ServerOptions) -> dict[str, Any]:
    _raise_error(data, options)
    choices = data.get("choices")
    if not isinstance(choices, list):
        raise MalformedError("no `choices`")
    if len(choices) != 1:
        raise MalformedError(f"{len(choices)} choices, where 1 was asked for")
    if not isinstance(choices[0], dict):
        raise MalformedError("a choice that is no object")
    return choices[0]


def _text(message: Mapping[str, Any]) -> str | None:
    content = message.get("content")
    if content is not None and not isinstance(content, str):
        raise MalformedError("a `content` that is no text")
    return content


def _usage(data: Mapping[str, Any]) -> Usage | None:
    usage = data.get("usage")
    if not isinstance(usage, dict):
        return None
    read, written = usage.get("prompt_tokens"), usage.get("completion_tokens")
    if not isinstance(read, int) or not read:
        return None
    return Usage(read, written if isinstance(written, int) else 0)


async def _events(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """The `data` of server-sent events, each on one line, as all servers of this kind send it."""
    rest = b""
    async for chunk in content.iter_any():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                yield line[5:].strip()
    if rest.startswith(b"data:"):
        yield rest[5:].strip()


@functools.lru_cache(64)
def _way(url: str) -> tuple[str, str | None]:
    """Where to send to, and through which proxy (`HTTP_PROXY`, `NO_PROXY`)."""
    parts = urlsplit(url)
    proxy = None if proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme)
    return f"{url.rstrip('/')}/chat/completions", proxy


_sessions: dict[asyncio.AbstractEventLoop, aiohttp.ClientSession] = {}
_living: dict[asyncio.AbstractEventLoop, AsyncIterator[aiohttp.ClientSession]] = {}


async def _session() -> aiohttp.ClientSession:
    """The running loop's. One for all: how many are on their way is the throttles' business."""
    loop = asyncio.get_running_loop()
    if loop not in _sessions:
        for ended in [each for each in list(_sessions) if each.is_closed()]:
            _forget(ended)
        _living[loop] = _session_of(loop)
        _sessions[loop] = await anext(_living[loop])
    return _sessions[loop]


async def _session_of(loop: asyncio.AbstractEventLoop) -> AsyncIterator[aiohttp.ClientSession]:
    """A session until its loop ends.

    Callers' loops come and go. Each closes its asynchronous generators before it ends
    (`shutdown_asyncgens`, which `asyncio.run` calls), and so this session's connections.
    """
    import aiohttp

    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=IDLE),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
        cookie_jar=aiohttp.DummyCookieJar(),
    )
    try:
        yield session
    finally:
        _forget(loop)
        await session.close()


def _forget(loop: asyncio.AbstractEventLoop) -> None:
    _sessions.pop(loop, None)
    _living.pop(loop, None)
