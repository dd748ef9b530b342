"""Experts that answer known questions with what real models once answered: nothing is run.

`Expert.model` is ``FILE:MODEL``: a recording (`swarm.agents.recording`) and one of its models.

- The question is found by the whole text of a lone agent's prompt, whatever its role and style. A
  prompt with other agents' responses is refused: the model was asked without them.
- What is answered: see `swarm.agents.replies`. It is given whole: the model had its own limits, so
  `max_tokens` and `stop` do not apply.
- At temperature 0 every draw is the reply. Above it, draw k is the k-th of the recorded draws (for
  a seed other than 0 they are shuffled); where none are recorded there is one draw, the reply.
- Tokens are those recorded, else a token for 4 characters. Where a cost is recorded without tokens
  that explain it, and the expert says no price of its own, the price is 0.1 USD per million tokens
  written, and as many are written as that takes: the cost comes out right to 1e-7 USD a call.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from swarm.agents.engines.base import Engine
from swarm.agents.engines.determinism import Determinism
from swarm.agents.messages import Request, Response, Usage
from swarm.agents.recording import Recording
from swarm.agents.replies import drawn, find_question, with_responses
from swarm.errors import ConfigError, EngineError, InputError, PoolError, RequestError
from swarm.settings_file import shorten

if TYPE_CHECKING:
    from swarm.agents.expert import Expert

UNIT = 0.1
"""USD per million tokens, where tokens stand for a cost."""
CHARACTERS = 4
"""A token, where tokens were not recorded."""
GREEDY = 1e-3
"""Below this temperature, or this top_p, the likeliest answer is all there is to draw."""


IN_MEMORY = "recording:"
"""How `Expert.model` begins where the recording is no file."""


class RecordedEngine(Engine):
    """See the top of this module."""

    @classmethod
    def check(cls, expert: Expert, who: str) -> None:
        """Reads the recording, too: it is data that must be there, and no model."""
        unknown = [key for key in expert.options if key != "scale"]
        if unknown:
            raise ConfigError(f"{who}: key `options.{unknown[0]}`: unknown; known: `scale`")
        if expert.adapter is not None or expert.mixture is not None:
            raise PoolError(
                f"{who}: a recorded expert has no weights: take out `adapter` and `mixture`"
            )
        try:
            source = expert.source
        except ConfigError as error:
            raise ConfigError(f"{who}: key `model`: {error}") from None
        try:
            if source is not None:
                source.recording.model(source.model)
        except InputError as error:
            raise PoolError(f"{who}: key `model`: {error}") from None

    @classmethod
    def list_price(cls, expert: Expert) -> tuple[float, float] | None:
        """What the recorded costs come to: see the top of this module."""
        source = expert.source
        if source is None:
            return None
        bill = _bill(source.recording, source.recording.model(source.model))
        return bill and (bill.read, bill.written)

    @classmethod
    def determinism(cls, expert: Expert) -> Determinism:
        """A function of the recording, which is part of what the expert is."""
        return Determinism.BITWISE

    def size(self, base: str, experts: Sequence[Expert]) -> int:
        return 0

    async def generate(self, requests: Sequence[Request]) -> Sequence[Response | EngineError]:
        return [_answer(request) for request in requests]


def _answer(request: Request) -> Response | EngineError:
    expert = request.expert
    try:
        source = expert.source
    except ConfigError as error:
        raise EngineError(f"expert `{expert.name}`: {error}") from error
    if source is None:
        raise EngineError(f"expert `{expert.name}` is not a recorded one")
    recording = source.recording
    known = recording.replies
    content = request.messages[-1].content
    question = find_question(content, expert.style, known)
    if question is None:
        return RequestError(f"expert `{expert.name}`: {_why_not(content, expert, recording)}")
    asked = known.to(question)
    assert asked is not None
    column = recording.model(source.model)
    reply = asked.replies.get(column)
    if reply is None:
        return RequestError(
            f"expert `{expert.name}`: `{source.model}` was not asked `{shorten(question)}`: ask "
            "another, or load only the questions and models that go together "
            '(`models="intersection"`)'
        )
    text = reply.text
    sampling = expert.sampling
    if sampling.temperature >= GREEDY and sampling.top_p >= GREEDY:
        draws = drawn(recording.rows[reply.row], source.model, sampling.seed)
        if request.draw >= max(len(draws), 1):
            return RequestError(
                f"expert `{expert.name}`: draw {request.draw + 1} of `{shorten(question)}` is "
                f"asked for, and {max(len(draws), 1)} recorded: ask for fewer draws"
            )
        if draws:
            text = draws[request.draw] or ""
    usage = _usage(request, recording, reply.row, column, text)
    return Response(text, usage, "stop", 0.0)


def _why_not(content: str, expert: Expert, recording: Recording) -> str:
    if with_responses(content, recording.replies):
        return (
            "was asked with other agents' responses, but the recording has only what it answered "
            "alone: let it answer first or alone in its graph, and an expert that is not recorded, "
            "or a vote, sum up"
        )
    head, _ = expert.style.question.format(question="\0").split("\0")
    question = content.rpartition(head)[2] or content
    return (
        f"`{shorten(question)}` is not in the recording: recorded experts answer its "
        f"{len(recording)} questions only, word for word: take the questions from there "
        "(`Task.recorded`)"
    )


def _usage(request: Request, recording: Recording, row: int, column: int, text: str) -> Usage:
    tokens = recording.tokens[row, column]
    if np.isfinite(tokens).all():
        read, written = int(tokens[0]), int(tokens[1])
    else:
        asked = [len(content) for _, content in request.messages]
        read = sum(max(math.ceil(length / CHARACTERS), 1) for length in asked)
        written = math.ceil(len(text) / CHARACTERS)
    bill = _bill(recording, column)
    price = request.expert.price
    if bill and bill.by_cost and (price.input, price.output) == (bill.read, bill.written):
        cost = recording.costs[row, column]
        written = round(cost * 1e6 / UNIT) if math.isfinite(cost) else 0
    return Usage(read, written)


class _Bill(NamedTuple):
    """How a model's recorded costs come about as price × tokens."""

    read: float
    written: float
    """USD per million tokens."""
    by_cost: bool
    """Whether tokens written stand for the cost."""


