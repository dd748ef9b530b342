"""The simplest engine: a function or a table answers. For your tests as much as ours."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING

from swarm.agents.engines.base import Engine
from swarm.agents.messages import Messages, Request, Response, Usage
from swarm.errors import EngineError, RequestError

if TYPE_CHECKING:
    from swarm.agents.expert import Sampling


class ScriptedEngine(Engine):
    """Calls each expert's script with the messages of one request (`Expert.scripted`).

    A script that raises fails its own request. Tokens are counted as words; `max_tokens` and stop
    strings are applied as a real engine would.
    """

    async def generate(self, requests: Sequence[Request]) -> Sequence[Response | RequestError]:
        answers: list[Response | RequestError] = []
        for expert, group in itertools.groupby(requests, key=operator.itemgetter(0)):
            script = expert.script
            if script is None:
                raise EngineError(
                    f"expert `{expert.name}` has no script: make it with `Expert.scripted`"
                )
            for _, messages, _ in group:
                try:
                    text = script(messages)
                except Exception as error:
                    answers.append(RequestError(f"the script of `{expert.name}` raised {error!r}"))
                else:
                    answers.append(_response(messages, text, expert.sampling))
        return answers


def _response(messages: Messages, text: str, sampling: Sampling) -> Response:
    for stop in sampling.stop:
        text = text.partition(stop)[0]
    read = 0
    for _, content in messages:
        read += content.count(" ") + 1
    written = text.count(" ") + 1 if text else 0
    if written <= sampling.max_tokens:
        return Response(text, Usage(read, written))
    words = text.split(" ")[: sampling.max_tokens]
    return Response(" ".join(words), Usage(read, len(words)), finish="length")
