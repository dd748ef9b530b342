"""RouterDC: experts and questions as vectors of one space, learned by two contrastive losses.

RouterDC (arXiv 2409.19886). A question x is sent to the expert with the highest cosine
⟨E(x), k_t⟩, where the k_t are learned vectors, and E an encoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from swarm.errors import InputError, MissingPackageError
from swarm.optimizers.embedding import Vectors
from swarm.optimizers.outcomes import Floats, Outcomes
from swarm.optimizers.routers.base import Embedded, graded

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(kw_only=True, eq=False)
class RouterDC(Embedded):
    """The paper fine-tunes its encoder (mDeBERTaV3-base). Here it stays as it is, and a linear
    map on top of it is trained, with an offset: a question unlike all known ones is then read as
    any question, and goes to who is good at most. `fine_tune` trains the encoder, too, for which a
    GPU is advised, and has no offset.

    An estimate is a softmax over cosines, which tells experts apart but is no score: a trade-off
    with cost is in its unit.
    """

    name: ClassVar[str] = "router_dc"
    axes: ClassVar = {"expert_vectors": 0}

    positives: int = 3
    """K₊: of each question the best experts, pulled near."""
    negatives: int = 3
    """K₋: and the worst ones, pushed away; none that scores above 0.5."""
    clusters: int = 5
    """N, of questions: k-means of the encoder's vectors."""
    others: int = 3
    """H: questions of other clusters that a question is pushed away from."""
    sample_weight: float = 1.0
    """λ of the sample-sample loss."""
    temperature: float = 0.2
    """Cosines are divided by it. The paper's is 1, for an encoder that is trained along."""
    steps: int = 600
    cooling: float = 3.0
    """Learning rates fall, step by step, to e to the power of minus this."""
    batch: int = 64
    rate: float = 1e-3
    """Learning rate (AdamW) of the map and the experts' vectors."""
    offset_rate: float = 3e-3
    """That of the offset."""
    decay: float = 1.0
    """Weight decay of all three."""
    fine_tune: bool = False
    fine_tune_rate: float = 5e-5
    """Learning rate of the encoder: the paper's."""
    _tuned: Any = field(init=False, repr=False, default=None)

    def _fit(self, outcomes: Outcomes, rng: np.random.Generator) -> None:
        torch = _torch()
        start = self.encoder(outcomes.questions)
        grades = torch.as_tensor(graded(outcomes), dtype=torch.float32)
        clusters = torch.as_tensor(self._clusters(start))
        generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
        size, experts = start.shape[1], len(outcomes.experts)
        linear = torch.eye(size).requires_grad_()
        vectors = torch.randn(experts, size, generator=generator).requires_grad_()
        offset = torch.zeros(size, requires_grad=not self.fine_tune)
        groups = [{"params": [linear, vectors], "lr": self.rate, "weight_decay": self.decay}]
        self._tuned = _Tuned(self.encoder.folder) if self.fine_tune else None
        if self._tuned:
            groups.append({"params": self._tuned.parameters, "lr": self.fine_tune_rate})
        else:
            rate = {"lr": self.offset_rate, "weight_decay": self.decay}
            groups.append({"params": [offset], **rate})
        optimizer = torch.optim.AdamW(groups)
        cooler = torch.optim.lr_scheduler.ExponentialLR(
            optimizer, float(np.exp(-self.cooling / self.steps))
        )
        fixed = torch.as_tensor(start)
        for _ in range(self.steps):
            rows = torch.randint(len(start), (self.batch,), generator=generator)
            questions = [outcomes.questions[row] for row in rows.tolist()]
            base = self._tuned(questions) if self._tuned else fixed[rows]
            read = torch.nn.functional.normalize(base @ linear + offset, dim=1)
            loss = self._sample_expert_loss(read, vectors, grades[rows])
            loss = loss + self.sample_weight * self._sample_sample_loss(
                read, clusters[rows], generator
            )
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            cooler.step()
        self.learned["map"] = linear.detach().numpy()
        self.learned["offset"] = offset.detach().numpy()
        unit = torch.nn.functional.normalize(vectors.detach(), dim=1)
        self.learned["expert_vectors"] = unit.numpy()
        if self._tuned:
            self.learned |= self._tuned.weights()

    def _clusters(self, vectors: Vectors) -> Any:
        """The paper reduces vectors by t-SNE first; k-means of the vectors needs no reduction."""
        from sklearn.cluster import KMeans

        count = min(self.clusters, len(vectors))
        means = KMeans(count, n_init=3, random_state=self.seed % 2**32)
        return means.fit_predict(vectors).astype(np.int64)

    def _sample_expert_loss(self, read: Tensor, experts: Tensor, grades: Tensor) -> Tensor:
        """Section 3.2: Σ over t₊ of −log(e^{⟨E(x), k_t₊⟩} / (e^{⟨E(x), k_t₊⟩} + Σ_t₋ e^{…}))."""
        torch = _torch()
        similar = read @ torch.nn.functional.normalize(experts, dim=1).T / self.temperature
        k = min(self.positives, grades.shape[1])
        best, plus = grades.topk(k, dim=1)
        worst, minus = grades.topk(min(self.negatives, grades.shape[1]), dim=1, largest=False)
        # Who did well is no negative, nor who did not a positive.
        against = similar.gather(1, minus).masked_fill(worst > 0.5, -torch.inf)
        loss = torch.zeros(())
        for i in range(k):
            pair = torch.cat([similar.gather(1, plus[:, i : i + 1]), against], dim=1)
            each = -torch.log_softmax(pair, dim=1)[:, 0]
            loss = loss + (each * (best[:, i] > 0)).mean()
        total: Tensor = loss
        return total

    def _sample_sample_loss(self, read: Tensor, clusters: Tensor, generator: Any) -> Tensor:
        """Section 3.3: the same for a question of one's own cluster against H of others."""
        torch = _torch()
        similar = read @ read.T / self.temperature
        same = clusters[:, None] == clusters[None, :]
        same.fill_diagonal_(False)
        other = clusters[:, None] != clusters[None, :]
        able = same.any(dim=1) & other.any(dim=1)
        if not able.any():
            nothing: Tensor = torch.zeros(())
            return nothing
        plus = torch.multinomial(same[able].float(), 1, generator=generator)
        minus = torch.multinomial(other[able].float(), self.others, True, generator=generator)
        chosen = similar[able].gather(1, torch.cat([plus, minus], dim=1))
        loss: Tensor = -torch.log_softmax(chosen, dim=1)[:, 0].mean()
        return loss

    def vectors(self, questions: Sequence[str]) -> Vectors:
        if not self.fine_tune:
            return super().vectors(questions)
        if self._tuned is None:
            self._tuned = _Tuned(self.encoder.folder, self.learned)
        rows: Vectors = self._tuned.encode(questions)
        return rows

    def estimates(self, questions: Sequence[str]) -> Floats:
        read = self.vectors(questions).astype(np.float64) @ self.learned["map"]
        read += self.learned["offset"]
        read /= np.maximum(np.linalg.norm(read, axis=1, keepdims=True), 1e-12)
        logits = read @ self.learned["expert_vectors"].T / self.temperature
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        softmax: Floats = powers / powers.sum(axis=1, keepdims=True)
        return softmax


