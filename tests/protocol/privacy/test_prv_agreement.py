"""Two accountants from two libraries agree within 2 %: dp_accounting's PLD (ours) and Opacus' PRV."""

from __future__ import annotations

import math
import random
import warnings

from privacy_plans import FULL, release

from cameo_protocol.privacy.accountant import epsilon

CONFIGURATIONS = 200 if FULL else 12


def _configuration(rng: random.Random) -> tuple[float, float, int]:
    """(sigma, q, rounds) of a plausible run: epsilon between about 0.5 and 15; every fifth full batch."""
    q = 1.0 if rng.random() < 0.2 else math.exp(rng.uniform(math.log(0.005), 0.0))
    rounds = int(math.exp(rng.uniform(math.log(5), math.log(500))))
    wanted = math.exp(rng.uniform(math.log(0.5), math.log(8)))
    sigma = max(0.6, q * math.sqrt(rounds) * 3 / wanted * rng.uniform(0.7, 1.3))
    return sigma, q, rounds


def test_pld_and_prv_agree_within_two_percent() -> None:
    from opacus.accountants import PRVAccountant

    rng = random.Random(20240607)
    for _ in range(CONFIGURATIONS):
        sigma, q, rounds = _configuration(rng)
        ours = epsilon([release(sigma, rounds, q)], 1e-5)
        other = PRVAccountant()
        other.history = [(sigma, q, rounds)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = other.get_epsilon(1e-5, eps_error=0.002 * ours, delta_error=1e-8)
        assert abs(ours / theirs - 1) < 0.02, (sigma, q, rounds)
