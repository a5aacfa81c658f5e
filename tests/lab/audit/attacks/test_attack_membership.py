"""The arithmetic of LiRA on cases with a known answer."""

from __future__ import annotations

import numpy as np
import pytest
from attack_subject import small_subject

from cameo_lab.audit.attacks import membership
from cameo_lab.audit.attacks.membership import Trial, leak_of
from cameo_protocol.privacy.plan_check import check_plan


def test_perfect_and_chance() -> None:
    members = np.tile([True, False], (20, 50))
    assert leak_of(np.where(members, 1.0, 0.0), members) == membership.Leak(1.0, 1.0)
    assert leak_of(np.zeros(members.shape), members) == membership.Leak(0.5, 0.0)
    assert leak_of(np.where(members, 0.0, 1.0), members).auc == 0


def test_a_true_positive_rate_at_one_percent() -> None:
    outside, inside = np.linspace(0, 1, 1001), np.array([0.5, 0.995, 0.999, 2.0])
    scores = np.concatenate([inside, outside])
    members = np.arange(len(scores)) < len(inside)
    assert leak_of(scores, members).tpr == 0.75


def test_every_candidate_is_in_half_of_the_models() -> None:
    trial = Trial.draw(np.random.default_rng(1), 10, 40)
    assert trial.members.shape == (10, 40)
    assert (trial.members.sum(axis=0) == 5).all()
    assert trial.auc_error == pytest.approx(np.sqrt(1 / 12 * 2 / 200))


def test_scores_tell_shifted_gaussians_apart_and_equal_ones_not() -> None:
    random = np.random.default_rng(4)
    members = Trial.draw(random, 40, 100).members
    level = random.standard_normal(100)  # what a candidate's confidence is without training on it
    noise = random.standard_normal(members.shape)
    for shift, low, high in ((0.0, 0.46, 0.54), (1.0, 0.70, 0.80), (4.0, 0.98, 1.0)):
        confidence = level + noise + shift * members
        scores = np.stack([membership._scores(confidence, members, k) for k in range(len(members))])
        assert low <= leak_of(scores, members).auc <= high


def test_the_attacked_plan_is_one_that_hospitals_accept_at_epsilon_two() -> None:
    subject = small_subject(epsilon=8.0)
    victim = membership.memorising(subject, 2.0, 6)
    check_plan(victim.plan)
    assert victim.plan.privacy.epsilon == 2.0
    assert victim.initial().shape == (membership.FEATURES + 1,)
    sigma = victim.plan.trained()[0].encoded.sigma
    assert sigma > subject.plan.trained()[0].encoded.sigma
