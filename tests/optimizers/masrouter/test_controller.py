"""MasRouter's controller, symbol by symbol (arXiv 2502.11133 and its published code)."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from swarm.optimizers.masrouter.controller import VAE, Controller, Given, H, _binomial, _draw

D, MODES, ROLES, MODELS = 12, 6, 7, 5


def unit(rows, seed):
    x = torch.randn(rows, D, generator=torch.Generator().manual_seed(seed))
    return functional.normalize(x, dim=-1)


def controller(**options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Controller(
            unit(2, 1),
            unit(MODES, 2),
            unit(ROLES, 3),
            unit(MODELS, 4),
            domains=[[0, 1, 2], [3, 4, 5, 6]],
            **options,
        )


def uniform(n, seed=0, most=6):
    return torch.from_numpy(np.random.default_rng(seed).random((n, 2 + 2 * most), np.float32))


QUESTIONS = unit(40, 5)


def cosines(a, b):
    return functional.normalize(a, dim=-1) @ functional.normalize(b, dim=-1).T


def test_the_encoders_loss_by_hand():
    with torch.random.fork_rng():
        torch.manual_seed(1)
        vae = VAE(D)
    x = unit(3, 6)
    with torch.no_grad():
        code, loss = vae(x, torch.Generator().manual_seed(7))
        hidden = torch.relu(x @ vae.hidden.weight.T + vae.hidden.bias)
        mean, log_variance = vae.mean(hidden), vae.log_variance(hidden)
        epsilon = torch.randn(3, H, generator=torch.Generator().manual_seed(7))
        # z = μ + ε · exp(½ log σ²) · 0.1
        expected = mean + epsilon * torch.exp(log_variance / 2) * 0.1
        decoded = vae.decoder[2](torch.relu(vae.decoder[0](expected)))
        # KL(N(μ, (0.1 σ)²) ‖ N(0, 0.1²)), coordinate by coordinate.
        ours = torch.distributions.Normal(mean, 0.1 * torch.exp(log_variance / 2))
        prior = torch.distributions.Normal(0.0, 0.1)
        kl = torch.distributions.kl_divergence(ours, prior).mean()
    torch.testing.assert_close(code, expected)
    torch.testing.assert_close(loss, ((decoded - x) ** 2).mean() + kl)


def test_without_noise_a_code_is_its_mean():
    vae = VAE(D)
    x = unit(3, 6)
    code, _ = vae(x, None)
    torch.testing.assert_close(code, vae.mean(torch.relu(vae.hidden(x))))


def test_tasks_and_modes_have_their_temperatures():
    made = controller()
    with torch.no_grad():
        draws = made(QUESTIONS, uniform(40))
        tasks = cosines(made.question_to_task(QUESTIONS), made.task_to_code(made.tasks)) / 0.5
        torch.testing.assert_close(draws.task_logits, tasks)
        # Only the mode's probability counts where all else is given.
        fixed = Given(
            numbers=torch.ones(40, dtype=torch.long),
            roles=torch.zeros(40, 6, dtype=torch.long),
            models=torch.zeros(40, 6, dtype=torch.long),
        )
        draws = made(QUESTIONS, uniform(40), given=fixed)
        question, _ = made.mode_question_vae(QUESTIONS, None)
        codes, _ = made.mode_vae(made.modes, None)
        expected = torch.log_softmax(cosines(question, codes) / 0.8, dim=-1)
        expected = expected[torch.arange(40), draws.modes]
    torch.testing.assert_close(draws.log_probability, expected)
    assert len(set(draws.modes.tolist())) > 2


def test_the_number_is_the_difficulty_times_the_most_rounded():
    made = controller()
    with torch.no_grad():
        made.difficulty.weight.mul_(30)
        draws = made(QUESTIONS, uniform(40))
        code, _ = made.number_vae(QUESTIONS, None)
        real = torch.sigmoid(made.difficulty(code))[:, 0] * 6
    assert draws.numbers.tolist() == real.round().clamp(1, 6).long().tolist()
    assert len(set(draws.numbers.tolist())) > 1


def test_roles_see_those_before_them_and_are_of_the_domain():
    made = controller()
    with torch.no_grad():
        fixed = Given(
            modes=torch.full((40,), 2),
            numbers=torch.full((40,), 2),
            models=torch.zeros(40, 6, dtype=torch.long),
        )
        draws = made(QUESTIONS, uniform(40), given=fixed)
        domain = draws.task_logits.argmax(dim=-1)
        mode = made.mode_vae(made.modes, None)[0][2].expand(40, -1)
        codes, _ = made.role_vae(made.roles, None)
        projected = functional.normalize(made.question_to_task(QUESTIONS), dim=-1)
        summary, expected = torch.zeros(40, H), torch.zeros(40)
        for i in range(2):
            context = torch.cat([projected, mode, made.role_norm(summary)], dim=-1)
            logits = cosines(made.role_context(context), codes) / 0.5
            logits = logits.masked_fill(~made.allowed[domain], -torch.inf)
            drawn = draws.roles[:, i]
            expected += torch.log_softmax(logits, dim=-1)[torch.arange(40), drawn]
            summary = summary + codes[drawn]
    torch.testing.assert_close(draws.log_probability, expected)


@pytest.mark.parametrize("options", [{}, {"sharpness": 8.0, "draw_number": True, "in_turn": True}])
def test_only_roles_of_the_domain_are_drawn_and_some_twice(options):
    made = controller(**options)
    with torch.no_grad():
        made.question_to_task.weight.mul_(20)
        draws = made(QUESTIONS, uniform(40))
    domain = draws.task_logits.argmax(dim=-1)
    assert set(domain.tolist()) == {0, 1}
    twice = False
    for i in range(40):
        roles = draws.roles[i, : draws.numbers[i]].tolist()
        assert set(roles) <= ({0, 1, 2} if domain[i] == 0 else {3, 4, 5, 6})
        twice |= len(set(roles)) < len(roles)
    assert twice


def test_models_are_drawn_independently_by_the_multinomial():
    made = controller()
    with torch.no_grad():
        fixed = Given(
            modes=torch.full((40,), 1),
            numbers=torch.full((40,), 4),
            roles=torch.tensor([0, 2, 1, 1, 0, 0]).expand(40, -1),
        )
        draws = made(QUESTIONS, uniform(40), given=fixed)
        question, _ = made.model_question_vae(QUESTIONS, None)
        mode = made.mode_vae(made.modes, None)[0][1].expand(40, -1)
        codes, _ = made.role_vae(made.roles, None)
        summary = made.role_norm(codes[[0, 2, 1, 1]].sum(dim=0)).expand(40, -1)
        context = torch.cat([question, mode, summary], dim=-1)
        models, _ = made.model_vae(made.models, None)
        log_p = torch.log_softmax(cosines(made.model_context(context), models) / 1.0, dim=-1)
    for i in range(4):
        torch.testing.assert_close(draws.model_log_p[:, i], log_p)
    for row in range(40):
        counts = torch.bincount(draws.models[row, :4], minlength=MODELS)
        expected = torch.distributions.Multinomial(4, logits=log_p[row]).log_prob(counts.float())
        torch.testing.assert_close(draws.log_probability[row], expected)


def test_the_gradient_reaches_the_number_by_way_of_gamma():
    made = controller()
    draws = made(QUESTIONS[:1], uniform(1))
    draws.log_probability.sum().backward()
    logit = made.difficulty(made.number_vae(QUESTIONS[:1], None)[0]).item()
    share = 1 / (1 + math.exp(-logit))
    # d/dlogit of log Γ(6 σ(logit) + 1).
    digamma = torch.digamma(torch.tensor(6 * share + 1)).item()
    expected = digamma * 6 * share * (1 - share)
    assert made.difficulty.bias.grad.item() == pytest.approx(expected, rel=1e-4)


def test_a_drawn_number_is_binomial_and_its_gradient_the_policys():
    for p in (0.1, 0.5, 0.9):
        logits = torch.tensor([math.log(p / (1 - p))])
        expected = torch.distributions.Binomial(5, torch.tensor(p)).log_prob(torch.arange(6.0))
        torch.testing.assert_close(_binomial(logits, 6)[0], expected, rtol=1e-4, atol=1e-5)
    made = controller(draw_number=True)
    with torch.no_grad():
        numbers = made(QUESTIONS[:1].expand(4000, -1), uniform(4000)).numbers
        logit = made.difficulty(made.number_vae(QUESTIONS[:1], None)[0])
    assert numbers.float().mean() == pytest.approx(1 + 5 * torch.sigmoid(logit).item(), abs=0.1)
    assert set(numbers.tolist()) == {1, 2, 3, 4, 5, 6}


def test_being_nearly_sure_of_a_drawn_number_is_punished():
    made = controller(draw_number=True)
    for bias, beyond in ((0.0, 0.0), (2.0, 0.0), (5.0, 2.8), (-5.0, 2.8)):
        with torch.no_grad():
            made.difficulty.weight.zero_()
            made.difficulty.bias.fill_(bias)
        too_sure = made(QUESTIONS, uniform(len(QUESTIONS))).too_sure
        torch.testing.assert_close(too_sure, torch.full((len(QUESTIONS),), beyond**2))


def test_models_in_turn_depend_on_those_before():
    made = controller(in_turn=True)
    fixed = Given(numbers=torch.full((40,), 3))
    with torch.no_grad():
        likeliest = torch.full((40, 14), torch.nan)
        draws = made(QUESTIONS, likeliest, given=fixed)
    for row in draws.models[:, :3].tolist():
        assert len(set(row)) == 3  # as it begins, it takes others before the same again
    apart = controller()
    with torch.no_grad():
        same = apart(QUESTIONS, likeliest, given=fixed).models[:, :3]
    assert (same == same[:, :1]).all()


@pytest.mark.parametrize("options", [{}, {"draw_number": True, "in_turn": True}])
def test_what_was_chosen_is_chosen_again_with_the_probability_it_has_now(options):
    made = controller(**options)
    first = made(QUESTIONS, uniform(40))
    again = made(QUESTIONS, uniform(40, seed=1), taken=first)
    torch.testing.assert_close(again.log_probability, first.log_probability)
    gradients = [
        torch.autograd.grad(draws.log_probability.sum(), made.model_context.weight)[0]
        for draws in (first, again)
    ]
    torch.testing.assert_close(*gradients)
    with torch.no_grad():  # after which it would choose other modes, models, roles of other domains
        for parameter in made.parameters():
            parameter.mul_(-1.0)
    moved = made(QUESTIONS, uniform(40), taken=first)
    for field in ("modes", "numbers", "roles", "models"):
        assert torch.equal(getattr(moved, field), getattr(first, field))
    assert moved.log_probability.isfinite().all()
    assert not torch.allclose(moved.log_probability, first.log_probability)


def test_a_question_is_drawn_for_in_any_company():
    made = controller(draw_number=True, in_turn=True)
    numbers = uniform(40)
    with torch.no_grad():
        together = made(QUESTIONS, numbers)
        alone = [made(QUESTIONS[i : i + 1], numbers[i : i + 1]) for i in range(40)]
    for i, each in enumerate(alone):
        n = int(together.numbers[i])
        assert (int(each.modes[0]), int(each.numbers[0])) == (int(together.modes[i]), n)
        assert each.roles[0, :n].tolist() == together.roles[i, :n].tolist()
        assert each.models[0, :n].tolist() == together.models[i, :n].tolist()


def test_draws_follow_the_softmax():
    logits = torch.tensor([0.0, 1.0, -torch.inf, 2.0]).expand(20000, -1)
    drawn = _draw(logits, torch.rand(20000, generator=torch.Generator().manual_seed(0)))
    share = torch.bincount(drawn, minlength=4) / 20000
    torch.testing.assert_close(share, torch.softmax(logits[0], dim=-1), atol=0.01, rtol=0)
    assert share[2] == 0
    assert _draw(logits[:1], torch.tensor([torch.nan])).item() == 3
