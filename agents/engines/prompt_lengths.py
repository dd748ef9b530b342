"""How long prompts are for a model behind HTTP, and how long they may be, as its endpoint says.

An endpoint that counts (vLLM's ``/tokenize``, which knows the chat template) is asked; what it says
is exact. Of others there is an estimate, by the tokenizer that LiteLLM brings along, with a margin.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from swarm.agents.engines.base import Lengths
from swarm.agents.messages import Message, Messages
from swarm.errors import EngineError

MARGIN = 1.5
"""An estimate is so many times what LiteLLM's tokenizer counts: others write English in up to a
third more tokens, and figures, or languages they know less of, in more than that."""
AROUND = 64
"""Tokens that an estimate adds for a chat template."""
LONGEST_WAIT = 30.0
"""Seconds between two attempts."""


class Endpoint(NamedTuple):
    """What there is to know of an endpoint of one's own."""

    url: str
    """As in ``http://localhost:8000/v1``."""
    model: str
    """By the endpoint's own name."""
    key: str | None = None
    """The name of the environment variable that holds the API key."""
    concurrency: int = 16
    timeout: float = 60.0
    """Seconds one attempt may take."""
    deadline: float = 300.0
    """Seconds after which a question that is not answered is given up."""


class _Known(NamedTuple):
    counts: bool
    """Whether the endpoint counts tokens."""
    context: int | None
    """How many tokens its model can hold; None: it does not say."""


class PromptLengths:
    """Asks one endpoint, when it must, and remembers what it can do. May be used from any loop.

    Lost connections, 408, 429 and 5xx are tried again, under the endpoint's deadline.
    """

    def __init__(self, endpoint: Endpoint, *, backoff: float = 0.5) -> None:
        """`backoff`: seconds to wait before the second attempt; doubles."""
        self._endpoint = endpoint
        self._backoff = backoff
        self._known: _Known | None = None

    async def context(self) -> int | None:
        """How many tokens the model can hold, prompt and answer together; None: it is not said.

        Raises:
            EngineError: there was no answer in time.
        """
        return (await self._know()).context

    async def count(self, prompts: Sequence[Messages]) -> list[int] | None:
        """Tokens of each prompt; None: the endpoint does not count.

        Raises:
            EngineError: there was no answer in time.
        """
        if not (await self._know()).counts:
            return None
        places = asyncio.Semaphore(self._endpoint.concurrency)
        try:
            async with self._client() as client, asyncio.TaskGroup() as group:
                asked = [group.create_task(self._count(client, p, places)) for p in prompts]
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        found = [task.result() for task in asked]
        counts = [each["count"] for each in found if each is not None]
        if len(counts) < len(prompts):
            raise EngineError(f"`{self._endpoint.url}` does not count any more what it counted")
        return counts

    async def _know(self) -> _Known:
        if self._known is None:
            async with self._client() as client:
                sample = (Message("user", "x"),)
                if (said := await self._count(client, sample)) is not None:
                    context = said.get("max_model_len")
                    self._known = _Known(True, context if isinstance(context, int) else None)
                else:
                    self._known = _Known(False, await self._of_its_list(client))
        return self._known

    async def _count(
        self, client: Any, prompt: Messages, places: asyncio.Semaphore | None = None
    ) -> dict[str, Any] | None:
        """What ``/tokenize`` says; None where it says nothing."""
        body = {"model": self._endpoint.model, "messages": as_sent(prompt)}
        url = f"{self._endpoint.url.rstrip('/').removesuffix('/v1')}/tokenize"
        async with places or asyncio.Semaphore():
            said = await self._ask(client, "POST", url, body)
        return said if isinstance(said, dict) and isinstance(said.get("count"), int) else None

    async def _of_its_list(self, client: Any) -> int | None:
        """By ``/models``, where vLLM and SGLang say ``max_model_len``: of a model, or of the one
        whose adapter it is."""
        said = await self._ask(client, "GET", f"{self._endpoint.url.rstrip('/')}/models")
        listed = said.get("data") if isinstance(said, dict) else None
        cards = {
            card.get("id"): card
            for card in (listed if isinstance(listed, list) else ())
            if isinstance(card, dict)
        }
        card = cards.get(self._endpoint.model, {})
        for each in (card, cards.get(card.get("parent"), {})):
            if isinstance(each.get("max_model_len"), int):
                return int(each["max_model_len"])
        return None

    def _client(self) -> Any:
        import httpx

        endpoint = self._endpoint
        key = os.environ.get(endpoint.key, "") if endpoint.key else ""
        return httpx.AsyncClient(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=endpoint.timeout,
            # Reading certificates takes longer than asking.
            verify=endpoint.url.startswith("https"),
        )

    async def _ask(self, client: Any, method: str, url: str, body: Any = None) -> Any:
        """The JSON value of an answer; None: the endpoint does not know what it was asked.

        Raises:
            EngineError: no answer in time.
        """
        import httpx

        wait, told = self._backoff, "no answer"
        try:
            async with asyncio.timeout(self._endpoint.deadline):
                while True:
                    try:
                        answer = await client.request(method, url, json=body)
                    except httpx.TransportError as error:
                        told = f"connection lost or refused ({type(error).__name__})"
                    else:
                        if answer.status_code == 501 or (
                            answer.status_code < 500 and answer.status_code not in {408, 429}
                        ):
                            return _json(answer)
                        told = str(answer.status_code)
                    await asyncio.sleep(min(LONGEST_WAIT, wait) * random.uniform(0.5, 1.0))
                    wait *= 2
        except TimeoutError:
            pass
        limit = f"`deadline` {self._endpoint.deadline:g} s"
        raise EngineError(f"`{url}` was asked how long prompts may be or are: {told}, in {limit}")


def _json(answer: Any) -> Any:
    try:
        return answer.json() if answer.status_code == 200 else None
    except ValueError:
        return None


def as_sent(messages: Messages) -> list[dict[str, str]]:
    """(A lone surrogate has no bytes that could be sent.)"""
    return [
        {"role": role, "content": content.encode("utf-8", "replace").decode()}
        for role, content in messages
    ]


def estimate(
    prompts: Sequence[Messages], counter: Callable[[list[dict[str, str]]], int]
) -> Lengths:
    """Not exact: `MARGIN` times what `counter` says, but no more than a token a byte."""
    found = []
    for prompt in prompts:
        sent = as_sent(prompt)
        most = sum(len(message["content"].encode()) for message in sent)
        found.append(AROUND + min(most, round(MARGIN * counter(sent))))
    return Lengths(found, exact=False)
