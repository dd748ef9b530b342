"""Prompts become tokens by a model's own chat template, as transformers has it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from swarm.agents.messages import Messages


class ChatTokenizer:
    """A tokenizer of transformers that takes messages. Used from one thread at a time.

    Args:
        tokenizer: from `AutoTokenizer`.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    @classmethod
    def load(cls, model: str) -> ChatTokenizer:
        """That of a folder, or of a model on a hub. Raises whatever transformers does."""
        from transformers import AutoTokenizer

        return cls(AutoTokenizer.from_pretrained(model, trust_remote_code=False))

    def encode(self, prompts: Sequence[Messages]) -> list[list[int]]:
        """Token ids of each prompt, what the template puts around it included."""
        if not prompts:
            return []
        texts = [self._text_of(messages) for messages in prompts]
        encoded = self.tokenizer(
            [text.encode("utf-8", "replace").decode() for text in texts],
            # A template writes its own special tokens.
            add_special_tokens=not self.tokenizer.chat_template,
            verbose=False,
        )
        ids: list[list[int]] = encoded["input_ids"]
        return ids

    def _text_of(self, messages: Messages) -> str:
        """By the model's chat template, else as plain text."""
        if not self.tokenizer.chat_template:
            return _paragraphs(messages)
        try:
            return self._template(messages)
        except Exception:
            if messages[0].role != "system" or len(messages) < 2:
                raise
            # Some templates refuse a system turn: its text goes before the user's.
            first = messages[1]._replace(content=_paragraphs(messages[:2]))
            return self._template((first, *messages[2:]))

    def _template(self, messages: Messages) -> str:
        text: str = self.tokenizer.apply_chat_template(
            [message._asdict() for message in messages], tokenize=False, add_generation_prompt=True
        )
        return text


def _paragraphs(messages: Messages) -> str:
    return "\n\n".join(message.content for message in messages)
