"""Symbolic-MoE as a policy: a question's skills recruit k experts, and one aggregates.

Symbolic-MoE, arXiv 2503.05641, section 3. How it is fitted is in `symbolic_moe.py`; the skills of a
question and the draws by experts' profiles are in `skills.py` and `recruiting.py`.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from swarm.agents.expert import Pool
from swarm.agents.messages import Response
from swarm.errors import EngineError, InputError, PoolError, TaskError
from swarm.graphs.graph import DEFAULT_ROLE, AgentGraph
from swarm.graphs.topologies import star
from swarm.optimizers.draws import question_rng
from swarm.optimizers.recruiting import (
    Array,
    recruit,
    strength,
    suitability,
    trim,
)
from swarm.optimizers.skills import Encode, annotation_prompt, keywords, nearest, words_of
from swarm.optimizers.voting import vote_counter
from swarm.runtime.policy import Arrays, Ask, Policy
from swarm.tasks.scorers.base import Scorer
from swarm.tasks.scorers.registry import SCORERS, get_scorer


class RecruitSettings(BaseModel):
    """How experts are recruited."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    k: int = Field(3, ge=1)
    """How many experts answer a question."""
    replacement: bool = False
    """Whether an expert may be drawn for a question more than once, as published: it then answers
    as often, each time with a draw of its own if it samples. Ours recruits others, whose mistakes
    are others (`benchmarks/symbolic_moe.py` compares)."""
    trim: float = Field(0.05, ge=0, lt=1)
    """Experts with less than this share of all recruitments are replaced; 0: none."""
    temperature: float = Field(0.5, gt=0)
    """Of the global strength: lower trusts strong experts more."""
    annotations: int = Field(5, ge=1)
    """How often the annotator is asked about a question."""
    said: int = Field(2, ge=1)
    """In how many of these a keyword must occur."""
    aggregator: Literal["task", "question"] = "question"
    """Whether one expert aggregates for the whole task, as published, or, ours, for each question
    the one that has aggregated best where the same skills were asked for."""
    seed: int = Field(0, ge=0)
    role: str = DEFAULT_ROLE
    """Of the recruited."""
    aggregator_role: str = DEFAULT_ROLE


class Source(BaseModel):
    """Where the skills of a question come from: one of these."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    annotator: str | None = None
    """The name of the expert that is asked for keywords."""
    tag: str | None = None
    """The key of the examples' `meta` that says them: a text, or a list of texts."""
    words: bool = False
    """The words of the question itself."""


