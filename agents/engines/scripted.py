"""The simplest engine: a function or a table answers. For your tests as much as ours."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Sequence

from swarm.agents.engines.base import Engine
from swarm.agents.messages import Request, Response, Usage
from swarm.errors import EngineError, RequestError


class ScriptedEngine(Engine):
    """Calls each expert's script with the messages of one request (`Expert.scripted`).

    A script that raises fails its own request. Tokens are counted as words; `max_tokens` and stop
    strings are applied as a real engine would.
    """

    async def generate(self, requests: Sequence[Request]) -> Sequence[Response | EngineError]:
        answers: list[Response | EngineError] = []
        for expert, group in itertools.groupby(requests, key=operator.itemgetter(0)):
            script, stops, limit = expert.script, expert.sampling.stop, expert.sampling.max_tokens
            if script is None:
                raise EngineError(
                    f"expert `{expert.name}` has no script: make it with `Expert.scripted`"
                )
            for _, messages, _ in group:
                try:
                    text = script(messages)
                    if not isinstance(text, str):
                        raise TypeError(f"{text!r} is no text")
                    for stop in stops:
                        text = text.partition(stop)[0]
                    written = text.count(" ") + 1 if text else 0
                except Exception as error:
                    answers.append(RequestError(f"the script of `{expert.name}` raised {error!r}"))
                    continue
                read = 0
                for _, content in messages:
                    read += content.count(" ") + 1
                if written <= limit:
                    answers.append(Response(text, Usage(read, written)))
                else:
                    text = " ".join(text.split(" ")[:limit])
                    answers.append(Response(text, Usage(read, limit), finish="length"))
        return answers
