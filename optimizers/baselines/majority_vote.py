"""Majority vote: all experts answer alone, and the answer that most of them give is the answer.

The vote is a graph like any other, a star whose end node counts, so that it is run, recorded and
replayed like any other. Who counts is a scripted expert: its call is counted as a call, but no
model is asked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar

from swarm.agents.expert import Expert, Pool, Sampling
from swarm.agents.messages import Messages
from swarm.agents.prompt import CHAT
from swarm.graphs.graph import name_agents
from swarm.graphs.topologies import star
from swarm.optimizers.base import Workload
from swarm.optimizers.baselines.base import Baseline, Candidate, Score
from swarm.tasks import Example, Task

SPACES = 16
"""A scripted expert's limit is in words, and a text has a word a space: a token may be several."""


class MajorityVote(Baseline):
    """The first response of those that give the most frequent answer, as the task's scorer reads
    answers; ties go to the answer given first, and where nobody gives one the response is empty.

    A question on which an expert's call fails has no vote: its trace fails, as that of any graph.
    Questions that are not the task's have no choices to the scorer.
    """

    name: ClassVar[str] = "majority_vote"

    def workload(self, pool: Pool) -> Workload:
        # Who counts is none of the pool: no more than another answer of its last.
        experts = [*pool, list(pool)[-1]]
        return replace(super().workload(pool), agents=name_agents(experts, self._settings.role))

    async def find(self, task: Task, pool: Pool, score: Score) -> Candidate:
        name = "vote"
        while name in pool:
            name += "'"
        longest = max(expert.sampling.max_tokens for expert in pool.values())
        sampling = Sampling(max_tokens=SPACES * longest)
        count = Expert.scripted(name, Count(task, len(pool)), prompt=CHAT.name, sampling=sampling)
        voting = Pool([*pool.values(), count], name=pool.name, roles=pool.roles.values())
        candidate = Candidate(star([*pool, name], roles=self._settings.role), voting)
        await score([candidate])
        return candidate


@dataclass(frozen=True, repr=False)
class Count:
    """The script of an expert that reads so many responses and gives one of them."""

    task: Task
    voters: int

    def __repr__(self) -> str:
        # What a script depends on is read off this.
        return f"Count({self.task.fingerprint.hex()}, {self.voters})"

    def __call__(self, messages: Messages) -> str:
        question, responses = read_back(messages[-1].content, self.voters, self._examples)
        example = self._examples.get(question) or Example(question, "", id="")
        answers = [self.task.scorer.extract(example, response) for response in responses]
        given = Counter(answer for answer in answers if answer is not None)
        if not given:
            return ""
        [(winner, _)] = given.most_common(1)
        return responses[answers.index(winner)]

    @cached_property
    def _examples(self) -> dict[str, Example]:
        splits = self.task.splits.values()
        return {example.prompt: example for split in splits for example in split}


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
