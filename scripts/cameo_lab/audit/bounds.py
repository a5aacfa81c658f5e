"""From wrong guesses of an attacker to a lower limit on mu of Gaussian DP, and so on epsilon.

Sources: Clopper & Pearson, 1934 (exact binomial limits); Dong, Roth & Su, 2022, definition 2.6 (mu-GDP bounds both
error rates of every test); Nasr et al., USENIX Security 2023, section 4 (audits through mu, tight for Gaussians).
"""

from __future__ import annotations

from dataclasses import dataclass

CONFIDENCE = 0.999


@dataclass(frozen=True, kw_only=True)
class Guesses:
    """How often a fixed rule was wrong. false_in: said "in" of one that was out; false_out: the reverse."""

    outs: int
    false_in: int
    ins: int
    false_out: int

    def upper(self) -> tuple[float, float]:
        """(false-in rate, false-out rate), each with an upper limit that holds for both at CONFIDENCE together."""
        share = (1 - CONFIDENCE) / 2
        return _upper(self.false_in, self.outs, share), _upper(self.false_out, self.ins, share)

    def mu(self) -> float:
        """Lower limit on mu: a mu-Gaussian-DP mechanism leaves every test Phi^-1(1-a) - Phi^-1(b) <= mu; >= 0."""
        from scipy.stats import norm

        false_in, false_out = self.upper()
        if false_in >= 1 or false_out >= 1:
            return 0.0
        return max(0.0, float(norm.isf(false_in) - norm.ppf(false_out)))


def _upper(wrong: int, trials: int, share: float) -> float:
    """The Clopper-Pearson upper limit of a rate that is exceeded with probability at most `share`."""
    from scipy.stats import beta

    return 1.0 if wrong >= trials else float(beta.isf(share, wrong + 1, trials - wrong))