def _bill(recording: Recording, column: int) -> _Bill | None:
    bills = _bills.setdefault(recording, {})
    if column not in bills:
        bills[column] = _make_bill(recording, column)
    return bills[column]


_bills: WeakKeyDictionary[Recording, dict[int, _Bill | None]] = WeakKeyDictionary()


def _make_bill(recording: Recording, column: int) -> _Bill | None:
    costs, tokens = recording.costs[:, column], recording.tokens[:, column]
    known = np.isfinite(costs)
    if not known.any():
        return None
    if np.isfinite(tokens[known]).all():
        fitted = np.linalg.lstsq(tokens[known], costs[known] * 1e6, rcond=None)[0]
        # A price has a few digits; what the fit adds beyond them is rounding.
        for price in (np.round(fitted, 6), fitted):
            billed = tokens[known] @ price / 1e6
            if (price >= 0).all() and np.allclose(billed, costs[known], rtol=1e-9, atol=1e-15):
                return _Bill(float(price[0]), float(price[1]), by_cost=False)
    return _Bill(0.0, UNIT, by_cost=True)


class Source(NamedTuple):
    """What is behind a recorded expert."""

    recording: Recording
    model: str
    """Its name in the recording."""


def split_source(text: str) -> tuple[str, str]:
    """``FILE:MODEL`` → both; a model's name may have colons.

    Raises:
        ConfigError: it is not of that form.
    """
    for ending in (".jsonl.gz:", ".jsonl:", ":"):
        place, found, model = text.partition(ending)
        if found and place and model:
            return place + ending[:-1], model
    raise ConfigError(
        f"`{text}`: a recorded expert is a recording and one of its models: `file.jsonl.gz:a-model`"
    )


def open_source(text: str, scale: dict[str, float] | None) -> Source:
    """The recording and model that ``FILE:MODEL`` names; a file is read once for all its experts.

    Raises:
        ConfigError: the file can't be read or is no recording.
    """
    if text.startswith(IN_MEMORY):
        raise ConfigError(
            f"`{text}` was a recording in memory, and is gone with its process: make the pool "
            "again (`Pool.recorded`), or save the recording (`Recording.save`) and name its file"
        )
    place, model = split_source(text)
    path = Path(place)
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    stats = tuple((each.stat().st_mtime_ns, each.stat().st_size) for each in files if each.exists())
    if not isinstance(scale or {}, dict) or not all(
        type(most) in (int, float) and most > 0 for most in (scale or {}).values()
    ):
        raise ConfigError(
            f"`options.scale`: `{shorten(repr(scale))}` must be a table of benchmarks and their "
            "highest scores"
        )
    return Source(_load(path, stats, tuple(sorted((scale or {}).items()))), model)


@functools.lru_cache(maxsize=8)
def _load(
    path: Path, stats: tuple[tuple[int, int], ...], scale: tuple[tuple[str, float], ...]
) -> Recording:
    """`stats` make it another recording when the files change."""
    return Recording.load(path, models="union", scale=dict(scale))
