"""Matrix factorisation: who wins over whom, by a bilinear score of expert and question.

RouteLLM (arXiv 2406.18665), section 4.2: δ(M, q) = w₂ᵀ(v_M ⊙ (W₁ᵀ v_q + b)), with v_q the vector of
the question, and P(M wins over M' | q) = σ(δ(M, q) − δ(M', q)). The paper has two experts, one
strong and one weak; here there are any number of them, and every pair that scored differently is a
comparison.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from swarm.errors import MissingPackageError
from swarm.optimizers.outcomes import Floats, Outcomes
from swarm.optimizers.routers.base import Embedded


@dataclass(kw_only=True, eq=False)
class MatrixFactorization(Embedded):
    """An estimate is the expected share of others that an expert wins over, not a score: a
    trade-off with cost is in that unit."""

    name: ClassVar[str] = "matrix_factorization"
    axes: ClassVar = {"factors": 0}

    rank: int = 64
    """Numbers in v_M; the paper's is 128."""
    steps: int = 400
    batch: int = 256
    rate: float = 3e-3
    decay: float = 3e-3

    def _fit(self, outcomes: Outcomes, rng: np.random.Generator) -> None:
        try:
            import torch
        except ModuleNotFoundError:
            raise MissingPackageError("torch", "local", f"router `{self.name}`") from None
        vectors = torch.as_tensor(self.vectors(outcomes.questions))
        scores = torch.tensor(outcomes.scores, dtype=torch.float32)
        generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
        experts = torch.randn(scores.shape[1], self.rank, generator=generator) / self.rank**0.5
        project = torch.randn(vectors.shape[1], self.rank, generator=generator)
        project /= vectors.shape[1] ** 0.5
        # w₂ is no more than a scale of each of v_M's numbers: it is learned as part of them.
        trained = [experts, project, torch.ones(self.rank)]
        experts, project, bias = (each.requires_grad_() for each in trained)
        optimizer = torch.optim.AdamW([experts, project, bias], self.rate, weight_decay=self.decay)
        for _ in range(self.steps):
            rows = torch.randint(len(vectors), (self.batch,), generator=generator)
            delta = (vectors[rows] @ project + bias) @ experts.T
            gap = delta[:, :, None] - delta[:, None, :]
            won = scores[rows, :, None] - scores[rows, None, :]
            weight = won.clamp(min=0)
            loss = -(weight * torch.nn.functional.logsigmoid(gap)).sum() / weight.sum().clamp(min=1)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        self.learned["factors"] = experts.detach().numpy()
        self.learned["project"] = project.detach().numpy()
        self.learned["bias"] = bias.detach().numpy()

    def estimates(self, questions: Sequence[str]) -> Floats:
        read = self.vectors(questions) @ self.learned["project"] + self.learned["bias"]
        delta = (read @ self.learned["factors"].T).astype(np.float64)
        wins = 1 / (1 + np.exp(delta[:, None, :] - delta[:, :, None]))
        others = max(delta.shape[1] - 1, 1)
        share: Floats = (wins.sum(axis=2) - 0.5) / others  # less the tie with itself
        return share