class Recruiter(Policy):
    """A star for each question: the recruited experts answer alone, the aggregator reads them all.

    The recruited stand in the pool's order, so that the same choice is the same graph.
    """

    name: ClassVar[str] = "symbolic_moe"

    def __init__(
        self,
        experts: Sequence[str],
        skills: Sequence[str],
        profile: Array,
        aggregation: Array,
        *,
        source: Source,
        settings: RecruitSettings | None = None,
        vectors: NDArray[np.float32] | None = None,
        tags: Mapping[str, Sequence[str]] | None = None,
        vote: Scorer | None = None,
        encode: Encode | None = None,
        encoder: str | None = None,
    ) -> None:
        """Shapes are for m experts and s known skills.

        Args:
            profile: (m, s); see `recruiting.profiles`.
            aggregation: (m, s): the same of the synthetic aggregation task; an expert that was not
                tried has -inf throughout.
            vectors: the skills' embeddings, (s, d); None: skills that are not known are passed
                over.
            tags: question → its skills, where `source.tag` is set.
            vote: reads answers for a vote, which then gives the final answer in place of an
                aggregator.
            encode: makes embeddings; None makes them as `encoder` says when one is needed.
        """
        self._experts = tuple(experts)
        self.skills = tuple(skills)
        self.profile = np.array(profile, dtype=np.float64)
        self.aggregation = np.array(aggregation, dtype=np.float64)
        self.source = source
        self.how = settings or RecruitSettings()
        self.vectors = vectors
        self.tags = {question: tuple(named) for question, named in (tags or {}).items()}
        self.vote = vote
        self.encoder = encoder
        self._encode = encode
        shape = (len(self._experts), len(self.skills))
        for array in (self.profile, self.aggregation):
            if array.shape != shape:
                raise InputError(f"a profile has shape {array.shape}: must be {shape}")

    @property
    def experts(self) -> tuple[str, ...]:
        asked = self.source.annotator
        return self._experts if asked in {None, *self._experts} else (*self._experts, str(asked))

    @functools.cached_property
    def strengths(self) -> Array:
        """The experts' global strength, shape (m,)."""
        return strength(self.profile, self.how.temperature)

    def graphs_for(self, questions: Sequence[str]) -> list[AgentGraph]:
        if self.source.annotator is not None:
            raise InputError(
                f"policy `{self.name}` asks `{self.source.annotator}` for the skills of a question "
                "before it chooses: use `agraphs_for`, or run it as a system"
            )
        if self.source.tag is not None:
            return self._graphs(questions, [list(self.tags.get(q, ())) for q in questions])
        return self._graphs(questions, [words_of(question) for question in questions])

    async def agraphs_for(self, questions: Sequence[str], ask: Ask) -> list[AgentGraph]:
        if self.source.annotator is None:
            return self.graphs_for(questions)
        how = self.how
        return self._graphs(
            questions,
            await annotate(
                ask, self.source.annotator, questions, times=how.annotations, said=how.said
            ),
        )

    def known_skills(self, named: Sequence[Sequence[str]]) -> list[list[int]]:
        """Each question's skills as positions among the known ones, new ones matched to them."""
        names = [name for each in named for name in each]
        if self.vectors is None:
            index = {name: i for i, name in enumerate(self.skills)}
        else:
            index = nearest(names, self.skills, self.vectors, self._embed)
        # Two names may mean the same known skill: it counts once.
        return [list(dict.fromkeys(index[n] for n in each if n in index)) for each in named]

    def recruited(
        self, questions: Sequence[str], skills: Sequence[Sequence[int]]
    ) -> list[list[int]]:
        """Who answers each question: positions among the experts, in their order."""
        how = self.how
        drawn = [
            recruit(
                suitability(self.profile, wanted, self.strengths),
                how.k,
                question_rng(how.seed, question, "recruit"),
                replacement=how.replacement,
            )
            for question, wanted in zip(questions, skills, strict=True)
        ]
        if how.trim > 0:
            rngs = [question_rng(how.seed, question, "trim") for question in questions]
            drawn = trim(drawn, rngs, share=how.trim, replacement=how.replacement)
        return [sorted(each) for each in drawn]

    def aggregator_for(self, skills: Sequence[int]) -> int:
        """Who reads the recruited experts' answers to a question with these skills."""
        overall = self.aggregation.sum(axis=1)
        if self.how.aggregator == "task" or not len(skills):
            return int(np.argmax(overall))
        local = self.aggregation[:, list(skills)].sum(axis=1)
        # Of several that did as well on these skills, the one that did best on all.
        return max(range(len(local)), key=lambda i: (local[i], overall[i], -i))

    def _graphs(self, questions: Sequence[str], named: Sequence[Sequence[str]]) -> list[AgentGraph]:
        skills = self.known_skills(named)
        graphs: dict[tuple[str, ...], AgentGraph] = {}
        chosen = []
        for recruited, wanted in zip(self.recruited(questions, skills), skills, strict=True):
            if self.vote is not None:
                end = _counter_name(len(recruited))
            else:
                end = self._experts[self.aggregator_for(wanted)]
            cast = (*(self._experts[i] for i in recruited), end)
            if cast not in graphs:
                roles = [self.how.role] * len(recruited)
                graphs[cast] = star(cast, roles=[*roles, self.how.aggregator_role])
            chosen.append(graphs[cast])
        return chosen

    def extend(self, pool: Pool) -> Pool:
        """With who counts votes: one for every number of voters there can be."""
        if self.vote is None:
            return pool
        counters = [
            vote_counter(_counter_name(voters), pool, self.vote, voters)
            for voters in range(1, self.how.k + 1)
            if _counter_name(voters) not in pool
        ]
        return pool.of([*pool.values(), *counters])

    @staticmethod
    def check_vote(scorer: Scorer) -> None:
        """Refuses scorers whose reading of answers can't be saved with the policy.

        Raises:
            TaskError: it is a function of the user's.
        """
        if scorer.name not in SCORERS:
            raise TaskError(
                f"a vote needs one of the scorers {', '.join(f'`{name}`' for name in SCORERS)} to "
                f'read answers, and the task has `{scorer.name}`: use `final = "aggregator"`'
            )

    def _embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        if self._encode is None:
            from swarm.optimizers.embedding import Encoder

            self._encode = Encoder(self.encoder)
        return self._encode(texts)

    def without(self, gone: Sequence[str]) -> Recruiter:
        if self.source.annotator in gone:
            raise PoolError(
                f"policy `{self.name}` asks `{self.source.annotator}` for the skills of every "
                "question, and it is gone: put it back, or fit again with another annotator"
            )
        left = [i for i, name in enumerate(self._experts) if name not in gone]
        return Recruiter(
            [self._experts[i] for i in left],
            self.skills,
            self.profile[left],
            self.aggregation[left],
            source=self.source,
            settings=self.how,
            vectors=self.vectors,
            tags=self.tags,
            vote=self.vote,
            encode=self._encode,
            encoder=self.encoder,
        )

    def settings(self) -> dict[str, Any]:
        return {**self.how.model_dump(), **self.source.model_dump(exclude_defaults=True)}

    def state(self) -> tuple[dict[str, Any], Arrays]:
        values = {
            "experts": list(self._experts),
            "skills": list(self.skills),
            "source": self.source.model_dump(),
            "settings": self.how.model_dump(),
            "tags": {question: list(named) for question, named in self.tags.items()},
            "vote": None if self.vote is None else {"name": self.vote.name, **asdict(self.vote)},
            "encoder": self.encoder,
        }
        arrays: dict[str, NDArray[Any]] = {
            "profile": self.profile,
            "aggregation": self.aggregation,
        }
        if self.vectors is not None:
            arrays["vectors"] = self.vectors
        return values, arrays

    @classmethod
    def from_state(cls, values: Mapping[str, Any], arrays: Arrays) -> Self:
        return cls(
            values["experts"],
            values["skills"],
            arrays["profile"],
            arrays["aggregation"],
            source=Source.model_validate(values["source"]),
            settings=RecruitSettings.model_validate(values["settings"]),
            vectors=arrays.get("vectors"),
            tags=values["tags"],
            vote=None if values["vote"] is None else get_scorer(values["vote"]),
            encoder=values["encoder"],
        )


def _counter_name(voters: int) -> str:
    return f"vote of {voters}"


async def annotate(
    ask: Ask, annotator: str, questions: Sequence[str], *, times: int, said: int
) -> list[list[str]]:
    """The skills of each question, as an expert names them when it is asked several times.

    Raises:
        EngineError: not one question was answered.
    """
    answers = await ask(annotator, [annotation_prompt(q) for q in questions], draws=times)
    errors = [each for row in answers for each in row if isinstance(each, EngineError)]
    if errors and len(errors) == sum(map(len, answers)):
        raise errors[0]
    # Who does not sample says the same every time.
    said = min(said, times)
    return [
        keywords([each.text for each in row if isinstance(each, Response)], said=said)
        for row in answers
    ]
