"""Who counts votes: a scripted expert that reads responses and gives the most frequent answer.

A vote is a graph like any other, a star whose end node counts, so that it is run, recorded and
replayed like any other. The counter's call is counted as a call, but no model is asked.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from swarm.agents.expert import Expert, Pool, Sampling
from swarm.agents.messages import Messages
from swarm.agents.prompt import CHAT
from swarm.tasks import Example
from swarm.tasks.scorers.base import Scorer

SPACES = 16
"""A scripted expert's limit is in words, and a text has a word a space: a token may be several."""


def vote_counter(
    name: str,
    pool: Pool,
    scorer: Scorer,
    voters: int,
    known: Mapping[str, Example] | None = None,
) -> Expert:
    """The expert that counts; see `Count`."""
    return counter(name, pool, Count(scorer, voters, known or {}))


def counter(name: str, pool: Pool, script: Count | WeightedCount) -> Expert:
    """The expert that counts what `pool` answers."""
    longest = max(expert.sampling.max_tokens for expert in pool.values())
    sampling = Sampling(max_tokens=SPACES * longest)
    return Expert.scripted(name, script, prompt=CHAT.name, sampling=sampling)


@dataclass(frozen=True, repr=False)
class Count:
    """The script of an expert that reads so many responses and gives one of them.

    That is the first of those that give the most frequent answer, as the scorer reads answers; ties
    go to the answer given first, and where nobody gives one the response is empty.
    """

    scorer: Scorer
    voters: int
    known: Mapping[str, Example] = field(default_factory=dict)
    """By question; others are read off what is asked (`example_of`)."""

    def __repr__(self) -> str:
        # What a script depends on is read off this.
        return f"Count({self.scorer.identity}, {self.voters})"

    def __call__(self, messages: Messages) -> str:
        question, responses = read_back(messages[-1].content, self.voters, self.known)
        example = self.known.get(question) or example_of(question)
        answers = [self.scorer.extract(example, response) for response in responses]
        given = Counter(answer for answer in answers if answer is not None)
        if not given:
            return ""
        [(winner, _)] = given.most_common(1)
        return responses[answers.index(winner)]


@dataclass(frozen=True, repr=False)
class WeightedCount:
    """The same, where votes weigh what the question says; of answers that weigh the same the one
    that is given first wins."""

    voters: int
    weigh: Callable[[str], Sequence[float]]
    """Question → the weights of its voters, in their order."""
    read: Callable[[str], str | None]
    """The answer in a response, plain enough to be compared."""
    identity: str
    """What tells `weigh` and `read` apart from others."""

    def __repr__(self) -> str:
        return f"WeightedCount({self.identity}, {self.voters})"

    def __call__(self, messages: Messages) -> str:
        question, responses = read_back(messages[-1].content, self.voters)
        answers = [self.read(response) for response in responses]
        winner = heaviest(answers, self.weigh(question))
        return "" if winner is None else responses[answers.index(winner)]


def example_of(question: str) -> Example:
    """The example behind a question as an agent is asked it: with the choices that end it."""
    lines = question.split("\n")
    for start in range(1, len(lines)):
        matches = [re.fullmatch(r"([A-Z])\. (.*)", line) for line in lines[start:]]
        found = [(match[1], match[2]) for match in matches if match]
        letters = "".join(letter for letter, _ in found)
        if len(found) == len(matches) > 1 and "ABCDEFGHIJKLMNOPQRSTUVWXYZ".startswith(letters):
            return Example("\n".join(lines[:start]), "", id="", choices=dict(found))
    return Example(question, "", id="")


def read_back(prompt: str, voters: int, known: Container[str] = ()) -> tuple[str, list[str]]:
    """The question and the responses that a prompt in the style `chat` was made of.

    Responses are told apart by their numbers, so one that holds the words "Previous response 2:" on
    a line of its own may be cut there. Where the question begins is certain if it is `known`.
    """
    separator = "\n" + CHAT.question.format(question="")
    told, *parts = prompt.split(separator)
    question = separator.join(parts)
    while len(parts) > 1 and question not in known:
        told += separator + parts.pop(0)
        question = separator.join(parts)
    responses = []
    for k in range(voters, 0, -1):
        told, _, response = told.rpartition("\n" + CHAT.previous.format(k=k, response=""))
        responses.append(response)
    return question, responses[::-1]


def heaviest(answers: Sequence[str | None], weights: Iterable[float]) -> str | None:
    """The answer with the most weight; of equals the one that is given first. None, for no answer,
    has no vote."""
    count: dict[str, float] = {}
    for answer, weight in zip(answers, weights, strict=True):
        if answer is not None:
            count[answer] = count.get(answer, 0.0) + float(weight)
    return max(count, key=lambda answer: count[answer]) if count else None


def read_answer(response: str | None, pattern: str | None = None) -> str | None:
    """The answer in a response, plain enough to be compared; None if there is none.

    Args:
        pattern: a regular expression: its last match, or that of its group, is the answer; None:
            all of the response.
    """
    if response is None:
        return None
    text = response
    if pattern is not None:
        found = list(re.finditer(pattern, response))
        if not found:
            return None
        text = found[-1].group(found[-1].re.groups and 1)
    return " ".join(text.lower().split()) or None
