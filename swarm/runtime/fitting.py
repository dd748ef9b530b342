"""Prompts that would not fit an expert's context are refused or shortened, before they are sent.

Short prompts cost next to nothing: a token is at least one byte, so where the bytes fit nothing is
counted. What is counted needs the tokenizer only, and nothing depends on what else is asked.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

from swarm.agents.engines import Engine
from swarm.agents.engines.base import Lengths
from swarm.agents.expert import Expert
from swarm.agents.messages import Messages
from swarm.agents.prompt import WHOLE, Position, PromptStyle
from swarm.agents.role import Role
from swarm.agents.shortening import Cuts, cut, most
from swarm.errors import EngineError, RequestError

T = TypeVar("T")

TEMPLATE = 1024
"""Tokens that no chat template puts around a prompt. (Some have a system message of their own.)"""
JOINTS = 8
"""Tokens a message that its text may take more within a template than alone."""
NEAR = 100
"""A prompt is cut until it is full to one part in so many."""


@dataclass(frozen=True)
class Column:
    """What one agent will be asked, question by question."""

    style: PromptStyle
    role: Role
    position: Position
    questions: Sequence[str]
    previous: Sequence[Sequence[str]]
    """One column a predecessor."""
    oldest_first: Sequence[int]
    """Positions in `previous`, by when these answer."""

    def prompts(self, cuts: Mapping[int, Cuts] = WHOLE) -> list[Messages]:
        return self.style.messages(self.role, self.position, self.questions, self.previous, cuts)

    def only(self, rows: Sequence[int]) -> Column:
        """The questions at these positions."""
        return Column(
            self.style,
            self.role,
            self.position,
            [self.questions[i] for i in rows],
            [[responses[i] for i in rows] for responses in self.previous],
            self.oldest_first,
        )


@dataclass(frozen=True)
class Written:
    """Prompts in somebody's own words, of which nothing can be cut. All but their last messages are
    the same."""

    messages: Sequence[Messages]

    def prompts(self, cuts: Mapping[int, Cuts] = WHOLE) -> list[Messages]:
        return list(self.messages)


class Fitted(NamedTuple):
    """The prompts of a column as they may be sent."""

    prompts: list[Messages]
    cuts: Mapping[int, Cuts] = WHOLE
    """Position → how the prompt was shortened."""
    refused: Mapping[int, EngineError] = {}
    """Position → why the prompt may not be sent."""


async def fit_written(engine: Engine, expert: Expert, prompts: Sequence[Messages]) -> Fitted:
    """The same for prompts in somebody's own words: those that are too long are refused, since
    nobody knows what in them may be cut."""
    if expert.context is None and expert.overflow == "refuse":
        return Fitted(list(prompts))
    alike: dict[tuple[Any, ...], list[int]] = {}
    for i, prompt in enumerate(prompts):
        alike.setdefault((*prompt[:-1], prompt[-1].role), []).append(i)
    refused: dict[int, EngineError] = {}
    for places in alike.values():
        fitted = await fit(engine, expert, Written([prompts[i] for i in places]))
        refused.update((places[k], error) for k, error in fitted.refused.items())
    return Fitted(list(prompts), refused=refused)


async def fit(engine: Engine, expert: Expert, column: Column | Written) -> Fitted:
    """The prompts of `column`, each no longer than what `expert` can hold beside its answer.

    Instructions and question are never cut: where they are too long by themselves, or the expert's
    `overflow` is `refuse`, a prompt is refused. Without a policy and a `context` of the expert's
    own nothing is looked at here: engines refuse what their models can't hold.
    """
    prompts = column.prompts()
    whole = Fitted(prompts)
    if not prompts or (expert.context is None and expert.overflow == "refuse"):
        return whole
    try:
        context = await _try(expert, engine.context(expert))
        if context is None:
            return whole
        room = context - expert.sampling.max_tokens
        suspects = await _suspects(engine, expert, prompts, room)
    except EngineError as error:
        return Fitted(prompts, refused=dict.fromkeys(range(len(prompts)), error))
    if not suspects:
        return whole
    work = _Fitting(engine, expert, context)
    try:
        lengths = await work.count([prompts[i] for i in suspects])
        over = {i: n for i, n in zip(suspects, lengths, strict=True) if n > room}
        if not over:
            return whole
        if expert.overflow == "refuse" or isinstance(column, Written):
            readable = isinstance(column, Column) and bool(column.previous)
            return Fitted(prompts, refused={i: work.refusal(n, readable) for i, n in over.items()})
        return await work.shorten(column, prompts, over)
    except EngineError as error:
        return Fitted(prompts, refused=dict.fromkeys(suspects, error))


async def _suspects(
    engine: Engine, expert: Expert, prompts: Sequence[Messages], room: int
) -> list[int]:
    """Positions of prompts that may have more than `room` tokens; none where nobody can count."""
    first = prompts[0]  # all of a column have the same roles, and the same system message
    fixed = sum(_bytes(content) for _, content in first[:-1])
    texts = [prompt[-1].content for prompt in prompts]
    if TEMPLATE + fixed + 4 * max(map(len, texts)) <= room:
        return []
    around = await _template(engine, expert, first)
    if around is None:
        return []
    spare = room - around - fixed
    return [i for i, text in enumerate(texts) if 4 * len(text) > spare and _bytes(text) > spare]


_templates: WeakKeyDictionary[Engine, dict[tuple[bytes, tuple[str, ...]], int]]
_templates = WeakKeyDictionary()
"""By engine: expert and roles of a prompt → tokens that the template puts around it."""


async def _template(engine: Engine, expert: Expert, prompt: Messages) -> int | None:
    known = _templates.setdefault(engine, {})
    name = (expert.fingerprint, tuple(message.role for message in prompt))
    if name not in known:
        sample = tuple(message._replace(content="x") for message in prompt)
        counted = await _count(engine, expert, [sample])
        if counted is None:
            return None
        known[name] = counted.tokens[0] + JOINTS * len(prompt)
    return known[name]


@dataclass
class _Fitting:
    """Some prompts of one expert that are, or may be, too long."""

    engine: Engine
    expert: Expert
    context: int
    exact: bool = True

    @property
    def room(self) -> int:
        return self.context - self.expert.sampling.max_tokens

    async def count(self, prompts: Sequence[Messages]) -> Sequence[int]:
        counted = await _count(self.engine, self.expert, prompts)
        if counted is None:  # it could count another prompt
            raise EngineError(f"the tokens of a prompt for `{self.expert.name}` can't be counted")
        self.exact = counted.exact
        return counted.tokens

    async def shorten(
        self, column: Column, prompts: Sequence[Messages], over: Mapping[int, int]
    ) -> Fitted:
        """Cuts the prompts that are `over`: position → tokens."""
        left, cuts = list(prompts), dict[int, Cuts]()
        refused: dict[int, EngineError] = {}
        searches: dict[int, _Search] = {}
        for i, tokens in over.items():
            responses = [texts[i] for texts in column.style.responses(column.previous)]
            if (total := most(responses)) == 0:
                refused[i] = self.refusal(tokens)
            else:
                searches[i] = _Search(responses, total, self.room, tokens)
        while searches:
            tried = {
                i: cut(search.responses, column.oldest_first, search.amount())
                for i, search in searches.items()
            }
            rows = list(tried)
            made = column.only(rows).prompts(dict(enumerate(tried.values())))
            for i, prompt, tokens in zip(rows, made, await self.count(made), strict=True):
                if searches[i].tell(tokens):
                    left[i], cuts[i] = prompt, tried[i]
                elif i not in cuts:  # all was cut that can be
                    refused[i] = self.refusal(tokens, cut_already=True)
                if i in refused or searches[i].done:
                    del searches[i]
        return Fitted(left, cuts, refused)

    def refusal(
        self, tokens: int, readable: bool = False, *, cut_already: bool = False
    ) -> RequestError:
        """What is said of a prompt of so many tokens.

        Args:
            readable: whether there are responses in it that might be cut.
            cut_already: whether they have been.
        """
        expert = self.expert
        about = "" if self.exact else "about "
        told = (
            f"a prompt of {about}{tokens} tokens" + " without any response before it" * cut_already
        )
        remedy = "shorten the question or the role's instructions, lower `max_tokens`"
        if readable:
            remedy += ', have responses before it cut by `overflow = "shorten"`'
        return RequestError(
            f"`{expert.name}`: {told} and `max_tokens` {expert.sampling.max_tokens} are more than "
            f"its context of {self.context}: {remedy}, or use a model with a longer context"
        )


@dataclass
class _Search:
    """How much to cut of one prompt: the least that makes it fit, or nearly so.

    First all is cut. Then the answer lies between an amount that is too little and one that is
    enough: it is interpolated, as tokens go with characters, and halved in turn.
    """

    responses: Sequence[str]
    enough: int
    """Characters."""
    room: int
    most: int
    """Tokens when `little` is cut."""
    least: int | None = None
    """Tokens when `enough` is cut; None: not known yet."""
    little: int = 0
    _tried: int = 0
    _rounds: int = 0

    def amount(self) -> int:
        """What to try next."""
        self._rounds += 1
        if self.least is None:
            self._tried = self.enough
        elif self._rounds % 2:
            self._tried = (self.little + self.enough) // 2
        else:
            share = (self.most - self.room) / (self.most - self.least)
            guess = self.little + round((self.enough - self.little) * share) + 1
            self._tried = min(max(guess, self.little + 1), self.enough - 1)
        return self._tried

    def tell(self, tokens: int) -> bool:
        """How long the prompt then was; returns whether it fits."""
        if tokens <= self.room:
            self.enough, self.least = self._tried, tokens
            return True
        self.little, self.most = self._tried, tokens
        return False

    @property
    def done(self) -> bool:
        """Whether what was cut is as good as the least that could be."""
        assert self.least is not None
        return self.enough - self.little <= 1 or self.room - self.least <= self.room // NEAR


async def _try(expert: Expert, work: Awaitable[T]) -> T:
    """What an engine says, with whatever it raises as an `EngineError`."""
    try:
        return await work
    except EngineError:
        raise
    except Exception as error:
        raise EngineError(f"`{expert.base}` failed: {type(error).__name__}: {error}") from error


async def _count(engine: Engine, expert: Expert, prompts: Sequence[Messages]) -> Lengths | None:
    return await _try(expert, engine.count(expert, prompts))


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
