"""The simplest engine: a function or a table answers. For your tests as much as ours."""

from __future__ import annotations

from collections.abc import Sequence

from swarm.agents.engines.base import Engine
from swarm.agents.messages import Request, Response, Usage
from swarm.errors import EngineError, RequestError


class ScriptedEngine(Engine):
    """Calls each expert's script with the messages of one request (`Expert.scripted`).

    A script that raises fails its own request. Tokens are counted as words; `max_tokens` and stop
    strings are applied as a real engine would.
    """

    async def generate(self, requests: Sequence[Request]) -> Sequence[Response | RequestError]:
        return [_answer(request) for request in requests]


def _answer(request: Request) -> Response | RequestError:
    expert, messages, _ = request
    script = expert.script
    if script is None:
        raise EngineError(f"expert `{expert.name}` has no script: make it with `Expert.scripted`")
    try:
        text = script(messages)
    except Exception as error:
        return RequestError(f"the script of `{expert.name}` raised {error!r}")
    for stop in expert.sampling.stop:
        text = text.partition(stop)[0]
    read = sum(message.content.count(" ") + 1 for message in messages)
    written = text.count(" ") + 1 if text else 0
    if written <= expert.sampling.max_tokens:
        return Response(text, Usage(read, written))
    words = text.split(" ")[: expert.sampling.max_tokens]
    return Response(" ".join(words), Usage(read, len(words)), finish="length")
