"""MasRouter's controller: question → mode, number of agents, their roles, their models.

MasRouter, arXiv 2502.11133, section 4. A cascade of small networks over sentence embeddings: each
choice is drawn from a softmax over cosines of codes, and sees the choices before it. This module
knows vectors only; what is chosen becomes a graph in `policy.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

H = 64
"""h: the width of all codes."""
NOISE = 0.1
"""By how much a code's standard deviation is scaled when it is drawn, and that of the prior."""
TASK_TEMPERATURE, MODE_TEMPERATURE = 0.5, 0.8
ROLE_TEMPERATURE, MODEL_TEMPERATURE = 0.5, 1.0
"""τ of the softmax over cosines."""
SUREST = 2.2
"""Log-odds beyond which the drawn number's binomial, then above .9 or below .1, is too sure."""


class VAE(nn.Module):
    """A variational encoder of embeddings: z = μ + ε · exp(½ log σ²) · 0.1 with ε ~ N(0, 1)."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(d, H)
        self.mean = nn.Linear(H, H)
        self.log_variance = nn.Linear(H, H)
        self.decoder = nn.Sequential(nn.Linear(H, H), nn.ReLU(), nn.Linear(H, d))

    def forward(self, x: Tensor, noise: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """Codes (n, h) of embeddings (n, d), and the loss: mean squared error of what is decoded
        from them, and the divergence of N(μ, (0.1 σ)²) from N(0, 0.1²). Without `noise` z is μ."""
        hidden = functional.relu(self.hidden(x))
        mean, log_variance = self.mean(hidden), self.log_variance(hidden)
        code = mean
        if noise is not None:
            epsilon = torch.randn(mean.shape, generator=noise)
            code = mean + epsilon * torch.exp(0.5 * log_variance) * NOISE
        error = functional.mse_loss(self.decoder(code), x)
        terms = log_variance.exp() + (mean / NOISE) ** 2 - 1.0 - log_variance
        return code, error + 0.5 * terms.mean()


class Draws(NamedTuple):
    """What was chosen for n questions; rows of agents beyond a question's number say nothing."""

    modes: Tensor
    """(n,), positions among the modes."""
    numbers: Tensor
    """(n,), how many agents."""
    roles: Tensor
    """(n, max agents), positions among the roles."""
    models: Tensor
    """(n, max agents), positions among the models."""
    log_probability: Tensor
    """(n,), log π of mode, roles and models; its gradient also reaches the number."""
    model_log_p: Tensor
    """(n, agents, models), log of the probabilities that each agent's model was drawn by; agents up
    to the largest of the numbers."""
    task_logits: Tensor
    """(n, tasks)."""
    vae_loss: Tensor
    """A number: the sum of all encoders' losses."""
    entropy: Tensor
    """(n,), of the distributions of the mode, of the number where it is drawn, and of the models
    (their mean over agents); for those who reward it."""
    too_sure: Tensor
    """(n,), the square of what the drawn number's log-odds go beyond `SUREST`; for those who punish
    it."""


class Given(NamedTuple):
    """What is not to be chosen, for n questions: None leaves it to the controller."""

    modes: Tensor | None = None
    numbers: Tensor | None = None
    roles: Tensor | None = None
    models: Tensor | None = None


