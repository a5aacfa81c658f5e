"""Calibration spends the target, from below, in the shares that were asked for."""

from __future__ import annotations

import math

import pytest
from privacy_plans import release

from cameo_protocol.errors import Bug
from cameo_protocol.privacy import calibration
from cameo_protocol.privacy.accountant import epsilon, full_batch_mu, gaussian_epsilon
from cameo_protocol.privacy.calibration import Share, calibrate

SHARES = (
    Share(name="risk", rounds=88, weight=0.6),
    Share(name="segment", rounds=88, weight=0.2),
    Share(name="evaluation", rounds=1, weight=0.1),
    Share(name="recalibration", rounds=1, weight=0.1),
)


@pytest.mark.parametrize("target", [0.01, 0.3, 1.0, 3.0, 8.0, 20.0])
def test_the_composed_epsilon_is_the_target_from_below(target: float) -> None:
    sigmas = calibrate(target, 1e-5, SHARES)
    spent = epsilon([release(sigmas[s.name], s.rounds) for s in SHARES], 1e-5)
    assert target * (1 - 1e-8) <= spent <= target


def test_sigmas_follow_rounds_and_weights() -> None:
    sigmas = calibrate(1.0, 1e-5, SHARES)
    scale = sigmas["evaluation"] / math.sqrt(1 / 0.1)
    for share in SHARES:
        assert sigmas[share.name] == pytest.approx(scale * math.sqrt(share.rounds / share.weight), rel=1e-12)


def test_full_batch_has_a_closed_form() -> None:
    # mu^2 = sum T / sigma^2 = sum w / lambda^2, and lambda does not depend on the rounds.
    sigmas = calibrate(1.0, 1e-5, SHARES)
    mu = full_batch_mu([release(sigmas[s.name], s.rounds) for s in SHARES])
    assert gaussian_epsilon(mu, 1e-5) == pytest.approx(1.0, rel=1e-8)
    assert mu == pytest.approx(1.0 / sigmas["recalibration"] * math.sqrt(1 / 0.1), rel=1e-12)


def test_sampled_shares_are_calibrated_too() -> None:
    shares = [Share(name="risk", rounds=60, weight=0.8, q=0.1), Share(name="evaluation", rounds=1, weight=0.2)]
    sigmas = calibrate(2.0, 1e-5, shares)
    spent = epsilon([release(sigmas["risk"], 60, 0.1), release(sigmas["evaluation"], 1)], 1e-5)
    assert 2.0 * (1 - 1e-4) <= spent <= 2.0
    # Sampling is worth a factor q of noise, so a sampled task is not starved of the budget that is its share.
    assert sigmas["risk"] / sigmas["evaluation"] == pytest.approx(0.1 * math.sqrt(60 / 0.8) / math.sqrt(1 / 0.2))
    alone = epsilon([release(sigmas["risk"], 60, 0.1)], 1e-5)
    assert alone > epsilon([release(sigmas["evaluation"], 1)], 1e-5)


def test_few_evaluations_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each costs a second or so when rounds are sampled in their hundreds."""
    asked: list[int] = []

    def counting(*arguments: object) -> float:
        asked.append(1)
        return epsilon(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(calibration, "composed_epsilon", counting)
    for target in (0.01, 0.3, 1.0, 3.0, 20.0):
        for shares in (SHARES, SHARES[:1]):
            asked.clear()
            calibrate(target, 1e-7, shares)
            assert len(asked) < 25, target


@pytest.mark.parametrize(
    ("target", "shares"),
    [
        (0.0, SHARES),
        (math.nan, SHARES),
        (math.inf, SHARES),
        (1.0, ()),
        (1.0, (SHARES[0], SHARES[0])),
        (1.0, (Share(name="risk", rounds=0, weight=0.5),)),
        (1.0, (Share(name="risk", rounds=5, weight=0.0),)),
        (1.0, (Share(name="risk", rounds=5, weight=math.nan),)),
    ],
)
def test_what_cannot_be_calibrated_is_refused(target: float, shares: tuple[Share, ...]) -> None:
    with pytest.raises(Bug, match="calibration-invalid"):
        calibrate(target, 1e-5, shares)
