"""Advantage estimators: one contract for all of them, and the numbers of each."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mtdrive.simulation.errors import MTDriveError
from mtdrive.training.advantages import ESTIMATORS, AdvantageConfig, estimator

CONFIG = AdvantageConfig()
all_estimators = pytest.mark.parametrize("estimate", ESTIMATORS.values(), ids=ESTIMATORS.keys())


@st.composite
def groups(draw):
    """Rewards (G, T) in [0, 1] and the runs of turns taken."""
    size, turns = draw(st.integers(2, 8)), draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    taken = rng.integers(1, turns + 1, size)
    return rng.random((size, turns)).round(2), np.arange(turns) < taken[:, None]


@all_estimators
@settings(max_examples=50, deadline=None)
@given(group=groups(), shift=st.floats(-3, 3))
def test_a_constant_added_to_all_rewards_changes_nothing(estimate, group, shift):
    rewards, alive = group
    np.testing.assert_allclose(
        estimate(rewards + shift, alive, CONFIG), estimate(rewards, alive, CONFIG), atol=1e-9, rtol=1e-9
    )


@all_estimators
@settings(max_examples=50, deadline=None)
@given(group=groups(), seed=st.integers(0, 2**32 - 1))
def test_the_order_of_episodes_does_not_matter(estimate, group, seed):
    rewards, alive = group
    order = np.random.default_rng(seed).permutation(len(rewards))
    np.testing.assert_allclose(
        estimate(rewards[order], alive[order], CONFIG), estimate(rewards, alive, CONFIG)[order], atol=1e-12
    )


@st.composite
def equal_groups(draw):
    """Groups of any size whose rewards are one value but for its rounding; episodes stop early, some have failed."""
    size, turns = draw(st.integers(1, 64)), draw(st.integers(1, 5))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    value = draw(st.floats(-1e100, 1e100) | st.sampled_from([0.05, 0.1, 0.8833333333333334, 1.05]))
    rewards = value * (1 + np.finfo(float).eps * rng.integers(-4, 5, (size, turns)) * draw(st.booleans()))
    taken = rng.integers(1, turns + 1, size) * (rng.random(size) > draw(st.sampled_from([0.0, 0.3])))
    alive = np.arange(turns) < taken[:, None]
    return np.where(alive, rewards, np.nan), alive


@all_estimators
@settings(max_examples=200, deadline=None)
@given(group=equal_groups(), scale=st.booleans(), discount=st.sampled_from([1.0, 0.9]))
def test_equal_rewards_give_no_advantage_at_all(estimate, group, scale, discount):
    np.testing.assert_array_equal(estimate(*group, AdvantageConfig(scale=scale, discount=discount)), 0.0)


@pytest.mark.parametrize("name", ["return_to_go", "gigpo"])
def test_gains_that_cancel_on_different_ways_leave_no_rounding_residue(name):
    rewards = np.array([[0.1, 0.7, 0.3, 0.1], [0.1, 0.2, 0.3, 0.1], [0.1, 0.9, 0.3 - 0.1, 0.1]])
    advantages = estimator(name)(rewards, np.ones((3, 4), dtype=bool), CONFIG)
    assert not advantages[:, :2].any()


def test_the_smallest_difference_of_a_score_is_a_signal():
    rewards = np.full((8, 1), 0.05) + 1e-6 * np.eye(8)[:, :1]
    for estimate in ESTIMATORS.values():
        assert estimate(rewards, np.ones((8, 1), dtype=bool), CONFIG).all()


@all_estimators
@settings(max_examples=50, deadline=None)
@given(group=groups())
def test_turns_not_taken_have_no_part(estimate, group):
    rewards, alive = group
    advantages = estimate(rewards, alive, CONFIG)
    assert not advantages[~alive].any()
    np.testing.assert_array_equal(estimate(np.where(alive, rewards, 1e6), alive, CONFIG), advantages)
    failed = np.vstack([rewards, np.full(rewards.shape[1], 1e6)]), np.vstack([alive, np.zeros(alive.shape[1], bool)])
    np.testing.assert_allclose(estimate(*failed, CONFIG)[:-1], advantages, atol=1e-12)
    assert not estimate(*failed, CONFIG)[-1].any()


def learned_revision_rate(estimate, keep: float, revise: float) -> float:
    """A policy that either keeps its first plan, which ends the episode, or revises it in a second turn.

    Keeping is worth `keep`, revising `revise`, so the best rule is known. The decision shows in the second turn's
    tokens alone, as it does where an episode ends without a word. Policy gradient from an even chance.
    """
    rng, logit, size = np.random.default_rng(0), 0.0, 8
    for _ in range(400):
        rate = 1 / (1 + np.exp(-logit))
        revises = rng.random(size) < rate
        rewards = np.column_stack([np.full(size, keep), np.full(size, revise)]) + 0.05 * rng.normal(size=(size, 2))
        advantages = estimate(rewards, np.column_stack([np.ones(size, bool), revises]), CONFIG)
        logit += 0.2 * (1 - rate) * advantages[:, 1].sum() / size
    return 1 / (1 + np.exp(-logit))


def per_turn_index(rewards, alive, config):
    """The biased baseline: only siblings that are still there at a turn are compared."""
    number = np.maximum(alive.sum(0), 1)
    deviation = np.where(alive, rewards - np.where(alive, rewards, 0).sum(0) / number, 0)
    return deviation / (np.sqrt((deviation**2).sum(0) / number) + config.epsilon)


@all_estimators
def test_the_best_stopping_rule_is_learned(estimate):
    assert learned_revision_rate(estimate, keep=0.3, revise=0.7) > 0.9
    assert learned_revision_rate(estimate, keep=0.9, revise=0.7) < 0.1


def test_a_baseline_per_turn_index_does_not_learn_when_to_stop():
    rates = [learned_revision_rate(per_turn_index, keep, 0.7) for keep in (0.3, 0.9)]
    np.testing.assert_allclose(rates, 0.5, atol=0.05)


REWARDS = np.array([[0.2, 0.6], [1.0, 99.0]])  # the second episode is clean at once
ALIVE = np.array([[True, True], [True, False]])


def test_mtgrpo_compares_each_turn_with_what_the_siblings_stand_at():
    raw = AdvantageConfig(scale=False)
    np.testing.assert_allclose(estimator("mtgrpo")(REWARDS, ALIVE, raw), [[-0.4, -0.2], [0.4, 0.0]])
    scaled = AdvantageConfig(epsilon=0.1)
    np.testing.assert_allclose(estimator("mtgrpo")(REWARDS, ALIVE, scaled), [[-0.8, -2 / 3], [0.8, 0.0]])


def test_grpo_gives_all_turns_the_outcome():
    raw = AdvantageConfig(scale=False)
    np.testing.assert_allclose(estimator("grpo")(REWARDS, ALIVE, raw), [[-0.2, -0.2], [0.2, 0.0]])


def test_mtgrpo_outcome_adds_a_share_of_the_outcome():
    raw = AdvantageConfig(scale=False, outcome_weight=0.5)
    np.testing.assert_allclose(estimator("mtgrpo_outcome")(REWARDS, ALIVE, raw), [[-0.5, -0.3], [0.5, 0.0]])


def test_return_to_go_discounts_later_gains_and_forgets_earlier_ones():
    raw = AdvantageConfig(scale=False, discount=0.5)
    # Gains 0.2 and 0.4 against 1.0 and, after the stop, none.
    np.testing.assert_allclose(estimator("return_to_go")(REWARDS, ALIVE, raw), [[-0.3, 0.2], [0.3, 0.0]])


def test_gigpo_compares_episodes_in_the_same_state():
    rewards = np.array([[0.2, 0.6], [0.25, 0.25], [0.9, 1.0]])
    raw = AdvantageConfig(scale=False, anchor_weight=2.0, anchor_width=0.1)
    outcome, gain = rewards[:, 1] - rewards[:, 1].mean(), np.diff(rewards)[:, 0]
    # Before the second turn the first two stand at nearly the same, the third alone.
    among_equals = np.column_stack([outcome, [gain[0] - gain[:2].mean(), gain[1] - gain[:2].mean(), 0.0]])
    advantages = estimator("gigpo")(rewards, np.ones((3, 2), dtype=bool), raw)
    np.testing.assert_allclose(advantages, outcome[:, None] + 2.0 * among_equals)


def test_an_unknown_estimator_is_refused():
    with pytest.raises(MTDriveError, match="choose from"):
        estimator("ppo")
