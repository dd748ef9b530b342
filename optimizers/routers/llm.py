"""LLM as router: an expert is told what each expert is good at, and names the one to ask.

The prompt is in the manner of the LLM-as-a-router baselines of RouteLLM (arXiv 2406.18665) and
RouterBench (arXiv 2403.12031).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from swarm.agents.messages import Message, Response
from swarm.errors import InputError, PoolError
from swarm.graphs.graph import AgentGraph
from swarm.graphs.topologies import single
from swarm.optimizers.outcomes import Outcomes
from swarm.optimizers.routers.asking import Asking
from swarm.runtime.policy import Ask

PROMPT = """\
Several models can answer the question below. Choose the one that is likeliest to answer it rightly.

{experts}

Question:
{question}

Reply with the number of the model and nothing else."""


@dataclass(kw_only=True, eq=False)
class LLMRouter(Asking):
    """Where the reply names no expert, the question goes to the best one."""

    name: ClassVar[str] = "llm"
    judge: str | None = None
    """Who is asked; None: the best single expert."""
    descriptions: Mapping[str, str] | None = None
    """Expert → what it is good at. Others are described by what they scored, by tag."""
    tag: str | None = None
    """Key of `Outcomes.meta` by which scores are told apart in descriptions."""
    prompt: str = PROMPT
    """Knows ``{experts}`` and ``{question}``."""

    def _fit(self, outcomes: Outcomes, rng: np.random.Generator) -> None:
        for word in ("{experts}", "{question}"):
            if word not in self.prompt:
                raise InputError(f"router `llm`: `prompt` has no {word}: put it where it belongs")
        self.facts["judge"] = self.judge or outcomes.experts[outcomes.best]
        self.facts["described"] = {
            name: (self.descriptions or {}).get(name) or self._described(outcomes, column)
            for column, name in enumerate(outcomes.experts)
        }

    def _described(self, outcomes: Outcomes, column: int) -> str:
        """Such as: answers 61 % of questions rightly; math 70 %, law 52 %."""
        text = f"answers {outcomes.means[column]:.0%} of questions rightly"
        if self.tag is None:
            return text
        tags = np.array([str(tag) for tag in outcomes.tags(self.tag)])
        each = [
            f"{tag} {outcomes.scores[tags == tag, column].mean():.0%}" for tag in np.unique(tags)
        ]
        return f"{text}; {', '.join(each)}"

    @property
    def experts(self) -> tuple[str, ...]:
        named = super().experts
        return named if self.facts["judge"] in named else (*named, self.facts["judge"])

    @property
    def routed(self) -> tuple[str, ...]:
        """Those that questions go to; `experts` has the judge, too."""
        return tuple(self.facts["experts"])

    def without(self, gone: Sequence[str]) -> Self:
        if self.facts["judge"] in gone:
            raise PoolError(
                f"router `llm`: its judge `{self.facts['judge']}` is gone: fit it again"
            )
        keep = [i for i, name in enumerate(self.routed) if name not in set(gone)]
        if not keep:
            raise PoolError("router `llm` has no expert left: fit it with this pool")
        router = type(self)(**self._given())
        names = [self.routed[i] for i in keep]
        described = {name: self.facts["described"][name] for name in names}
        router.facts = {**self.facts, "experts": names, "described": described}
        router.learned = {name: array[keep] for name, array in self.learned.items()}
        return router

    async def agraphs_for(self, questions: Sequence[str], ask: Ask) -> list[AgentGraph]:
        if not questions:
            return []
        listed = "\n".join(
            f"{number}. {name}: {self.facts['described'][name]}"
            for number, name in enumerate(self.routed, 1)
        )
        prompts = []
        for question in questions:
            parts = {"{experts}": listed, "{question}": question}
            # In one pass: a question that has "{experts}" in it stays as it is.
            text = re.sub(r"\{experts\}|\{question\}", lambda m: parts[m.group()], self.prompt)  # noqa: B023
            prompts.append((Message("user", text),))
        replies = await ask(self.facts["judge"], prompts)
        graphs = [single(name, role=self.role) for name in self.routed]
        return [graphs[self._read(reply)] for [reply] in replies]

    def _read(self, reply: object) -> int:
        """The column that a reply names: by number or by name, whichever comes first."""
        best = int(np.argmax(self.learned["means"]))
        if not isinstance(reply, Response):
            return best
        names = {name: column for column, name in enumerate(self.routed)}
        longest = sorted(names, key=len, reverse=True)
        for found in re.finditer("|".join([*map(re.escape, longest), r"\d+"]), reply.text):
            if found.group() in names:
                return names[found.group()]
            if 1 <= int(found.group()) <= len(names):
                return int(found.group()) - 1
        return best
