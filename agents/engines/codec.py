"""What a model reads and what its answer is: messages to tokens, and tokens to a response.

One for all engines that run models here, so that the same request is the same tokens in each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from swarm.agents.engines.chat_tokenizer import ChatTokenizer
from swarm.agents.messages import Messages, Request, Response, Usage

BURST = 8
"""How many tokens may be written after a stop string before an engine sees it."""


class Codec:
    """The tokens of one model.

    Args:
        chat: its tokenizer.
        config: the model's, of transformers.
        generation_config: likewise; says at which tokens an answer ends.
    """

    def __init__(self, chat: ChatTokenizer, config: Any, generation_config: Any) -> None:
        self._chat = chat
        self.tokenizer = chat.tokenizer
        self.context: int = positions(config) or 1 << 30
        """Tokens that the model can hold, prompt and answer."""
        eos = generation_config.eos_token_id
        self.eos: set[int] = set(eos if isinstance(eos, list) else [eos]) - {None}
        known = (self.tokenizer.pad_token_id, *self.eos, 0)
        self.pad: int = next(token for token in known if token is not None)
        self.repetition_penalty: float = generation_config.repetition_penalty or 1.0
        self._prompts: dict[Messages, list[int]] = {}

    def forget_prompts(self) -> None:
        self._prompts.clear()

    def encode(self, prompts: Sequence[Messages]) -> list[list[int]]:
        """Token ids of each prompt.

        They are remembered until `forget_prompts`: first a plan wants them, then a batch.
        """
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._prompts]
        ids = self._chat.encode(new)
        self._prompts.update(zip(new, (row or [self.pad] for row in ids), strict=True))
        return [self._prompts[prompt] for prompt in prompts]

    def text(self, tokens: Sequence[int]) -> str:
        text: str = self.tokenizer.decode(tokens, skip_special_tokens=True)
        return text

    def response(
        self,
        request: Request,
        read: int,
        tokens: Sequence[int],
        seconds: float,
        *,
        stopped: bool = False,
    ) -> Response:
        """What `tokens`, written for a prompt of `read` tokens, say; what comes after their end is
        passed over.

        `stopped`: the engine saw a stop string at their end.
        """
        how = request.expert.sampling
        ends = (k for k, token in enumerate(tokens[: how.max_tokens]) if token in self.eos)
        end = next(ends, None)
        tokens = tokens[: how.max_tokens if end is None else end]
        text = self.text(tokens)
        found = [at for at in map(text.find, how.stop) if at >= 0]
        if found:
            text = text[: min(found)]
            # No more tokens are counted than it took to write the stop string.
            lengths = range(max(0, len(tokens) - BURST), len(tokens))
            shortest = (n for n in lengths if any(s in self.text(tokens[:n]) for s in how.stop))
            tokens = tokens[: next(shortest, len(tokens))]
        ended = end is not None or found or stopped
        finish: Literal["stop", "length"] = "stop" if ended else "length"
        return Response(text.strip(), Usage(read, len(tokens)), finish, seconds)


def positions(config: Any) -> int | None:
    """How many tokens a model can hold by its config; None: it does not say."""
    return getattr(config.get_text_config(), "max_position_embeddings", None)


def first_line(error: BaseException) -> str:
    """What another package's error says, as ours quote it."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