class Controller(nn.Module):
    """The cascade.

    Args:
        tasks: embeddings of the domains' descriptions, (domains, d).
        modes, models: embeddings of theirs, (modes, d) and (models, d).
        roles: embeddings of all domains' roles, (roles, d).
        domains: each domain's roles, as positions among `roles`.
        max_agents: the largest number.
        sharpness: what all temperatures but the task classifier's are divided by; 1: as published.
            Cosines are at most 1: at a temperature of 1 the best of nine models can't be drawn
            with a probability above .48, however sure the controller is.
        draw_number: whether the number is 1 + a draw of Binomial(max agents - 1, difficulty), so
            that its gradient is the policy's, too. Published is difficulty · max agents, rounded:
            its gradient, by way of Γ, does not know what other numbers would have come to.
        in_turn: whether an agent's model also depends on those drawn before it, so that models can
            come in an order. Published are independent draws.
    """

    tasks: Tensor
    modes: Tensor
    roles: Tensor
    models: Tensor
    allowed: Tensor
    """(domains, roles), bool: which roles a domain has."""

    def __init__(
        self,
        tasks: Tensor,
        modes: Tensor,
        roles: Tensor,
        models: Tensor,
        *,
        domains: Sequence[Sequence[int]],
        max_agents: int = 6,
        sharpness: float = 1.0,
        draw_number: bool = False,
        in_turn: bool = False,
    ) -> None:
        super().__init__()
        d = tasks.shape[1]
        allowed = torch.zeros(len(tasks), len(roles), dtype=torch.bool)
        for domain, positions in enumerate(domains):
            allowed[domain, list(positions)] = True
        for name, value in (
            ("tasks", tasks),
            ("modes", modes),
            ("roles", roles),
            ("models", models),
            ("allowed", allowed),
        ):
            self.register_buffer(name, value, persistent=False)
        self.max_agents = max_agents
        self.sharpness = sharpness
        self.draw_number = draw_number
        # Task classifier.
        self.question_to_task = nn.Linear(d, H)
        self.task_to_code = nn.Linear(d, H)
        # Mode.
        self.mode_vae, self.mode_question_vae = VAE(d), VAE(d)
        # Number of agents.
        self.number_vae, self.difficulty = VAE(d), nn.Linear(H, 1)
        # Roles.
        self.role_vae = VAE(d)
        self.role_norm = nn.LayerNorm(H)
        self.role_context = nn.Linear(3 * H, H)
        # Models.
        self.model_vae, self.model_question_vae = VAE(d), VAE(d)
        self.model_context = nn.Linear(3 * H, H)
        self.models_before = nn.Linear(H, H) if in_turn else None
        # What a cosine loses each time that its model was drawn before.
        self.again = nn.Parameter(torch.tensor(0.5)) if in_turn else None

    def forward(
        self,
        questions: Tensor,
        uniform: Tensor,
        *,
        given: Given | None = None,
        taken: Draws | None = None,
        noise: torch.Generator | None = None,
        each_role: bool = False,
    ) -> Draws:
        """Chooses for n questions.

        Args:
            questions: embeddings, (n, d).
            uniform: what decides the draws, in [0, 1), (n, 2 + 2 · max agents): one for the mode,
                then one for every role, one for every model, and one for the number. NaN takes the
                likeliest.
            given: what is not to be chosen; its probability does not count.
            taken: what was chosen before: it is taken again, with the probability that it has now.
            noise: draws the encoders' ε; None: codes are their means.
            each_role: agents' models are chosen by their own role in place of the sum of all (for a
                graph whose roles are given, where it matters which agent a model plays).
        """
        given, n, most = given or Given(), len(questions), self.max_agents
        losses: list[Tensor] = []

        def code(vae: VAE, x: Tensor) -> Tensor:
            coded: tuple[Tensor, Tensor] = vae(x, noise)
            losses.append(coded[1])
            return coded[0]

        # Task: softmax(cos / 0.5); its arg max says whose roles may be drawn.
        projected = functional.normalize(self.question_to_task(questions), dim=-1)
        tasks = functional.normalize(self.task_to_code(self.tasks), dim=-1)
        task_logits = projected @ tasks.T / TASK_TEMPERATURE
        decided = task_logits if taken is None else taken.task_logits
        allowed = self.allowed[decided.argmax(dim=-1)]

        # Mode: softmax(cos / 0.8).
        mode_codes = code(self.mode_vae, self.modes)
        mode_logits = _cosines(code(self.mode_question_vae, questions), mode_codes)
        mode_logits = mode_logits * (self.sharpness / MODE_TEMPERATURE)
        log_p = torch.zeros(n)
        if given.modes is not None:
            modes = given.modes
        else:
            modes = _draw(mode_logits, uniform[:, 0]) if taken is None else taken.modes
            log_p = log_p + _log_p(mode_logits, modes)
        mode = mode_codes[modes]

        # Number: sigmoid(linear(z)) × the largest, rounded; the real number is in log π below.
        difficulty = self.difficulty(code(self.number_vae, questions))[:, 0]
        real = torch.sigmoid(difficulty) * most
        numbers = real.detach().round().clamp(1, most).long() if taken is None else taken.numbers
        entropy, too_sure = _entropy(mode_logits), torch.zeros(n)
        if given.numbers is not None:
            numbers, real = given.numbers, given.numbers.to(real.dtype)
        elif self.draw_number:
            odds = difficulty * self.sharpness
            too_sure = functional.relu(odds.abs() - SUREST) ** 2
            number_logits = _binomial(odds, most)
            drawn = _draw(number_logits, uniform[:, -1]) if taken is None else taken.numbers - 1
            log_p = log_p + _log_p(number_logits, drawn)
            entropy = entropy + _entropy(number_logits)
            numbers = drawn + 1
            real = numbers.to(real.dtype)
        real = real.clamp(min=1.0)

        # Roles: one after the other, each seeing the layer-normed sum of those before it.
        role_codes = code(self.role_vae, self.roles)
        summary = torch.zeros(n, H)
        roles = torch.zeros(n, most, dtype=torch.long)
        reach = int(numbers.max()) if n else 0
        for i in range(reach):
            present = i < numbers
            if given.roles is not None:
                drawn = given.roles[:, i]
            else:
                context = torch.cat([projected, mode, self.role_norm(summary)], dim=-1)
                logits = _cosines(self.role_context(context), role_codes)
                logits = logits * (self.sharpness / ROLE_TEMPERATURE)
                logits = logits.masked_fill(~allowed, -torch.inf)
                drawn = _draw(logits, uniform[:, 1 + i]) if taken is None else taken.roles[:, i]
                log_p = log_p + torch.where(present, _log_p(logits, drawn), 0.0)
            roles[:, i] = drawn
            summary = summary + role_codes[drawn] * present[:, None]

        # Models: every agent draws for itself from softmax(cos / 1.0).
        question = code(self.model_question_vae, questions)
        model_codes = code(self.model_vae, self.models)
        told = (
            role_codes[roles[:, :reach]]
            if each_role
            else self.role_norm(summary)[:, None].expand(-1, reach, -1)
        )
        context = torch.cat(
            [
                question[:, None].expand(-1, reach, -1),
                mode[:, None].expand(-1, reach, -1),
                told,
            ],
            dim=-1,
        )
        queries = self.model_context(context)
        there = torch.arange(reach)[None] < numbers[:, None]
        models = torch.zeros(n, most, dtype=torch.long)
        each: list[Tensor] = []
        before, times = torch.zeros(n, H), torch.zeros(n, len(self.models))
        for i in range(reach):
            query = queries[:, i]
            if self.models_before is not None:
                query = query + self.models_before(functional.normalize(before, dim=-1))
            logits = _cosines(query, model_codes)
            if self.again is not None:
                logits = logits - self.again * times
            logits = logits * (self.sharpness / MODEL_TEMPERATURE)
            drawn = _draw(logits, uniform[:, 1 + most + i]) if taken is None else taken.models[:, i]
            each.append(torch.log_softmax(logits, dim=-1))
            player = given.models[:, i] if given.models is not None else drawn
            models[:, i] = player
            before = before + model_codes[player]
            times = times + functional.one_hot(player, len(self.models))
        model_log_p = torch.stack(each, dim=1)
        if given.models is None:
            drawn = models[:, :reach]
            chosen = model_log_p.gather(-1, drawn[..., None])[..., 0]
            log_p = log_p + torch.where(there, chosen, 0.0).sum(dim=-1)
            counts = (functional.one_hot(drawn, len(self.models)) * there[..., None]).sum(dim=1)
            # The multinomial's log π: Γ(number as a real + 1) gives the number its gradient.
            log_p = log_p + torch.lgamma(real + 1.0) - torch.lgamma(counts + 1.0).sum(dim=-1)
        undecided = -(model_log_p.exp() * model_log_p).sum(dim=-1)
        entropy = entropy + (undecided * there).sum(-1) / numbers
        return Draws(
            modes,
            numbers,
            roles,
            models,
            log_p,
            model_log_p,
            task_logits,
            torch.stack(losses).sum(),
            entropy,
            too_sure,
        )


