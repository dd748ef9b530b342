"""Who is recruited for a question: experts' profiles by skill, and draws by them.

Symbolic-MoE (arXiv 2503.05641, sections 3.1 and 3.2). An expert's profile counts, skill by skill,
how often it was right on the validation questions, less how often it was wrong.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def profiles(scores: Array, skills: Sequence[Sequence[int]], known: int) -> Array:
    """The experts' profiles, shape (m, known): +1 for a question with that skill that was answered
    right, -1 for one that was answered wrong.

    Args:
        scores: of n questions by m experts, shape (n, m), in [0, 1]. A graded score s counts
            2 s - 1, which is the paper's ±1 where answers are right or wrong.
        skills: each question's, as positions among the `known` ones.
    """
    has = np.zeros((len(skills), known))
    for row, positions in enumerate(skills):
        has[row, list(positions)] = 1.0
    profile: Array = (2.0 * np.nan_to_num(scores, nan=0.5) - 1.0).T @ has
    return profile


def strength(profile: Array, temperature: float = 0.5) -> Array:
    """The experts' global strength, shape (m,), with a sum of 1.

    The sum of each one's profile, shifted so that the weakest has 1, to the power of 1/temperature
    (section 3.2: temperature .5 squares it), normalised.
    """
    total = profile.sum(axis=1)
    # Divided before it is raised: only the ratios matter, and a cold temperature must not overflow.
    shifted = total - total.min() + 1.0
    raised = (shifted / shifted.max()) ** (1.0 / temperature)
    weights: Array = raised / raised.sum()
    return weights


def suitability(profile: Array, skills: Sequence[int], strengths: Array) -> Array:
    """Each expert's weight for a question with these skills, shape (m,), with a sum of 1.

    Its local score, the sum of its profile over the skills, times its global strength. Experts
    whose local score is not positive have 0; if none is positive, all scores are shifted so that
    the weakest has 1. Without skills all experts have the same weight.
    """
    count = len(strengths)
    if not len(skills):
        return np.full(count, 1.0 / count)
    local = profile[:, list(skills)].sum(axis=1)
    local = np.maximum(local, 0.0) if (local > 0).any() else local - local.min() + 1.0
    weights: Array = local * strengths
    weights /= weights.sum()
    return weights


def recruit(weights: Array, k: int, rng: np.random.Generator, *, replacement: bool) -> list[int]:
    """k experts drawn by their weights: positions, in the order of the draws.

    Without replacement, those with a weight of 0 are only drawn when the others are used up.
    """
    if replacement:
        return [int(i) for i in rng.choice(len(weights), size=k, p=weights)]
    drawn: list[int] = []
    left = weights.astype(np.float64).copy()
    while len(drawn) < min(k, len(weights)):
        if left.sum() <= 0:
            left = np.array([0.0 if i in drawn else 1.0 for i in range(len(left))])
        chosen = int(rng.choice(len(left), p=left / left.sum()))
        drawn.append(chosen)
        left[chosen] = 0.0
    return drawn


def trim(
    recruited: Sequence[Sequence[int]],
    rngs: Sequence[np.random.Generator],
    *,
    share: float = 0.05,
    replacement: bool = True,
) -> list[list[int]]:
    """Replaces those who were recruited rarely: a model is not loaded for a handful of questions.

    An expert with less than `share` of all recruitments is replaced, wherever it was drawn, by a
    draw from the others in proportion to theirs (section 3.2; 5 %).

    Args:
        rngs: one a question, so that what is drawn for it depends on nothing else.
        replacement: whether a question may have an expert twice.
    """
    counts = Counter(expert for each in recruited for expert in each)
    total = sum(counts.values())
    frequent = sorted(expert for expert, count in counts.items() if count >= share * total)
    if not frequent:  # so many experts that nobody has so large a share
        return [list(each) for each in recruited]
    weights = np.array([counts[expert] for expert in frequent], dtype=np.float64)
    often, trimmed = set(frequent), []
    for experts, rng in zip(recruited, rngs, strict=True):
        kept: list[int | None] = [e if e in often else None for e in experts]
        for place, expert in enumerate(kept):
            if expert is not None:
                continue
            taken = {e for e in kept if e is not None}
            free = np.array([replacement or e not in taken for e in frequent])
            if not free.any():
                continue  # everybody frequent is there already: one fewer
            p = weights * free
            kept[place] = frequent[int(rng.choice(len(frequent), p=p / p.sum()))]
        trimmed.append([expert for expert in kept if expert is not None])
    return trimmed
