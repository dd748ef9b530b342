"""The simplest engine: a function or a table answers. For your tests as much as ours."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from itertools import groupby, repeat
from operator import itemgetter
from typing import TYPE_CHECKING

from swarm.agents.engines.base import Engine, Lengths
from swarm.agents.engines.determinism import Determinism
from swarm.agents.messages import Messages, Request, Response, Usage, leaves
from swarm.errors import EngineError, RequestError

if TYPE_CHECKING:
    from swarm.agents.expert import Expert


class ScriptedEngine(Engine):
    """Calls each expert's script with the messages of one request (`Expert.scripted`).

    A script that raises fails its own request. Tokens are counted as words; `max_tokens` and stop
    strings are applied as a real engine would.
    """

    def size(self, base: str, experts: Sequence[Expert]) -> int:
        return 0

    @classmethod
    def determinism(cls, expert: Expert) -> Determinism:
        """A table or a pure function: that is the contract of `Expert.scripted`."""
        return Determinism.BITWISE

    async def count(self, expert: Expert, prompts: Sequence[Messages]) -> Lengths:
        return Lengths(_words(prompts), exact=True)

    async def generate(self, requests: Sequence[Request]) -> Sequence[Response | EngineError]:
        answers: list[Response | EngineError] = []
        for expert, group in groupby(requests, key=itemgetter(0)):
            answers += _column(expert, [request.messages for request in group])
        return answers


def _column(expert: Expert, prompts: Sequence[Messages]) -> Sequence[Response | EngineError]:
    """The answers of one expert, a pass over all of them for each of their fields."""
    script, stops, limit = expert.script, expert.sampling.stop, expert.sampling.max_tokens
    if script is None:
        raise EngineError(f"expert `{expert.name}` has no script: make it with `Expert.scripted`")
    texts: list[str] = []
    errors: dict[int, EngineError] = {}
    for messages in prompts:
        try:
            text = script(messages)
            if not isinstance(text, str):
                raise TypeError(f"{text!r} is no text")
            for stop in stops:
                text = text.partition(stop)[0]
        except Exception as error:
            text = ""
            errors[len(texts)] = RequestError(f"the script of `{expert.name}` raised {error!r}")
        texts.append(text)
    read = _words(prompts)
    written = [text.count(" ") + 1 if text else 0 for text in texts]
    finish = ["length" if count > limit else "stop" for count in written]
    for i, count in enumerate(written):
        if count > limit:
            texts[i], written[i] = " ".join(texts[i].split(" ")[:limit]), limit
    answers = leaves(
        Response, texts, map(_usage, read, written), finish, repeat(0.0), repeat(False)
    )
    return [errors.get(i, answer) for i, answer in enumerate(answers)] if errors else answers


def _words(prompts: Sequence[Messages]) -> list[int]:
    return [sum([content.count(" ") + 1 for _, content in messages]) for messages in prompts]


_usage = functools.lru_cache(1024)(Usage)
"""Most are alike, and one of a kind is enough."""
