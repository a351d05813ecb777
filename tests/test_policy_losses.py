"""What every registered policy loss promises."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from mtdrive.training.policy_losses import POLICY_LOSSES, PolicyLoss, PolicyLossConfig, Tokens

CONFIG = PolicyLossConfig()
EPISODES, TURNS, LENGTH = 6, 3, 5


@pytest.fixture(params=POLICY_LOSSES)
def policy_loss(request) -> PolicyLoss:
    return POLICY_LOSSES[request.param]


@pytest.fixture
def tokens() -> Tokens:
    """Episodes of three turns of five tokens, float64; the weights have moved a little since they were sampled."""
    random = torch.Generator().manual_seed(0)
    turns = torch.arange(EPISODES * TURNS).repeat_interleave(LENGTH)
    sampled = -3.0 * torch.rand(len(turns), generator=random, dtype=torch.float64)
    moved = 0.3 * torch.randn(len(turns), generator=random, dtype=torch.float64)
    return Tokens(
        log_probs=(sampled + moved).requires_grad_(),
        sampled=sampled,
        advantages=torch.randn(EPISODES * TURNS, generator=random, dtype=torch.float64)[turns],
        episode=turns // TURNS,
        turn=turns % TURNS,
    )


def test_the_gradient_is_that_of_finite_differences(policy_loss, tokens):
    def total(log_probs):
        return policy_loss.loss(replace(tokens, log_probs=log_probs), CONFIG).sum()

    assert torch.autograd.gradcheck(total, tokens.log_probs, eps=1e-7, atol=1e-5)


def test_a_better_turn_becomes_likelier(policy_loss, tokens):
    fresh = replace(tokens, log_probs=tokens.sampled.clone().requires_grad_())
    policy_loss.loss(fresh, CONFIG).sum().backward()
    torch.testing.assert_close(-fresh.log_probs.grad, tokens.advantages)


def test_no_advantage_gives_no_loss_and_no_gradient(policy_loss, tokens):
    flat = replace(tokens, advantages=torch.zeros_like(tokens.advantages))
    values = policy_loss.loss(flat, CONFIG)
    values.sum().backward()
    assert not values.any()
    assert not flat.log_probs.grad.any()


def test_rejected_tokens_have_no_loss_and_acceptance_reads_no_log_probs(policy_loss, tokens):
    accepted = policy_loss.accept(replace(tokens, log_probs=torch.full_like(tokens.log_probs, torch.nan)), CONFIG)
    assert accepted.dtype == torch.bool
    assert not policy_loss.loss(tokens, CONFIG)[~accepted].any()


def test_a_step_may_be_cut_between_episodes(policy_loss, tokens):
    """Passes and devices see some episodes each, numbered from 0."""
    parts = []
    for rows in (tokens.episode < 2, tokens.episode >= 2):
        part = {name: value[rows] for name, value in vars(tokens).items()}
        parts.append(policy_loss.loss(Tokens(**part | {"episode": part["episode"] - part["episode"].min()}), CONFIG))
    torch.testing.assert_close(torch.cat(parts), policy_loss.loss(tokens, CONFIG), atol=0, rtol=0)


def test_what_is_watched_is_one_number_a_token(policy_loss, tokens):
    for name, values in policy_loss.watch(tokens, CONFIG).items():
        assert values.shape == tokens.sampled.shape, name
        assert not values.requires_grad, name
