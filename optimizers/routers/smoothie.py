"""Smoothie: how good experts are without a single right answer, from how much they agree.

Smoothie (arXiv 2412.04692): answers are vectors λ_i around an unknown true one, with independent
errors; then (section 4) E‖λ_i − y‖² = ½ (δ_ij + δ_ik − δ_jk) for any two others j and k, where
δ_ij = E‖λ_i − λ_j‖². Smoothie-Local takes the means over a question's neighbours, Smoothie-Global
over all questions. This is the variant that routes by answers to known questions, so that of a new
question one expert is asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from swarm.errors import InputError
from swarm.optimizers.outcomes import Floats, Outcomes
from swarm.optimizers.routers.base import Columns, Embedded
from swarm.optimizers.routers.knn import neighbour_means


@dataclass(kw_only=True, eq=False)
class Smoothie(Embedded):
    """Reads `Outcomes.answers`, and no scores: ties go to the expert that is named first.

    An estimate is 1 − ½ E‖λ_i − y‖²: the cosine with the true answer or, where answers are told
    apart as texts, the probability of being right.
    """

    name: ClassVar[str] = "smoothie"
    axes: ClassVar = {"errors": 1}

    neighbours: int | None = 40
    """n₀, of Smoothie-Local; None: Smoothie-Global. The paper's 1 is for test-time answers."""
    compare: Literal["texts", "vectors"] = "texts"
    """Answers differ as texts (short ones do), or as the encoder's vectors, as in the paper."""

    def _fit(self, outcomes: Outcomes, rng: np.random.Generator) -> None:
        if outcomes.answers is None:
            raise InputError("router `smoothie` learns from answers: give outcomes that have them")
        # Scores are what it must not know.
        self.learned["means"] = np.zeros(len(outcomes.experts))
        distances = self._distances(outcomes.answers)
        self.learned["errors"] = _errors(distances).astype(np.float32)
        self.learned["vectors"] = self.vectors(outcomes.questions)
        self.facts["neighbours"] = min(self.neighbours or len(outcomes), len(outcomes))

    def _distances(self, answers: Sequence[Sequence[str | None]]) -> Floats:
        """(n, m, m): δ of every two answers to a question; one that is missing agrees with none."""
        distances: Floats
        if self.compare == "vectors":
            texts = [answer or "" for row in answers for answer in row]
            vectors = self.encoder(texts).reshape(len(answers), len(answers[0]), -1)
            distances = 2 - 2 * np.einsum("nid,njd->nij", vectors, vectors).astype(np.float64)
        else:
            plain = [
                [" ".join((answer or "").lower().split()) for answer in row] for row in answers
            ]
            codes = np.unique(np.array(plain), return_inverse=True)[1].reshape(len(plain), -1)
            distances = 2.0 * (codes[:, :, None] != codes[:, None, :])
        missing = np.array([[answer is None for answer in row] for row in answers])
        distances[missing[:, :, None] | missing[:, None, :]] = 2.0
        diagonal = np.arange(distances.shape[1])
        distances[:, diagonal, diagonal] = 0.0
        return distances

    def estimates(self, questions: Sequence[str]) -> Floats:
        errors = self.learned["errors"]
        k = self.facts["neighbours"]
        means = neighbour_means(self.vectors(questions), self.learned["vectors"], errors, k)
        quality: Floats = np.clip(1 - means / 2, 0, 1)
        return quality

    def choose(self, values: Floats) -> Columns:
        chosen: Columns = np.argmax(values, axis=1)
        return chosen


def _errors(distances: Floats) -> Floats:
    """(n, m): ½ (δ_ij + δ_ik − δ_jk), its mean over all pairs j < k of others.

    Each δ_ij is in m − 2 pairs. Two experts err alike: nobody can tell them apart.
    """
    experts = distances.shape[1]
    to_others = distances.sum(axis=2)
    if experts < 3:
        alike: Floats = to_others / 2
        return alike
    all_pairs = distances.sum(axis=(1, 2))[:, None] / 2
    among_others = all_pairs - to_others
    pairs = (experts - 1) * (experts - 2) / 2
    errors: Floats = ((experts - 2) * to_others - among_others) / pairs / 2
    return errors


def _plain(answer: str) -> str:
    return " ".join(answer.lower().split())
