"""How MasRouter's controller learns: by policy gradient on score minus λ times cost.

MasRouter, arXiv 2502.11133, section 4.4. All questions of a batch are answered together, by
whatever graphs were drawn for them, so that the scheduler can batch by model; the published code
answers one after the other.
"""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field

from swarm.agents.role import Role
from swarm.graphs.graph import AgentGraph
from swarm.optimizers.masrouter.policy import (
    RoutingSettings,
    Vectors,
    build_graphs,
    choose,
    draws_of,
    given_of,
    uniform_numbers,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from swarm.optimizers.masrouter.controller import Controller, Draws

Floats = NDArray[np.float64]
Answer = Callable[[Sequence[AgentGraph], Sequence[int]], Awaitable[tuple[Floats, Floats]]]
"""Graphs, and the row of the question that each answers → their scores and costs, (n,) each."""


class TrainingSettings(RoutingSettings):
    """The paper's knobs, with its values, and ours, which are off by `reference`."""

    model_config = ConfigDict(populate_by_name=True)

    lam: float = Field(0.0, ge=0, alias="lambda")
    """λ: how much score a unit of cost takes off."""
    cost: Literal["usd", "tokens", "calls"] = "usd"
    """What cost is counted in: by the experts' prices, or in thousands of tokens, or in calls."""
    epochs: int = Field(10, ge=1)
    """The published code's are 5."""
    batch: int = Field(32, ge=1)
    """Questions a step; the paper's are 16."""
    learning_rate: float = Field(0.003, gt=0)
    """The paper's is 0.01."""
    vae: float = Field(0.001, ge=0)
    """Weight of the encoders' losses."""
    train: float = Field(1.0, gt=0, le=1)
    """Share of the questions that is trained on (the paper takes 0.2 of a benchmark)."""
    samples: int = Field(8, ge=1)
    """Graphs drawn for a question in one step; the paper's is 1. Few questions with many samples
    each learn more from as many graphs than the other way round."""
    baseline: Literal["none", "batch", "question"] = "question"
    """What is subtracted from the utility, which leaves the gradient's mean and lowers its variance
    (Williams 1992): nothing, as published; the batch's mean; the mean of the question's other
    samples."""
    updates: int = Field(8, ge=1)
    """Gradient steps that are taken on the graphs of one step, which cost far more than these
    (proximal policy optimisation, arXiv 1707.06347, equation 7); 1 as published."""
    clip: float = Field(0.2, gt=0, lt=1)
    """ε there: how far the probability of a graph may have moved from that by which it was drawn,
    relatively, before moving on is no more gain. Matters with several `updates` only."""
    normalise: bool = True
    """Whether what is left is divided by its root mean square over the batch, so that cost is still
    learned from when all are solved and nothing else is left to tell graphs apart; False as
    published."""
    settle: float = Field(0.4, ge=0, le=0.5)
    """Share of the training in which cost does not count; in as much again λ rises to its value.
    What solves a question is learned first, and then to do it for less: else the first lesson can
    be that all should cost little, after which nothing else is tried. 0 as published."""
    entropy: float = Field(0.01, ge=0)
    """Reward for undecidedness, which keeps the controller from settling early; 0 as published."""
    doubt: float = Field(0.1, ge=0)
    """Weight of the punishment for being nearly sure of a drawn number: if it is always the same it
    has no other to be compared with, and never changes again. 0 as published."""
    keep_best: bool = True
    """Whether what is kept is the controller after the epoch in which its likeliest choices had the
    highest utility, on the questions that it learns from; else after the last one, as published."""
    draw_codes: bool = False
    """Whether the encoders' codes are drawn while training, as published; else they are means."""
    warm: int = Field(100, ge=0)
    """Steps before all others, in which the models' distribution learns from what each expert made
    of each question alone: that is known by then for every expert, so nothing is asked or drawn.
    0 as published."""


WARMTH = 0.1
"""Temperature of the utilities that the warm start aims at."""

AS_PUBLISHED: dict[str, Any] = {
    "epochs": 5,
    "batch": 16,
    "samples": 1,
    "baseline": "none",
    "updates": 1,
    "normalise": False,
    "settle": 0.0,
    "entropy": 0.0,
    "doubt": 0.0,
    "keep_best": False,
    "sample": True,
    "sharpness": 1.0,
    "learning_rate": 0.01,
    "decide_alone": True,
    "draw_number": False,
    "in_turn": False,
    "draw_codes": True,
    "warm": 0,
}
"""What `reference` sets."""


class Epoch(NamedTuple):
    """What an epoch came to. The one before all others is there if the controller came trained;
    nothing is learned in it, and its graphs are the likeliest choices."""

    number: int
    score: float
    """Mean over the graphs of each step, and over the steps."""
    cost: float
    """Likewise."""
    utility: float | None
    """After it, the mean of the likeliest choices on the questions that are learned from; None:
    nobody wanted to know."""


class Training(NamedTuple):
    """What a training came to."""

    epochs: list[Epoch]
    kept: Epoch
    """After it the controller was what it is."""

    def told(self) -> list[dict[str, Any]]:
        """Each epoch's figures, and whether what came of it was kept."""
        return [
            {
                "epoch": epoch.number,
                "score": epoch.score,
                "cost": epoch.cost,
                "utility of the likeliest": epoch.utility,
                "kept": epoch is self.kept,
            }
            for epoch in self.epochs
        ]


async def train(
    controller: Controller,
    vectors: Vectors,
    questions: Sequence[str],
    domains: Sequence[int],
    roles: Sequence[Role],
    experts: Sequence[str],
    answer: Answer,
    settings: TrainingSettings,
    *,
    given: AgentGraph | None = None,
    alone: Floats | None = None,
    trained: bool = False,
    epoch_done: Callable[[Epoch], None] = lambda epoch: None,
) -> Training:
    """Trains `controller` in place; the same questions and seed train the same.

    Args:
        vectors: embeddings of the questions, (n, d).
        domains: each question's, as a position; what the task classifier learns.
        alone: (n, m): the utility of each expert asked alone; see `TrainingSettings.warm`.
        trained: whether the controller comes trained: it may then be the best of all epochs.
        epoch_done: is given every epoch that is learned in when it is over.
    """
    import torch

    rng = np.random.default_rng(settings.seed)
    noise = torch.Generator().manual_seed(int(rng.integers(2**31)))
    codes = noise if settings.draw_codes else None
    optimizer = torch.optim.Adam(controller.parameters(), lr=settings.learning_rate)
    labels = torch.tensor(list(domains), dtype=torch.long)
    width = draws_of(settings.max_agents)
    chosen = rng.permutation(len(questions))[: max(1, round(settings.train * len(questions)))]
    if alone is not None and settings.warm:
        own = sorted(chosen)
        _warm_up(controller, vectors[own], labels[own], alone[own], roles, settings, given, codes)
    epochs: list[Epoch] = []
    steps = count()
    best: tuple[float, Epoch, dict[str, Tensor]] | None = None
    """Utility, epoch, and parameters after it."""

    def over(epoch: Epoch) -> None:
        nonlocal best
        epochs.append(epoch)
        if epoch.utility is not None and (best is None or epoch.utility >= best[0]):
            best = epoch.utility, epoch, copy.deepcopy(controller.state_dict())

    async def likeliest() -> tuple[float, float, float]:
        """Score, cost and utility of what the controller would choose now."""
        undrawn = np.full((len(chosen), width), np.nan, np.float32)
        with torch.no_grad():
            draws = choose(controller, vectors[chosen], undrawn, given, roles)
        graphs = build_graphs(draws, experts, roles, settings, given)
        scores, costs = await answer(graphs, [int(row) for row in chosen])
        score, cost = float(scores.mean()), float(costs.mean())
        return score, cost, score - settings.lam * cost

    if trained and settings.keep_best:
        over(Epoch(0, *await likeliest()))
    for epoch in range(settings.epochs):
        order = rng.permutation(chosen)
        found: list[tuple[float, float]] = []
        for start in range(0, len(order), settings.batch):
            rows = order[start : start + settings.batch].repeat(settings.samples)
            purposes = [f"train {epoch} {k}" for k in range(settings.samples)]
            drawn = [
                uniform_numbers(settings.seed, [questions[i]], width, purposes[k])
                for i in rows[:: settings.samples]
                for k in range(settings.samples)
            ]
            look = partial(
                choose, controller, vectors[rows], np.concatenate(drawn), given, roles, noise=codes
            )
            draws = first = look()
            graphs = build_graphs(draws, experts, roles, settings, given)
            scores, costs = await answer(graphs, [int(row) for row in rows])
            # Utility: solved - λ · cost.
            behind = next(steps) * settings.batch / (settings.epochs * len(chosen))
            lam = settings.lam * _risen(behind, settings.settle)
            utility = scores - lam * costs
            gain = torch.from_numpy(_gains(utility, settings)).to(torch.float32)
            for k in range(settings.updates):
                if k:
                    draws = look(taken=first)
                loss = _loss(draws, first.log_probability.detach(), gain, labels[rows], settings)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
            found.append((float(scores.mean()), float(costs.mean())))
        score, cost = (float(mean) for mean in np.mean(found, axis=0))
        reached = (await likeliest())[-1] if settings.keep_best else None
        over(Epoch(epoch + 1, score, cost, reached))
        epoch_done(epochs[-1])
    if best is None:
        return Training(epochs, epochs[-1])
    _, kept, parameters = best
    controller.load_state_dict(parameters)
    return Training(epochs, kept)


def _loss(
    draws: Draws, before: Tensor, gain: Tensor, labels: Tensor, settings: TrainingSettings
) -> Tensor:
    """Of n graphs, drawn with log-probabilities `before` (n,), that came to `gain` (n,). In the
    first of their updates its gradient is that of -log π · gain."""
    import torch
    from torch.nn import functional

    ratio = torch.exp(draws.log_probability - before)
    near = ratio.clamp(1.0 - settings.clip, 1.0 + settings.clip)
    loss = -torch.minimum(ratio * gain, near * gain).mean()
    loss = loss + functional.cross_entropy(draws.task_logits, labels)
    loss = loss + settings.vae * draws.vae_loss - settings.entropy * draws.entropy.mean()
    return loss + settings.doubt * draws.too_sure.mean()


def _warm_up(
    controller: Controller,
    vectors: Vectors,
    labels: Tensor,
    alone: Floats,
    roles: Sequence[Role],
    settings: TrainingSettings,
    graph: AgentGraph | None,
    noise: torch.Generator | None,
) -> None:
    """Brings an agent's π(m) near softmax(u(m) / `WARMTH`), u the utility of m alone, for all
    questions in every step, in whatever mode and roles. A question counts as much as the choice
    matters, max u - min u, and a little more. (To climb Σ π(m) u(m) itself ends at the best single
    expert for all, where softmax is sharp.) Where models are drawn in turn, those that come later
    learn the same of the experts that are not drawn yet."""
    import torch
    from torch.nn import functional

    from swarm.optimizers.masrouter.controller import Given

    n, most = len(vectors), controller.max_agents
    optimizer = torch.optim.Adam(controller.parameters(), lr=settings.learning_rate)
    draws = torch.Generator().manual_seed(settings.seed)
    utility = torch.from_numpy(alone).to(torch.float32)
    spread = utility.amax(dim=-1) - utility.amin(dim=-1)
    weight = 0.1 + spread / spread.mean().clamp(min=1e-9)
    questions = torch.from_numpy(vectors)
    for _ in range(settings.warm):
        if graph is None:
            numbers = torch.randint(1, most + 1, (n,), generator=draws)
            modes = torch.randint(len(controller.modes), (n,), generator=draws)
            given = Given(modes=modes, numbers=numbers)
        else:
            given = given_of(graph, n, controller, roles)
        drawn = controller(
            questions,
            torch.rand(n, draws_of(most), generator=draws),
            given=given,
            each_role=graph is not None,
            noise=noise,
        )
        reach = drawn.model_log_p.shape[1]
        there = torch.arange(reach)[None] < drawn.numbers[:, None]
        taken = functional.one_hot(drawn.models[:, :reach], len(controller.models))
        before = taken.cumsum(dim=1) - taken > 0
        # Who has drawn all begins anew.
        before &= ~before.all(dim=-1, keepdim=True)
        if not settings.in_turn:
            before = torch.zeros_like(before)
        target = torch.softmax((utility[:, None] / WARMTH).masked_fill(before, -torch.inf), dim=-1)
        each = -(target * drawn.model_log_p).sum(dim=-1) * there * weight[:, None]
        loss = each.sum() / there.sum() + settings.vae * drawn.vae_loss
        loss = loss + functional.cross_entropy(drawn.task_logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def _risen(behind: float, settle: float) -> float:
    """What λ is, as a share of its value, when a share `behind` of the training is over."""
    return min(1.0, max(0.0, behind / settle - 1.0)) if settle else 1.0


def _gains(utility: Floats, settings: TrainingSettings) -> Floats:
    """What the utilities of consecutive samples of each question say for them."""
    gain = utility
    if settings.baseline == "question" and settings.samples > 1:
        each = utility.reshape(-1, settings.samples)
        others = (each.sum(axis=1, keepdims=True) - each) / (settings.samples - 1)
        gain = (each - others).ravel()
    elif settings.baseline != "none" and len(utility) > 1:
        gain = utility - utility.mean()
    if settings.normalise:
        # Utilities that are equal but for rounding are equal.
        gain = gain / max(float(np.sqrt(np.mean(gain**2))), 1e-9)
    return gain