def _cosines(a: Tensor, b: Tensor) -> Tensor:
    """Of rows (…, h) with rows (m, h): (…, m)."""
    cosines: Tensor = functional.normalize(a, dim=-1) @ functional.normalize(b, dim=-1).T
    return cosines


def _binomial(logits: Tensor, most: int) -> Tensor:
    """Log-probabilities (n, most) of Binomial(most - 1, sigmoid(logits)), of (n,)."""
    k = torch.arange(most, dtype=logits.dtype)
    ways = torch.lgamma(torch.tensor(float(most))) - torch.lgamma(k + 1) - torch.lgamma(most - k)
    yes, no = functional.logsigmoid(logits)[:, None], functional.logsigmoid(-logits)[:, None]
    return ways + k * yes + (most - 1 - k) * no


def _draw(logits: Tensor, uniform: Tensor) -> Tensor:
    """Positions drawn from softmax(logits), (…, m) → (…): where the cumulated mass passes a uniform
    number. So what is drawn for a question depends on nothing but its own numbers."""
    mass = torch.softmax(logits.detach(), dim=-1)
    below = mass.cumsum(dim=-1) <= uniform[..., None]
    drawn = below.sum(dim=-1).clamp(max=logits.shape[-1] - 1)
    # The last positions may have no mass: rounding must not draw what is not allowed.
    likeliest = mass.argmax(dim=-1)
    no_mass = mass.gather(-1, drawn[..., None])[..., 0] == 0
    return torch.where(torch.isnan(uniform) | no_mass, likeliest, drawn)


def _log_p(logits: Tensor, drawn: Tensor) -> Tensor:
    return torch.log_softmax(logits, dim=-1).gather(-1, drawn[..., None])[..., 0]


def _entropy(logits: Tensor) -> Tensor:
    p = torch.softmax(logits, dim=-1)
    return -(p * torch.log_softmax(logits, dim=-1)).sum(dim=-1)
