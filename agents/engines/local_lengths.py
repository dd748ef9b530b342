"""How long prompts are for a model whose files are here, and how long they may be: by its tokenizer
and its config, never its weights."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from swarm.agents.engines.base import Lengths
from swarm.agents.engines.chat_tokenizer import ChatTokenizer
from swarm.agents.engines.codec import first_line, positions
from swarm.agents.messages import Messages
from swarm.errors import EngineError

TOKENIZERS = 8
"""How many tokenizers are kept for counting."""


class LocalLengths:
    """Counts on a thread of its own: it must not wait for a batch, nor share its tokenizer. May be
    used from any event loop."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "tokenizers")
        self._tokenizers: OrderedDict[str, ChatTokenizer] = OrderedDict()
        """`Expert.model` → its tokenizer, least recently used first."""
        self._positions: dict[str, int | None] = {}

    async def context(self, model: str, *limits: int | None) -> int | None:
        """The positions that the model has by its config, or fewer where a limit says so."""
        if model not in self._positions:
            work = self._thread.submit(_positions_of, model)
            self._positions[model] = await asyncio.wrap_future(work)
        known = (n for n in (self._positions[model], *limits) if n is not None)
        return min(known, default=None)

    async def count(self, model: str, prompts: Sequence[Messages]) -> Lengths:
        """Tokens of each prompt, what the chat template puts around it included.

        Raises:
            EngineError: there is no tokenizer, or it fails.
        """
        counted = await asyncio.wrap_future(self._thread.submit(self._count, model, prompts))
        return Lengths(counted, exact=True)

    def _count(self, model: str, prompts: Sequence[Messages]) -> list[int]:
        try:
            if model not in self._tokenizers:
                self._tokenizers[model] = ChatTokenizer.load(model)
            self._tokenizers.move_to_end(model)
            while len(self._tokenizers) > TOKENIZERS:
                self._tokenizers.popitem(last=False)
            return [len(row) or 1 for row in self._tokenizers[model].encode(prompts)]
        except Exception as error:  # each of the libraries has its own
            told = f"the tokens of a prompt for `{model}` can't be counted: {first_line(error)}"
            raise EngineError(told) from error


def _positions_of(model: str) -> int | None:
    """None where the config can't be read: whoever loads the model will say so."""
    from transformers import AutoConfig

    try:
        return positions(AutoConfig.from_pretrained(model, trust_remote_code=False))
    except Exception:  # each of the libraries has its own
        return None
