"""Integer noise: how much each hospital adds, and why the sum is covered by the accountant's continuous Gaussian.

Each hospital adds independent discrete Gaussians N_Z(0, sd^2) to integer lanes. Against the coordinator and c
colluders, at least m = t - c honest hospitals' noise is in every sum that can be opened (local mode: m = 1, as
every hospital is covered by its own). Three steps lead from there to the Gaussian of multiplier sigma, each
losing a bounded log-ratio per lane and nothing else:

1. Sum of m discrete Gaussians -> N_Z(0, m sd^2): |log ratio| <= 10 sum_{k=1}^{m-1} exp(-2 pi^2 sd^2 k / (k+1)).
   Kairouz, Liu & Steinke, ICML 2021 (arXiv 2102.06387), theorem 1 and proposition 14, for sd >= 1/2.
2. N_Z(x, S^2) -> "draw y from the continuous N(x, S^2 - r^2), output N_Z(y, r^2)": |log ratio| <= 5 exp(-2 pi^2 r^2).
   Proof: that output has weight  int phi_{S^2-r^2}(y - x) exp(-(z-y)^2 / 2r^2) / rho_r(Z - y) dy  at z, and Poisson
   summation gives rho_r(Z - y) = r sqrt(2 pi) (1 +- k), k = 2 sum_{j>=1} exp(-2 pi^2 r^2 j^2); so it is proportional
   to exp(-(z-x)^2 / 2S^2) up to (1 + k) / (1 - k) (the convolution theorem of Peikert, CRYPTO 2010).
3. That output is post-processing of a continuous Gaussian with sd sqrt(S^2 - r^2) on a vector that one patient
   moves by at most the L2 sensitivity. So S^2 >= sigma^2 sensitivity^2 + r^2 gives the Gaussian guarantee at sigma.

Hence the noise is wider than sigma * sensitivity by r^2 (nothing on a training block, whose sensitivity counts
thousands of integer steps; a few percent on a histogram), and what is left is `slack`, far below any delta. The
design page's bound 0.05 d / sd^2 on the distance to rounded Gaussians would refuse every histogram.
"""

from __future__ import annotations

import math
from typing import Literal

from cameo_protocol.errors import Bug
from cameo_protocol.layout import ROUND_KINDS, Block
from cameo_protocol.plan import RunPlan

Mode = Literal["distributed", "local"]

COUNT_ROUNDING_SD = 1.5
BLOCK_ROUNDING_SD = 4.0
MIN_SD = 1.8


def hospital_sd(block: Block, mode: Mode, threshold: int, colluders: int) -> float:
    """The parameter sd of the discrete Gaussian that each hospital adds to every lane of a block, integer units.

    distributed: sqrt((sigma^2 sensitivity^2 + r^2) / (t - c)); local: the same with 1 in place of t - c; never
    below `MIN_SD`, where a sum of discrete Gaussians would no longer be close to one.
    """
    wanted = (block.sigma * block.sensitivity) ** 2 + _rounding_sd(block) ** 2
    return max(math.sqrt(wanted / honest(mode, threshold, colluders)), MIN_SD)


def opened_sd(block: Block, survivors: int, mode: Mode, threshold: int, colluders: int) -> float:
    """The sd of the noise in an opened sum over that many surviving hospitals, integer units (divide by the scale)."""
    if survivors < 1:
        raise Bug("noise-invalid", what="a sum is opened over at least one hospital")
    return math.sqrt(survivors) * hospital_sd(block, mode, threshold, colluders)


def bare_sigma(block: Block, mode: Mode, threshold: int, colluders: int) -> float:
    """The multiplier that one hospital's own noise gives when every mask has fallen; at most sigma / sqrt(t - c)."""
    own = hospital_sd(block, mode, threshold, colluders)
    sigma = math.sqrt(own * own - _rounding_sd(block) ** 2) / block.sensitivity
    return min(sigma, block.sigma / math.sqrt(honest(mode, threshold, colluders)))


def honest(mode: Mode, threshold: int, colluders: int) -> int:
    """m: how many hospitals' noise the claim rests on."""
    if mode == "local":
        return 1
    if mode != "distributed" or threshold - colluders < 2 or colluders < 0:
        raise Bug("noise-invalid", what="distributed noise needs c >= 0 and t - c >= 2")
    return threshold - colluders


def lane_slack(sd: float, hospitals: int, rounding_sd: float) -> float:
    """Largest |log ratio| of one lane between the real noise and the idealised one; steps 1 and 2 above."""
    sums = math.fsum(math.exp(-2 * math.pi**2 * sd * sd * k / (k + 1)) for k in range(1, hospitals))
    return 5 * math.exp(-2 * math.pi**2 * rounding_sd**2) + 10 * sums


def slack(plan: RunPlan) -> float:
    """How much delta grows because the noise is integer: (1 + e^epsilon) (e^theta - 1).

    theta: log-ratios of all lanes of all rounds, spare ones included, added up (releases may be adaptive), for a
    sum of t hospitals, which also bounds one of t - c and a bare hospital. With P <= e^theta P' and
    Q' <= e^theta Q, P(S) - e^epsilon Q(S) exceeds the idealised delta by at most the slack. inf when theta >= 1.
    """
    mode, t, c = plan.privacy.mode, plan.cohort.threshold, plan.cohort.colluders
    rounds = {kind: plan.rounds_of(kind) + (plan.training.spare if kind == "train" else 0) for kind in ROUND_KINDS}
    theta = math.fsum(
        rounds[kind] * block.dim * lane_slack(hospital_sd(block, mode, t, c), t, _rounding_sd(block))
        for kind in ROUND_KINDS
        for block in plan.layout(kind).blocks
    )
    return (1 + math.exp(plan.privacy.epsilon)) * math.expm1(theta) if theta < 1 else math.inf


def _rounding_sd(block: Block) -> float:
    return COUNT_ROUNDING_SD if block.counts else BLOCK_ROUNDING_SD
