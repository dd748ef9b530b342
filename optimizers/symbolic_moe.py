"""Symbolic-MoE: experts' skills are read off a validation set, without a gradient.

Symbolic-MoE, arXiv 2503.05641, section 3: skills of every question, each expert's profile by skill,
and the expert that aggregates best. What is fitted is the policy in `recruit.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from swarm.agents.expert import Pool
from swarm.agents.messages import Response
from swarm.agents.role import find_role
from swarm.errors import InputError, TaskError
from swarm.graphs.graph import name_agents
from swarm.optimizers.aggregation import Mixed, aggregation_prompts, mix
from swarm.optimizers.base import Workload
from swarm.optimizers.outcomes import Outcomes
from swarm.optimizers.policy import Bench, PolicyOptimizer, PolicySettings
from swarm.optimizers.recruit import Recruiter, RecruitSettings, Source, annotate
from swarm.optimizers.recruiting import profiles
from swarm.optimizers.skills import words_of
from swarm.runtime.runtime import gather
from swarm.tasks import Example, Task

AS_PUBLISHED = {"replacement": True, "aggregator": "task"}
"""What `reference` sets."""


class SymbolicMoESettings(RecruitSettings, PolicySettings):
    """How experts are recruited, and where the skills of a question come from: an annotator, a tag,
    or, where neither is given, the question's own words."""

    annotator: str | None = None
    """The expert of the pool that names skills."""
    tag: str | None = None
    """The key of the examples' `meta` that says them, as a text or a list of texts. Questions that
    are not the task's have none then, and get any experts."""
    rare: int = Field(1, ge=1)
    """Skills that fewer questions have are passed over; the paper keeps all."""
    match: bool | None = None
    """Whether a skill that is not known stands for the nearest known one, by embeddings; as
    published. None: yes, except for words of the question."""
    encoder: str | None = None
    """The embeddings' model: a folder or a hub's name; None: all-MiniLM-L6-v2."""
    wrong: int = Field(2, ge=1)
    """Wrong answers in an example of the synthetic aggregation task."""
    aggregations: int = Field(100, ge=1)
    """Examples of it, at most."""
    final: Literal["aggregator", "vote"] = "aggregator"
    """Who gives the final answer: the aggregator, as published, or the most frequent answer of the
    recruited, as the task's scorer reads answers."""

    reference: bool = False
    """Recruits as published: with replacement, and one aggregator for the task."""

    @model_validator(mode="before")
    @classmethod
    def _as_published(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("reference") is True:
            return {**AS_PUBLISHED, **given}
        return given

    @model_validator(mode="after")
    def _check_source(self) -> SymbolicMoESettings:
        if self.annotator is not None and self.tag is not None:
            raise ValueError("`annotator` and `tag` exclude each other: give one of them")
        return self

    @property
    def source(self) -> Source:
        words = self.annotator is None and self.tag is None
        return Source(annotator=self.annotator, tag=self.tag, words=words)

    @property
    def matches(self) -> bool:
        return not self.source.words if self.match is None else self.match


class _Known(NamedTuple):
    """The skills of the validation questions."""

    names: list[str]
    """s, sorted."""
    of: list[list[int]]
    """n: each question's, as positions in `names`."""


class SymbolicMoE(PolicyOptimizer):
    """Recruits experts per question by what they were good at.

    ```
    system = swarm.SymbolicMoE(annotator="qwen").fit(task, pool)
    ```

    Every expert answers the split once; the annotator is asked five times a question, and every
    expert for each example of the synthetic aggregation task.
    """

    name: ClassVar[str] = "symbolic_moe"
    paths: ClassVar[tuple[str, ...]] = ("encoder",)
    _type = SymbolicMoESettings
    _settings: SymbolicMoESettings

    def check(self, task: Task, pool: Pool, split: str) -> None:
        how = self._settings
        super().check(task, pool, split)
        find_role(how.aggregator_role, pool.roles)
        if how.annotator is not None:
            pool[how.annotator]
        if how.tag is not None and not any(how.tag in each.meta for each in task.split(split)):
            known = sorted({key for example in task.split(split) for key in example.meta})
            there = ", ".join(f"`{key}`" for key in known) or "none"
            raise TaskError(
                f"task `{task.name}`: no example of `{split}` has the tag `{how.tag}`: they have "
                f"{there}; or have an expert name the skills, by `annotator`"
            )
        if how.final == "vote":
            Recruiter.check_vote(task.scorer)
        if how.matches:
            from swarm.optimizers.embedding import Encoder

            Encoder(how.encoder)

    def workload(self, pool: Pool) -> Workload:
        # Answers, annotations and aggregations of a question: each a call of somebody.
        how = self._settings
        annotations = how.annotations if how.annotator is not None else 0
        experts = [*pool, *pool, *[how.annotator or ""] * annotations]
        # At last every question's star is run.
        experts += list(pool)[-1:] * (how.k + 1 if how.measure else 0)
        return Workload(name_agents(experts, how.role), iterations=1, graphs=1)

    def learn(self, outcomes: Outcomes) -> Recruiter:
        raise InputError("`SymbolicMoE` asks experts while it learns: use `fit`")

    async def alearn(self, outcomes: Outcomes, bench: Bench) -> Recruiter:
        how, task = self._settings, bench.task
        named = await self._name_skills(outcomes, bench)
        known = _known(named, how.rare)
        profile = profiles(outcomes.scores, known.of, len(known.names))
        vectors: NDArray[np.float32] | None = None
        if how.matches:
            from swarm.optimizers.embedding import Encoder

            vectors = Encoder(how.encoder)(known.names)
        aggregation = profile
        if how.final == "aggregator":
            aggregation = await self._try_aggregators(outcomes, bench, known, profile)
        tags: dict[str, list[str]] = {}
        if how.tag is not None:
            tags = {
                example.prompt: _tagged(example, how.tag)
                for examples in task.splits.values()
                for example in examples
            }
        return Recruiter(
            outcomes.experts,
            known.names,
            profile,
            aggregation,
            source=how.source,
            settings=RecruitSettings(**{k: getattr(how, k) for k in RecruitSettings.model_fields}),
            vectors=vectors,
            tags=tags,
            vote=task.scorer if how.final == "vote" else None,
            encoder=how.encoder,
        )

    async def _name_skills(self, outcomes: Outcomes, bench: Bench) -> list[list[str]]:
        how = self._settings
        if how.annotator is not None:
            return await annotate(
                bench.ask,
                how.annotator,
                outcomes.questions,
                times=how.annotations,
                said=how.said,
            )
        if how.tag is not None:
            return [_tagged(example, how.tag) for example in bench.examples]
        return [words_of(question) for question in outcomes.questions]

    async def _try_aggregators(
        self,
        outcomes: Outcomes,
        bench: Bench,
        known: _Known,
        profile: NDArray[np.float64],
    ) -> NDArray[np.float64]:
        """The experts' profiles as aggregators, (m, s), from the synthetic task."""
        how, pool = self._settings, bench.pool
        role = find_role(how.aggregator_role, pool.roles)
        mixed = mix(outcomes, wrong=how.wrong, seed=how.seed)[: how.aggregations]
        if not mixed:  # nobody is ever right alone among so many who are wrong: who is best, reads
            return profile

        async def attempt(name: str) -> list[float]:
            prompts = aggregation_prompts(pool[name], role, outcomes.questions, mixed)
            answers = await bench.ask(name, prompts, about=[each.row for each in mixed])
            return [
                _scored(bench, each, outcome)
                for each, (outcome,) in zip(mixed, answers, strict=True)
            ]

        scores = np.array(await gather(attempt(name) for name in outcomes.experts)).T
        return profiles(scores, [known.of[each.row] for each in mixed], len(known.names))


def _scored(bench: Bench, mixed: Mixed, outcome: Any) -> float:
    if not isinstance(outcome, Response):
        return 0.0
    return bench.task.score(bench.examples[mixed.row], outcome.text)


def _known(named: Sequence[Sequence[str]], rare: int) -> _Known:
    counts: dict[str, int] = {}
    for each in named:
        for name in set(each):
            counts[name] = counts.get(name, 0) + 1
    names = sorted(name for name, count in counts.items() if count >= rare)
    if not names:
        raise InputError(
            f"no skill is that of {rare} of {len(named)} questions or more: lower `rare`, or take "
            "skills from somewhere else (`annotator`, `tag`)"
        )
    index = {name: i for i, name in enumerate(names)}
    return _Known(names, [[index[n] for n in dict.fromkeys(each) if n in index] for each in named])


def _tagged(example: Example, tag: str) -> list[str]:
    value = example.meta.get(tag, ())
    return [str(each) for each in value] if isinstance(value, list | tuple) else [str(value)]
