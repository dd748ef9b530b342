"""The synthetic task on which an aggregator is chosen: one right answer among wrong ones.

Symbolic-MoE (arXiv 2503.05641, section 3.2): made from what the experts answered on the validation
questions, so that it costs no more answers than the aggregators' own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from swarm.agents.expert import Expert
from swarm.agents.prompt import Position
from swarm.agents.role import Role
from swarm.optimizers.draws import question_rng
from swarm.optimizers.outcomes import Outcomes
from swarm.runtime.fitting import Column

RIGHT = 0.5
"""A score from which an answer counts as right."""


class Mixed(NamedTuple):
    """A question with answers to aggregate."""

    row: int
    """Which question of the outcomes."""
    responses: tuple[str, ...]
    """One of them right, the others wrong, in random order."""


def mix(outcomes: Outcomes, *, wrong: int = 2, seed: int = 0) -> list[Mixed]:
    """A synthetic example of every question with a right answer and at least `wrong` wrong ones.

    Which answers are taken and their order are drawn, question by question. Empty where the
    outcomes have no answers.
    """
    found = []
    for row, (question, answers) in enumerate(
        zip(outcomes.questions, outcomes.answers or (), strict=False)
    ):
        scored = zip(answers, outcomes.scores[row], strict=True)
        given = [(text, score >= RIGHT) for text, score in scored if text is not None]
        # The same answer by two experts is one answer: a majority must not give it away.
        right = list(dict.fromkeys(text for text, is_right in given if is_right))
        false = list(dict.fromkeys(text for text, is_right in given if not is_right))
        if not right or len(false) < wrong:
            continue
        rng = question_rng(seed, question, "mix")
        chosen = [right[int(rng.integers(len(right)))]]
        chosen += [false[int(i)] for i in rng.choice(len(false), size=wrong, replace=False)]
        found.append(Mixed(row, tuple(chosen[int(i)] for i in rng.permutation(len(chosen)))))
    return found


def aggregation_prompts(
    expert: Expert, role: Role, questions: Sequence[str], mixed: Sequence[Mixed]
) -> Column:
    """What `expert` is asked as the end node of a star whose other agents gave these answers."""
    previous = [list(column) for column in zip(*(each.responses for each in mixed), strict=True)]
    asked = [questions[each.row] for each in mixed]
    every = range(len(previous))
    return Column(expert.style, role, Position.LAST, asked, previous, every)
