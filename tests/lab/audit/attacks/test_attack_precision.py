"""Reachability of doubles, and that integer noise has no unreachable output."""

from __future__ import annotations

import numpy as np

from cameo_lab.audit.attacks import precision
from cameo_lab.audit.attacks.precision import Outputs, added_reaches, identified
from cameo_lab.audit.subject import Subject


def test_a_fine_output_betrays_the_smaller_sum() -> None:
    # Near 1 the doubles are coarser than near 0: an odd multiple of 2^-60 cannot be 1 + anything.
    seen = np.array([2.0**-60, 0.5])
    assert added_reaches(seen, np.zeros(2)).tolist() == [True, True]
    assert added_reaches(seen, np.ones(2)).tolist() == [False, True]


def test_laplace_by_inversion_is_reached_from_the_truth_and_seldom_from_elsewhere() -> None:
    random = np.random.default_rng(1)
    noise = precision._laplace_noise(random.random(500))
    clear = random.uniform(-0.5, 0.5, 500)
    assert precision._laplace_reaches(np.ones(500), clear + noise, clear).all()
    assert precision._laplace_reaches(np.ones(500), clear + noise, clear + 0.5).mean() < 0.8


def test_only_a_true_verdict_counts() -> None:
    outputs = Outputs(
        seen=np.array([1.0, 2.0, 3.0, 4.0]),
        first=np.zeros(4),
        other=np.ones(4),
        second=np.array([False, False, True, True]),
        steps=np.ones(4),
    )
    assert identified(outputs, lambda seen, clear: (clear == 0) | (seen == 4)).tolist() == [True, True, False, False]


def test_outputs_are_those_of_the_product(subject: Subject) -> None:
    outputs = precision._product(subject, np.random.default_rng(2), 300)
    assert outputs.seen.shape == (300,)
    assert 0.3 < outputs.second.mean() < 0.7
    assert np.array_equal(outputs.seen * outputs.steps, np.round(outputs.seen * outputs.steps))
    silent = precision._product(subject.silent(), np.random.default_rng(2), 300)
    truth = np.where(silent.second, silent.other, silent.first)
    assert np.abs(silent.seen - truth).max() <= (1 / silent.steps).max()