class _Tuned:
    """An encoder whose weights are its own."""

    PREFIX = "encoder."

    def __init__(self, folder: Any, weights: Any = None) -> None:
        from sentence_transformers import SentenceTransformer

        model: Any = SentenceTransformer(str(folder), local_files_only=True)
        self._model = model
        if weights is not None:
            torch = _torch()
            n = len(self.PREFIX)
            own = {
                name[n:]: torch.as_tensor(np.array(array))
                for name, array in weights.items()
                if name.startswith(self.PREFIX)
            }
            if not own:
                raise InputError("the router's own encoder is not with it: fit it again")
            model.load_state_dict(own)

    @property
    def parameters(self) -> list[Any]:
        return list(self._model.parameters())

    def weights(self) -> dict[str, Any]:
        state = self._model.state_dict()
        return {self.PREFIX + name: value.cpu().numpy() for name, value in state.items()}

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors that a gradient goes through."""
        torch = _torch()
        features = self._model.preprocess(list(texts))
        device = self._model.device
        features = {k: v.to(device) if hasattr(v, "to") else v for k, v in features.items()}
        read = self._model(features)["sentence_embedding"].cpu()
        unit: Tensor = torch.nn.functional.normalize(read, dim=1)
        return unit

    def encode(self, texts: Sequence[str]) -> Vectors:
        rows: Vectors = self._model.eval().encode(
            list(texts), normalize_embeddings=True, show_progress_bar=False
        )
        return rows


def _torch() -> Any:
    try:
        import torch
    except ModuleNotFoundError:
        raise MissingPackageError("torch", "local", "router `router_dc`") from None
    return torch
